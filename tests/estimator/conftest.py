"""Data of the two shapes that most of these tests share: each shape is compiled once."""

import numpy as np
import pytest

from softmax_jax.estimator import SoftmaxRegression


def labelled(num_classes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = (x @ rng.normal(size=(3, num_classes)) + rng.gumbel(size=(60, num_classes))).argmax(1)
    return x, y


@pytest.fixture(scope="session")
def three():
    """x [60, 3], and the labels of three classes as words."""
    x, y = labelled(3)
    return x, np.array(["apple", "pear", "plum"])[y]


@pytest.fixture(scope="session")
def two():
    """x [60, 3] and the labels 3 and 7."""
    x, y = labelled(2)
    return x, np.array([3, 7])[y]


@pytest.fixture(scope="session")
def fitted(three):
    """A model of `three` that tests may use, but not fit again."""
    return SoftmaxRegression().fit(*three)
