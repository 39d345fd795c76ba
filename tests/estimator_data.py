"""Data of two shapes that the tests of the estimator share: each shape is compiled once."""

import numpy as np


def _labelled(num_classes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = (x @ rng.normal(size=(3, num_classes)) + rng.gumbel(size=(60, num_classes))).argmax(1)
    return x, y


def three_classes():
    """x [60, 3], and the labels of three classes as words."""
    x, y = _labelled(3)
    return x, np.array(["apple", "pear", "plum"])[y]


def two_classes():
    """x [60, 3] and the labels 3 and 7."""
    x, y = _labelled(2)
    return x, np.array([3, 7])[y]
