import numpy as np
import pytest
from scipy import sparse, special
from sklearn.exceptions import NotFittedError

from softmax_jax.estimator import SoftmaxRegression


def made(coef, intercept, classes):
    model = SoftmaxRegression()
    model.coef_, model.intercept_ = np.array(coef), np.array(intercept)
    model.classes_, model.n_features_in_ = np.array(classes), model.coef_.shape[1]
    return model


X = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 1.0]])
THREE = made([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], [0.0, -1.0, 1.0], ["a", "b", "c"])
TWO = made([[1.0, -2.0]], [0.5], [3, 7])


def test_scores_and_labels_by_hand():
    scores = [[1, -1, 0], [0, 1, -1], [-3, 0, 3]]
    np.testing.assert_array_equal(THREE.decision_function(X), scores)
    assert THREE.predict(X).tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(THREE.predict_proba(X), special.softmax(scores, 1))
    assert THREE.score(X, ["a", "b", "a"]) == pytest.approx(2 / 3)


def test_two_classes_have_one_score():
    np.testing.assert_array_equal(TWO.decision_function(X), [1.5, -3.5, -4.5])
    assert TWO.predict(X).tolist() == [7, 3, 3]
    np.testing.assert_allclose(TWO.predict_proba(X)[:, 1], special.expit([1.5, -3.5, -4.5]))


@pytest.mark.parametrize("model", [THREE, TWO], ids=["three", "two"])
def test_log_probabilities_are_finite_where_probabilities_are_zero(model):
    far = 1e4 * X
    assert (model.predict_proba(far) == 0).any()
    assert np.isfinite(model.predict_log_proba(far)).all()
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_input_scores_as_dense(kind):
    np.testing.assert_array_equal(THREE.decision_function(kind(X)), THREE.decision_function(X))


def test_before_a_fit_there_is_nothing_to_predict_with():
    with pytest.raises(NotFittedError):
        SoftmaxRegression().predict_proba(X)
    with pytest.raises(ValueError, match="3 features"):
        TWO.predict(np.ones((1, 3)))
