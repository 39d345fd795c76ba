import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.metrics import recall_score

from softmax_jax import decisions


def probabilities(N=200, C=4, seed=0, concentration=1.0):
    drawn = np.random.default_rng(seed).dirichlet(np.full(C, concentration), N)
    return drawn.astype(np.float32)


def binary(N=200, seed=0):
    """Scores of two classes that overlap: probabilities [N, 2] and labels, 0 the rarer one."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(N) > 0.3).astype(np.int32)
    p = 1 / (1 + np.exp(rng.normal(2.0 * labels - 1, 1.5)))
    return np.stack([p, 1 - p], 1).astype(np.float32), labels


def shares(p, labels, positive, threshold):
    """Sensitivity and specificity, by counting."""
    called = p[:, positive] >= threshold
    return called[labels == positive].mean(), 1 - called[labels != positive].mean()


def test_the_expected_cost_is_the_mean_of_the_cost_over_the_classes():
    """Of four actions for three classes, in float64 and against drawn classes."""
    p, cost = probabilities(5, 3), np.random.default_rng(1).normal(size=(3, 4))
    expected = [[sum(p[n, c] * cost[c, a] for c in range(3)) for a in range(4)] for n in range(5)]
    assert_allclose(decisions.expected_cost(p, cost.astype(np.float32)), expected, rtol=1e-5)
    classes = stats.rv_discrete(values=(range(3), p[0] / p[0].sum())).rvs(
        size=40000, random_state=0
    )
    assert_allclose(cost[classes].mean(0), expected[0], atol=4 * cost.std() / 200)


def test_no_rule_at_all_costs_less_than_the_bayes_action():
    """Every one of the 3⁴ ways to give each of four examples an action, by brute force."""
    p, cost = probabilities(4, 3), np.random.default_rng(1).uniform(size=(3, 3))
    costs = p.astype(np.float64) @ cost
    rules = np.array(list(itertools.product(range(3), repeat=4)))
    best = rules[costs[np.arange(4), rules].sum(1).argmin()]
    assert len(set(best)) > 1
    assert_array_equal(decisions.bayes_action(p, cost), best)


def test_with_cost_0_for_right_and_1_for_wrong_it_is_argmax():
    p = probabilities()
    assert_array_equal(decisions.bayes_action(p, 1 - np.eye(4)), p.argmax(1))


def test_of_two_classes_the_bayes_action_is_a_threshold_from_the_costs():
    """A miss ten times a false alarm: call it from 1/11 on, not from 1/2."""
    p, _ = binary()
    called = decisions.bayes_action(p, jnp.array([[0.0, 10.0], [1.0, 0.0]])) == 0
    assert_array_equal(called, p[:, 0] > 1 / 11)
    assert (called & (p[:, 0] < 0.5)).any()


def test_a_cost_that_depends_on_the_class_alone_changes_no_decision():
    p, cost = probabilities(), np.random.default_rng(2).uniform(size=(4, 5))
    shifted = cost + np.random.default_rng(3).uniform(size=(4, 1))
    assert_array_equal(decisions.bayes_action(p, cost), decisions.bayes_action(p, shifted))
    assert_array_equal(decisions.bayes_action(p, cost), decisions.bayes_action(p, 8 * cost))


@pytest.mark.parametrize("right, reject, wrong", [(0, 0.25, 1), (0, 1, 10), (-2, 0, 3)])
def test_chows_threshold_is_the_bayes_action_with_an_action_reject(right, reject, wrong):
    p = probabilities(concentration=0.3)
    cost = decisions.with_reject(np.where(np.eye(4), right, wrong).astype(np.float32), reject)
    threshold = decisions.chow_threshold(wrong, reject, right)
    chosen = decisions.decide_or_reject(p, threshold)
    assert_array_equal(chosen, decisions.bayes_action(p, cost))
    assert 0 < (chosen == 4).mean() < 1


def test_a_higher_threshold_rejects_more_and_errs_less():
    """Of what is decided: Chow's tradeoff, for labels drawn from the probabilities."""
    p = probabilities(20000, 3)
    draws = np.random.default_rng(1).random((20000, 1))
    labels = (p.cumsum(1) < draws).sum(1)
    rejected, wrong = [], []
    for threshold in 0.0, 0.6, 0.8, 0.9:
        chosen = np.asarray(decisions.decide_or_reject(p, threshold))
        decided = chosen < 3
        rejected.append(1 - decided.mean())
        wrong.append((chosen != labels)[decided].mean())
        expected = 1 - p.max(1)[decided].mean()
        assert abs(wrong[-1] - expected) < 4 * np.sqrt(0.25 / decided.sum())
    assert rejected[0] == 0 and (np.diff(rejected) > 0.05).all() and (np.diff(wrong) < -0.02).all()


