"""The exercise: plot the validation loss against the learning rate.

    python main.py --config=configs/learning_rate.py

Thirteen rates from 0.001 to 10 under three seeds, all 39 trials as one program. The picture is
sweep.png.
"""

from configs import default


def get_config():
    """The default config with the learning rate swept, and seeds to see what is noise."""
    config = default.get_config()
    config.sweep.learning_rate = (
        *(0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0),
    )
    config.sweep.seed = (0, 1, 2)
    return config
