"""The exercise: the validation loss rises with more epochs. Why, and what helps?

    python main.py --config=configs/overfit.py

500 training images for 500 epochs, without a cure and with each of five, and two together, under
three seeds: 21 trials as one program, 15 s on 2 CPU cores. The picture is settings.png. Means over
the seeds, on 10,000 validation images; the last column is the accuracy:

    no cure (trial 0)                   after 500 epochs    val loss 0.792    .782
    l2 = 0.01                           after 500 epochs    0.644 ± 0.013     .784
    early stopping, patience 20         of epoch 52 to 62   0.647             .785
    cosine decay of the learning rate   after 500 epochs    0.720             .783
    average of all weights              after 500 epochs    0.701             .785
    labels smoothed by 0.03             after 500 epochs    0.756             .772
    l2 = 0.01, average of the last half after 500 epochs    0.633 ± 0.0001    .790

Without a cure the train loss falls throughout, to 0.046, where every training image is classified
right; the validation loss falls to 0.65 by epoch 62 and rises from there by a fifth. The accuracy
does not fall with it: on the same images the models of the last epoch have .0005 to .004 less than
those of the best one, each ± .005. From epoch 62 on the weights double (‖W‖ from 6.6 to 14.2); 93 %
of the predictions stay the same, with more confidence: the loss of the right ones halves (from 0.22
to 0.11), that of the mistakes rises from 2.2 to 3.2.

l2 and smoothed labels change where the training leads: to weights that are finite. Under l2 they
stay restless at this constant rate (± 0.013), which averaging ends; smoothed labels cost accuracy.
Decay and the average of all weights end the noise of SGD and slow down the growth of the weights;
early stopping interrupts it.
"""

from softmax_jax.configs import default

# Each on its own, and two together; the first has none.
CURES: tuple[dict[str, float], ...] = (
    {},
    {"l2": 0.01},
    {"patience": 20},
    {"final_rate": 0.01},
    {"averaging": 1.0},
    {"label_smoothing": 0.03},
    {"l2": 0.01, "averaging": 0.5},
)
OFF = {"l2": 0.0, "patience": 0, "final_rate": 1.0, "averaging": 0.0, "label_smoothing": 0.0}


def get_config():
    """The default config on few images for many epochs, with a list of cures, and seeds."""
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
