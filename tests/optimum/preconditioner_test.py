"""The preconditioner against the Hessian by differentiation."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softmax_jax import losses, optimum
from softmax_jax.optimum import Problem, lbfgs, minimise


@pytest.fixture(scope="module")
def problem():
    """Two pairs of classes that are taken for each other."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    x = rng.normal(size=(200, 3)) + 3 * (y[:, None] // 2)
    return Problem(x.astype(np.float32), y)


def estimate(problem):
    """(prepared, curvature, Hessian [C, D + 1, C, D + 1] of its sample's loss) at the optimum."""
    prepared = optimum.prepare(problem)
    first = optimum.start(prepared, *optimum.check_trials(prepared, [1e-2]))
    *_, state = optimum.iterate(prepared, first)
    params, shares = state.params[0], jnp.full(200, 1 / 200)

    def loss(params):
        scores = params @ prepared.features[:, prepared.sample]
        return losses.cross_entropy(scores, prepared.y[prepared.sample], axis=0).mean()

    curvature = lbfgs.estimate_curvature(prepared, shares, params @ prepared.features)
    return prepared, curvature, jax.hessian(loss)(params)


def rotation(prepared, curvature):
    """The basis mixtures ⊗ (directions, bias): [C, D + 1, C · (D + 1)]."""
    directions = jax.scipy.linalg.block_diag(prepared.directions, 1.0)
    mixtures = jnp.eye(4) if curvature.mixtures is None else curvature.mixtures
    return jnp.einsum("cu,dk->cduk", mixtures, directions).reshape(4, 4, -1)


@pytest.mark.parametrize("most", [256, 2])
def test_the_curvature_is_the_diagonal_of_the_hessian(problem, monkeypatch, most):
    monkeypatch.setattr(lbfgs, "_MOST_CLASSES", most)
    prepared, curvature, hessian = estimate(problem)
    assert (curvature.mixtures is None) == (most == 2)
    basis = rotation(prepared, curvature)
    diagonal = jnp.einsum("cdi,cdef,efi->i", basis, hessian, basis).reshape(4, 4)
    floor = 1e-3 / 4
    np.testing.assert_allclose(
        curvature.values[:, -1], np.maximum(diagonal[:, -1], floor), rtol=1e-4
    )
    large = np.asarray(diagonal[:, :-1] > 1e-2 * curvature.values[:, -1:])
    np.testing.assert_allclose(curvature.values[:, :-1][large], diagonal[:, :-1][large], rtol=1e-3)
    assert large.sum() >= 9


def test_mixtures_leave_less_outside_of_the_diagonal(problem, monkeypatch):
    def outside(most):
        monkeypatch.setattr(lbfgs, "_MOST_CLASSES", most)
        prepared, curvature, hessian = estimate(problem)
        basis = rotation(prepared, curvature)
        turned = jnp.einsum("cdi,cdef,efj->ij", basis, hessian, basis)
        return jnp.linalg.norm(turned - jnp.diag(jnp.diag(turned))) / jnp.linalg.norm(turned)

    assert outside(256) < outside(2) / 1.5


def test_the_preconditioner_divides_by_the_curvature_in_its_basis(problem):
    prepared, curvature, _ = estimate(problem)
    gradient = jax.random.normal(jax.random.key(0), (4, 4))
    found = lbfgs.precondition(
        gradient, curvature=curvature, l2=0.1, directions=prepared.directions
    )
    basis = rotation(prepared, curvature)
    factors = jnp.append(1 / (curvature.values[:, :-1] + 0.1), 1 / curvature.values[:, -1:], 1)
    expected = basis @ (factors.ravel() * jnp.einsum("cdi,cd->i", basis, gradient))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_without_mixtures_the_optimum_is_the_same(problem, monkeypatch):
    expected = minimise(problem, [1e-2], tolerance=1e-6)
    solver = importlib.import_module("softmax_jax.optimum.solver")
    monkeypatch.setattr(lbfgs, "_MOST_CLASSES", 2)
    solver.advance.clear_cache()
    found = minimise(problem, [1e-2], tolerance=1e-6)
    solver.advance.clear_cache()
    assert found.converged.all() and found.objective[0] == pytest.approx(expected.objective[0])
