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

from softmax_jax import conformal


def simulated(shape, C=5, seed=0):
    """Probabilities [..., C], and labels from others: the model is wrong, systematically."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(C), shape).astype(np.float32)
    true = np.square(p) + 0.1 * np.arange(C)
    below = (true / true.sum(-1, keepdims=True)).cumsum(-1) < rng.random((*shape, 1))
    return p, below.sum(-1).astype(np.int32)


@pytest.mark.parametrize("n", [10, 19, 99, 100])
def test_the_threshold_is_the_quantile_of_the_scores_as_published(n):
    """ceil((n + 1)(1 - alpha)) / n of 1 - p, in exact arithmetic, at every whole percentage."""
    p, labels = simulated((n,))
    scores = np.sort(1 - p[np.arange(n), labels].astype(np.float64))
    for percent in range(1, 100):
        k = math.ceil((n + 1) * Fraction(100 - percent, 100))
        expected = 1 - scores[k - 1] if k <= n else 0
        actual = conformal.threshold(p, labels, jnp.float32(percent / 100))
        assert_allclose(actual, expected, rtol=1e-6, err_msg=f"{percent} %")
        sets = conformal.prediction_sets(p, actual)
        assert sets[np.arange(n), labels].sum() == min(k, n)


def test_too_few_examples_allow_only_the_set_of_all_classes():
    p, labels = simulated((8,))
    assert conformal.threshold(p, labels, 0.1) == 0  # 9 are needed: 1 / 0.1 - 1
    assert conformal.prediction_sets(p, conformal.threshold(p, labels, 0.1)).all()
    p, labels = simulated((9,))
    assert conformal.threshold(p, labels, 0.1) == p[np.arange(9), labels].min()


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_coverage_is_as_stated_though_the_model_is_wrong(alpha):
    """2,000 times n = 50 examples for the threshold and 50 new ones: within 4 standard errors."""
    p, labels = simulated((2000, 100))
    thresholds = jax.vmap(conformal.threshold, in_axes=(0, 0, None))(
        jnp.asarray(p[:, :50]), jnp.asarray(labels[:, :50]), alpha
    )
    sets = np.asarray(conformal.prediction_sets(p[:, 50:], thresholds[:, None, None]))
    covered = np.take_along_axis(sets, labels[:, 50:, None], -1)[..., 0].mean(1)
    k = math.ceil(51 * (1 - alpha))
    beta = stats.betabinom(50, k, 51 - k)  # of the 50 new ones, as many as follow the Beta law
    assert 1 - alpha <= k / 51 <= 1 - alpha + 1 / 51
    assert abs(covered.mean() - k / 51) < 4 * beta.std() / 50 / np.sqrt(2000)
    assert_allclose(covered.std(), beta.std() / 50, rtol=0.08)


def test_a_set_holds_the_classes_from_the_threshold_on():
    p, _ = simulated((4, 30))
    sets = conformal.prediction_sets(p, 0.3)
    assert sets.shape == (4, 30, 5)
    assert_array_equal(sets, p >= np.float32(0.3))


def test_a_smaller_alpha_gives_larger_sets():
    p, labels = simulated((500,))
    alphas = jnp.array([0.4, 0.2, 0.1, 0.05])
    thresholds = jax.vmap(conformal.threshold, in_axes=(None, None, 0))(p, labels, alphas)
    sizes = [conformal.prediction_sets(p, least).sum(1).mean() for least in thresholds]
    assert (np.diff(sizes) > 0).all()


@settings(max_examples=80, deadline=None, database=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from([2, 10, 10**6]),
    st.floats(0.01, 0.99),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_of_the_calibration_labels_k_are_in_their_sets_whatever_the_types_and_ties(
    seed, n, steps, alpha, calibrated, applied, on_jax
):
    """The n labels themselves, in another type, with the threshold as it is or as a number."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, steps + 1, n) / steps
    p, labels = np.stack([first, 1 - first], 1), rng.integers(0, 2, n)
    least = conformal.threshold(p.astype(calibrated), labels, alpha)
    k = math.ceil(round((n + 1) * (1 - Fraction(alpha)), 9))
    new = p.astype(applied)
    new = jnp.asarray(new) if on_jax else new
    for threshold in least, least.item(), np.asarray(least), jnp.asarray(least):
        sets = np.asarray(conformal.prediction_sets(new, threshold))
        assert sets[np.arange(n), labels].sum() >= min(k, n)
        if calibrated == applied == np.float64 and not on_jax and threshold is least:
            assert_array_equal(sets, p >= least)  # nothing is lost, or added


