"""How many of its trials a CPU works on at once, so that its caches hold what it uses again.

A trial brings C rows to the matrix products. With few rows products are slow; with too many,
weights and scores come from memory at every step. (Measured on 2 cores with 32 MB of cache: 1,024
trials on Fashion-MNIST take 18 % less time, 5,000 on digits 35 %, an evaluation of 256 a quarter.)
"""

import jax

_WEIGHTS = 2_100_000  # at most, in all rows: with their gradients 17 MB in float32
_SCORES = 1_300_000  # at most, of all rows for a minibatch
_FEWEST_ROWS = 1280  # for the products, whatever the caches hold
_EVALUATION_ROWS = 640  # their scores for 1,000 examples are 2.6 MB


def in_training(placement, shape, num_features, num_classes, num_scores):
    """For trials [S, K], how many of the K to train at once; None: all.

    num_scores: how many scores of each class are held at a time: B, or without logits none.
    """
    rows = min(_WEIGHTS // (num_features + 1), _SCORES // max(num_scores, 1))
    return _portion(placement, shape, num_classes, max(rows, _FEWEST_ROWS))


def in_evaluation(placement, shape, num_classes):
    """For trials [S, K], how many of the K to evaluate at once; None: all."""
    return _portion(placement, shape, num_classes, _EVALUATION_ROWS)


def _portion(placement, shape, num_classes, rows):
    if placement.mesh is not None or jax.default_backend() != "cpu":
        return None
    return even(shape[1], -(-shape[0] * shape[1] * num_classes // rows))


def even(num_trials, num_portions):
    """The size of equal portions: so many of them, or as few more as divide the trials.

    None where one is enough, or it would take twice as many.

    >>> [even(256, 4), even(1000, 3), even(8, 100), even(64, 1), even(1009, 4)]
    [64, 250, 1, None, None]
    """
    fewest = min(num_portions, num_trials)
    numbers = (n for n in range(fewest, 2 * fewest) if n > 1 and num_trials % n == 0)
    return next((num_trials // n for n in numbers), None)
