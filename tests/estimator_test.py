"""SoftmaxRegression: what a fit leaves, weights, warm starts, warnings, and its predictions."""

import pickle

import jax
import jaxtyping
import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, special
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from softmax_jax import estimator_fit, optimum
from softmax_jax.estimator import SoftmaxRegression, SoftmaxRegressionCV
from tests.estimator_data import three_classes, two_classes

three = pytest.fixture(three_classes, scope="module")
two = pytest.fixture(two_classes, scope="module")


@pytest.fixture(scope="module")
def fitted(three):
    """A model of `three` that tests may use, but not fit again."""
    return SoftmaxRegression().fit(*three)


@pytest.mark.parametrize("data", ["two", "three"])
def test_fitted_attributes_have_the_shapes_of_scikit_learn(data, request):
    x, y = request.getfixturevalue(data)
    model, expected = SoftmaxRegression().fit(x, y), LogisticRegression().fit(x, y)
    for name in ("coef_", "intercept_", "classes_", "n_iter_"):
        ours, theirs = getattr(model, name), getattr(expected, name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert model.decision_function(x).shape == expected.decision_function(x).shape
    assert model.n_features_in_ == 3
    np.testing.assert_array_equal(model.classes_, expected.classes_)
    np.testing.assert_allclose(model.predict_proba(x), expected.predict_proba(x), atol=1e-3)


def test_fit_proves_its_gap(fitted):
    assert 0 <= fitted.gap_bound_ <= 1e-6 * fitted.objective_


@pytest.mark.parametrize("data, factor", [("two", 2), ("three", 1)])
def test_l2_and_its_C_give_the_same_model(data, factor, request):
    x, y = request.getfixturevalue(data)
    weights = np.linspace(0.5, 1.5, 60)
    by_C = SoftmaxRegression(C=0.3).fit(x, y, weights)
    by_l2 = SoftmaxRegression(l2=factor / (0.3 * weights.sum())).fit(x, y, weights)
    assert by_l2.l2_ == pytest.approx(by_C.l2_)
    np.testing.assert_allclose(by_l2.coef_, by_C.coef_, rtol=1e-9)


def test_weight_k_matches_k_copies(three):
    x, y = three
    counts = np.random.default_rng(0).integers(0, 4, 60)
    weighted = SoftmaxRegression(100.0).fit(x, y, counts)
    repeated = SoftmaxRegression(100.0).fit(x.repeat(counts, 0), y.repeat(counts))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-8)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, rtol=1e-8)


def test_class_without_weight_is_never_predicted(three):
    x, y = three
    with pytest.warns(UserWarning, match="the class 'pear' have weight 0"):
        model = SoftmaxRegression().fit(x, y, y != "pear")
    assert model.classes_.tolist() == ["apple", "pear", "plum"]
    assert model.predict_proba(x)[:, 1].max() < 1e-9


def test_sparse_input_gives_the_same_model(three):
    x, y = three
    dense, other = (
        SoftmaxRegression(tol=1e-12).fit(given, y) for given in (x, sparse.csc_array(x))
    )
    np.testing.assert_allclose(other.coef_, dense.coef_, atol=2e-5)


@pytest.mark.parametrize("data", ["two", "three"])
def test_warm_start_begins_at_the_last_weights(data, request):
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


def test_warm_start_completes_an_unfinished_fit(three):
    model = SoftmaxRegression(100.0, max_iter=6, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        gap = model.fit(*three).gap_bound_
    model.set_params(max_iter=1000).fit(*three)
    assert model.gap_bound_ < gap / 10


def test_model_is_pickled_whole_and_cloned_unfitted(three, fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(three[0]), fitted.predict_proba(three[0]))
    fresh = clone(SoftmaxRegression(l2=0.5, dtype="float32"))
    assert fresh.get_params()["l2"] == 0.5 and not hasattr(fresh, "coef_")


def test_grid_search_over_a_pipeline_compiles_once(three):
    x, y = three
    pipeline = make_pipeline(StandardScaler(), SoftmaxRegression())
    pipeline.fit(x, y)
    traces = optimum.start._cache_size(), optimum.advance._cache_size()
    # Folds of 47 to 49 training examples, all of one compiled shape.
    search = GridSearchCV(pipeline, {"softmaxregression__C": [1e-3, 1.0]}, cv=5).fit(x, y)
    assert search.best_params_ == {"softmaxregression__C": 1.0}
    assert cross_val_score(pipeline, x, y, cv=7).mean() > 0.5
    assert (optimum.start._cache_size(), optimum.advance._cache_size()) == traces


def test_sample_weights_are_routed(three):
    x, y = three
    with sklearn.config_context(enable_metadata_routing=True):
        model = SoftmaxRegression().set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=False)
        weights = {"sample_weight": (y != "pear").astype(float)}
        with pytest.warns(UserWarning, match="'pear' have weight 0"):
            found = cross_validate(model, x, y, cv=3, params=weights, return_estimator=True)
    for model in found["estimator"]:
        assert "pear" not in model.predict(x)


