"""Inside the solver: the preconditioner against the Hessian by differentiation, and the tiles."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from softmax_jax import losses, optimum
from softmax_jax.optimum import Problem, lbfgs, minimise, prepare
from softmax_jax.optimum import problem as problem_module
from softmax_jax.optimum.problem import map_tiles, num_tiles, sum_tiles, wanted_tiles


@pytest.fixture(scope="module")
def pairs():
    """Two pairs of classes that are taken for each other."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    x = rng.normal(size=(200, 3)) + 3 * (y[:, None] // 2)
    return Problem(x.astype(np.float32), y)


def estimate(problem):
    """(prepared, curvature, its basis, the Hessian in that basis) of the loss at the optimum.

    The basis mixtures ⊗ (directions, bias) is [C, D + 1, C · (D + 1)].
    """
    prepared = optimum.prepare(problem)
    first = optimum.start(prepared, *optimum.check_trials(prepared, [1e-2]))
    *_, state = optimum.iterate(prepared, first)
    params, fractions = state.params[0], jnp.full(200, 1 / 200)

    def loss(params):
        scores = params @ prepared.features[:, prepared.sample]
        return losses.cross_entropy(scores, prepared.y[prepared.sample], axis=0).mean()

    curvature = lbfgs.estimate_curvature(prepared, fractions, params @ prepared.features)
    directions = jax.scipy.linalg.block_diag(prepared.directions, 1.0)
    mixtures = jnp.eye(4) if curvature.mixtures is None else curvature.mixtures
    basis = jnp.einsum("cu,dk->cduk", mixtures, directions).reshape(4, 4, -1)
    hessian = jnp.einsum("cdi,cdef,efj->ij", basis, jax.hessian(loss)(params), basis)
    return prepared, curvature, basis, hessian


@pytest.mark.parametrize("shape", [(20, 3), (12, 30)])
def test_spectrum_is_that_of_the_covariance(shape):
    """Also with more features than examples, where a direction for each example is kept."""
    x, num_examples = np.random.default_rng(0).normal(size=shape), shape[0]
    prepared = optimum.prepare(Problem(x.astype(np.float32), np.arange(num_examples) % 3))
    covariance = np.cov(x.T, bias=True)
    expected = np.linalg.eigvalsh(covariance)[-min(shape[1], num_examples - 1) :]
    found = np.asarray(prepared.eigenvalues)[-len(expected) :]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    directions = np.asarray(prepared.directions)[:, -len(expected) :]
    np.testing.assert_allclose(covariance @ directions, expected * directions, atol=1e-4)


@pytest.mark.parametrize("most", [256, 2])
def test_curvature_is_the_diagonal_of_the_hessian(pairs, monkeypatch, most):
    monkeypatch.setattr(lbfgs, "_MOST_CLASSES", most)
    _, curvature, _, hessian = estimate(pairs)
    assert (curvature.mixtures is None) == (most == 2)
    diagonal, floor = jnp.diag(hessian).reshape(4, 4), 1e-3 / 4
    np.testing.assert_allclose(
        curvature.values[:, -1], np.maximum(diagonal[:, -1], floor), rtol=1e-4
    )
    large = np.asarray(diagonal[:, :-1] > 1e-2 * curvature.values[:, -1:])
    np.testing.assert_allclose(curvature.values[:, :-1][large], diagonal[:, :-1][large], rtol=1e-3)
    assert large.sum() >= 9


def test_mixtures_leave_less_of_the_hessian_off_the_diagonal(pairs, monkeypatch):
    def outside(most):
        monkeypatch.setattr(lbfgs, "_MOST_CLASSES", most)
        *_, hessian = estimate(pairs)
        return jnp.linalg.norm(hessian - jnp.diag(jnp.diag(hessian))) / jnp.linalg.norm(hessian)

    assert outside(256) < outside(2) / 1.5


def test_preconditioner_divides_by_the_curvature_in_its_basis(pairs):
    prepared, curvature, basis, _ = estimate(pairs)
    gradient = jax.random.normal(jax.random.key(0), (4, 4))
    found = lbfgs.precondition(
        gradient, curvature=curvature, l2=0.1, directions=prepared.directions
    )
    factors = jnp.append(1 / (curvature.values[:, :-1] + 0.1), 1 / curvature.values[:, -1:], 1)
    expected = basis @ (factors.ravel() * jnp.einsum("cdi,cd->i", basis, gradient))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def forget_programs():
    """What a test changes in a module is read when a program is traced."""
    for program in (optimum.start, optimum.advance):
        program.clear_cache()
    importlib.import_module("softmax_jax.optimum.minimise").follow.clear_cache()


