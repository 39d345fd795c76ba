"""The exercise: how does the minibatch size change train and validation loss?

    python main.py --config=configs/batch_size.py

Nine sizes from 1 to the whole train split at the same learning rate and number of epochs, under
three seeds: a program per size, run one after the other. The picture is sweep.png.
"""

from configs import default


def get_config():
    """The default config with the batch size swept, and seeds to see what is noise."""
    config = default.get_config()
    config.sweep.batch_size = (1, 4, 16, 64, 256, 1024, 4096, 16384, 60000)
    config.sweep.seed = (0, 1, 2)
    return config
