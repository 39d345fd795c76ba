"""A path of penalties: its range, its order, warm starts, and resuming between segments."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets

from softmax_jax import losses, optimum
from softmax_jax.optimum import Problem, lbfgs, minimise
from tests.optimum_problems import random_problem

pytestmark = pytest.mark.numerical

# `optimum.minimise` is the function; the module of that name has the order of the trials.
order = importlib.import_module("softmax_jax.optimum.minimise")
LAW = settings(derandomize=True, deadline=None, max_examples=50)


@pytest.fixture(scope="module")
def prepared():
    x, y = datasets.load_digits(return_X_y=True)
    return optimum.prepare(Problem(x[:300].astype(np.float32) / 16, y[:300]))


def test_path_spans_from_zero_weights_to_a_negligible_penalty():
    problem = random_problem(1, weighted=False)
    prepared = optimum.prepare(problem)
    path = optimum.l2_path(prepared, 8)
    np.testing.assert_allclose(path[1:] / path[:-1], path[1] / path[0])
    assert len(path) == 8 and path[0] > 1000 * path[-1] > 0
    largest = minimise(prepared, path[[0, -1]])
    logits = (problem.x - problem.x.mean(0)) @ largest.W[0]
    assert 0.001 < np.sqrt((logits**2).sum(1).mean()) < 0.1
    fractions = np.bincount(problem.y) / 40
    assert largest.loss[0] == pytest.approx(-(fractions * np.log(fractions)).sum(), rel=0.05)


def test_path_follows_the_unit_of_the_features():
    """Weights of c · x are those of x divided by c: penalties grow as c², here exactly."""
    problem = random_problem(1, weighted=False)
    small = problem._replace(x=problem.x / 2**20)
    paths = [optimum.l2_path(optimum.prepare(each), 4) for each in (problem, small)]
    np.testing.assert_allclose(paths[0], paths[1] * 2.0**40, rtol=1e-6)


def test_leaders_are_the_next_greater_penalties_of_the_column():
    l2, columns = np.array([0.1, 1.0, 0.0, 0.1, 0.01, 2.0]), np.array([0, 0, 0, 0, 1, 1])
    leaders = order.leaders(l2, columns)
    assert leaders.tolist() == [[1, 1], [1, 1], [3, 0], [0, 1], [5, 5], [5, 5]]
    unfinished = np.array([True, False, True, True, True, True])
    assert order.ready(unfinished, leaders).tolist() == [True, False, False, False, False, True]
    unfinished[[0, 5]] = False
    assert order.ready(unfinished, leaders).tolist() == [False, False, False, True, True, False]


@LAW
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=12))
def test_every_trial_is_reached_by_following_the_leaders(trials):
    """A penalty is never below its follower's, and finishing what is ready finishes all."""
    l2, columns = np.array(trials, float)[:, 0], np.array(trials)[:, 1]
    leaders = order.leaders(l2, columns)
    assert (columns[leaders] == columns[:, None]).all() and (l2[leaders] >= l2[:, None]).all()
    unfinished = np.ones(len(l2), bool)
    while unfinished.any():
        rows = order.next_rows(order.ready(unfinished, leaders), leaders, small=False)
        assert unfinished[rows].all() and len(rows) <= len(set(columns))
        unfinished[rows] = False


def test_rows_are_padded_with_ready_trials_to_a_power_of_two():
    leaders = np.array([[t, t] for t in range(7)] + [[6, 6]])
    ready = np.array([True, False, True, False, False, True, False, False])
    assert order.next_rows(ready, leaders, small=False).tolist() == [0, 2, 5, 5]
    assert order.next_rows(ready, leaders, small=True).tolist() == [0, 2, 5, 5, 5, 5, 5]
    assert order.next_rows(ready[2:3], leaders[:1], small=False).tolist() == [0]


