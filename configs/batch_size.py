"""The exercise: how does the minibatch size change train and validation loss?

    python main.py --config=configs/batch_size.py

Nine sizes from 1 to the whole train split at the same learning rate and number of epochs, under
three seeds: a program per size, run one after the other, in 18 s on 2 CPU cores. The picture is
sweep.png. Expect the smallest validation loss at 64 (0.472 ± 0.004), 256 next to it
(0.483 ± 0.005). From 1,024 on both losses leave the spread of the seeds for good (0.55, 0.67, 0.89,
1.31 for the whole split): too few steps for ten epochs. From 16 down they leave it the other way
(0.54 ± 0.04, 1.0 at 4, 3.3 at 1): the rate is too large for so noisy a gradient. Train and
validation loss move together throughout.
"""

from softmax_jax.configs import default


def get_config():
    """The default config with the batch size swept, and seeds to see what is noise."""
    config = default.get_config()
    config.dataset_fallback = ""  # the sizes are those of Fashion-MNIST
    config.sweep.batch_size = (1, 4, 16, 64, 256, 1024, 4096, 16384, 60000)
    config.sweep.seed = (0, 1, 2)
    return config
