"""Sparse features: the optimum is that of the dense ones, in all forms, and nothing is made dense.

`minimum` of `optimum_test` and scikit-learn are the independent computations.
"""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, special
from sklearn.linear_model import LogisticRegression

from softmax_jax import SoftmaxRegression, SoftmaxRegressionCV, data, host, optimum, predict
from softmax_jax.classifier import Classifier
from softmax_jax.data import DataError, npz
from softmax_jax.optimum import Problem, minimise

pytestmark = pytest.mark.numerical

FORMATS = ("csr", "csc", "coo", "lil", "dok", "bsr")
_DENSE = ("toarray", "todense")
_HANDFUL = 1000  # numbers: the labels of a scorer


@pytest.fixture(autouse=True)
def never_dense(monkeypatch):
    """No sparse matrix with more than a handful of numbers becomes dense within the package."""

    def refusing(method):
        def checked(self, *args, **kwargs):
            assert np.prod(self.shape) <= _HANDFUL, f"a dense copy of {self.shape}"
            return method(self, *args, **kwargs)

        return checked

    for name in ("csr", "csc", "coo", "bsr"):
        for kind in ("array", "matrix"):
            own = getattr(sparse, f"{name}_{kind}")
            for method in _DENSE:
                monkeypatch.setattr(own, method, refusing(getattr(own, method)))


def dense(x):
    """By indices, as `toarray` is refused."""
    coo = sparse.coo_array(x)
    found = np.zeros(coo.shape)
    np.add.at(found, coo.coords, coo.data)
    return found


def draw(rng, num_examples, num_features, num_classes, density=0.1):
    """Words of which each class has its own, with empty rows and columns: (x, y)."""
    x = sparse.random_array((num_examples, num_features), density=density, rng=rng, format="csr")
    y = rng.integers(num_classes, size=num_examples)
    y[:num_classes] = range(num_classes)
    rows, columns = np.arange(num_examples), 3 * y % (num_features - 1)
    own = sparse.csr_array((np.ones(num_examples), (rows, columns)), x.shape)
    keep = sparse.diags_array((rng.random(num_examples) > 0.05).astype(float))
    return sparse.csr_array(keep @ (x + own)), y


def objective(x, y, W, b, weights, l2):
    """By definition."""
    logits = dense(x) @ W + b
    loss = special.logsumexp(logits, 1) - logits[np.arange(len(y)), y]
    return weights @ loss / weights.sum() + l2 / 2 * (W**2).sum()


def gradient(x, y, W, b, weights, l2):
    """By definition, in the weights and the bias."""
    x = dense(x)
    p = special.softmax(x @ W + b, 1)
    p[np.arange(len(y)), y] -= 1
    p *= (weights / weights.sum())[:, None]
    return x.T @ p + l2 * W, p.sum(0)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_examples=st.integers(5, 60),
    num_features=st.integers(2, 150),
    num_classes=st.integers(2, 5),
    fit_bias=st.booleans(),
    log_l2=st.floats(-3, 1),
    resampled=st.booleans(),
    started=st.booleans(),
)
def test_the_gradient_proves_the_optimum(
    seed, num_examples, num_features, num_classes, fit_bias, log_l2, resampled, started
):
    """Both ways of the solver: by examples where they are few, else by features."""
    rng = np.random.default_rng(seed)
    x, y = draw(rng, num_examples, num_features, num_classes)
    weights = rng.random(num_examples) + 0.1
    resamples = rng.integers(1, 3, size=(num_examples, 2)) if resampled else None
    columns = [1, 1, 0] if resampled else None
    l2 = 10**log_l2 * np.array([1, 0.1, 1])
    problem = Problem(x, y, weights, resamples, num_classes, fit_bias)
    initial = None
    if started:
        b = rng.normal(size=(3, num_classes)) * fit_bias
        initial = rng.normal(size=(3, num_features, num_classes)), b
    found = minimise(problem, l2, columns=columns, tolerance=1e-9, initial=initial)
    assert found.converged.all()
    for trial, (W, b) in enumerate(zip(found.W, found.b, strict=True)):
        own = weights if resamples is None else weights * resamples[:, columns[trial]]
        in_W, in_b = gradient(x, y, W, b, own, l2[trial])
        bound = (in_W**2).sum() / (2 * l2[trial])
        value = objective(x, y, W, b, own, l2[trial])
        np.testing.assert_allclose(found.objective[trial], value, rtol=1e-10)
        np.testing.assert_allclose(found.gap_bound[trial], bound, rtol=1e-2, atol=1e-14)
        assert bound <= 1.01e-9 * value
        assert abs(in_b).max() < 1e-8 if fit_bias else not b.any()


