"""The estimator finds the optimum of scikit-learn's objective, as other solvers do."""

import numpy as np
import pytest
from scipy import special
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

from softmax_jax.estimator import SoftmaxRegression


def standardised(load):
    x, y = load(return_X_y=True)
    deviation = x.std(0)
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1), y, 1.0


def ill_conditioned():
    """The covariance has a condition of 1e8."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(150, 12))
    y = (x @ rng.normal(size=(12, 3)) + rng.gumbel(size=(150, 3))).argmax(1)
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    return x * np.logspace(-2, 2, 12) @ turn + 3, y, 1.0


def nearly_separable():
    """All but a few examples are on their side, and hardly anything is penalised."""
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 200)
    x = rng.normal(size=(200, 5)) + 2 * y[:, None]
    y[:3] = 1 - y[:3]
    return x, y, 1e3


DATA = {
    "iris": lambda: (*datasets.load_iris(return_X_y=True), 1.0),
    "wine": lambda: standardised(datasets.load_wine),
    "ill-conditioned": ill_conditioned,
    "nearly separable": nearly_separable,
    "digits": lambda: standardised(datasets.load_digits),
    "breast cancer": lambda: standardised(datasets.load_breast_cancer),
}
# The first four are compiled for two shapes.
NAMES = [*list(DATA)[:4], *(pytest.param(name, marks=pytest.mark.slow) for name in list(DATA)[4:])]
FLOAT64, FLOAT32 = {"tol": 1e-10}, {"tol": 5e-6, "dtype": "float32"}


def objective(model, x, y, weights, C):
    """C Σ w CE + ‖coef‖²/2 by definition, in float64, of either estimator."""
    coef, intercept = np.float64(model.coef_), np.float64(model.intercept_)
    scores = x @ coef.T + intercept
    scores = np.append(np.zeros_like(scores), scores, 1) if len(coef) == 1 else scores
    loss = special.logsumexp(scores, 1) - scores[np.arange(len(y)), y]
    return C * (weights * loss).sum() + (coef**2).sum() / 2


def weigh(y, weighted):
    """(sample weights, class weights, their product)."""
    if not weighted:
        return None, None, np.ones(len(y))
    own = np.random.default_rng(1).uniform(0, 2, len(y))
    by_class = dict(enumerate(0.5 + np.arange(y.max() + 1)))
    return own, by_class, own * np.array(list(by_class.values()))[y]


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", NAMES)
def test_estimator_agrees_with_logistic_regression(name, weighted):
    x, y, C = DATA[name]()
    own, by_class, weights = weigh(y, weighted)
    options = {"C": C, "class_weight": by_class, "max_iter": 10_000}
    expected = LogisticRegression(solver="newton-cg", tol=1e-9, **options).fit(x, y, own)
    value = objective(expected, x, y, weights, C)
    model = SoftmaxRegression(**FLOAT64, **options).fit(x, y, own)
    assert objective(model, x, y, weights, C) == pytest.approx(value, rel=1e-8)
    assert model.coef_.shape == expected.coef_.shape
    theirs = expected.predict_proba(x)
    np.testing.assert_allclose(model.predict_weighted_proba(x), theirs, atol=1e-4)
    np.testing.assert_array_equal(model.predict(x), expected.predict(x))
    # What it says of itself: the objective is a mean, and the penalty that of W.
    assert model.objective_ * C * weights.sum() == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("name", ["iris", "wine", "ill-conditioned", *NAMES[4:]])
def test_float32_estimator_agrees_with_float64(name):
    x, y, C = DATA[name]()
    own, by_class, weights = weigh(y, True)
    exact = SoftmaxRegression(C, class_weight=by_class, **FLOAT64).fit(x, y, own)
    model = SoftmaxRegression(C, class_weight=by_class, **FLOAT32).fit(x, y, own)
    assert model.coef_.dtype == np.float32
    value = objective(exact, x, y, weights, C)
    assert objective(model, x, y, weights, C) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_float32_coefficients_are_as_near_as_the_arithmetic_allows(name):
    x, y, C = DATA[name]()
    exact = SoftmaxRegression(C, **FLOAT64).fit(x, y)
    model = SoftmaxRegression(C, dtype="float32").fit(x, y)
    assert abs(model.coef_ - exact.coef_).max() < 2e-5 * abs(exact.coef_).max()
    coarse = SoftmaxRegression(C, dtype="float32", tol=1e-4).fit(x, y)
    assert model.n_iter_[0] <= coarse.n_iter_[0] + 100


def newton(x, labels, C, steps=30):
    """The coefficients without an intercept [C, D] by Newton's method, from the definition."""
    num_classes = labels.max() + 1
    y = np.eye(num_classes)[labels]
    coef = np.zeros(num_classes * x.shape[1])
    for _ in range(steps):
        p = special.softmax(x @ coef.reshape(num_classes, -1).T, 1)
        gradient = C * ((p - y).T @ x).ravel() + coef
        inner = np.einsum("nc,cd->ncd", p, np.eye(num_classes)) - p[:, :, None] * p[:, None]
        hessian = C * np.einsum("nj,nk,ncd->cjdk", x, x, inner).reshape(len(coef), -1)
        coef = coef - np.linalg.solve(hessian + np.eye(len(coef)), gradient)
    assert abs(gradient).max() < 1e-9
    return coef.reshape(num_classes, -1)


