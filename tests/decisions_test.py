import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
