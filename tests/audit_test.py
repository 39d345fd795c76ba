import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from softmax_jax import optimum, studies
from softmax_jax.sweep import inputs

FOLDS, L2 = 4, 1e-2


@pytest.fixture(scope="module")
def digits():
    """(x, y with labels that were changed at random, the rows of these)."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    planted = rng.choice(len(y), 90, replace=False)
    noisy = y.copy()
    noisy[planted] = (y[planted] + rng.integers(1, 10, len(planted))) % 10
    return x / 16, noisy, planted


@pytest.fixture(scope="module")
def counts(digits):
    return inputs.fold_counts(digits[1], FOLDS)


@pytest.fixture(scope="module")
def probabilities(digits, counts):
    x, y, _ = digits
    problem = optimum.Problem(x, y, resamples=counts)
    return studies.out_of_sample_probabilities(problem, L2, tolerance=1e-5)


def scikit_learn(x, y, l2):
    """Its penalty is on the sum of the losses."""
    return LogisticRegression(C=1 / (l2 * len(y)), tol=1e-5, max_iter=2000).fit(x, y)


def test_probabilities_are_those_of_scikit_learn_trained_without_the_examples_fold(
    digits, counts, probabilities
):
    x, y, _ = digits
    for fold in 0, FOLDS - 1:
        inside = counts[:, fold] == 1
        expected = scikit_learn(x[inside], y[inside], L2).predict_proba(x[~inside])
        assert_allclose(probabilities[~inside], expected, atol=2e-3)
    assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_planted_label_noise_is_found(digits, probabilities):
    """Of 1,797 labels 90 are wrong: of as many suspects nine in ten are among them."""
    _, y, planted = digits
    found = studies.suspects(probabilities, y, 90)
    assert np.isin(found.row, planted).mean() > 0.85
    assert np.isin(found.row[:40], planted).all()


def test_an_examples_own_label_has_no_say_in_its_probabilities(digits, counts, probabilities):
    """With all labels of a fold changed, the probabilities of its examples stay as they were."""
    x, y, _ = digits
    left_out = counts[:, 0] == 0
    other = np.where(left_out, (y + 1) % 10, y)
    problem = optimum.Problem(x, other, resamples=counts)
    again = studies.out_of_sample_probabilities(problem, L2, tolerance=1e-5)
    assert_allclose(again[left_out], probabilities[left_out], atol=1e-3)
    assert abs(again[~left_out] - probabilities[~left_out]).max() > 0.1


def test_suspects_come_by_the_probability_of_their_label():
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.05, 0.05, 0.9], [0.5, 0.4, 0.1]])
    found = studies.suspects(p, np.array([0, 1, 1, 2]))
    assert_array_equal(found.row, [2, 3, 1, 0])
    assert_array_equal(found.given, [1, 2, 1, 0])
    assert_array_equal(found.predicted, [2, 0, 1, 0])
    assert_allclose(found.probability, [0.05, 0.1, 0.4, 0.7])
    assert len(studies.suspects(p, [0, 1, 1, 2], most=2).row) == 2
    assert found.table(("a", "b", "c"))[0] == {
        "row": 2,
        "given": "b",
        "predicted": "c",
        "probability": 0.05,
    }


@pytest.mark.parametrize(
    "counts", [None, np.ones((4, 2)), np.array([[0, 0], [0, 1], [1, 0], [1, 0]])]
)
def test_folds_that_do_not_leave_each_example_out_once_are_refused(counts):
    problem = optimum.Problem(np.eye(4), np.array([0, 1, 0, 1]), resamples=counts)
    with pytest.raises(ValueError, match="leave out every example exactly once"):
        studies.out_of_sample_probabilities(problem, 0.1)
