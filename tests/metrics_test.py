import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from softmax_jax import losses, metrics

pytestmark = pytest.mark.numerical

ALL = {"loss": metrics.mean_of(losses.cross_entropy), **metrics.METRICS}


def example(N=60, C=8, seed=0):
    """Scores [N, C] and labels [N] of which the last class has none, so that it is absent."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(C - 1, size=N)
    scores = rng.normal(size=(N, C)) + 1.5 * np.eye(C)[labels]
    return scores.astype(np.float32), labels.astype(np.int32)


def value_of(name, scores, labels, weights=None):
    weights = np.ones(len(labels), np.float32) if weights is None else weights
    return ALL[name].value(ALL[name].sums(jnp.asarray(scores), labels, weights))


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


def test_rank_counts_the_classes_that_beat_the_label():
    """With many ties, in both layouts."""
    rng = np.random.default_rng(0)
    scores = rng.integers(3, size=(200, 6)).astype(np.float32)
    labels = rng.integers(6, size=200)
    expected = ranks_by_counting(scores, labels)
    assert len(set(expected)) == 6
    assert_array_equal(metrics.rank(jnp.asarray(scores), labels), expected)
    assert_array_equal(metrics.rank(jnp.asarray(scores.T), labels, axis=0), expected)


def test_rank_zero_is_what_argmax_calls_correct():
    scores = np.random.default_rng(0).integers(3, size=(200, 6)).astype(np.float32)
    for label in range(6):
        ranks = metrics.rank(jnp.asarray(scores), np.full(200, label))
        assert_array_equal(ranks == 0, scores.argmax(1) == label)


def test_where_scores_are_nan_nothing_is_correct():
    scores = np.array([[np.nan, 1, 2], [np.nan] * 3, [1, np.nan, 2], [0, 1, 2]], np.float32)
    labels = np.array([0, 0, 0, 2])
    assert_array_equal(metrics.rank(jnp.asarray(scores), labels), [3, 3, 2, 0])
    assert_array_equal(metrics.rank(scores, labels), ranks_by_counting(scores, labels))
    assert value_of("top5", np.full((4, 8), np.nan, np.float32), labels) == 0


def test_accuracy_is_the_share_where_argmax_is_the_label():
    scores, labels = example()
    assert_allclose(value_of("accuracy", scores, labels), (scores.argmax(1) == labels).mean())


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_balanced_accuracy_is_that_of_scikit_learn():
    """One class has no examples and counts for nothing."""
    scores, labels = example()
    expected = balanced_accuracy_score(labels, scores.argmax(1))
    assert abs(expected - (scores.argmax(1) == labels).mean()) > 1e-3  # not the plain one
    assert_allclose(value_of("balanced_accuracy", scores, labels), expected, rtol=1e-6)


def test_top5_is_that_of_scikit_learn():
    scores, labels = example()
    expected = top_k_accuracy_score(labels, scores, k=5, labels=np.arange(8))
    assert expected < 1
    assert_allclose(value_of("top5", scores, labels), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_an_example_of_weight_zero_is_not_there(name):
    """Not even if its loss is infinite, its scores NaN, or its class otherwise absent."""
    scores, labels = example()
    scores[0], scores[1], labels[2] = [0, -np.inf] * 4, np.nan, 7
    labels[0] = 1
    weights = np.ones(60, np.float32)
    weights[:3] = 0
    assert not np.isfinite(value_of("loss", scores, labels))
    expected = value_of(name, scores[3:], labels[3:])
    assert_allclose(value_of(name, scores, labels, weights), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_an_example_of_weight_two_counts_twice(name):
    scores, labels = example()
    counts = np.random.default_rng(1).integers(3, size=60)
    expected = value_of(name, scores.repeat(counts, 0), labels.repeat(counts))
    actual = value_of(name, scores, labels, counts.astype(np.float32))
    assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_sums_over_batches_are_the_sums_over_the_whole(name):
    scores, labels = example()
    ones = np.ones(60, np.float32)
    parts = [
        ALL[name].sums(jnp.asarray(scores[part]), labels[part], ones[part])
        for part in (slice(0, 25), slice(25, 50), slice(50, 60))
    ]
    total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    assert_allclose(ALL[name].value(total), value_of(name, scores, labels), rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_no_examples_give_zero_and_not_nan(name):
    scores, labels = example()
    assert value_of(name, scores, labels, np.zeros(60, np.float32)) == 0


@pytest.mark.parametrize("name", ALL)
def test_classes_first_is_the_same_as_classes_last(name):
    scores, labels = example()
    ones = np.ones(60, np.float32)
    by_row = ALL[name].sums(jnp.asarray(scores), labels, ones)
    by_column = ALL[name].sums(jnp.asarray(scores.T), labels, ones, axis=0)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), by_row, by_column)


def test_values_pairs_names_with_their_metrics():
    scores, labels = example()
    sums = {
        name: metric.sums(jnp.asarray(scores), labels, np.ones(60, np.float32))
        for name, metric in ALL.items()
    }
    figures = metrics.values(ALL, sums)
    assert figures == {name: value_of(name, scores, labels) for name in ALL}
