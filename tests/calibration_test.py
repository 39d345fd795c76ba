import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, special
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from softmax_jax import calibration, decisions, losses

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
    assert_allclose(calibration.expected_calibration_error(p, labels), 0, atol=1e-6)
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


# What judges a model refuses what cannot be right, and sums in float64.

JUDGES = {
    "ECE": calibration.expected_calibration_error,
    "classwise": calibration.classwise_calibration_error,
    "Brier": calibration.brier_score,
}
EACH_JUDGE = pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
PROPERTY = settings(max_examples=40, deadline=None, database=None)


@PROPERTY
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(calibration.BINNINGS))
def test_labels_by_name_or_number_are_those_by_column(seed, on_jax, binning):
    logits, labels = example(30, 3, seed=seed)
    p = special.softmax(logits, -1)
    p = jnp.asarray(p) if on_jax else p
    for classes in np.array([1, 2, 3]), np.array([10, -5, 7]), np.array(["b", "c", "a"]):
        named = classes[labels]
        for judge in JUDGES.values():
            options = {} if judge is calibration.brier_score else {"binning": binning}
            expected = judge(p, labels, **options)
            assert_allclose(judge(p, named, classes=classes, **options), expected, rtol=1e-6)
        expected = calibration.temperature(logits, labels)
        assert calibration.temperature(logits, named, classes=classes) == expected
    outside = np.append(labels[1:], 3)
    for judge in (*JUDGES.values(), calibration.temperature):
        with pytest.raises(ValueError, match=r"0\.\.2; 1 does not, .*\[29\]: 3.*classes="):
            judge(p, outside)
        with pytest.raises(ValueError, match="among the classes"):
            judge(p, outside, classes=[0, 1, 2])


def test_digits_labelled_from_1_to_10_are_refused_or_mapped():
    logits, labels = example(2000, 10)
    p = special.softmax(logits, -1)
    for judge, scores in (*((j, p) for j in JUDGES.values()), (calibration.temperature, logits)):
        with pytest.raises(ValueError, match=r"0\.\.9; .*: 10.*classes="):
            judge(scores, labels + 1)
        found = judge(scores, labels + 1, classes=range(1, 11))
        assert_allclose(found, judge(scores, labels), rtol=1e-6)


