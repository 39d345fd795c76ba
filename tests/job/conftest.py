"""A small finished sweep on digits, and a config for it."""

import pytest

from configs import default
from softmax_jax import data, sweep
from tests import flat


@pytest.fixture(scope="session")
def splits():
    """Digits: 1,437 train, 360 val, and the same 360 as test."""
    return data.load("digits", test="test")


@pytest.fixture(scope="session")
def result(splits):
    """Learning rate × l2 under two seeds, three epochs; trials 0..3 are seed 0, 4..7 seed 1."""
    settings = sweep.grid(learning_rate=(0.1, 0.5), l2=(0.0, 0.1))
    return flat.fit(splits.train, splits.val, settings, num_epochs=3, batch_size=64, seeds=(0, 1))


@pytest.fixture
def config():
    """The default config on digits, unlocked."""
    config = default.get_config().unlock()
    config.dataset = "digits"
    config.num_epochs = 2
    return config