@pytest.fixture
def retraced():
    forget_programs()
    yield
    forget_programs()


@pytest.mark.usefixtures("retraced")
def test_optimum_without_mixtures_is_the_same(pairs, monkeypatch):
    expected = minimise(pairs, [1e-2], tolerance=1e-6)
    monkeypatch.setattr(lbfgs, "_MOST_CLASSES", 2)
    forget_programs()
    found = minimise(pairs, [1e-2], tolerance=1e-6)
    assert found.converged.all() and found.objective[0] == pytest.approx(expected.objective[0])


def many_classes(num_examples=1029, num_classes=300):
    rng = np.random.default_rng(0)
    y = np.append(np.arange(num_classes), rng.integers(0, num_classes, num_examples - num_classes))
    x = rng.normal(size=(num_classes, 5))[y] + rng.normal(size=(num_examples, 5))
    return Problem(x.astype(np.float32), y, rng.uniform(0.5, 2, num_examples))


@pytest.mark.parametrize(
    "sizes, expected",
    [((10, 10**6), 1), ((1000, 256), 1), ((1000, 50_048), 128), ((1000, 50_000), 16)],
)
def test_only_many_scores_are_cut_into_tiles(sizes, expected):
    assert num_tiles(*sizes) == expected


@settings(derandomize=True, deadline=None)
@given(st.integers(2, 2000), st.integers(1, 10**6))
def test_number_of_tiles_is_a_power_of_two_that_divides_the_examples(num_classes, num_examples):
    tiles, wanted = num_tiles(num_classes, num_examples), wanted_tiles(num_classes, num_examples)
    assert num_examples % tiles == 0 and wanted % tiles == 0 and tiles & (tiles - 1) == 0
    assert wanted == 1 or num_examples >= 256 * wanted
    filled = num_examples + -num_examples % wanted
    assert num_tiles(num_classes, filled) >= wanted


def test_tiles_together_are_the_whole():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, 4096)).astype(np.float32)
    y = rng.integers(0, 300, 4096)
    assert num_tiles(*scores.shape) > 1
    each = map_tiles(lambda scores, y: scores.max(0) + y, jnp.asarray(scores), jnp.asarray(y))
    np.testing.assert_array_equal(each, scores.max(0) + y.astype(np.float32))
    total = sum_tiles(lambda scores: scores @ scores.T, jnp.asarray(scores))
    np.testing.assert_allclose(total, scores @ scores.T, rtol=1e-3, atol=1e-3)


def test_problem_is_padded_to_tiles_with_examples_of_weight_zero():
    prepared = prepare(many_classes())
    assert len(prepared.y) % wanted_tiles(300, 1029) == 0 and len(prepared.y) > 1029
    assert not prepared.weights[1029:].any() and not prepared.features[:, 1029:].any()


@pytest.mark.usefixtures("retraced")
def test_optimum_in_tiles_matches_scikit_learn_and_the_uncut_optimum(monkeypatch):
    given = many_classes()
    found = minimise(given, [1e-2], tolerance=1e-5)
    assert found.converged.all()
    scale = given.weights / given.weights.mean()
    model = LogisticRegression(C=1 / (1e-2 * len(given.y)), tol=1e-8, max_iter=5000)
    model.fit(given.x.astype(float), given.y, scale)
    losses = -np.log(model.predict_proba(given.x)[np.arange(len(given.y)), given.y])
    best = np.average(losses, weights=given.weights) + 1e-2 / 2 * np.sum(model.coef_**2)
    assert found.objective[0] == pytest.approx(best, rel=1.1e-5)
    monkeypatch.setattr(problem_module, "_MANY_CLASSES", 10**9)
    forget_programs()
    whole = minimise(given, [1e-2], tolerance=1e-5)
    assert whole.objective[0] == pytest.approx(found.objective[0], rel=2e-5)
    assert whole.iterations[0] == pytest.approx(found.iterations[0], abs=3)
    assert jax.device_count() == 1  # several devices share the examples in other ways