def test_coefficients_without_intercept_match_newton():
    x, y, _ = DATA["iris"]()
    model = SoftmaxRegression(2.0, fit_intercept=False, tol=1e-13).fit(x, y)
    np.testing.assert_allclose(model.coef_, newton(x, y, 2.0), atol=1e-6)
    assert not model.intercept_.any() and model.intercept_.shape == (3,)


def test_two_classes_without_intercept_are_the_difference_of_scores():
    x, y, _ = nearly_separable()
    model = SoftmaxRegression(0.1, fit_intercept=False, tol=1e-13).fit(x, y)
    expected = LogisticRegression(C=0.1, fit_intercept=False, solver="newton-cg", tol=1e-10)
    np.testing.assert_allclose(model.coef_, expected.fit(x, y).coef_, atol=1e-6)
    both = newton(x, y, 0.05)  # ‖W‖² is half of ‖W₁ - W₀‖²
    np.testing.assert_allclose(model.coef_[0], both[1] - both[0], atol=1e-6)


def sparse_objective(model, x, y, C, ratio):
    """scikit-learn's objective with its l1_ratio, by definition."""
    l2 = objective(model, x, y, np.ones(len(y)), C)
    coef = np.float64(model.coef_)
    return l2 - ratio * (coef**2).sum() / 2 + ratio * abs(coef).sum()


@pytest.mark.parametrize("name, C", [("iris", 0.3), ("wine", 0.1), ("nearly separable", 0.02)])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_estimator_agrees_with_saga_under_an_l1_penalty(name, C, ratio):
    x, y, _ = DATA[name]()
    x = (x - x.mean(0)) / x.std(0)  # else saga takes for ever
    options = {"C": C, "l1_ratio": ratio, "max_iter": 20_000}
    expected = LogisticRegression(solver="saga", tol=1e-8, random_state=0, **options).fit(x, y)
    model = SoftmaxRegression(tol=1e-9, **options).fit(x, y)
    value = sparse_objective(expected, x, y, C, ratio)
    assert sparse_objective(model, x, y, C, ratio) == pytest.approx(value, rel=1e-7)
    assert model.objective_ * C * len(y) == pytest.approx(value, rel=1e-7)
    assert model.gap_bound_ <= 1e-9 * model.objective_
    # Under l1 alone an even number of classes can leave the weights of a feature undecided.
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=2e-3)
    np.testing.assert_array_equal(model.coef_ == 0, abs(expected.coef_) < 1e-7)
    assert (model.coef_ == 0).any() or ratio < 1
    assert (model.coef_ != 0).any()


def test_l1_ratio_of_zero_is_the_penalty_without_it():
    x, y, _ = DATA["iris"]()
    plain, other = SoftmaxRegression().fit(x, y), SoftmaxRegression(l1_ratio=0).fit(x, y)
    np.testing.assert_array_equal(plain.coef_, other.coef_)
    assert plain.l1_ == other.l1_ == 0.0
    free = SoftmaxRegression(C=1e-3, l1_ratio=1).fit(x, y)
    assert not free.coef_.any() and free.l2_ == 0
    assert free.l1_ == pytest.approx(1 / (1e-3 * len(y)))
