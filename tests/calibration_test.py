import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, special
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from softmax_jax import calibration, losses

pytestmark = pytest.mark.numerical

BINNINGS = pytest.mark.parametrize("binning", calibration.BINNINGS)


def example(N=500, C=4, sharpness=1.0, seed=0):
    """Logits [N, C], and labels drawn from softmax(logits / sharpness): calibrated at 1."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(N, C))
    below = special.softmax(logits, -1).cumsum(1) < rng.random((N, 1))
    return (sharpness * logits).astype(np.float32), below.sum(1).astype(np.int32)


def loss(logits, labels, T):
    """The cross-entropy at temperature T, in float64."""
    scaled = logits.astype(np.float64) / T
    return (special.logsumexp(scaled, 1) - scaled[np.arange(len(labels)), labels]).mean()


@BINNINGS
def test_the_diagram_is_that_of_scikit_learn(binning):
    logits, labels = example()
    p, happened = special.softmax(logits, -1)[:, 2], labels == 2
    bins = calibration.reliability(jnp.asarray(p), happened, 8, binning)
    strategy = {"width": "uniform", "mass": "quantile"}[binning]
    observed, predicted = calibration_curve(happened, p, n_bins=8, strategy=strategy)
    filled = bins.count > 0
    assert_allclose(bins.observed[filled], observed, rtol=1e-5)
    assert_allclose(bins.predicted[filled], predicted, rtol=1e-5)
    assert bins.count.sum() == 500


def test_bins_of_equal_mass_have_as_many_examples_and_ties_stay_together():
    p = jnp.asarray(np.random.default_rng(0).random(90), jnp.float32)
    assert calibration.reliability(p, p > 0.5, 9, "mass").count.tolist() == [10] * 9
    tied = jnp.repeat(jnp.array([0.25, 0.5]), 20)
    count = calibration.reliability(tied, tied > 0.3, 4, "mass").count
    assert sorted(count.tolist()) == [0, 0, 20, 20]


def test_an_edge_belongs_to_the_bin_below_and_zero_to_the_first():
    p = jnp.array([0.0, 0.25, 0.26, 0.5, 1.0])
    assert calibration.reliability(p, p > 0, 4).count.tolist() == [2, 2, 0, 1]


def test_an_unknown_binning_is_refused():
    with pytest.raises(ValueError, match="'width', 'mass'.*'equal'"):
        calibration.reliability(jnp.ones(3), jnp.ones(3), 4, "equal")


@BINNINGS
def test_the_errors_are_their_definitions(binning):
    """By loops over the bins and the classes, in float64."""
    logits, labels = example(300)
    p = special.softmax(logits, -1)

    def error(predicted, happened):
        inner = np.arange(1, 10) / 10
        edges = inner if binning == "width" else np.quantile(predicted, inner)
        low, high = np.r_[-np.inf, edges], np.r_[edges, np.inf]
        members = [(a < predicted) & (predicted <= b) for a, b in zip(low, high, strict=True)]
        gaps = [m.sum() * abs((happened[m] - predicted[m]).mean()) for m in members if m.any()]
        return sum(gaps) / len(predicted)

    expected = error(p.max(1), p.argmax(1) == labels)
    actual = calibration.expected_calibration_error(jnp.asarray(p), labels, 10, binning)
    assert_allclose(actual, expected, rtol=1e-4)
    expected = np.mean([error(p[:, c], labels == c) for c in range(4)])
    actual = calibration.classwise_calibration_error(jnp.asarray(p), labels, 10, binning)
    assert_allclose(actual, expected, rtol=1e-4)


@BINNINGS
def test_the_error_of_a_calibrated_model_tends_to_zero(binning):
    """As 1/√N: 16 times the examples, a quarter of it. That of one too sure of itself does not."""
    errors = np.empty((2, 2, 2))  # sharpness 1 or 2, N, ECE or classwise
    for (i, sharpness), (j, N) in itertools.product(enumerate((1, 2)), enumerate((1000, 16000))):
        logits, labels = example(N, sharpness=sharpness)
        p = losses.softmax(jnp.asarray(logits))
        errors[i, j, 0] = calibration.expected_calibration_error(p, labels, 15, binning)
        errors[i, j, 1] = calibration.classwise_calibration_error(p, labels, 15, binning)
    assert (errors[0, 1] < errors[0, 0] / 2).all() and (errors[0, 1] < 0.015).all()
    assert (errors[1, 1] > 0.8 * errors[1, 0]).all() and (errors[1, 1] > 0.03).all()


def test_the_classwise_error_sees_what_the_confidence_hides():
    """Two classes, mistaken as to the rest in opposite ways; argmax is as sure as it should be."""
    p = jnp.tile(jnp.array([0.6, 0.3, 0.1]), (100, 1))
    labels = np.repeat([0, 1, 2], [60, 10, 30])
    assert_allclose(calibration.expected_calibration_error(p, labels), 0, atol=1e-5)
    assert_allclose(calibration.classwise_calibration_error(p, labels), 0.4 / 3, rtol=1e-5)


def test_the_brier_score_is_that_of_scikit_learn():
    logits, labels = example()
    p = special.softmax(logits.astype(np.float64), -1)
    expected = brier_score_loss(labels, p, labels=np.arange(4), scale_by_half=False)
    assert_allclose(calibration.brier_score(jnp.asarray(p), labels), expected, rtol=1e-5)
    two = p[:, :2] / p[:, :2].sum(1, keepdims=True)
    second = (labels > 0).astype(int)
    expected = 2 * brier_score_loss(second, two[:, 1])
    assert_allclose(calibration.brier_score(jnp.asarray(two), second), expected, rtol=1e-5)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 3.0, 25.0])
def test_the_temperature_is_the_minimum_that_scipy_finds(sharpness):
    logits, labels = example(sharpness=sharpness)
    best = optimize.minimize_scalar(
        lambda log_T: loss(logits, labels, np.exp(log_T)), bounds=(-4, 5), options={"xatol": 1e-9}
    )
    T = calibration.temperature(logits, labels)
    assert_allclose(T, np.exp(best.x), rtol=1e-4)
    assert_allclose(loss(logits, labels, float(T)), best.fun, rtol=1e-9)
    assert 0.8 < T / sharpness < 1.2  # labels come from the logits divided by it


def test_the_temperature_is_never_worse_than_one_where_it_was_fitted():
    """On random logits of every size, most of them unrelated to the labels, some constant."""
    rng = np.random.default_rng(0)
    sizes = 10 ** rng.uniform(-6, 4, (200, 1, 1))
    logits = jnp.asarray(sizes * rng.normal(size=(200, 12, 3)), jnp.float32).at[:3].set(2.0)
    labels = jnp.asarray(rng.integers(3, size=(200, 12)))
    T = jax.vmap(calibration.temperature)(logits, labels)

    def fitted(T):
        return losses.cross_entropy(logits / T[:, None, None], labels).mean(1)

    assert (fitted(T) <= fitted(jnp.ones(200))).all()
    assert_array_equal(T[:3], 1)
    assert (T != 1).sum() > 150 and np.isfinite(T).all()
    low, high = calibration.TEMPERATURES
    assert (T >= 0.999 * low).all() and (T <= 1.001 * high).all()


def test_at_the_extremes_the_temperature_stops_at_the_ends_of_its_range():
    low, high = calibration.TEMPERATURES
    logits = jnp.array([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]])
    assert_allclose(calibration.temperature(logits, jnp.array([0, 1])), low, rtol=1e-5)
    assert_allclose(calibration.temperature(logits, jnp.array([2, 0])), high, rtol=1e-5)


def test_adding_a_constant_to_the_logits_changes_no_temperature():
    logits, labels = example(sharpness=3.0)
    moved = logits + np.float32(1000)
    assert_allclose(
        calibration.temperature(moved, labels), calibration.temperature(logits, labels), rtol=1e-3
    )


def test_the_temperature_mends_a_model_that_is_too_sure_and_leaves_its_classes():
    """Fitted on one half, seen on the other."""
    logits, labels = example(8000, sharpness=3.0)
    T = calibration.temperature(logits[:4000], labels[:4000])
    before, after = (losses.softmax(jnp.asarray(logits[4000:]) / t) for t in (1, T))
    error = calibration.expected_calibration_error
    assert error(after, labels[4000:]) < 0.2 * error(before, labels[4000:])
    score = calibration.brier_score
    assert score(after, labels[4000:]) < score(before, labels[4000:])
    assert_array_equal(before.argmax(1), after.argmax(1))