def test_a_tie_in_another_type_leaves_no_label_out():
    """.60000002 against .6: label 0 was in none of 99 sets."""
    p, labels = np.tile([0.6, 0.4], (99, 1)), np.zeros(99, int)
    for calibrated in p, p.astype(np.float32), jnp.asarray(p):
        least = conformal.threshold(calibrated, labels, 0.1)
        for threshold in least, least.item(), jnp.asarray(least):
            for new in p, p.astype(np.float32), jnp.asarray(p):
                sets = np.asarray(conformal.prediction_sets(new, threshold))
                assert sets.sum(0).tolist() == [99, 0]


@pytest.mark.parametrize("alpha", [2, -0.5, np.nan, 1.0, 0, "0.1", None, True])
@pytest.mark.usefixtures("untyped")
def test_an_alpha_that_is_no_share_is_refused(alpha):
    p, labels = simulated((20,))
    with pytest.raises(ValueError, match="alpha must be above 0 and below 1; it is"):
        conformal.threshold(p, labels, alpha)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p, y: (np.log(p), y), r"0\.\.1.*losses.softmax"),
        (lambda p, y: (3 * p, y), r"0\.\.1|sum to 1"),
        (lambda p, y: (p, y + 1), r"labels must lie in 0\.\.4; .*: 5.*classes="),
        (lambda p, y: (p, y - (y == 3) * 4), r"labels must lie in 0\.\.4; .*: -1"),
        (lambda p, y: (p, np.where(y > 2, np.nan, y)), "integers; .*nan"),
        (lambda p, y: (p, y[:, None]), r"they are \[20, 1\]"),
        (lambda p, y: (p[0], y), r"must be \[N, C\]"),
    ],
)
def test_what_no_threshold_follows_from_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        conformal.threshold(*change(*simulated((20,))), 0.1)


@pytest.mark.parametrize("least", [np.nan, -0.1, 1.5, "0.5"])
def test_a_threshold_that_is_no_probability_is_refused(least):
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        conformal.prediction_sets(simulated((3,))[0], least)


def test_labels_by_name_give_the_same_threshold():
    p, labels = simulated((50,))
    names = np.array(["e", "a", "d", "b", "c"])
    expected = conformal.threshold(p, labels, 0.1)
    assert conformal.threshold(p, names[labels], 0.1, classes=names) == expected
    assert conformal.threshold(p, labels + 1, 0.1, classes=range(1, 6)) == expected


def test_traced_labels_give_the_same_threshold_and_nan_out_of_range():
    p, labels = simulated((50,))
    traced = jax.jit(conformal.threshold)
    assert traced(p, labels.astype(np.uint8), 0.1) == conformal.threshold(p, labels, 0.1)
    assert np.isnan(traced(p, labels - 1, 0.1))


def test_the_share_is_exact_for_many_examples():
    """In float32, 4 rounding errors of a million are more than 1."""
    n = 10**7 - 1
    own = np.linspace(0, 1, n)
    p = np.stack([own, 1 - own], 1)
    assert conformal.threshold(p, np.zeros(n, np.uint8), 0.1) == own[10**6 - 1]
    assert conformal.threshold(p, np.zeros(n, np.uint8), np.float32(0.1)) == own[10**6 - 1]
