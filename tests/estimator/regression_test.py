import pickle

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from softmax_jax import optimum
from softmax_jax.estimator import SoftmaxRegression


@pytest.mark.parametrize("data", ["two", "three"])
def test_what_a_fit_leaves_has_the_shapes_of_scikit_learn(data, request):
    x, y = request.getfixturevalue(data)
    model, expected = SoftmaxRegression().fit(x, y), LogisticRegression().fit(x, y)
    for name in ("coef_", "intercept_", "classes_", "n_iter_"):
        ours, theirs = getattr(model, name), getattr(expected, name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert model.decision_function(x).shape == expected.decision_function(x).shape
    assert model.n_features_in_ == 3
    np.testing.assert_array_equal(model.classes_, expected.classes_)
    np.testing.assert_allclose(model.predict_proba(x), expected.predict_proba(x), atol=1e-3)


def test_the_certificate_is_there(fitted):
    assert 0 <= fitted.gap_bound_ <= 1e-6 * fitted.objective_


@pytest.mark.parametrize("data, factor", [("two", 2), ("three", 1)])
def test_l2_is_another_name_of_the_penalty(data, factor, request):
    x, y = request.getfixturevalue(data)
    weights = np.linspace(0.5, 1.5, 60)
    by_C = SoftmaxRegression(C=0.3).fit(x, y, weights)
    by_l2 = SoftmaxRegression(l2=factor / (0.3 * weights.sum())).fit(x, y, weights)
    assert by_l2.l2_ == pytest.approx(by_C.l2_)
    np.testing.assert_allclose(by_l2.coef_, by_C.coef_, rtol=1e-9)


def test_weights_count_examples(three):
    x, y = three
    counts = np.random.default_rng(0).integers(0, 4, 60)
    weighted = SoftmaxRegression(100.0).fit(x, y, counts)
    repeated = SoftmaxRegression(100.0).fit(x.repeat(counts, 0), y.repeat(counts))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-8)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, rtol=1e-8)


def test_a_class_without_weight_is_never_predicted(three):
    x, y = three
    model = SoftmaxRegression().fit(x, y, y != "pear")
    assert model.classes_.tolist() == ["apple", "pear", "plum"]
    assert model.predict_proba(x)[:, 1].max() < 1e-9


def test_sparse_input_gives_the_same_model(three, fitted):
    x, y = three
    model = SoftmaxRegression().fit(sparse.csc_array(x), y)
    np.testing.assert_allclose(model.coef_, fitted.coef_, rtol=1e-12)


@pytest.mark.parametrize("data", ["two", "three"])
def test_a_warm_start_goes_on_from_the_last_weights(data, request):
    x, y = request.getfixturevalue(data)
    model = SoftmaxRegression(10.0, warm_start=True, tol=1e-9).fit(x, y)
    cold, coef = model.n_iter_[0], model.coef_
    model.set_params(tol=1e-8).fit(x, y)
    assert model.n_iter_[0] <= 1 < cold / 4
    np.testing.assert_allclose(model.coef_, coef, atol=1e-3)
    assert not model.set_params(fit_intercept=False, tol=None).fit(x, y).intercept_.any()
    assert model.set_params(warm_start=False).fit(x, y).n_iter_[0] > 1
    with pytest.raises(ValueError, match="2 and"):
        model.set_params(warm_start=True).fit(x[:, :2], y)


def test_a_warm_start_finishes_what_was_cut_short(three):
    model = SoftmaxRegression(100.0, max_iter=6, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        gap = model.fit(*three).gap_bound_
    model.set_params(max_iter=1000).fit(*three)
    assert model.gap_bound_ < gap / 10


def test_a_model_survives_pickling_and_a_clone_forgets(three, fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(three[0]), fitted.predict_proba(three[0]))
    fresh = clone(SoftmaxRegression(l2=0.5, dtype="float32"))
    assert fresh.get_params()["l2"] == 0.5 and not hasattr(fresh, "coef_")


def test_works_in_a_pipeline_and_a_grid_search_that_compile_once(three):
    x, y = three
    pipeline = make_pipeline(StandardScaler(), SoftmaxRegression())
    pipeline.fit(x, y)
    traces = optimum.start._cache_size(), optimum.advance._cache_size()
    # Folds of 47 to 49 training examples, all of one compiled shape.
    search = GridSearchCV(pipeline, {"softmaxregression__C": [1e-3, 1.0]}, cv=5).fit(x, y)
    assert search.best_params_ == {"softmaxregression__C": 1.0}
    assert cross_val_score(pipeline, x, y, cv=7).mean() > 0.5
    assert (optimum.start._cache_size(), optimum.advance._cache_size()) == traces


def test_weights_are_routed(three):
    x, y = three
    with sklearn.config_context(enable_metadata_routing=True):
        model = SoftmaxRegression().set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=False)
        weights = {"sample_weight": (y != "pear").astype(float)}
        found = cross_validate(model, x, y, cv=3, params=weights, return_estimator=True)
    for estimator in found["estimator"]:
        assert "pear" not in estimator.predict(x)
