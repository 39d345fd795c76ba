"""Which setting wins: by mean, within one standard error, at ties; and at which edge it lies."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from softmax_jax.sweep import settings

RULES = st.sampled_from(["best", "one_se"])
# Few values, exact in binary, so that ties are frequent.
COARSE = st.integers(1, 8).map(lambda eighths: eighths / 8)


@st.composite
def comparisons(draw, min_size=1):
    """(a `Comparison`, l2 [G], learning_rate [G]), with diverged settings whose mean is any."""
    n = draw(st.integers(min_size, 8))
    column = lambda values: np.array(draw(st.lists(values, min_size=n, max_size=n)))  # noqa: E731
    diverged = column(st.booleans())
    mean = np.where(diverged, column(st.sampled_from([0.0, 2.0, np.inf, np.nan])), column(COARSE))
    spread = column(st.sampled_from([0.0, 0.25, 0.5]))
    comparison = settings.Comparison(
        mean, spread, spread / 2, np.full(n, 4), diverged, np.arange(n)
    )
    return comparison, column(st.sampled_from([0.0, 0.1, 1.0])), column(COARSE)


def compared(mean, diverged=None, error=np.nan):
    """A comparison with the given means; the rest is the same for all."""
    n = len(mean)
    diverged = np.zeros(n, bool) if diverged is None else np.array(diverged)
    columns = np.array(mean, float), np.zeros(n), np.full(n, error), np.ones(n, int)
    return settings.Comparison(*columns, diverged, np.arange(n))


def winner(mean, l2=None, rate=None, larger_wins=False, rule="best", **fields):
    l2 = np.zeros(len(mean)) if l2 is None else np.array(l2)
    rate = np.ones(len(mean)) if rate is None else np.array(rate)
    comparison = compared(mean, **fields)
    return settings.winning_setting(comparison, l2, rate, larger_wins=larger_wins, rule=rule)


@given(comparisons(), st.booleans())
def test_best_mean_wins_then_larger_l2_then_smaller_rate(case, larger_wins):
    """As a search through all settings finds it, one by one; the first of equals."""
    comparison, l2, rate = case
    sign = -1 if larger_wins else 1
    keys = [
        (sign * comparison.mean[i], -l2[i], rate[i], i)
        for i in range(len(l2))
        if not comparison.excluded[i]
    ]
    expected = min(keys)[-1] if keys else None
    assert settings.winning_setting(comparison, l2, rate, larger_wins=larger_wins) == expected


@given(comparisons(), st.booleans())
def test_one_se_takes_the_simplest_within_one_standard_error(case, larger_wins):
    comparison, l2, rate = case
    best = settings.winning_setting(comparison, l2, rate, larger_wins=larger_wins)
    chosen = settings.winning_setting(comparison, l2, rate, larger_wins=larger_wins, rule="one_se")
    if best is None:
        assert chosen is None
        return
    cost = -comparison.mean if larger_wins else comparison.mean
    limit = cost[best] + comparison.error[best]
    within = [i for i in range(len(l2)) if not comparison.excluded[i] and cost[i] <= limit]
    simplest = min((-l2[i], rate[i], cost[i], i) for i in within)
    assert chosen == simplest[-1] and chosen in within


@given(comparisons(min_size=2), RULES, st.booleans(), st.randoms(use_true_random=False))
def test_selection_is_a_matter_of_values_and_not_of_order(case, rule, larger_wins, random):
    """Permuted settings, or scores with the other sign, have the winner of the same values."""
    comparison, l2, rate = case
    of = (comparison.mean, l2, rate)
    # Of the best settings that tie in all of these, the first gives the standard error.
    distinct = set(zip(*of, comparison.spread, strict=True))
    assume(len({setting[:3] for setting in distinct}) == len(distinct))
    order = list(range(len(l2)))
    random.shuffle(order)
    shuffled = settings.Comparison(*(field[order] for field in comparison))
    flipped = comparison._replace(mean=-comparison.mean)
    how = {"larger_wins": larger_wins, "rule": rule}
    one = settings.winning_setting(comparison, l2, rate, **how)
    other = settings.winning_setting(shuffled, l2[order], rate[order], **how)
    opposite = settings.winning_setting(flipped, l2, rate, larger_wins=not larger_wins, rule=rule)
    assert opposite == one
    if one is None:
        assert other is None
    else:
        found = order[other]
        assert [column[found] for column in of] == [column[one] for column in of]
        assert not comparison.excluded[one]


@given(
    setting=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    seed=st.integers(0, 99),
    bad=st.sampled_from([None, np.inf, np.nan]),
)
def test_settings_are_summarised_as_by_numpy(setting, seed, bad):
    """A value that is not finite spoils its own setting alone."""
    setting = np.unique(setting, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    values = rng.normal(size=len(setting))
    if bad is not None:
        values[rng.integers(len(values))] = bad
    comparison = settings.compare_settings(setting, values, ~np.isfinite(values))
    for number in range(setting.max() + 1):
        own = values[setting == number]
        assert comparison.count[number] == len(own)
        assert comparison.first[number] == np.flatnonzero(setting == number)[0]
        assert comparison.excluded[number] == (not np.isfinite(own).all())
        if np.isfinite(own).all():
            expected = own.std(ddof=1) if len(own) > 1 else 0
            assert_allclose(comparison.mean[number], own.mean(), atol=1e-12)
            assert_allclose(comparison.spread[number], expected, atol=1e-12)


def test_smallest_loss_and_largest_accuracy_win():
    assert winner([0.5, 0.2, 0.9]) == 1
    assert winner([0.5, 0.2, 0.9], larger_wins=True) == 2


def test_one_standard_error_by_hand():
    """An error of 0.1 around 0.50: 0.60 is within, 0.61 is not."""
    mean, l2 = [0.50, 0.55, 0.60, 0.61, 0.55], [0, 0.1, 1.0, 9.0, 1.0]
    fields = {"error": 0.1, "rule": "one_se"}
    assert winner(mean, l2, [0.1] * 5, **fields) == 4  # of the two with l2 = 1, the better
    assert winner(mean, l2, [0.1, 0.1, 0.05, 0.1, 0.1], **fields) == 2  # or the smaller rate
    gains = [1 - value for value in mean]
    assert winner(gains, l2, [0.1] * 5, larger_wins=True, **fields) == 4
    assert winner(mean, l2, [0.1] * 5) == 0


def test_one_standard_error_is_that_of_the_best_setting():
    comparison = compared([0.5, 0.6])._replace(error=np.array([0.05, 9.0]))
    assert settings.winning_setting(comparison, np.array([0, 1]), np.ones(2), rule="one_se") == 0


def test_rule_needs_its_spread_and_a_known_name():
    with pytest.raises(ValueError, match="folds or bootstrap draws"):
        winner([0.5, 0.6], rule="one_se")
    with pytest.raises(ValueError, match="one of .*; it is 'mean'"):
        winner([0.5, 0.6], rule="mean")


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 99))
def test_standard_error_of_folds_is_that_of_their_means_over_seeds(folds, seeds, draw):
    """The seeds of a fold share its examples: more of them do not make the error smaller."""
    rng = np.random.default_rng(draw)
    values = rng.normal(size=(2, folds, seeds))
    setting, fold, _ = (index.ravel() for index in np.indices(values.shape))
    diverged = np.zeros(values.size, bool)
    comparison = settings.compare_settings(setting, values.ravel(), diverged, fold, folds**-0.5)
    expected = values.mean(2).std(1, ddof=1) / np.sqrt(folds)
    assert_allclose(comparison.error, expected, atol=1e-12)


def test_paired_errors_decide_for_each_setting():
    """A difference that is the same for every example is not noise, however small it is."""
    l2, rate = np.array([0.0, 0.1, 1.0]), np.ones(3)
    comparison = compared([0.5, 0.52, 0.51])
    how = {"rule": "one_se", "errors": np.array([0.0, 0.03, 0.005])}
    assert settings.winning_setting(comparison, l2, rate, **how) == 1


def test_winner_at_the_edge_says_which_way_to_extend():
    axes = {"learning_rate": np.array([0.1, 0.2, 0.3] * 2), "l2": np.repeat([0.0, 1e-3], 3)}
    assert settings.edge_hints(axes, 4) == ["l2 = 0.001 is the largest tried: extend l2 upwards"]
    assert settings.edge_hints(axes, 0) == [
        "learning_rate = 0.1 is the smallest tried: extend learning_rate downwards"
    ]  # and no hint for l2, which cannot be less than 0
    assert len(settings.edge_hints(axes, 5)) == 2
    assert settings.edge_hints(axes, 1) == []
    assert settings.edge_hints(axes, 4, helpless=": no use") == [
        "l2 = 0.001 is the largest tried: no use"
    ]
    assert "upwards" in settings.edge_hints(axes, 5, helpless=": no use")[0]  # the learning rate


@given(
    rates=st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
    penalties=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
)
def test_crossed_axis_has_a_hint_at_each_end_within_its_range(rates, penalties):
    crossed = np.array(list(itertools.product(rates, penalties)), float).T
    for chosen, (rate, l2) in enumerate(crossed.T):
        hints = settings.edge_hints(
            dict(zip(("learning_rate", "l2"), crossed, strict=True)), chosen
        )
        expected = []
        if len(rates) > 1 and rate in (min(rates), max(rates)):
            expected.append("learning_rate")
        if len(penalties) > 1 and (l2 == max(penalties) or l2 == min(penalties) > 0):
            expected.append("l2")
        assert [hint.split()[0] for hint in hints] == expected


def test_axis_that_is_only_switched_on_has_no_edge():
    """One hyperparameter at a time: two values each, which no other axis is crossed with."""
    axes = {"l2": np.array([0.0, 0.1, 0.0]), "averaging": np.array([0.0, 0.0, 0.5])}
    assert settings.edge_hints(axes, 1) == settings.edge_hints(axes, 2) == []
    rates = {"learning_rate": np.array([0.1, 0.2, 0.3])}
    assert len(settings.edge_hints(axes | rates, 2)) == 1
    assert settings.edge_hints({"momentum": np.full(3, 0.9)}, 1) == []