@EACH_JUDGE
@pytest.mark.parametrize(
    "scores, labels, message",
    [
        ([[2.0, -1.0], [0.0, 1.0]], [0, 1], "must lie in 0..1.*losses.softmax"),
        ([[0.2, 0.3], [0.0, 1.0]], [0, 1], "sum to 1; 1 does not, the first at .0.: 0.5"),
        ([[np.nan, 1.0], [0.0, 1.0]], [0, 1], "first at .0, 0.: nan"),
        ([[0.5, 0.5], [0.0, 1.0]], [0, -1], r"labels must lie in 0\.\.1; .*: -1"),
        ([[0.5, 0.5], [0.0, 1.0]], [0, 2], r"labels must lie in 0\.\.1; .*: 2"),
        ([[0.5, 0.5], [0.0, 1.0]], [0.0, np.nan], r"integers; .*: nan. Leave"),
        ([[0.5, 0.5], [0.0, 1.0]], [[0], [1]], r"they are \[2, 1\]"),
        ([0.5, 0.5], [0, 1], r"must be \[N, C\]"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one row"),
    ],
)
def test_what_cannot_be_judged_is_refused(judge, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        judge(np.array(scores), np.array(labels))


@pytest.mark.parametrize(
    "predicted, happened, num_bins, message",
    [
        ([1.2, 0.5], [0, 1], 4, "predicted must be"),
        ([np.nan, 0.5], [0, 1], 4, "predicted must be"),
        ([0.2, 0.5], [0, 2], 4, "0 or 1; one is 2"),
        ([0.2, 0.5], [0, np.nan], 4, "0 or 1; one is nan"),
        ([0.2, 0.5], [0], 4, r"\[2\] and \[1\]"),
        ([], [], 4, "at least one example"),
        ([0.2, 0.5], [0, 1], 0, "num_bins must be a whole number of at least 1"),
        ([0.2, 0.5], [0, 1], 2.5, "num_bins must be"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_makes_no_diagram_is_refused(predicted, happened, num_bins, message):
    for function in calibration.reliability, calibration.calibration_error:
        with pytest.raises(ValueError, match=message):
            function(np.array(predicted), np.array(happened), num_bins)


@functools.partial(jax.jit, static_argnames=("num_bins", "binning"))
def judged_under_vmap(p, happened, **options):
    """The diagram and the error of many sets, in one program."""

    def judge(p, happened):
        functions = calibration.reliability, calibration.calibration_error
        return [function(p, happened, **options) for function in functions]

    return jax.vmap(judge)(p, happened)


@PROPERTY
@given(
    st.integers(0, 10**6),
    st.sampled_from([(1, 10), (30, 1), (30, 10), (2500, 10)]),
    st.sampled_from(calibration.BINNINGS),
)
def test_the_diagram_under_jit_and_vmap_is_that_of_the_host(seed, sizes, binning):
    rng, (N, num_bins) = np.random.default_rng(seed), sizes
    p = (rng.integers(0, 11, N) / 10).astype(np.float32)  # on the edges of the bins
    happened = rng.random(N) < p
    options = {"num_bins": num_bins, "binning": binning}
    if binning == "mass":
        p = rng.random(N).astype(np.float32)
    found, error = judged_under_vmap(p[None], happened[None], **options)
    expected = calibration.reliability(p, happened, **options)
    if binning == "width":  # the quantiles are rounded to float32 there
        assert_array_equal(found.count[0], expected.count)
        assert_allclose(found.predicted[0], expected.predicted, atol=1e-5)
        assert_allclose(found.observed[0], expected.observed, atol=1e-6)
    expected = calibration.calibration_error(p, happened, **options)
    assert_allclose(error[0], expected, atol=2e-3)


def test_judges_under_jit_equal_those_of_the_host_and_say_nan_for_labels_out_of_range():
    logits, labels = example(700)
    p = special.softmax(logits, -1)
    for judge in JUDGES.values():
        assert_allclose(jax.jit(judge)(p, labels), judge(p, labels), rtol=1e-4)
    wrong = jnp.asarray(labels).at[3].set(4)
    assert np.isnan(jax.jit(calibration.brier_score)(p, wrong))
    assert np.isnan(jax.jit(calibration.temperature)(logits, wrong))


def right_99_of_100(N):
    return np.full(N, 0.99, np.float32), np.arange(N) % 100 > 0


@pytest.mark.parametrize("binning", calibration.BINNINGS)
def test_a_million_examples_right_as_often_as_said_have_no_error(binning):
    """In float32 sums it was .0067."""
    p, happened = right_99_of_100(10**6)
    assert calibration.calibration_error(p, happened, 15, binning) < 1e-7
    assert jax.jit(calibration.calibration_error)(p, happened) < 1e-6


@pytest.mark.slow
def test_twenty_million_examples_are_counted_exactly():
    """float32 counts no further than 16,777,216."""
    N = 2 * 10**7
    p, happened = right_99_of_100(N)
    bins = calibration.reliability(p, happened)
    assert bins.count[-1] == N and bins.count.dtype.kind == "i"
    assert_allclose([bins.predicted[-1], bins.observed[-1]], 0.99, rtol=1e-7)
    assert calibration.calibration_error(p, happened) < 1e-7
    both, labels = np.stack([1 - p, p], 1), happened.astype(np.uint8)
    assert calibration.expected_calibration_error(both, labels) < 1e-7
    assert_allclose(calibration.brier_score(both, labels), 2 * 0.99 * 0.01, rtol=1e-6)


def test_the_error_of_random_calibrated_probabilities_at_a_million_is_that_of_chance():
    """In float32 sums it was .0043."""
    rng = np.random.default_rng(0)
    p = rng.random(10**6).astype(np.float32)
    assert calibration.calibration_error(p, rng.random(10**6) < p) < 0.0015


def test_a_class_of_probability_zero_has_no_say_in_the_temperature():
    """0 · -inf in the slope made it 100."""
    logits, labels = example(2000, 3, sharpness=3.0)
    expected = calibration.temperature(logits, labels)
    row, column = 7, (labels[7] + 1) % 3
    logits[row, column] = -np.inf
    below = logits.copy()
    below[row, column] = -1e4
    T = calibration.temperature(logits, labels)
    assert T == calibration.temperature(below, labels)
    assert_allclose(T, expected, rtol=1e-2)
    assert_allclose(jax.jit(calibration.temperature)(logits, labels), T, rtol=1e-6)


def test_the_temperature_of_integer_logits_is_that_of_the_same_floats():
    logits, labels = example(300)
    whole = logits.round().astype(int)
    expected = calibration.temperature(whole.astype(np.float32), labels)
    for given_logits in whole, jnp.asarray(whole), whole.tolist():
        assert calibration.temperature(given_logits, labels.astype(np.uint8)) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_have_no_temperature_are_refused(value):
    logits, labels = example(20)
    logits[4, 1] = value
    with pytest.raises(ValueError, match="below infinity and not NaN; row 4"):
        calibration.temperature(logits, labels)
    logits[4, :] = 0
    logits[4, labels[4]] = -np.inf
    with pytest.raises(ValueError, match="above -inf for the label.*row 4"):
        calibration.temperature(logits, labels)
    assert np.isnan(jax.jit(calibration.temperature)(logits, labels))


# Class weights.


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans(), st.floats(-35, 35))
def test_unweighted_takes_back_what_weights_did(seed, C, on_jax, size):
    """p' ∝ v · p, for weights of any size; the type stays."""
    rng = np.random.default_rng(seed)
    p, v = rng.dirichlet(np.ones(C), 8), 10**size * rng.uniform(0.1, 10, C)
    weighted = (p * v / (p * v).sum(1, keepdims=True)).astype(np.float32)
    weighted = jnp.asarray(weighted) if on_jax else weighted
    found = calibration.unweighted(weighted, v)
    assert type(found) is type(weighted) or on_jax and isinstance(found, jax.Array)
    assert found.dtype == np.float32
    assert_allclose(found, p, rtol=1e-4, atol=1e-6)
    assert_allclose(jax.jit(calibration.unweighted)(weighted, v / v.max()), p, rtol=1e-4, atol=1e-6)


def test_a_balanced_fit_of_rare_positives_says_what_is_there_once_unweighted():
    """5 % positives: the mean p(1) is that, the calibration error small, the cost least."""
    rng = np.random.default_rng(0)
    N = 4000
    y = (rng.random(2 * N) < 0.05).astype(int)
    x = rng.normal(size=(2 * N, 2)) + 1.5 * y[:, None]
    v = N / (2 * np.bincount(y[:N]))
    model = LogisticRegression(class_weight="balanced", C=np.inf).fit(x[:N], y[:N])
    weighted = model.predict_proba(x[N:])
    p = calibration.unweighted(weighted, v)
    assert weighted[:, 1].mean() > 0.15
    assert abs(p[:, 1].mean() - y[N:].mean()) < 0.01
    error = calibration.classwise_calibration_error
    assert error(p, y[N:]) < 0.02 < 0.1 < error(weighted, y[N:])
    cost = np.array([[0, 1], [10, 0]])
    costs = [cost[y[N:], decisions.bayes_action(each, cost)].mean() for each in (p, weighted)]
    assert costs[0] < 0.7 * costs[1]


def test_a_class_of_weight_zero_gets_probability_zero():
    found = calibration.unweighted(np.array([[0.2, 0.2, 0.6], [0.5, 0.5, 0.0]]), [1.0, 4.0, 0.0])
    assert_allclose(found, [[0.8, 0.2, 0.0], [0.8, 0.2, 0.0]])
    with pytest.raises(ValueError, match="above 0 for a class of each example"):
        calibration.unweighted(np.eye(2), [1, 0])


@pytest.mark.parametrize("weights", [[1, np.nan], [1, -1], [1, np.inf], [1], [[1, 1]], ["a", "b"]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="class_weight must be"):
        calibration.unweighted(np.eye(2), weights)
