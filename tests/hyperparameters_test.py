"""The table of hyperparameters: ranges, and that config, sweep and documentation agree with it."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs import default
from softmax_jax import hyperparameters, sweep
from softmax_jax.hyperparameters import OFF, ROWS, TABLE, TRACED, Hyperparameters, Range, nearest
from softmax_jax.job import config

PROPERTY = settings(deadline=None, database=None, derandomize=True)
EACH_ROW = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
# Of either kind, and often at or beside an end of some range.
ENDS = st.sampled_from(sorted({end for row in TABLE for end in row.range[:2]}))
NUMBERS = st.one_of(ENDS, ENDS.map(lambda end: end - 1), st.floats(width=32), st.integers())


@st.composite
def ranges(draw):
    low = draw(st.integers(-5, 5))
    high = draw(st.one_of(st.just(np.inf), st.integers(low + 1, 20)))
    return Range(low, high, draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))


@given(ranges(), st.one_of(st.integers(-6, 21), st.floats(-6, 21), st.sampled_from([np.inf])))
@PROPERTY
def test_a_range_accepts_what_its_comparisons_say(accepted, value):
    above = accepted.low < value or (not accepted.low_open and value == accepted.low)
    below = value < accepted.high or (not accepted.high_open and value == accepted.high)
    whole = not accepted.whole or value == round(value) if np.isfinite(value) else False
    expected = bool(above and below and whole)
    assert accepted.accepts(value) == expected
    assert accepted.accepts([value, np.nan]).tolist() == [expected, False]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 10**400])
def test_no_range_accepts_a_number_that_is_not_finite(value):
    assert not any(row.range.accepts(value) for row in TABLE)


@pytest.mark.parametrize(
    "accepted, text",
    [
        (Range(0), "a finite number from 0"),
        (Range(0, low_open=True), "a finite number greater than 0"),
        (Range(0, 1, high_open=True), "a finite number from 0 to below 1"),
        (Range(1, 2**53, whole=True), "a whole number from 1"),
        (Range(0, 2**32 - 1, whole=True), "a whole number from 0 to 4294967295"),
    ],
)
def test_a_range_is_told_in_words(accepted, text):
    assert str(accepted) == text


def test_each_hyperparameter_has_one_row_and_one_config_field():
    assert len(ROWS) == len(TABLE) == len({row.config_field for row in TABLE})
    assert config.AXES == {row.name: row.config_field for row in TABLE}
    assert set(config.AXES.values()) <= set(config.RULES)
    assert Hyperparameters._fields == TRACED == tuple(row.name for row in TABLE if row.traced)
    assert set(default.get_config().sweep) == set(ROWS)


@EACH_ROW
def test_defaults_are_in_range_and_those_of_the_config(row):
    assert row.range.accepts(row.default)
    assert row.off is None or row.range.accepts(row.off) and row.default == row.off
    value = config.field_value(default.get_config(), row.config_field)
    assert value == row.config_value
    assert isinstance(value, int if row.range.whole else float)
    assert config.RULES[row.config_field].accepts(value)


def test_what_is_off_by_default_is_left_out_of_the_program():
    for name, value in Hyperparameters()._asdict().items():
        assert value == (None if name in OFF else ROWS[name].default)


@pytest.mark.parametrize("name", TRACED)
@given(value=NUMBERS)
@example(value=True)
@PROPERTY
def test_config_and_grid_refuse_the_same_values(name, value):
    rule = config.RULES[config.AXES[name]]
    if isinstance(value, bool):
        assert not rule.accepts(value)
        return
    value = float(np.float32(value)) if abs(value) < 1e38 else value  # a grid is of float32
    whole = ROWS[name].range.whole and np.isfinite(value) and value == int(value)
    if rule.accepts(int(value) if whole else value):
        assert getattr(sweep.grid(**{name: value}), name).tolist() == [np.float32(value)]
    else:
        with pytest.raises(ValueError, match=f"{name} must be"):
            sweep.grid(**{name: value})


@EACH_ROW
def test_the_config_names_the_range_in_its_error(row):
    assert config.RULES[row.config_field].text == str(row.range)


@pytest.mark.parametrize(
    "given_name, names, expected",
    [
        ("lr", TRACED, "learning_rate"),
        ("wd", TRACED, "l2"),
        ("b1", TRACED, "beta1"),
        ("lr", ("num_epochs",), None),
        ("momentun", TRACED, "momentum"),
        ("max_epochs", ("num_epochs", "seeds"), "num_epochs"),
        ("colour", TRACED, None),
    ],
)
def test_the_nearest_name_is_a_synonym_or_a_misspelling(given_name, names, expected):
    assert nearest(given_name, names) == expected


def test_config_defaults_nest_the_fields_with_dots():
    fields = hyperparameters.config_defaults()
    assert fields["early_stopping"] == {"patience": 0}
    assert fields["learning_rate"] == 0.1 and fields["final_rate"] == 0.01


def test_the_documented_table_is_this_one():
    """A row per hyperparameter in docs/conventions.md, in order: name, field, default, range."""
    text = (Path(__file__).parents[1] / "docs" / "conventions.md").read_text("utf-8")
    section = text.split("\n## Hyperparameters\n")[1].split("\n## ")[0]
    cells = re.findall(
        r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", section, re.MULTILINE
    )
    expected = []
    for row in TABLE:
        number = f"{row.config_value:g}"
        if row.config_value != row.default:
            number += f" (in Python {row.default:g})"
        expected.append((row.name, f"`{row.config_field}`", number, str(row.range), row.doc))
    assert cells == expected
