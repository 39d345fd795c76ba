"""How many of its trials a CPU works on at once, so that its caches hold what it uses again.

A trial brings C rows to the matrix products. With few rows products are slow; with too many,
weights and scores come from memory at every step. (Measured on 2 cores with 32 MB of cache: 1,024
trials on Fashion-MNIST take 18 % less time, 5,000 on digits 35 %, an evaluation of 256 a quarter.)
"""

import jax

_WEIGHTS = 2_100_000  # at most, in all rows: with their gradients 17 MB
_SCORES = 1_300_000  # at most, of all rows for a minibatch
_FEWEST_ROWS = 1280  # for the products, whatever the caches hold
_EVALUATION_ROWS = 640  # their scores for 1,000 examples are 2.6 MB


def in_training(placement, shape, num_features, num_classes, batch_size):
    """For trials [S, K], how many of the K to train at once; None: all."""
    rows = min(_WEIGHTS // (num_features + 1), _SCORES // batch_size)
    return _portion(placement, shape, num_classes, max(rows, _FEWEST_ROWS))


def in_evaluation(placement, shape, num_classes):
    """For trials [S, K], how many of the K to evaluate at once; None: all."""
    return _portion(placement, shape, num_classes, _EVALUATION_ROWS)


def _portion(placement, shape, num_classes, rows):
    if placement.mesh is not None or jax.default_backend() != "cpu":
        return None
    return divisor(shape[1], -(-shape[0] * shape[1] * num_classes // rows))


def divisor(num_trials, num_portions):
    """A portion of the trials, all of one size: that many portions, or up to twice as many.

    None where one is enough, or no such number divides the trials.

    >>> [divisor(256, 4), divisor(1000, 3), divisor(8, 100), divisor(64, 1), divisor(1009, 4)]
    [64, 250, 1, None, None]
    """
    fewest = min(num_portions, num_trials)
    even = (n for n in range(fewest, 2 * fewest) if n > 1 and num_trials % n == 0)
    return next((num_trials // n for n in even), None)