def test_top_k_are_the_k_largest_in_order():
    p = probabilities(50, 6)
    assert_array_equal(decisions.top_k(p, 3), np.argsort(-p, 1)[:, :3])
    assert decisions.top_k(np.full(4, 0.25), 2).tolist() == [0, 1]


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("wanted", [0.1, 0.5, 0.7, 0.9, 0.95, 1.0])
def test_the_wanted_sensitivity_is_attained_and_no_larger_threshold_attains_it(positive, wanted):
    """Counted over every threshold that could make a difference."""
    p, labels = binary()
    threshold = decisions.sensitivity_threshold(p, labels, positive, wanted)
    candidates = np.unique(p[:, positive])
    attaining = [t for t in candidates if shares(p, labels, positive, t)[0] >= wanted]
    assert threshold == max(attaining)


def test_shares_that_floats_cannot_hold_are_attained_with_as_few_as_exactly_needed():
    """15 of 100 are 15 %, though 0.15 · 100 is 15.000001 in float32."""
    for P in 10, 30, 70, 100:
        p = np.linspace(1, 0.01, P, dtype=np.float32)
        both, labels = jnp.stack([p, 1 - p], 1), jnp.zeros(P, int)
        for percent in range(1, 101):
            needed = -(-percent * P // 100)
            threshold = decisions.sensitivity_threshold(both, labels, 0, percent / 100)
            assert threshold == p[needed - 1]


def test_without_a_positive_everything_is_called():
    p, labels = binary()
    assert decisions.sensitivity_threshold(p, np.ones_like(labels), 0, 0.9) == -np.inf


def test_on_new_examples_the_sensitivity_is_k_of_p_plus_1_on_average():
    """19 of 20 are found on the examples of the choice, 19 of 21 on others: 400 draws of each."""
    scores = np.random.default_rng(0).random((400, 220)).astype(np.float32)
    p = jnp.stack([scores, 1 - scores], -1)
    labels = jnp.zeros(20, jnp.int32)
    chosen = jax.vmap(lambda p: decisions.sensitivity_threshold(p, labels, 0, 0.95))(p[:, :20])
    found = (scores[:, 20:] >= np.asarray(chosen)[:, None]).mean(1)
    assert abs(found.mean() - 19 / 21) < 4 * found.std() / np.sqrt(400)
    assert (scores[:, :20] >= np.asarray(chosen)[:, None]).sum(1).tolist() == [19] * 400


def test_deciding_by_the_threshold_gives_the_sensitivity_that_it_was_chosen_for():
    p, labels = binary()
    threshold = decisions.sensitivity_threshold(p, labels, 0, 0.9)
    decided = decisions.decide_by_threshold(p, 0, threshold)
    recall = recall_score(labels, decided, pos_label=0)
    assert recall >= 0.9 and recall == pytest.approx(shares(p, labels, 0, threshold)[0])


def test_below_the_threshold_the_likeliest_other_class_is_chosen():
    p = probabilities()
    decided = np.asarray(decisions.decide_by_threshold(p, 2, 0.4))
    others = np.where(np.arange(4) == 2, 0, p).argmax(1)
    assert_array_equal(decided, np.where(p[:, 2] >= np.float32(0.4), 2, others))
    assert ((p.argmax(1) == 2) & (decided != 2)).any()


def test_trials_and_thresholds_are_axes_like_any_other():
    p = probabilities(60).reshape(3, 20, 4)
    cost = np.random.default_rng(1).uniform(size=(4, 5)).astype(np.float32)
    by_trial = [decisions.bayes_action(one, cost) for one in p]
    assert_array_equal(decisions.bayes_action(p, cost), by_trial)
    rules = jax.vmap(decisions.decide_or_reject, in_axes=(None, 0))
    thresholds = jnp.array([0.5, 0.7])
    expected = [decisions.decide_or_reject(p, 0.5), decisions.decide_or_reject(p, 0.7)]
    assert_array_equal(rules(p, thresholds), expected)
    assert_array_equal(decisions.top_k(p, 2), [decisions.top_k(one, 2) for one in p])


# What cannot be right is refused.

PROPERTY = settings(max_examples=60, deadline=None, database=None)
COST = np.array([[0.0, 1.0], [10.0, 0.0]])
USES = {
    "expected_cost": lambda p: decisions.expected_cost(p, COST),
    "bayes_action": lambda p: decisions.bayes_action(p, COST),
    "decide_or_reject": lambda p: decisions.decide_or_reject(p, 0.5),
    "top_k": lambda p: decisions.top_k(p, 1),
    "sensitivity_threshold": lambda p: decisions.sensitivity_threshold(p, [0, 1], 1, 0.5),
    "decide_by_threshold": lambda p: decisions.decide_by_threshold(p, 1, 0.5),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("on_jax", [False, True])
@pytest.mark.parametrize(
    "scores", [[[2.0, -1.0], [0.5, 0.5]], [[0.5, np.nan], [0.5, 0.5]], [[0.5, 0.5], [0.4, 0.4]]]
)
def test_what_are_no_probabilities_is_refused_unless_traced(use, on_jax, scores):
    scores = jnp.array(scores) if on_jax else np.array(scores)
    with pytest.raises(ValueError, match="probabilities .*must.*losses.softmax"):
        use(scores)
    jax.jit(use)(scores)
    jax.vmap(use)(scores[None])


@pytest.mark.parametrize(
    "cost",
    [
        [[0, np.nan], [1, 0]],
        [[0, np.inf], [1, 0]],
        [[0, 1]],
        [[0, 1], [1, 0], [1, 1]],
        [0, 1],
        [["a", "b"], ["c", "d"]],
        np.zeros((2, 0)),
    ],
)
def test_costs_that_are_none_are_refused(cost):
    for function in decisions.expected_cost, decisions.bayes_action:
        with pytest.raises(ValueError, match="^cost must be"):
            function(np.eye(2), np.array(cost))


def test_a_price_keeps_its_fraction_beside_whole_costs():
    """It was cut to 0, at which everything is rejected."""
    assert decisions.with_reject([[0, 1], [1, 0]], 0.25)[:, 2].tolist() == [0.25, 0.25]
    assert decisions.with_reject(jnp.array([[0, 1], [1, 0]]), 0.25)[:, 2].tolist() == [0.25, 0.25]
    with pytest.raises(ValueError, match="price must be finite; it is nan"):
        decisions.with_reject([[0, 1], [1, 0]], np.nan)


@PROPERTY
@given(*[st.sampled_from([-2, 0, 0.25, 1, 5, 10, np.nan, np.inf])] * 3)
def test_chows_threshold_is_a_probability_or_refused(wrong, reject, right):
    if math.isfinite(wrong + reject + right) and right <= reject <= wrong and right < wrong:
        assert 0 <= decisions.chow_threshold(wrong, reject, right) <= 1
        return
    with pytest.raises(ValueError, match="right ≤ reject ≤ wrong|must be finite"):
        decisions.chow_threshold(wrong, reject, right)


def test_a_price_above_that_of_a_mistake_is_refused():
    with pytest.raises(
        ValueError, match="right 0.0, reject 5, wrong 1. Where rejecting costs more"
    ):
        decisions.chow_threshold(1, 5)


@pytest.mark.parametrize("sensitivity", [2, 0, -0.5, np.nan, "0.9", True])
@pytest.mark.usefixtures("untyped")
def test_a_sensitivity_that_is_no_share_is_refused(sensitivity):
    with pytest.raises(ValueError, match="sensitivity must be above 0 and at most 1"):
        decisions.sensitivity_threshold(*binary(), 0, sensitivity)


@pytest.mark.parametrize("positive", [-1, 2, 0.5, np.nan, "a"])
@pytest.mark.usefixtures("untyped")
def test_a_positive_that_is_no_class_is_refused(positive):
    p, labels = binary()
    with pytest.raises(ValueError, match="positive must be a whole number from 0 to 1"):
        decisions.sensitivity_threshold(p, labels, positive, 0.9)
    with pytest.raises(ValueError, match="positive must be a whole number from 0 to 1"):
        decisions.decide_by_threshold(p, positive, 0.5)


@pytest.mark.parametrize("threshold", [np.nan, 1.5, -0.5, np.inf, "0.5"])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        decisions.decide_or_reject(probabilities(), threshold)
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        decisions.decide_by_threshold(probabilities(), 0, threshold)


@pytest.mark.parametrize("k", [0, 5, 1.5, -1])
@pytest.mark.usefixtures("untyped")
def test_a_k_that_is_no_number_of_classes_is_refused(k):
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 4"):
        decisions.top_k(probabilities(), k)


def test_labels_out_of_range_are_refused_and_names_are_mapped():
    p, labels = binary()
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        decisions.sensitivity_threshold(p, labels + 1, 1, 0.9)
    names = np.array(["sick", "well"])
    expected = decisions.sensitivity_threshold(p, labels, 0, 0.9)
    assert decisions.sensitivity_threshold(p, names[labels], "sick", 0.9, names) == expected
    with pytest.raises(ValueError, match="among the classes"):
        decisions.sensitivity_threshold(p, names[labels], "ill", 0.9, names)


@PROPERTY
@given(st.integers(1, 400), st.integers(1, 1000))
def test_a_product_with_a_share_is_exact_where_it_is_whole(percent, count):
    """In whatever type the share is, and under jit."""
    share = percent / 400
    exact = Fraction(percent, 400) * count
    for given_share in share, np.float32(share), np.float64(share), jnp.float32(share):
        found = decisions.times_share(count, given_share)
        assert math.floor(found) == math.floor(exact) and math.ceil(found) == math.ceil(exact)
    traced = jax.jit(decisions.times_share)(count, share)
    assert math.floor(traced) == math.floor(exact) and math.ceil(traced) == math.ceil(exact)


def test_the_wanted_share_of_many_positives_is_exact():
    """In float32, 4 rounding errors of a million are more than 1."""
    own = np.linspace(0, 1, 10**7)
    p = np.stack([1 - own, own], 1)
    threshold = decisions.sensitivity_threshold(p, np.ones(10**7, np.uint8), 1, 0.9)
    assert threshold == own[10**6]


@PROPERTY
@given(
    st.integers(0, 10**6),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_rounding_leaves_nothing_short_of_its_own_threshold(seed, one, other, as_number):
    p = np.random.default_rng(seed).integers(0, 11, 20) / 10
    for least in p.astype(one):
        least = least.item() if as_number else least
        reached = decisions.at_least(p.astype(other), least)
        assert_array_equal(reached, p >= round(float(least), 6))


def test_float64_costs_and_probabilities_keep_their_digits():
    p, cost = np.array([[0.5, 0.5]]), np.array([[1e9 + 1, 1e9], [1e9 + 1, 1e9]])
    assert decisions.bayes_action(p, cost).tolist() == [1]
    assert decisions.decide_or_reject(np.array([0.5 - 1e-12, 0.5 + 1e-12]), 0.4) == 1


def test_no_example_has_no_positive():
    nothing = np.zeros((0, 2)), np.zeros(0, int)
    assert decisions.sensitivity_threshold(*nothing, 1, 0.5) == -np.inf
