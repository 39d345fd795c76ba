"""What a sweep compares: grids, random searches, the table of trials, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest

from softmax_jax import sweep
from softmax_jax.hyperparameters import TRACED, Hyperparameters
from softmax_jax.sweep.settings import as_arrays, in_use, trial_table
from tests.sweep_fixtures import DIGITS

VALUES = st.lists(
    st.floats(0, 0.875, width=32).map(lambda value: round(value, 4)), min_size=1, max_size=4
).filter(lambda values: len(set(np.float32(values))) == len(values))


@given(momentum=VALUES, l2=VALUES)
def test_grid_is_the_product_with_the_last_axis_fastest(momentum, l2):
    settings = sweep.grid(learning_rate=0.3, momentum=momentum, l2=l2)
    # The axes vary in the order of the fields, whatever the order in which they were given.
    swapped = sweep.grid(l2=l2, momentum=momentum, learning_rate=0.3)
    assert_array_equal(settings.momentum, np.repeat(np.float32(momentum), len(l2)))
    assert_array_equal(settings.l2, np.tile(np.float32(l2), len(momentum)))
    assert_array_equal(settings.learning_rate, np.float32([0.3] * len(l2) * len(momentum)))
    for one, other in zip(settings, swapped, strict=True):
        assert_array_equal(one, other)


def test_grid_keeps_the_defaults_of_axes_that_are_not_named():
    for column, default in zip(sweep.grid(), Hyperparameters(), strict=True):
        assert column is default is None or column.tolist() == [np.float32(default)]


@pytest.mark.parametrize(
    "axes, message",
    [
        ({"learning_rate": ()}, "learning_rate is empty"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number greater than 0; it is 0"),
        ({"learning_rate": (0.1, -0.1)}, "learning_rate must be .* it is -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite .* it is nan"),
        ({"learning_rate": 1e39}, "learning_rate must be a finite .* it is inf"),
        ({"learning_rate": "abc"}, "learning_rate must be a real number .* it is 'abc'"),
        ({"learning_rate": (0.1, "")}, "learning_rate must be a real number"),
        ({"learning_rate": (0.1, 0.3, 0.1)}, "learning_rate has a value twice"),
        ({"learning_rate": (0.1, 0.1 + 1e-12)}, "learning_rate has a value twice"),  # in float32
        ({"momentum": 1.0}, "momentum must be a finite number from 0 to below 1; it is 1"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"l2": -1e-4}, "l2 must be a finite number from 0; it is -0.0001"),
        ({"l2": float("inf")}, "l2 must be a finite .* it is inf"),
        ({"init_scale": -1.0}, "init_scale must be a finite number from 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be a finite number from 0 to below 1"),
        ({"warmup": 1.0}, "warmup must be a finite number from 0 to below 1"),
        ({"final_rate": 1.1}, "final_rate must be a finite number from 0 to 1"),
        ({"averaging": -0.1}, "averaging must be a finite number from 0 to 1"),
        ({"patience": 1.5}, "patience must be a whole number from 0; it is 1.5"),
    ],
)
def test_bad_axis_is_named_with_its_rule_and_value(axes, message):
    with pytest.raises(ValueError, match=message):
        sweep.grid(**axes)
    numbers = [value for value in axes.values() if isinstance(value, float)]
    if numbers:  # a random search has the same rules
        with pytest.raises(ValueError, match=message):
            sweep.random(3, seed=0, **axes)


@pytest.mark.parametrize("make", ["grid", "zipped", "random"], ids=lambda name: f"sweep.{name}")
def test_unknown_hyperparameter_names_the_function_and_the_nearest(make):
    function = getattr(sweep, make)
    fixed = (3, 0) if make == "random" else ()
    for name, hint in {
        "learning_rat": "did you mean learning_rate",
        "lr": "did you mean learning_rate",
        "colour": "there are: learning_rate, momentum",
    }.items():
        with pytest.raises(ValueError, match=rf"sweep\.{make}\(\) has no .* '{name}'; {hint}"):
            function(*fixed, **{name: 0.1})


@pytest.mark.parametrize("name", ["fit", "epochs", "cross_validate", "bootstrap"])
@pytest.mark.parametrize(
    "keyword, hint",
    [
        ("max_epochs", "did you mean num_epochs"),
        ("batchsize", "did you mean batch_size"),
        ("lr", "there are: .*settings, .*solver, objective, devices"),
        ("optimizer", ".*solver"),
    ],
)
def test_unknown_keyword_names_the_function_and_the_nearest(name, keyword, hint):
    data = (DIGITS.train, DIGITS.val)[: 2 if name in ("fit", "epochs") else 1]
    with pytest.raises(TypeError, match=rf"sweep\.{name}\(\) has no argument '{keyword}'; {hint}"):
        getattr(sweep, name)(*data, num_epochs=1, **{keyword: "lbfgs"})


def test_random_search_follows_its_distributions():
    drawn = sweep.random(
        20_000,
        seed=0,
        learning_rate=sweep.log_uniform(1e-3, 1),
        momentum=sweep.uniform(0.2, 0.9),
        l2=1e-4,
    )
    exponents = np.log10(drawn.learning_rate)
    assert exponents.min() >= -3.001 and exponents.max() <= 0
    assert kstest(exponents, "uniform", (-3, 3)).pvalue > 0.01
    assert kstest(drawn.momentum, "uniform", (0.2, 0.7)).pvalue > 0.01
    assert abs(np.corrcoef(exponents, drawn.momentum)[0, 1]) < 0.1
    assert_array_equal(drawn.l2, np.full(20_000, 1e-4, np.float32))


def test_random_search_depends_on_its_seed_alone():
    def drawn(seed):
        return sweep.random(5, seed, learning_rate=sweep.log_uniform(1e-3, 1)).learning_rate

    assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).all()


def test_random_search_is_checked():
    with pytest.raises(ValueError, match="at least 1 .* got 0"):
        sweep.random(0, seed=0)
    with pytest.raises(ValueError, match="low < high; it got 0 and 1"):
        sweep.log_uniform(0, 1)
    with pytest.raises(ValueError, match="momentum must be"):
        sweep.random(50, seed=0, momentum=sweep.uniform(0, 2))


def test_single_number_counts_for_every_setting():
    settings = as_arrays(Hyperparameters(learning_rate=[0.1, 0.2], l2=1e-3))
    assert all(column.dtype == np.float32 and column.shape == (2,) for column in settings)
    assert_allclose(settings.l2, [1e-3, 1e-3])


def test_settings_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match=r"one common length; it got \[2, 3\]"):
        as_arrays(Hyperparameters(learning_rate=[0.1, 0.2], l2=[0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="learning_rate must be"):
        as_arrays(Hyperparameters(learning_rate=[0.1, -0.2]))


def test_zipped_axes_go_side_by_side():
    settings = sweep.zipped(l2=(0.0, 1e-2, 0.0), averaging=(0.0, 0.0, 1.0), learning_rate=0.3)
    rows = zip(settings.l2, settings.averaging, settings.learning_rate, strict=True)
    rate = np.float32(0.3)
    assert list(rows) == [(0, 0, rate), (np.float32(1e-2), 0, rate), (0, 1, rate)]


@pytest.mark.parametrize(
    "axes, message",
    [
        ({"l2": (0.0, 0.1), "momentum": (0.0, 0.1, 0.2)}, r"one common length; it got \[2, 3\]"),
        ({"l2": (0.1, 0.2, 0.1), "momentum": (0.5, 0.5, 0.5)}, "a setting twice"),
        ({"l2": (0.1, -0.1)}, "l2 must be"),
    ],
)
def test_axes_that_cannot_be_zipped_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        sweep.zipped(**axes)


def test_hyperparameter_that_is_off_throughout_is_not_in_use():
    settings = as_arrays(Hyperparameters(averaging=[0.0, 0.5], final_rate=1.0, l2=0.0))
    used = in_use(settings)
    assert_array_equal(used.averaging, [0, 0.5])
    assert used.label_smoothing is used.warmup is used.final_rate is used.patience is None
    assert_array_equal(used.l2, [0, 0])  # it is never left out
    assert in_use(as_arrays(sweep.grid(final_rate=(0.5, 1.0)))).final_rate is not None


def test_trial_table_has_every_combination_once_with_the_folds_fastest():
    rates = sweep.grid(learning_rate=(0.01, 0.02))
    t = trial_table(rates, seeds=(0, 1), batch_sizes=(64, 8), num_resamples=3)
    rates = t.hyperparameters.learning_rate
    rows = list(zip(t.batch_size, t.seed, rates, t.fold, strict=True))
    assert len(rows) == len(set(rows)) == 24
    assert_array_equal(t.fold[:6], [0, 1, 2, 0, 1, 2])
    assert_array_equal(rates[:7], np.float32([0.01] * 3 + [0.02] * 3 + [0.01]))
    assert_array_equal(t.seed[:13], [0] * 6 + [1] * 6 + [0])
    assert_array_equal(t.batch_size, [64] * 12 + [8] * 12)
    # The trials of a setting differ in seed and fold alone.
    pairs = list(zip(t.batch_size, rates, strict=True))
    settings = dict(zip(t.setting, pairs, strict=True))
    assert sorted(settings) == [0, 1, 2, 3] and len(set(settings.values())) == 4
    assert [settings[number] for number in t.setting] == pairs


def test_trial_without_resamples_has_fold_minus_one():
    assert_array_equal(trial_table(sweep.grid(l2=(0, 1, 2))).fold, [-1, -1, -1])


def test_row_has_the_numbers_as_they_were_written():
    """0.1, and not 0.10000000149011612."""
    t = trial_table(sweep.grid(learning_rate=0.1, l2=1e-4, momentum=0.95), seeds=(7,))
    assert t.row(0) == {
        "learning_rate": 0.1,
        "momentum": 0.95,
        "l2": 1e-4,
        "init_scale": 0.01,
        "label_smoothing": 0.0,
        "warmup": 0.0,
        "final_rate": 1.0,
        "averaging": 0.0,
        "patience": 0.0,
        "seed": 7,
        "fold": -1,
        "batch_size": 256,
    }
    assert {type(value) for value in t.row(0).values()} == {float, int}


def test_grid_of_a_billion_is_refused_before_it_is_made():
    axis = tuple(np.linspace(0.001, 0.9, 178).tolist())
    with pytest.raises(ValueError, match=r"A table of 1,003,875,856 trials needs .* GiB"):
        sweep.grid(learning_rate=axis, momentum=axis, l2=axis, init_scale=axis)


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("value", [1j, True, "a", "0.1", ["0.1"], [0.5, 1j], {}])
@pytest.mark.usefixtures("untyped")
def test_what_is_no_real_number_is_refused_on_every_axis(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a real number or several"):
        sweep.grid(**{name: value})


@pytest.mark.usefixtures("untyped")
def test_random_search_takes_a_whole_number_of_settings_and_finite_bounds():
    for n in (2.5, "3", 0, True):
        with pytest.raises(ValueError, match="n of at least 1 settings"):
            sweep.random(n, 0)
    for bounds in ((np.nan, 1), (1, 0), (0, np.inf)):
        with pytest.raises(ValueError, match="uniform needs low ≤ high, both finite"):
            sweep.uniform(*bounds)
