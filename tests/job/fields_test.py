"""The rules accept what the text of each says, and the fields are found by their names."""

import pytest

from configs import default
from softmax_jax.hyperparameters import TRACED
from softmax_jax.job import config
from softmax_jax.job.config import RULES, axis_values, field_value
from softmax_jax.sweep import settings


def test_every_default_obeys_its_rule():
    config = default.get_config()
    for name, rule in RULES.items():
        assert rule.accepts(field_value(config, name)), name


def test_every_axis_is_a_field_and_every_hyperparameter_an_axis():
    assert set(TRACED) < set(config.AXES)
    assert set(config.AXES.values()) <= set(config.RULES)


@pytest.mark.parametrize("name", TRACED)
def test_the_rule_of_an_axis_is_that_of_the_sweep(name):
    """What a config may hold, `sweep.grid` takes, and the other way round."""
    rule = config.RULES[config.AXES[name]]
    for value in (-1, -0.5, 0, 0.25, 0.5, 0.999, 1, 2, 1.5):
        if rule.accepts(value):
            settings.grid(**{name: value})
        else:
            with pytest.raises(ValueError, match=f"{name} must be"):
                settings.grid(**{name: value})
    assert not rule.accepts(True)


def test_a_value_is_found_behind_its_dots():
    config = default.get_config()
    config.early_stopping.patience = 7
    assert field_value(config, "early_stopping.patience") == 7
    assert field_value(config, "num_epochs") == 10
    assert field_value(config, "early_stoping") is None
    assert axis_values(config, "patience") == (7,)
    config.sweep.patience = (1, 2)
    assert axis_values(config, "patience") == (1, 2)
