"""The book's from-scratch run: W and b by hand, cross-entropy by indexing the naive softmax.

    python main.py --config=configs/scratch.py

Takes 2 to 3 s on 2 CPU cores, as the default config. Expect a validation accuracy of .83, within
.01 of the concise run.
"""

from softmax_jax.configs import default


def get_config():
    """The default config with the model and the loss of the from-scratch chapter."""
    config = default.get_config()
    config.model = "scratch"
    config.loss = "cross_entropy_from_probabilities"
    return config
