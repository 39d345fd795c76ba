"""What is measured: ranks and accuracies, weighted sums, counts by class, intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn import metrics as reference

from softmax_jax import losses, metrics

pytestmark = pytest.mark.numerical

ALL = {"loss": metrics.mean_of(losses.cross_entropy), **metrics.METRICS}
EACH_METRIC = pytest.mark.parametrize("name", ALL)
N, C = 60, 8
PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=30)


def example(seed=0):
    """Scores [N, C] and labels [N] without examples of the last class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(C - 1, size=N)
    scores = rng.normal(size=(N, C)) + 1.5 * np.eye(C)[labels]
    return scores.astype(np.float32), labels.astype(np.int32)


def sums_of(name, scores, labels, weights=None, axis=-1):
    weights = np.ones(len(labels), np.float32) if weights is None else weights
    return ALL[name].sums(jnp.asarray(scores), labels, np.float32(weights), axis=axis)


def value_of(name, *args):
    return ALL[name].value(sums_of(name, *args))


def ranks_by_counting(scores, labels):
    ranks = []
    for row, label in zip(scores, labels, strict=True):
        beats = [
            np.isnan(row[c])
            or np.isnan(row[label])
            or row[c] > row[label]
            or (row[c] == row[label] and c < label)
            for c in range(len(row))
        ]
        ranks.append(sum(beats))
    return ranks


@given(
    arrays(np.float32, (20, 6), elements=st.sampled_from([0, 1, 2, -np.inf, np.nan])),
    arrays(np.int32, 20, elements=st.integers(0, 5)),
)
@PROPERTY
def test_rank_counts_the_classes_that_beat_the_label(scores, labels):
    """With ties, infinities and NaN, in both layouts; rank 0 is where argmax is the label."""
    expected = ranks_by_counting(scores, labels)
    for laid_out, axis in ((scores, -1), (scores.T, 0)):
        laid_out = jnp.asarray(laid_out)
        ranks = metrics.rank(laid_out, labels, axis=axis)
        assert_array_equal(ranks, expected)
        assert_array_equal(metrics.top(1)(laid_out, labels, axis), np.equal(expected, 0))
        assert_array_equal(metrics.accuracy(laid_out, labels, axis), np.equal(expected, 0))
    finite = ~np.isnan(scores).any(1)
    assert_array_equal(ranks[finite] == 0, scores[finite].argmax(1) == labels[finite])


def test_scores_that_are_nan_are_never_correct():
    scores, labels = np.full((4, C), np.nan, np.float32), np.array([0, 0, 0, 2])
    assert [value_of(name, scores, labels) for name in metrics.METRICS] == [0, 0, 0]


def test_classes_are_the_last_axis_unless_told_otherwise():
    scores, labels = example()
    many, again = np.stack([scores, -scores]), np.stack([labels, labels])
    assert_array_equal(metrics.accuracy(many, again), many.argmax(-1) == again)
    weights = np.ones(len(labels))
    for metric in metrics.METRICS.values():
        found, expected = (
            metric.sums(scores, labels, weights),
            metric.sums(scores.T, labels, weights, 0),
        )
        jax.tree.map(assert_allclose, found, expected)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_accuracies_match_scikit_learn():
    """One class has no examples and does not count in the balanced accuracy."""
    scores, labels = example()
    predicted, plain = scores.argmax(1), (scores.argmax(1) == labels).mean()
    expected = {
        "accuracy": plain,
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "top5": reference.top_k_accuracy_score(labels, scores, k=5, labels=np.arange(C)),
    }
    assert abs(expected["balanced_accuracy"] - plain) > 1e-3
    assert plain < expected["top5"] < 1
    for name, value in expected.items():
        assert_allclose(value_of(name, scores, labels), value, rtol=1e-6, err_msg=name)


def test_top5_counts_exactly_the_first_five_ranks():
    scores = jnp.arange(C, 0.0, -1.0)[None].repeat(C, 0)
    assert_array_equal(metrics.top(5)(scores, np.arange(C)), np.arange(C) < 5)
    each = [value_of("top5", scores[:1], np.array([label])) for label in range(C)]
    assert_array_equal(each, np.arange(C) < 5)


@EACH_METRIC
def test_example_of_weight_zero_is_absent(name):
    """Even if its loss is infinite, its scores NaN, or its class otherwise absent."""
    scores, labels = example()
    scores[0], scores[1], labels[2] = [0, -np.inf] * 4, np.nan, 7
    labels[0] = 1
    weights = np.ones(N)
    weights[:3] = 0
    assert not np.isfinite(value_of("loss", scores, labels))
    expected = value_of(name, scores[3:], labels[3:])
    assert_allclose(value_of(name, scores, labels, weights), expected, rtol=1e-6)


