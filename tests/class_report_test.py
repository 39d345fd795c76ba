import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from softmax_jax import metrics


def example(N=300, C=5, seed=0):
    """Labels and predictions of which class 3 has no examples and class 4 is never predicted."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 4], N)
    predicted = np.where(rng.random(N) < 0.6, labels, rng.integers(C, size=N))
    return labels, np.where(predicted == 4, 0, predicted)


def test_the_confusion_matrix_is_that_of_scikit_learn():
    labels, predicted = example()
    expected = confusion_matrix(labels, predicted, labels=np.arange(5))
    assert (expected != expected.T).any()
    assert_array_equal(metrics.confusion_matrix(labels, predicted, 5), expected)


def test_the_figures_are_those_of_scikit_learn():
    """A share of nothing is NaN: the recall of class 3, the precision of class 4."""
    labels, predicted = example()
    figures = metrics.per_class(metrics.confusion_matrix(labels, predicted, 5))
    expected = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(5), zero_division=np.nan
    )
    assert np.isnan(figures["recall"][3]) and np.isnan(figures["precision"][4])
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert_allclose(figures[name], values, rtol=1e-12, err_msg=name)


def test_a_class_that_is_nowhere_has_no_f1():
    figures = metrics.per_class([[2, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert np.isnan(figures["f1"]).tolist() == [False, False, True]
    assert figures["support"].tolist() == [2, 2, 0]


def test_tables_of_many_rules_are_made_at_once_each_of_its_own_examples():
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


def test_the_mean_cost_is_the_mean_over_the_examples():
    rng = np.random.default_rng(0)
    labels, actions = rng.integers(3, size=50), rng.integers(2, size=(4, 50))
    cost = rng.uniform(size=(3, 2))
    tables = metrics.confusion_matrix(labels, actions, 3, 2)
    assert_allclose(metrics.mean_cost(tables, cost), cost[labels, actions].mean(1))
    wrong = metrics.mean_cost(metrics.confusion_matrix(*example(), 5), 1 - np.eye(5))
    assert wrong == pytest.approx((example()[0] != example()[1]).mean())
