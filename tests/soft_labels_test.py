"""Soft labels at the optimum: against SciPy, as weighted copies of hard labels; what is refused."""

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from softmax_jax import optimum
from softmax_jax.estimator import SoftmaxRegression, SoftmaxRegressionCV
from softmax_jax.optimum import Problem, minimise

pytestmark = pytest.mark.numerical


def soft_problem(seed=0, num_examples=40, num_features=3, num_classes=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_examples, num_features)) + 1
    y = rng.dirichlet(np.full(num_classes, 0.5), num_examples)
    y[:3] = np.eye(num_classes)[:3]  # some are sure
    return Problem(x, y, rng.uniform(0.1, 3, num_examples))


def copies(problem):
    """The same as hard labels: an example for each class, with the weight that it has there."""
    rows, labels = np.nonzero(problem.y)
    weights = problem.weights[rows] * problem.y[rows, labels]
    return Problem(problem.x[rows], labels, weights, num_classes=problem.y.shape[1])


def by_scipy(problem, l2):
    """The minimum from the definition in float64, by L-BFGS-B and exact gradients."""
    x, y, w = problem.x, problem.y, problem.weights / problem.weights.sum()
    shape = x.shape[1] + 1, y.shape[1]

    def value(v):
        params = v.reshape(shape)
        logits = x @ params[:-1] + params[-1]
        loss = -(y * special.log_softmax(logits, 1)).sum(1)
        errors = (special.softmax(logits, 1) - y) * w[:, None]
        gradient = np.vstack([x.T @ errors + l2 * params[:-1], errors.sum(0)])
        return w @ loss + l2 / 2 * (params[:-1] ** 2).sum(), gradient.ravel()

    options = {"ftol": 1e-16, "gtol": 1e-11, "maxiter": 10_000, "maxfun": 20_000}
    zeros = np.zeros(np.prod(shape))
    found = optimize.minimize(value, zeros, jac=True, method="L-BFGS-B", options=options)
    return found.fun, found.x.reshape(shape)[:-1]


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("float64")
def test_optimum_is_that_of_scipy():
    problem, l2 = soft_problem(), [1e-3, 1e-1]
    found = minimise(problem, l2, tolerance=1e-11)
    assert found.converged.all()
    for t, penalty in enumerate(l2):
        value, W = by_scipy(problem, penalty)
        assert found.objective[t] == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(found.W[t], W, atol=1e-5)
        assert found.objective[t] - value <= found.gap_bound[t] + 1e-14


@pytest.mark.usefixtures("float64")
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1e-1]), st.booleans())
def test_soft_label_equals_weighted_copies_of_hard_ones(seed, l2, fit_bias):
    """(.3, .7) is two copies, weighted .3 and .7; an example of weight 0 may hold anything."""
    problem = soft_problem(seed)._replace(fit_bias=fit_bias)
    hard = copies(problem)._replace(fit_bias=fit_bias)
    weights = np.append(problem.weights, 0)
    nothing = np.full((1, 3), np.nan)
    soft = problem._replace(
        x=np.append(problem.x, 100 * np.ones((1, 3)), 0),
        y=np.append(problem.y, nothing, 0),
        weights=weights,
    )
    found, expected = (minimise(one, [l2], tolerance=1e-11) for one in (soft, hard))
    assert found.objective[0] == pytest.approx(expected.objective[0], rel=1e-9)
    np.testing.assert_allclose(found.W, expected.W, atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_one_hot_vectors_are_labels():
    problem = soft_problem()
    labels = problem.y.argmax(1)
    soft, hard = problem._replace(y=np.eye(3)[labels]), problem._replace(y=labels)
    found, expected = (minimise(one, [0.01], tolerance=1e-9) for one in (soft, hard))
    np.testing.assert_allclose(found.W, expected.W, rtol=1e-7)
    paths = [optimum.l2_path(optimum.prepare(one), 5) for one in (soft, hard)]
    np.testing.assert_allclose(*paths, rtol=1e-9)


def test_undecided_examples_are_not_separable():
    """A loss below log 2 everywhere separates labels, but not the votes (.9, .1)."""
    x, labels = np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    sure = minimise(Problem(x, np.eye(2)[labels]), [0.0])
    votes = minimise(Problem(x, 0.8 * np.eye(2)[labels] + 0.1), [0.0])
    assert sure.separable[0] and not votes.separable[0] and votes.converged[0]
    in_part = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.5, 0.5, 0], [0, 0, 1.0]])
    far = np.array([[0.0], [0.1], [0.05], [9.0]])
    assert minimise(Problem(far, in_part), [0.0]).separable[0]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "y",
    [
        [[0.5, 0.6], [0.5, 0.5]],
        [[0.5, 0.4], [0.5, 0.5]],
        [[1.1, -0.1], [0.5, 0.5]],
        [[np.nan, 0.5], [0.5, 0.5]],
        [[np.inf, 0.5], [0.5, 0.5]],
        [[3.0, 1.0], [0.0, 4.0]],
        [[1, 1], [0, 1]],
    ],
)
def test_rows_that_are_no_distributions_are_refused(y):
    for fit in (lambda x, y: minimise(Problem(x, y), [0.1]), SoftmaxRegression().fit):
        with pytest.raises(ValueError, match="Soft labels .* sum to 1 .* the first row 0: "):
            fit(np.eye(2), np.array(y))