@EACH_METRIC
def test_whole_number_weights_count_copies(name):
    scores, labels = example()
    counts = np.random.default_rng(1).integers(3, size=N)
    expected = value_of(name, scores.repeat(counts, 0), labels.repeat(counts))
    assert_allclose(value_of(name, scores, labels, counts), expected, rtol=1e-6)


@EACH_METRIC
@given(batch=arrays(np.int8, N, elements=st.integers(0, 2)))
@PROPERTY
def test_sums_over_any_batches_are_those_over_all_examples(name, batch):
    """A batch that is masked by its weights: the shapes stay, and nothing is compiled again."""
    scores, labels = example()
    weights = np.random.default_rng(2).uniform(0.5, 2, N)
    parts = [sums_of(name, scores, labels, weights * (batch == i)) for i in range(3)]
    total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    assert_allclose(ALL[name].value(total), value_of(name, scores, labels, weights), rtol=1e-5)


@EACH_METRIC
def test_no_examples_give_zero_and_not_nan(name):
    assert value_of(name, *example(), np.zeros(N)) == 0


@EACH_METRIC
def test_classes_first_gives_the_same_sums(name):
    scores, labels = example()
    by_row, by_column = sums_of(name, scores, labels), sums_of(name, scores.T, labels, axis=0)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), by_row, by_column)


def test_sums_and_values_go_by_name():
    scores, labels = example()
    sums = metrics.sums(ALL, jnp.asarray(scores), labels, np.ones(N, np.float32))
    values = metrics.values(ALL, sums)
    assert values == {name: value_of(name, scores, labels) for name in ALL}


# By class.