def test_weights_are_sample_weights_times_class_weights(three):
    x, y = three
    own, by_class = np.linspace(0.1, 2, 60), {"apple": 2.0, "pear": 3.0}
    examples = estimator_fit.read_examples(SoftmaxRegression(class_weight=by_class), x, y, own)
    weights = examples.unit * examples.weights
    np.testing.assert_allclose(weights, own * [by_class.get(name, 1.0) for name in y])
    np.testing.assert_array_equal(examples.classes[examples.labels], y)
    balanced = estimator_fit.read_examples(SoftmaxRegression(class_weight="balanced"), x, y, own)
    sums = balanced.unit * np.bincount(balanced.labels, balanced.weights)
    np.testing.assert_allclose(sums, own.sum() / 3)


@pytest.mark.parametrize("class_weight", [None, "balanced", {3: 2.0, 7: 50.0}])
@pytest.mark.parametrize("unit", [1e308, 1e-308, 5e36, 1e-39])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_weights_of_any_unit_give_the_same_model_where_l2_is_given(unit, class_weight, dtype, two):
    options = {"l2": 0.05, "class_weight": class_weight, "dtype": dtype}
    plain = SoftmaxRegression(**options).fit(*two, np.ones(60))
    model = SoftmaxRegression(**options).fit(*two, np.full(60, unit))
    np.testing.assert_array_equal(model.predict(two[0]), plain.predict(two[0]))
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_C_counts_the_weights_up_to_no_penalty_and_down_to_no_coefficients(dtype, two):
    free = SoftmaxRegression(C=np.inf, dtype=dtype).fit(*two)
    heavy = SoftmaxRegression(dtype=dtype).fit(*two, np.full(60, 1e308))
    np.testing.assert_allclose(heavy.coef_, free.coef_, rtol=1e-2)
    light = SoftmaxRegression(dtype=dtype).fit(*two, np.full(60, 1e-308))
    assert abs(light.coef_).max() < 1e-20 and light.gap_bound_ < 1e-6


@pytest.mark.parametrize(
    "change, words",
    [
        ({"sample_weight": np.full(60, -1.0)}, "(?i)negative"),
        ({"sample_weight": np.zeros(60)}, "zero"),
        ({"sample_weight": np.ones(59)}, "sample_weight"),
        ({"y": np.ones(60)}, "got 1 class"),
        ({"sample_weight": two_classes()[1] == 3}, "got 1 class"),
        ({"y": np.linspace(0, 1, 60)}, "continuous"),
        ({"X": np.full((60, 3), np.nan)}, "NaN"),
    ],
)
def test_invalid_data_are_refused(change, words, two):
    arguments = {"X": two[0], "y": two[1], "sample_weight": None} | change
    with pytest.raises(ValueError, match=words):
        estimator_fit.read_examples(SoftmaxRegression(), **arguments)


def test_padding_of_the_shape_weighs_nothing(three):
    x, y = three
    x = x + 1e6  # far from zero, where a row of zeros would give logits of any size
    examples = estimator_fit.read_examples(SoftmaxRegression(), x, y, None)
    prepared, _ = estimator_fit.prepare_problem(SoftmaxRegression(), examples)
    features = np.asarray(prepared.features)
    assert features.shape == (33, 256) and features.dtype == np.float64
    np.testing.assert_allclose(features[:3, :60].T, x - x.mean(0), atol=1e-8)
    assert not features[3:32].any() and not np.asarray(prepared.weights)[60:].any()
    np.testing.assert_array_equal(features[:, 60:], features[:, :1].repeat(196, 1))


def test_fit_leaves_the_precision_of_the_process_alone(fitted):
    assert fitted.coef_.dtype == np.float64
    assert jax.numpy.zeros(1).dtype == np.float32


def test_warning_of_too_few_iterations_names_the_gap_reached(three):
    with pytest.warns(
        ConvergenceWarning, match="max_iter=2 .* gap of at most .* tol=1e-06"
    ) as seen:
        model = SoftmaxRegression(100.0, max_iter=2).fit(*three)
    assert seen[0].filename in (__file__, jaxtyping._decorator.__file__)  # not this package's
    assert f"{model.gap_bound_ / model.objective_:.1e}" in str(seen[0].message)
    assert model.n_iter_.tolist() == [2]


@pytest.mark.parametrize("data", ["two", "three"])
def test_without_iterations_the_weights_stay_where_they_begin(data, request):
    x, y = request.getfixturevalue(data)
    for kind, options in ((SoftmaxRegression, {}), (SoftmaxRegressionCV, {"Cs": 2, "cv": 3})):
        with pytest.warns(ConvergenceWarning, match="max_iter=0 iterations"):
            model = kind(**options, max_iter=0).fit(x, y)
        assert not model.coef_.any() and not model.n_iter_.any()
        shares = [(y == name).mean() for name in model.classes_]
        np.testing.assert_allclose(model.predict_proba(x), np.tile(shares, (60, 1)), rtol=1e-6)
    model = SoftmaxRegression(warm_start=True).fit(x, y)
    coef = model.coef_
    with pytest.warns(ConvergenceWarning, match="max_iter=0"):
        model.set_params(max_iter=0).fit(x, y)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-12)