@LAW
@given(st.lists(st.booleans(), min_size=1, max_size=20).filter(any))
def test_compacted_rows_hold_every_unfinished_trial_once(unfinished):
    unfinished = np.array(unfinished)
    rows = order.unfinished_rows(unfinished, 1e12)
    size = min(1 << int(unfinished.sum() - 1).bit_length(), len(unfinished))
    assert len(rows) == len(set(rows)) == size and set(np.flatnonzero(unfinished)) <= set(rows)
    assert (np.diff(rows) > 0).all()
    assert len(order.unfinished_rows(unfinished, 1)) == len(unfinished)  # too small to compile anew


def test_path_takes_less_than_half_the_iterations_of_its_trials_alone(prepared):
    path = np.geomspace(1e-1, 1e-4, 12)
    together = minimise(prepared, path, tolerance=1e-4)
    alone = [minimise(prepared, [l2], tolerance=1e-4) for l2 in path]
    assert together.converged.all()
    assert 2 * together.iterations.sum() < sum(one.iterations.sum() for one in alone)
    np.testing.assert_allclose(together.objective, [one.objective[0] for one in alone], rtol=2e-4)


def test_order_of_the_penalties_does_not_matter(prepared):
    path = np.geomspace(1e-1, 1e-3, 4)
    down, up = minimise(prepared, path), minimise(prepared, path[::-1])
    np.testing.assert_array_equal(down.objective, up.objective[::-1])
    np.testing.assert_array_equal(down.iterations, up.iterations[::-1])


@pytest.mark.slow
def test_columns_follow_leaders_of_their_own(prepared):
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


def test_equal_and_zero_penalties_converge_to_equal_optima():
    rng = np.random.default_rng(0)
    problem = Problem(rng.normal(size=(60, 2)), rng.integers(0, 3, 60))
    found = minimise(problem, [0.0, 0.1, 0.1, 0.0, 0.1], tolerance=1e-4)
    assert found.converged.all() and np.isfinite(found.W).all()
    np.testing.assert_allclose(found.objective[[2, 4]], found.objective[1], rtol=1e-4)
    assert found.objective[3] == pytest.approx(found.objective[0], rel=1e-4)


def test_lbfgs_memory_transfers_exactly_to_another_penalty(prepared):
    points = 0.1 * jax.random.normal(jax.random.key(0), (4, 10, len(prepared.features)))

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
    for leaf, wanted in zip(moved, expected, strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-4, atol=1e-5)


def segments(prepared, state, tolerance):
    """The states after each segment of 4 iterations, copied: the next segment reuses memory."""
    states = optimum.iterate(prepared, state, tolerance=tolerance, segment=4)
    return [jax.tree.map(np.array, reached) for reached in states]


def test_finished_trials_stay_while_others_go_on(monkeypatch):
    problem, l2 = random_problem(1), np.array([1e-4, 100.0])
    whole = minimise(problem, l2, tolerance=1e-4)
    monkeypatch.setattr(order, "_WORTH_COMPILING", 0)
    prepared = optimum.prepare(problem)
    first = optimum.start(prepared, *optimum.check_trials(prepared, l2))
    compacted = optimum.report(prepared, segments(prepared, first, 1e-4)[-1])
    assert compacted.converged.all() and compacted.iterations[1] <= 4 < compacted.iterations[0]
    np.testing.assert_allclose(compacted.objective, whole.objective, rtol=1e-4)


def test_resumed_optimum_matches_uninterrupted_bit_for_bit():
    prepared = optimum.prepare(random_problem(1))
    first = optimum.start(prepared, *optimum.check_trials(prepared, [1e-3, 1e-1]))
    whole = segments(prepared, first, 1e-5)
    assert len(whole) > 1
    for k, state in enumerate(whole[:-1]):
        resumed = segments(prepared, jax.tree.map(jnp.asarray, state), 1e-5)
        assert len(resumed) == len(whole) - k - 1
        jax.tree.map(np.testing.assert_array_equal, resumed[-1], whole[-1])
