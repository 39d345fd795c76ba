"""A config for a small job on digits."""

import pytest

from configs import default


@pytest.fixture
def config():
    """The default config on digits, unlocked."""
    config = default.get_config().unlock()
    config.dataset = "digits"
    config.num_epochs = 2
    return config