def predictions(num_examples=300, num_classes=5):
    """Labels and predictions: class 3 has no examples, and class 4 is never predicted."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 4], num_examples)
    random = rng.integers(num_classes, size=num_examples)
    predicted = np.where(rng.random(num_examples) < 0.6, labels, random)
    return labels, np.where(predicted == 4, 0, predicted)


def test_confusion_matrix_and_metrics_by_class_match_scikit_learn():
    """Zero out of zero is NaN: the recall of class 3, the precision of class 4."""
    labels, predicted = predictions()
    table = metrics.confusion_matrix(labels, predicted, 5)
    assert (table != table.T).any()
    assert_array_equal(table, reference.confusion_matrix(labels, predicted, labels=np.arange(5)))
    values = metrics.per_class(table)
    expected = reference.precision_recall_fscore_support(
        labels, predicted, labels=np.arange(5), zero_division=np.nan
    )
    assert np.isnan(values["recall"][3]) and np.isnan(values["precision"][4])
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert_allclose(values[name], column, rtol=1e-12, err_msg=name)


def test_a_class_without_examples_and_predictions_has_no_f1():
    values = metrics.per_class([[2, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert np.isnan(values["f1"]).tolist() == [False, False, True]
    assert values["support"].tolist() == [2, 2, 0]


def test_confusion_matrices_of_many_rules_each_count_their_own_examples():
    rng = np.random.default_rng(0)
    labels, actions = rng.integers(3, size=40), rng.integers(4, size=(2, 5, 40))
    included = rng.random((5, 40)) < 0.5
    tables = metrics.confusion_matrix(labels, actions, 3, 4, included)
    assert tables.shape == (2, 5, 3, 4)
    for rule, resample in np.ndindex(2, 5):
        expected = np.zeros((3, 4), int)
        for row in np.flatnonzero(included[resample]):
            expected[labels[row], actions[rule, resample, row]] += 1
        assert_array_equal(tables[rule, resample], expected)
    alone = metrics.per_class(metrics.confusion_matrix(labels, labels[None], 3))
    assert_array_equal(alone["recall"], np.ones((1, 3)))


def test_mean_cost_is_the_mean_over_the_examples():
    rng = np.random.default_rng(0)
    labels, actions = rng.integers(3, size=50), rng.integers(2, size=(4, 50))
    cost = rng.uniform(size=(3, 2))
    tables = metrics.confusion_matrix(labels, actions, 3, 2)
    assert_allclose(metrics.mean_cost(tables, cost), cost[labels, actions].mean(1))
    labels, predicted = predictions()
    error = metrics.mean_cost(metrics.confusion_matrix(labels, predicted, 5), 1 - np.eye(5))
    assert error == pytest.approx((labels != predicted).mean())
    assert metrics.mean_cost([[0, 1], [0, 0]], [[0, 3], [0, 0]]) == 3  # of a single example


# Intervals.


@pytest.mark.parametrize("n", [400, 2000, 10_000])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.84, 0.98])
def test_wilson_interval_covers_the_true_proportion(p, n):
    """Two thousand test sets drawn. With 50 examples it would be .922 at p = .98: few values."""
    drawn, times = np.unique(np.random.default_rng(0).binomial(n, p, 2000), return_counts=True)
    bounds = np.array([metrics.wilson_interval(successes, n) for successes in drawn])
    inside = (bounds[:, 0] <= p) & (p <= bounds[:, 1])
    assert 0.93 <= times[inside].sum() / 2000 <= 0.985


def test_wilson_interval_is_the_formula():
    z, n, p = 1.959964, 40, 0.9
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = np.array([centre - half, centre + half]) / (1 + z**2 / n)
    assert metrics.wilson_interval(36, 40) == pytest.approx(expected.tolist(), rel=1e-6)


def test_wilson_interval_stays_within_zero_and_one():
    none, every = metrics.wilson_interval(0, 20), metrics.wilson_interval(20, 20)
    assert none[0] == 0 and none[1] > 0.1
    assert every[1] == 1 and every[0] < 0.9


def losses_of_a_calibrated_model(rng, n):
    """Cross-entropies: most are small, a few large."""
    logit = 6 * rng.normal(size=n)
    label = rng.uniform(size=n) < 1 / (1 + np.exp(-logit))
    return np.logaddexp(0, np.where(label, -logit, logit))


DRAWN = {
    "exponential": lambda rng, n: rng.exponential(size=n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
    "losses": losses_of_a_calibrated_model,
}


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 100, 1000])
@pytest.mark.parametrize("kind", DRAWN)
def test_mean_interval_covers_the_mean_of_skewed_values(kind, n):
    """Where no warning says that the tail is too heavy; nor does it begin below zero."""
    rng = np.random.default_rng(0)
    mean = DRAWN[kind](rng, 4_000_000).mean()
    drawn = [DRAWN[kind](rng, n) for _ in range(3000)]
    bounds = np.array([metrics.mean_interval(values) for values in drawn])
    sure = np.array([not metrics.is_heavy_tailed(values) for values in drawn])
    inside = (bounds[:, 0] <= mean) & (mean <= bounds[:, 1])
    assert inside.mean() >= 0.9
    if sure.mean() > 0.8:
        assert 0.92 <= inside[sure].mean() <= 0.975
    assert (bounds[sure, 0] > 0).mean() > 0.99


def test_heavy_tail_is_known():
    rng = np.random.default_rng(0)
    heavy = [metrics.is_heavy_tailed(rng.lognormal(sigma=2, size=100)) for _ in range(200)]
    light = [metrics.is_heavy_tailed(rng.exponential(size=100)) for _ in range(200)]
    assert np.mean(heavy) > 0.8 and np.mean(light) < 0.1


@given(st.integers(0, 999), st.integers(2, 50), st.floats(1e-3, 1e3))
@PROPERTY
def test_mean_interval_has_the_symmetries_of_a_mean(seed, n, unit):
    """It scales, shifts and reflects with the values; symmetric ones give Student's interval."""
    values = np.random.default_rng(seed).exponential(size=n)
    low, high = metrics.mean_interval(values)
    assert low < values.mean() < high
    assert_allclose(metrics.mean_interval(unit * values + 3), [unit * low + 3, unit * high + 3])
    assert_allclose(metrics.mean_interval(-values), [-high, -low])
    assert_allclose(metrics.mean_interval(values, np.full(n, unit)), [low, high])
    symmetric = np.concatenate([values, -values])
    error = symmetric.std(ddof=1) / np.sqrt(2 * n)
    assert_allclose(metrics.mean_interval(symmetric)[1], stats.t.ppf(0.975, 2 * n - 1) * error)


def test_equal_values_or_one_alone_have_no_interval():
    assert metrics.mean_interval(np.full(5, 0.3)) == [0.3, 0.3]
    assert metrics.mean_interval(np.array([0.3])) == [0.3, 0.3]


@given(st.integers(0, 999), st.integers(1, 40))
@PROPERTY
def test_mcnemar_is_the_sign_test_of_what_only_one_gets_right(seed, n):
    one, other = np.random.default_rng(seed).integers(0, 2, (2, n)).astype(bool)
    only = (one & ~other).sum(), (other & ~one).sum()
    p = 2 * stats.binom.cdf(min(only), sum(only), 0.5)
    assert metrics.mcnemar(one, other) == pytest.approx(min(p, 1))
    assert metrics.mcnemar(one, one) == 1