def test_warning_of_exhausted_float32_names_float64(three):
    with pytest.warns(ConvergenceWarning, match="float32 arithmetic .* dtype='float64'"):
        SoftmaxRegression(tol=1e-30, dtype="float32").fit(*three)


def test_separable_classes_without_penalty_are_warned_of(two):
    x, y = two
    apart = x + 10 * (y == 7)[:, None]
    with pytest.warns(ConvergenceWarning, match="separable"):
        model = SoftmaxRegression(C=np.inf).fit(apart, y)
    assert model.score(apart, y) == 1 and model.gap_bound_ == np.inf and model.l2_ == 0


def test_classes_that_are_separable_in_part_are_warned_of():
    x, y = [[0], [1], [2], [2], [3], [4]], [0, 0, 0, 1, 1, 1]
    with pytest.warns(ConvergenceWarning, match="separable, wholly or in part") as seen:
        SoftmaxRegression(C=np.inf).fit(x, y)
    assert len(seen) == 1
    SoftmaxRegression(C=100.0).fit(x, y)


def made(coef, intercept, classes):
    model = SoftmaxRegression()
    model.coef_, model.intercept_ = np.array(coef), np.array(intercept)
    model.classes_, model.n_features_in_ = np.array(classes), model.coef_.shape[1]
    return model


X = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 1.0]])
BY_HAND = made([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], [0.0, -1.0, 1.0], ["a", "b", "c"])
TWO_BY_HAND = made([[1.0, -2.0]], [0.5], [3, 7])


def test_scores_and_labels_match_those_by_hand():
    scores = [[1, -1, 0], [0, 1, -1], [-3, 0, 3]]
    np.testing.assert_array_equal(BY_HAND.decision_function(X), scores)
    assert BY_HAND.predict(X).tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(BY_HAND.predict_proba(X), special.softmax(scores, 1))
    assert BY_HAND.score(X, ["a", "b", "a"]) == pytest.approx(2 / 3)


def test_two_classes_have_one_score():
    np.testing.assert_array_equal(TWO_BY_HAND.decision_function(X), [1.5, -3.5, -4.5])
    assert TWO_BY_HAND.predict(X).tolist() == [7, 3, 3]
    np.testing.assert_allclose(TWO_BY_HAND.predict_proba(X)[:, 1], special.expit([1.5, -3.5, -4.5]))


@pytest.mark.parametrize("model", [BY_HAND, TWO_BY_HAND], ids=["three", "two"])
def test_log_probabilities_are_finite_where_probabilities_are_zero(model):
    far = 1e4 * X
    assert (model.predict_proba(far) == 0).any()
    assert np.isfinite(model.predict_log_proba(far)).all()
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_input_scores_as_dense(kind):
    np.testing.assert_array_equal(BY_HAND.decision_function(kind(X)), BY_HAND.decision_function(X))


def test_predict_before_fit_or_with_other_features_is_refused():
    with pytest.raises(NotFittedError):
        SoftmaxRegression().predict_proba(X)
    with pytest.raises(ValueError, match="3 features"):
        TWO_BY_HAND.predict(np.ones((1, 3)))


LAW = settings(derandomize=True, deadline=None)


@LAW
@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e9), st.integers(2, 100))
def test_C_and_l2_are_reciprocal(value, total, num_classes):
    l2 = estimator_fit.swap_C_and_l2(value, total, num_classes)
    assert l2 == pytest.approx((2 if num_classes == 2 else 1) / (value * total))
    assert estimator_fit.swap_C_and_l2(l2, total, num_classes) == pytest.approx(value)
    assert estimator_fit.swap_C_and_l2(np.inf, total, num_classes) == 0
    assert estimator_fit.swap_C_and_l2(0.0, total, num_classes) == np.inf


@LAW
@given(st.integers(2, 9), st.integers(0, 9))
def test_weights_in_both_conventions_give_the_same_probabilities(num_classes, seed):
    rng = np.random.default_rng(seed)
    W, b, x = (rng.normal(size=size) for size in ((4, num_classes), num_classes, (5, 4)))
    coef, intercept = estimator_fit.to_scikit_learn(W, b)
    rows = 1 if num_classes == 2 else num_classes
    assert coef.shape == (rows, 4) and intercept.shape == (rows,)
    scores, logits = x @ coef.T + intercept, x @ W + b
    centred = logits - logits.mean(1, keepdims=True)
    expected = logits[:, 1:] - logits[:, :1] if rows == 1 else centred
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    W, b = estimator_fit.from_scikit_learn(coef, intercept)
    np.testing.assert_allclose(x @ W + b, centred, atol=1e-12)


@LAW
@given(st.integers(1, 10**6))
def test_sizes_are_rounded_up_by_at_most_a_16th(size):
    rounded = estimator_fit._rounded_up(size, 1)
    assert size <= rounded <= size * 17 / 16
    assert estimator_fit._rounded_up(rounded, 1) == rounded
    assert estimator_fit._rounded_up(size, 32) == max(rounded, 32)
    octave = 1 << (size.bit_length() - 1)  # of the sizes from 1024 to 2047, 16 remain
    assert octave < 16 or (rounded - octave) % (octave // 16) == 0
