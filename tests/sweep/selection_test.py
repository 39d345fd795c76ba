import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax.sweep import result


def compared(mean, diverged=None, spread=0.0, count=1):
    """A comparison with the given means; the rest is the same for all."""
    n = len(mean)
    diverged = np.zeros(n, bool) if diverged is None else np.array(diverged)
    return result.Comparison(
        np.array(mean, float), np.full(n, spread), np.full(n, count), diverged, np.arange(n)
    )


def winner(mean, l2=None, rate=None, larger_wins=False, rule="best", **fields):
    l2 = np.zeros(len(mean)) if l2 is None else np.array(l2)
    rate = np.ones(len(mean)) if rate is None else np.array(rate)
    comparison = compared(mean, **fields)
    return result.winning_setting(comparison, l2, rate, larger_wins=larger_wins, rule=rule)


def test_groups_are_summarised_as_by_numpy():
    group = np.array([2, 0, 2, 1, 0, 2])
    figures = np.array([5.0, 1, 6, 9, 3, 10])
    comparison = result.compare_settings(group, figures, np.array([0, 0, 0, 0, 1, 0], bool))
    assert_allclose(comparison.mean, [2, 9, 7])
    assert_allclose(comparison.spread, [np.std([1, 3], ddof=1), 0, np.std([5, 6, 10], ddof=1)])
    assert_array_equal(comparison.count, [2, 1, 3])
    assert_array_equal(comparison.diverged, [True, False, False])
    assert_array_equal(comparison.first, [1, 3, 0])


def test_figures_that_are_not_finite_spoil_their_own_group_alone():
    figures = np.array([np.inf, np.inf, 1, 3, np.nan, 1])
    diverged = ~np.isfinite(figures)
    comparison = result.compare_settings(np.array([0, 0, 1, 1, 2, 2]), figures, diverged)
    assert_array_equal(comparison.diverged, [True, False, True])
    assert comparison.mean[1] == 2 and comparison.spread[1] == pytest.approx(np.sqrt(2))
    assert result.winning_setting(comparison, np.zeros(3), np.ones(3)) == 1


def test_the_smallest_loss_and_the_largest_accuracy_win():
    assert winner([0.5, 0.2, 0.9]) == 1
    assert winner([0.5, 0.2, 0.9], larger_wins=True) == 2


@pytest.mark.parametrize("larger_wins", [True, False])
def test_ties_go_to_the_larger_l2_and_then_to_the_smaller_rate(larger_wins):
    tie = [0.5, 0.5, 0.5, 0.5]
    assert winner(tie, [0, 1, 1, 0], [0.1, 0.3, 0.2, 0.1], larger_wins) == 2
    assert winner(tie, [1, 1, 1, 1], [0.3, 0.3, 0.2, 0.2], larger_wins) == 2


@pytest.mark.parametrize("rule", ["best", "one_se"])
@pytest.mark.parametrize("larger_wins", [True, False])
def test_a_diverged_setting_never_wins(rule, larger_wins):
    """Not even with the best figure: it may have diverged in one fold, or after its best epoch."""
    mean = [0.9, 0.5, 0.1, np.nan]
    fields = {"diverged": [True, False, True, True], "spread": 9.0, "count": 4}
    chosen = winner(mean, [9, 0, 9, 9], larger_wins=larger_wins, rule=rule, **fields)
    assert chosen == 1


@pytest.mark.parametrize("rule", ["best", "one_se"])
def test_where_all_diverged_nobody_wins(rule):
    assert winner([0.1, np.inf, np.nan], diverged=[True] * 3, rule=rule) is None


def test_one_standard_error_by_hand():
    """Four folds of deviation 0.2 make an error of 0.1 around 0.50: 0.60 is within, 0.61 is not."""
    mean, l2 = [0.50, 0.55, 0.60, 0.61, 0.55], [0, 0.1, 1.0, 9.0, 1.0]
    fields = {"spread": 0.2, "count": 4, "rule": "one_se"}
    assert winner(mean, l2, [0.1] * 5, **fields) == 4  # of the two with l2 = 1, the better
    assert winner(mean, l2, [0.1, 0.1, 0.05, 0.1, 0.1], **fields) == 2  # or the smaller rate
    gains = [1 - value for value in mean]
    assert winner(gains, l2, [0.1] * 5, larger_wins=True, **fields) == 4
    assert winner(mean, l2, [0.1] * 5) == 0


def test_one_standard_error_is_that_of_the_best_setting():
    comparison = compared([0.5, 0.6], count=4)._replace(spread=np.array([0.1, 9.0]))
    assert result.winning_setting(comparison, np.array([0, 1]), np.ones(2), rule="one_se") == 0


def test_a_rule_needs_its_spread_and_a_name():
    with pytest.raises(ValueError, match="two or more seeds or folds"):
        winner([0.5, 0.6], rule="one_se")
    with pytest.raises(ValueError, match="one of .*; it is 'mean'"):
        winner([0.5, 0.6], rule="mean")


def test_a_winner_at_the_edge_says_which_way_to_extend():
    axes = {"learning_rate": np.array([0.1, 0.2, 0.3] * 2), "l2": np.repeat([0.0, 1e-3], 3)}
    assert result.edge_hints(axes, 4) == ["l2 = 0.001 is the largest tried: extend l2 upwards"]
    assert result.edge_hints(axes, 0) == [
        "learning_rate = 0.1 is the smallest tried: extend learning_rate downwards"
    ]  # and no hint for l2, which cannot be less than 0
    assert len(result.edge_hints(axes, 5)) == 2
    assert result.edge_hints(axes, 1) == []


def test_an_axis_that_is_only_switched_on_has_no_edge():
    """One cure at a time: two values each, which no other axis is crossed with."""
    axes = {"l2": np.array([0.0, 0.1, 0.0]), "averaging": np.array([0.0, 0.0, 0.5])}
    assert result.edge_hints(axes, 1) == result.edge_hints(axes, 2) == []
    rates = {"learning_rate": np.array([0.1, 0.2, 0.3])}
    assert len(result.edge_hints(axes | rates, 2)) == 1


def test_an_axis_with_one_value_has_no_edge():
    assert result.edge_hints({"momentum": np.full(3, 0.9)}, 1) == []
