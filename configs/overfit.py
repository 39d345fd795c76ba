"""placeholder

    python main.py --config=configs/overfit.py
"""

from configs import default

# Each on its own; the first has none.
CURES = (
    {},
    {"l2": 0.01},
    {"patience": 20},
    {"final_rate": 0.01},
    {"averaging": 1.0},
    {"label_smoothing": 0.03},
)
OFF = {"l2": 0.0, "patience": 0, "final_rate": 1.0, "averaging": 0.0, "label_smoothing": 0.0}


def get_config():
    """The default config on 500 images for 500 epochs, with a list of cures, and seeds."""
    config = default.get_config()
    config.dataset_fallback = ""  # the sizes are those of Fashion-MNIST
    config.train_split = "train[:500]"
    config.val_split = "train[50000:]"
    config.test_split = "test"
    config.batch_size = 50
    config.num_epochs = 500
    config.schedule = "cosine"  # where final_rate is 1, the rate stays as it is
    config.combine = "zip"
    for name, off in OFF.items():
        config.sweep[name] = tuple(cure.get(name, off) for cure in CURES)
    config.sweep.seed = (0, 1, 2)
    return config
