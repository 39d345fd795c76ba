import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