@pytest.mark.parametrize("shape", [(40, 200)])
def test_dense_and_sparse_features_have_one_optimum(shape):
    x, y = draw(np.random.default_rng(0), *shape, 3)
    l2 = np.geomspace(1e-1, 1e-4, 4)
    found = minimise(Problem(x, y), l2, tolerance=1e-8)
    wanted = minimise(Problem(dense(x), y), l2, tolerance=1e-5)
    bounds = found.gap_bound + wanted.gap_bound
    assert (abs(found.objective - wanted.objective) <= bounds + 1e-6).all()
    paths = [optimum.l2_path(optimum.prepare(Problem(own, y)), 5) for own in (x, dense(x))]
    np.testing.assert_allclose(*paths, rtol=2e-2)


def rewritten(x, rng):
    """The same matrix as CSR whose indices are int64 and in disorder, with duplicates and zeros."""
    coo = sparse.coo_array(x)
    rows, columns = np.append(coo.coords, coo.coords, 1)
    halves = np.append(coo.data * 0.25, coo.data * 0.75)
    rows, columns = np.append(rows, [0, 1]), np.append(columns, [1, 0])
    halves, order = np.append(halves, [0.0, 0.0]), rng.permutation(len(rows))
    order = order[np.argsort(rows[order], kind="stable")]
    ends = np.append(0, np.bincount(rows, minlength=x.shape[0]).cumsum())
    own = halves[order], columns[order].astype(np.int64), ends.astype(np.int64)
    return sparse.csr_array(own, shape=x.shape)


@pytest.mark.parametrize("shape", [(60, 300), (300, 60)])
@pytest.mark.parametrize("form", [*FORMATS, "csr_matrix", "csc_matrix", "coo_matrix", "disorder"])
def test_the_form_of_the_matrix_changes_nothing(form, shape):
    rng = np.random.default_rng(1)
    x, y = draw(rng, *shape, 3)
    if form == "disorder":
        given_x = rewritten(x, rng)
        assert not given_x.has_canonical_format
    else:
        given_x = getattr(sparse, form if "_" in form else f"{form}_array")(x)
    before = {
        name: np.copy(getattr(given_x, name))
        for name in ("data", "indices", "indptr")
        if isinstance(getattr(given_x, name, None), np.ndarray)
    }
    model = SoftmaxRegression(tol=1e-13).fit(given_x, y)
    wanted = LogisticRegression(tol=1e-10, max_iter=5000).fit(x, y)
    np.testing.assert_allclose(model.coef_, wanted.coef_, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(given_x), wanted.predict_proba(x), atol=1e-6)
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(given_x, name), values, err_msg=name)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("shape", [(80, 400), (400, 80)])
def test_estimator_agrees_with_scikit_learn(shape, fit_intercept, num_classes):
    rng = np.random.default_rng(2)
    x, y = draw(rng, *shape, num_classes)
    names, weights = np.array(["a", "b", "c", "d"])[y], rng.integers(0, 3, size=len(y)) + 0.5
    options = {"C": 2.0, "class_weight": "balanced", "fit_intercept": fit_intercept}
    model = SoftmaxRegression(tol=1e-13, **options).fit(x, names, weights)
    wanted = LogisticRegression(tol=1e-10, max_iter=5000, **options).fit(x, names, weights)
    np.testing.assert_allclose(model.coef_, wanted.coef_, atol=2e-6)
    np.testing.assert_allclose(model.intercept_, wanted.intercept_, atol=2e-6)
    assert model.gap_bound_ <= 1e-13 * model.objective_
    assert (model.predict(x) == wanted.predict(x)).all()


def test_a_warm_start_begins_where_the_last_fit_ended():
    x, y = draw(np.random.default_rng(3), 60, 300, 3)
    model = SoftmaxRegression(tol=1e-9, warm_start=True).fit(x, y)
    cold, coef = model.n_iter_[0], model.coef_
    model.fit(x, y)
    assert model.n_iter_[0] <= 2 < cold
    np.testing.assert_allclose(model.coef_, coef, atol=1e-4)
    model.set_params(C=0.5).fit(x, y)
    wanted = SoftmaxRegression(C=0.5, tol=1e-11).fit(x, y)
    np.testing.assert_allclose(model.coef_, wanted.coef_, atol=1e-4)


def test_float32_takes_float32_and_says_so():
    x, y = draw(np.random.default_rng(4), 60, 300, 3)
    model = SoftmaxRegression(dtype="float32").fit(x.astype(np.float32), y)
    wanted = SoftmaxRegression(tol=1e-10).fit(x, y)
    assert model.coef_.dtype == np.float32
    np.testing.assert_allclose(model.coef_, wanted.coef_, atol=1e-4)


