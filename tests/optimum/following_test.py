"""The path of penalties: who follows whom, and that following pays and harms nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets

from softmax_jax import losses, optimum
from softmax_jax.optimum import Problem, lbfgs, minimise


@pytest.fixture(scope="module")
def prepared():
    x, y = datasets.load_digits(return_X_y=True)
    return optimum.prepare(Problem(x[:300].astype(np.float32) / 16, y[:300]))


def test_every_trial_follows_the_next_greater_penalties_of_its_column():
    l2, columns = np.array([0.1, 1.0, 0.0, 0.1, 0.01, 2.0]), np.array([0, 0, 0, 0, 1, 1])
    leaders = minimise.leaders(l2, columns)
    assert leaders.tolist() == [[1, 1], [1, 1], [3, 0], [0, 1], [5, 5], [5, 5]]
    going = np.array([True, False, True, True, True, True])
    assert minimise.ready(going, leaders).tolist() == [True, False, False, False, False, True]
    going[[0, 5]] = False
    assert minimise.ready(going, leaders).tolist() == [False, False, False, True, True, False]


def test_a_batch_is_filled_up_with_trials_that_are_ready():
    leaders = np.array([[t, t] for t in range(7)] + [[6, 6]])
    ready = np.array([True, False, True, False, False, True, False, False])
    assert minimise.next_rows(ready, leaders, small=False).tolist() == [0, 2, 5, 5]
    assert minimise.next_rows(ready, leaders, small=True).tolist() == [0, 2, 5, 5, 5, 5, 5]
    assert minimise.next_rows(ready[2:3], leaders[:1], small=False).tolist() == [0]


def test_a_path_takes_far_fewer_iterations_than_its_trials_alone(prepared):
    path = np.geomspace(1e-1, 1e-4, 12)
    together = minimise(prepared, path, tolerance=1e-4)
    alone = [minimise(prepared, [l2], tolerance=1e-4) for l2 in path]
    assert together.converged.all()
    assert 2 * together.iterations.sum() < sum(one.iterations.sum() for one in alone)
    np.testing.assert_allclose(together.objective, [one.objective[0] for one in alone], rtol=2e-4)


def test_the_order_of_the_penalties_does_not_matter(prepared):
    path = np.geomspace(1e-1, 1e-3, 4)
    down, up = minimise(prepared, path), minimise(prepared, path[::-1])
    np.testing.assert_array_equal(down.objective, up.objective[::-1])
    np.testing.assert_array_equal(down.iterations, up.iterations[::-1])


@pytest.mark.slow
def test_columns_follow_their_own_leaders_side_by_side(prepared):
    counts = np.random.default_rng(0).integers(0, 3, (300, 2)).astype(np.uint8)
    both = prepared._replace(resamples=jnp.asarray(counts))
    path = np.geomspace(1e-1, 1e-3, 4)
    found = minimise(both, np.tile(path, 2), columns=np.repeat([0, 1], 4))
    for column in range(2):
        own = minimise(both, path, columns=np.full(4, column))
        half = slice(4 * column, 4 * column + 4)
        np.testing.assert_allclose(found.objective[half], own.objective, rtol=1e-4)
        assert abs(found.iterations[half] - own.iterations).max() <= 2
    assert found.converged.all()


def test_a_lower_start_is_kept(prepared):
    path = np.array([1e-1, 1e-3])
    first = minimise(prepared, path, tolerance=1e-5)
    again = minimise(prepared, path, tolerance=1e-4, initial=(first.W, first.b))
    assert again.iterations.max() <= 1 and again.converged.all()


def test_equal_penalties_and_zero_are_no_harm():
    rng = np.random.default_rng(0)
    problem = Problem(rng.normal(size=(60, 2)), rng.integers(0, 3, 60))
    found = minimise(problem, [0.0, 0.1, 0.1, 0.0, 0.1], tolerance=1e-4)
    assert found.converged.all() and np.isfinite(found.W).all()
    np.testing.assert_allclose(found.objective[[2, 4]], found.objective[1], rtol=1e-4)
    assert found.objective[3] == pytest.approx(found.objective[0], rel=1e-4)


def test_the_memory_goes_over_to_another_penalty_exactly(prepared):
    num_classes, columns = 10, len(prepared.features)
    points = 0.1 * jax.random.normal(jax.random.key(0), (4, num_classes, columns))

    def objective(params, l2):
        loss = losses.cross_entropy(params @ prepared.features, prepared.y, axis=0).mean()
        return loss + l2 / 2 * jnp.sum(params[:, :-1] ** 2)

    def memory(l2):
        found = lbfgs.empty_memory(points[0])
        gradients = [jax.grad(objective)(point, l2) for point in points]
        for i in range(3):
            step = points[i + 1] - points[i]
            found = lbfgs.remember(found, step, gradients[i + 1] - gradients[i])
        return found

    moved, expected = lbfgs.transfer(memory(0.5), 0.01 - 0.5), memory(0.01)
    assert (np.asarray(expected.rho) > 0).sum() == 3
    for name in lbfgs.Memory._fields:
        np.testing.assert_allclose(
            getattr(moved, name), getattr(expected, name), rtol=1e-4, atol=1e-5
        )
