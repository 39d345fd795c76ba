import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest

from softmax_jax import sweep
from softmax_jax.hyperparameters import Hyperparameters
from softmax_jax.sweep.settings import as_arrays, in_use


def test_a_grid_is_the_product_with_the_last_axis_fastest():
    grid = sweep.grid(learning_rate=(0.1, 0.3), momentum=0.9, l2=(0.0, 1e-4, 1e-2))
    assert_array_equal(grid.learning_rate, np.float32([0.1, 0.1, 0.1, 0.3, 0.3, 0.3]))
    assert_array_equal(grid.l2, np.float32([0, 1e-4, 1e-2] * 2))
    assert_array_equal(grid.momentum, np.full(6, 0.9, np.float32))


def test_what_is_not_named_keeps_its_default():
    for column, default in zip(sweep.grid(), Hyperparameters(), strict=True):
        assert column is default is None or column.tolist() == [np.float32(default)]


def test_axes_keep_the_order_in_which_they_were_given():
    grid = sweep.grid(l2=(1.0, 0.0), learning_rate=(0.3, 0.1))
    assert_array_equal(grid.learning_rate, np.float32([0.3, 0.3, 0.1, 0.1]))
    assert_array_equal(grid.l2, np.float32([1, 0, 1, 0]))


@pytest.mark.parametrize(
    "axes, message",
    [
        ({"learning_rate": ()}, "learning_rate is empty"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number greater than 0; it is 0"),
        ({"learning_rate": (0.1, -0.1)}, "learning_rate must be .* it is -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite .* it is nan"),
        ({"learning_rate": 1e39}, "learning_rate must be a finite .* it is inf"),
        ({"learning_rate": "abc"}, "learning_rate must be a number .* it is 'abc'"),
        ({"learning_rate": (0.1, "")}, "learning_rate must be a number"),
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
        (
            {"learning_rat": 0.1},
            r"sweep.grid\(\) has no .* 'learning_rat'; did you mean learning_rate",
        ),
    ],
)
def test_a_bad_axis_is_named_with_its_rule_and_what_it_got(axes, message):
    with pytest.raises(ValueError, match=message):
        sweep.grid(**axes)
    numbers = [value for value in axes.values() if isinstance(value, float)]
    if numbers:  # a random search has the same rules
        with pytest.raises(ValueError, match=message):
            sweep.random(3, seed=0, **axes)


def test_a_random_search_is_distributed_as_told():
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


def test_a_random_search_depends_on_its_seed_alone():
    def drawn(seed):
        return sweep.random(5, seed, learning_rate=sweep.log_uniform(1e-3, 1)).learning_rate

    assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).all()


def test_a_random_search_is_checked():
    with pytest.raises(ValueError, match="at least 1 .* got 0"):
        sweep.random(0, seed=0)
    with pytest.raises(ValueError, match="low < high; it got 0 and 1"):
        sweep.log_uniform(0, 1)
    with pytest.raises(ValueError, match="momentum must be"):
        sweep.random(50, seed=0, momentum=sweep.uniform(0, 2))
    with pytest.raises(ValueError, match="'rate'"):
        sweep.random(3, seed=0, rate=0.1)


def test_numbers_count_for_every_setting():
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
        ({"rate": 0.1}, "'rate'"),
    ],
)
def test_axes_that_cannot_be_zipped_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        sweep.zipped(**axes)


def test_what_is_off_in_every_setting_is_not_in_use():
    settings = as_arrays(Hyperparameters(averaging=[0.0, 0.5], final_rate=1.0, l2=0.0))
    used = in_use(settings)
    assert_array_equal(used.averaging, [0, 0.5])
    assert used.label_smoothing is used.warmup is used.final_rate is used.patience is None
    assert_array_equal(used.l2, [0, 0])  # it is never left out
    assert in_use(as_arrays(sweep.grid(final_rate=(0.5, 1.0)))).final_rate is not None