@pytest.mark.parametrize("refit", [True, False])
def test_cross_validation_is_that_of_the_dense_features(refit):
    x, y = draw(np.random.default_rng(5), 120, 260, 3)
    options = {"Cs": [0.1, 1.0, 10.0], "cv": 3, "tol": 1e-10, "refit": refit}
    model = SoftmaxRegressionCV(**options).fit(x, y)
    wanted = SoftmaxRegressionCV(**options).fit(dense(x), y)
    assert model.C_ == wanted.C_
    np.testing.assert_allclose(model.scores_, wanted.scores_, atol=1e-4)
    np.testing.assert_allclose(model.coef_, wanted.coef_, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_what_is_not_finite_is_refused(form, value):
    x, y = draw(np.random.default_rng(6), 30, 50, 3)
    x.data[-1] = value
    x = x.asformat(form)
    with pytest.raises(ValueError, match="NaN|infinity"):
        SoftmaxRegression().fit(x, y)
    with pytest.raises(ValueError, match="NaN or infinity"):
        minimise(Problem(x, y), [1.0])


def test_what_is_no_valid_matrix_is_refused():
    y = np.array([0, 1])
    torn = sparse.csr_array((np.ones(2), np.array([0, 1]), np.array([0, 1, 2])), shape=(2, 2))
    torn.indices[1] = 7
    with pytest.raises(ValueError, match="no valid sparse matrix"):
        minimise(Problem(torn, y), [1.0])
    with pytest.raises(ValueError, match="real numbers"):
        minimise(Problem(sparse.csr_array(np.eye(2) * 1j), y), [1.0])
    with pytest.raises(ValueError, match=r"x must be \[N, D\]"):
        minimise(Problem(sparse.coo_array(np.ones(2)), y), [1.0])


def test_without_a_penalty_separable_classes_are_found_out():
    x = sparse.csr_array(np.eye(6))
    found = minimise(Problem(x, np.arange(6) % 2), [0.0])
    assert found.separable[0] and not found.converged[0]
    x, y = draw(np.random.default_rng(7), 300, 4, 2, density=0.5)
    free = minimise(Problem(x, np.random.default_rng(8).permutation(y)), [0.0], tolerance=1e-6)
    assert free.converged[0] and np.isinf(free.gap_bound[0])


def test_no_iterations_leave_the_weights_where_they_begin():
    x, y = draw(np.random.default_rng(9), 60, 300, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SoftmaxRegression(max_iter=0).fit(x, y)
    assert not model.coef_.any()
    np.testing.assert_allclose(model.predict_proba(x)[0], np.bincount(y) / len(y), atol=1e-9)


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array"])
def test_a_trained_model_takes_sparse_inputs_as_they_are(form):
    rng = np.random.default_rng(10)
    x, _ = draw(rng, 60, 300, 3)
    arrays = {"mean": rng.normal(size=300), "scale": rng.random(300) + 0.5}
    weights = rng.normal(size=(300, 3)), rng.normal(size=3)
    model = Classifier(*weights, label_names=("a", "b", "c"), **arrays)
    wanted = ((dense(x) - arrays["mean"]) / arrays["scale"]) @ weights[0] + weights[1]
    np.testing.assert_allclose(model.logits(getattr(sparse, form)(x)), wanted, atol=1e-9)
    with pytest.raises(ValueError, match="300 features per example"):
        model.logits(x[:, :-1])


def test_a_trained_model_names_what_is_not_finite_in_sparse_inputs(monkeypatch):
    monkeypatch.undo()  # the row of the message is dense
    model = Classifier(np.ones((3, 2)), np.zeros(2), 0.0, 1.0, ("a", "b"))
    x = sparse.csr_array(np.array([[0.0, 1, 0], [0, 0, np.nan]]))
    with pytest.raises(DataError, match="Feature nan in row 1, column 2"):
        model.logits(x)


def test_predict_holds_a_batch_of_a_sparse_file_dense(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "_BATCH_VALUES", 600)  # two examples
    x, _ = draw(np.random.default_rng(11), 60, 300, 3)
    sparse.save_npz(tmp_path / "x.npz", x)
    read = predict.read_examples(tmp_path / "x.npz", 300)
    assert sparse.issparse(read)
    found = np.concatenate(list(predict.batches(read)))
    np.testing.assert_allclose(found, dense(x))


def test_a_large_dense_copy_of_a_dataset_is_a_warning(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(npz, "_LARGE", 10_000)
    x, y = draw(np.random.default_rng(12), 60, 300, 3)
    with pytest.warns(UserWarning, match="train is sparse, and takes .* use SoftmaxRegression"):
        data.from_arrays((x, y), (dense(x), y))


def test_a_dense_copy_that_does_not_fit_is_refused(monkeypatch):
    x = sparse.random_array((60, 200), density=0.1, format="csr", rng=np.random.default_rng(0))
    y = np.arange(60) % 3
    monkeypatch.setattr(host, "available_memory", lambda *_: 1 << 15)
    models = SoftmaxRegression(l1_ratio=0.5), SoftmaxRegressionCV(Cs=2, l1_ratios=(0.5, 1.0))
    for model, labels in ((models[0], y), (models[1], y), (SoftmaxRegression(), np.eye(3)[y])):
        with pytest.raises(ValueError, match="Sparse X as a dense array, .* GiB of memory"):
            model.fit(x, labels)


def test_features_whose_squares_overflow_are_refused():
    x, y = draw(np.random.default_rng(0), 30, 200, 3)
    x.data[0] = 1e300
    for fit in (SoftmaxRegression().fit, lambda x, y: minimise(Problem(x, y), [0.1])):
        with pytest.raises(ValueError, match="squares of the features overflow"):
            fit(x, y)
