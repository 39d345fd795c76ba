"""The exercise: plot the validation loss against the learning rate.

    python main.py --config=configs/learning_rate.py

Thirteen rates from 0.001 to 10 under three seeds, all 39 trials as one program: 7 s on 2 CPU
cores. The picture is sweep.png. Expect the smallest validation loss, 0.483 ± 0.005 over the seeds,
at the book's 0.1. Smaller rates are not there yet after ten epochs (0.53 at 0.03, 1.03 at 0.001);
from 0.2 on the loss rises and the seeds part (0.52 ± 0.02, at 0.3 0.63 ± 0.11, at 1 1.7 ± 0.5),
while the accuracy falls much less (.83, .80, .77): the weights grow, and mistakes become confident.
"""

from softmax_jax.configs import default


def get_config():
    """The default config with the learning rate swept, and seeds to see what is noise."""
    config = default.get_config()
    config.sweep.learning_rate = (
        *(0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0),
    )
    config.sweep.seed = (0, 1, 2)
    return config