def test_penalties_that_make_weights_zero_are_for_labels():
    for penalty in ({"l1": 0.1}, {"l1_group": [0.1]}):
        with pytest.raises(ValueError, match="With soft labels"):
            minimise(soft_problem(), [0.0], **penalty)


@pytest.mark.parametrize("y, num_classes", [(np.ones((2, 1)), None), (np.eye(2), 3)])
def test_soft_labels_have_a_column_for_each_class(y, num_classes):
    with pytest.raises(ValueError, match="one for each class"):
        minimise(Problem(np.eye(2), y, num_classes=num_classes), [0.1])


def test_estimator_of_soft_labels_is_that_of_weighted_copies():
    problem = soft_problem(1)
    hard = copies(problem)
    for options in ({}, {"class_weight": {0: 2.0, 1: 0.5, 2: 1.0}}, {"class_weight": "balanced"}):
        model = SoftmaxRegression(C=10.0, tol=1e-9, **options)
        soft = model.fit(problem.x, problem.y, problem.weights)
        coef, intercept, classes = soft.coef_, soft.intercept_, soft.classes_
        proba, l2 = soft.predict_proba(problem.x), soft.l2_
        model.fit(hard.x, hard.y, hard.weights)
        np.testing.assert_array_equal(classes, [0, 1, 2])
        np.testing.assert_allclose(coef, model.coef_, atol=1e-4)
        np.testing.assert_allclose(intercept, model.intercept_, atol=1e-4)
        np.testing.assert_allclose(proba, model.predict_proba(problem.x), atol=1e-4)
        assert l2 == pytest.approx(model.l2_)


def test_columns_of_a_data_frame_name_the_classes():
    problem = soft_problem(2)
    names = ["wolf", "cat", "dog"]
    by_name = SoftmaxRegression().fit(problem.x, pd.DataFrame(problem.y, columns=names))
    by_number = SoftmaxRegression().fit(problem.x, problem.y)
    assert by_name.classes_.tolist() == names
    predicted = by_number.predict(problem.x)
    assert by_name.predict(problem.x).tolist() == [names[label] for label in predicted]
    two = SoftmaxRegression().fit(
        problem.x, pd.DataFrame(problem.y[:, :1]).assign(b=1 - problem.y[:, 0])
    )
    assert two.coef_.shape == (1, 3)


def test_estimators_refuse_what_soft_labels_cannot_be():
    problem = soft_problem(3)
    with pytest.raises(ValueError, match="real numbers|numbers of sum 1"):
        SoftmaxRegression().fit(problem.x, problem.y.astype(str))
    with pytest.raises(ValueError, match="SoftmaxRegression for each penalty"):
        SoftmaxRegressionCV().fit(problem.x, problem.y)
    with pytest.raises(ValueError, match="inconsistent"):
        SoftmaxRegression().fit(problem.x, problem.y[1:])
    one = np.eye(3)[np.zeros(40, int)]
    with pytest.raises(ValueError, match="2 classes"):
        SoftmaxRegression().fit(problem.x, one)


@pytest.mark.parametrize("tile_rows", [None, 64])
def test_without_a_penalty_the_weights_do_not_drift_along_what_changes_nothing(tile_rows):
    """In float32, where a soft label sums to 1 only up to rounding."""
    problem = soft_problem(4, num_examples=300, num_features=5, num_classes=4)
    problem = problem._replace(x=np.asarray(problem.x, np.float32))
    for y in (problem.y, problem.y.argmax(1)):
        found = minimise(problem._replace(y=y), [0.0], tolerance=1e-5, tile_rows=tile_rows)
        assert found.converged.all() and abs(found.W.mean(2)).max() < 0.1 * abs(found.W).max()