@given(st.integers(0, 40), st.floats(0.01, 0.98), st.floats(0.001, 0.01))
@PROPERTY
def test_more_confidence_is_a_wider_interval(successes, confidence, more):
    for interval in (
        lambda c: metrics.wilson_interval(successes, 40, c),
        lambda c: metrics.mean_interval(np.arange(40.0) ** 2, confidence=c),
    ):
        (narrow_low, narrow_high), (low, high) = interval(confidence), interval(confidence + more)
        assert low <= narrow_low <= narrow_high <= high and high - low > narrow_high - narrow_low


@pytest.mark.parametrize(
    "labels, predicted, words",
    [
        ([0, 2], [0, 1], r"labels must lie in 0..1; 1 does not, the first at \[1\]: 2"),
        ([0, -1], [0, 1], "labels must lie in"),
        ([0, 1], [2, 0], "predicted must lie in 0..1"),
        ([0, 1], [[0, 1], [0, -1]], "predicted must lie in"),
        ([0, np.nan], [0, 1], "labels must be integers"),
        ([0, 1], [0.5, 1.0], "predicted must be integers"),
    ],
)
def test_counts_in_no_cell_are_refused(labels, predicted, words):
    """In one table they would land in another row; in many, in another table."""
    with pytest.raises(ValueError, match=words):
        metrics.confusion_matrix(labels, predicted, 2)


def test_confusion_takes_booleans_and_labels_of_narrow_types():
    assert (
        metrics.confusion_matrix([True, False], np.array([True, True]), 2).tolist() == [[0, 1]] * 2
    )
    narrow = np.array([0, 199], np.uint8)
    found = metrics.confusion_matrix(narrow, narrow[::-1], 200)
    assert found.sum() == 2 and found[0, 199] == found[199, 0] == 1


@pytest.mark.parametrize("value", [1.0, 0.01005033, 4.6051702])
def test_total_of_millions_of_equal_values_keeps_its_digits(value):
    """Under vmap, too, where a plain sum loses the fifth digit."""
    for N in (1, 2**16, 2**16 + 1, 3_000_001):
        values = jnp.full(N, value, jnp.float32)
        expected = N * float(np.float32(value))
        of_all = jax.jit(jax.vmap(lambda factor, values=values: metrics.total(factor * values)))
        for found in (metrics.total(values), *of_all(jnp.ones(2))):
            assert_allclose(float(found), expected, rtol=2e-6 if N <= 2**16 else 3e-7)


@settings(deadline=None, max_examples=20)
@given(N=st.integers(1, 3 * 2**16), width=st.integers(0, 2))
def test_total_is_the_sum_over_the_first_axis(N, width):
    values = np.random.default_rng(N).integers(-9, 9, size=(N, 3, 2)[: 1 + width])
    found = metrics.total(jnp.asarray(values, jnp.float32))
    assert_array_equal(found, values.sum(0))


def test_class_intervals_are_wilsons_of_the_examples_they_are_proportions_of():
    table = np.array([[30, 5, 0], [10, 20, 0], [0, 0, 0]])
    found = metrics.class_intervals(table)
    assert found["precision"][0] == metrics.wilson_interval(30, 40)
    assert found["recall"][0] == metrics.wilson_interval(30, 35)
    both = metrics.wilson_interval(30, 45)  # of the 45 that are of the class, or predicted as it
    assert found["f1"][0] == pytest.approx([2 * q / (1 + q) for q in both])
    assert [found[name][2] for name in ("precision", "recall", "f1")] == [None] * 3


def test_class_intervals_cover_what_they_estimate():
    """In 95 of 100 samples, for each metric of a class: of 4,000 samples 93 to 97."""
    cells = np.array([[0.3, 0.1], [0.05, 0.55]])
    truth = {name: values[0] for name, values in metrics.per_class(cells).items()}
    tables = np.random.default_rng(0).multinomial(200, cells.ravel(), 4000).reshape(-1, 2, 2)
    for name in ("precision", "recall", "f1"):
        ends = np.array([metrics.class_intervals(table)[name][0] for table in tables])
        covered = (ends[:, 0] <= truth[name]) & (truth[name] <= ends[:, 1])
        assert 0.93 < covered.mean() < 0.97


def test_class_intervals_of_equal_weights_are_those_without():
    table = np.array([[30, 5], [10, 20]])
    weighted = metrics.class_intervals(4.0 * table, 16.0 * table)
    assert_allclose(weighted["f1"], metrics.class_intervals(table)["f1"])


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("measure", [metrics.rank, metrics.accuracy, metrics.top(2)])
def test_label_that_is_no_class_is_refused(measure, label):
    """Index -1 would be that of the last class."""
    with pytest.raises(ValueError, match=r"labels must lie in 0..2; .*at \[1\]"):
        measure(jnp.eye(3)[:2], jnp.array([0, label]))
