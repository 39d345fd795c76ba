"""The optimum in passes over x: the same as with the logits in memory, and of x in files."""

import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_jax import optimum
from softmax_jax.optimum import minimise, passes
from tests.optimum_problems import random_problem
from tests.soft_labels_test import copies, soft_problem

pytestmark = pytest.mark.numerical

L2 = np.array([1e-3, 1e-1])


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("float64")
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.booleans())
def test_both_ways_give_one_optimum(seed, fit_bias):
    problem = random_problem(seed)._replace(fit_bias=fit_bias)
    options = {"columns": [0, 1], "tolerance": 1e-10}
    held, passed = (minimise(problem, L2, tile_rows=rows, **options) for rows in (None, 17))
    assert held.converged.all() and passed.converged.all()
    np.testing.assert_allclose(passed.objective, held.objective, rtol=2e-10)
    np.testing.assert_allclose(passed.W, held.W, atol=2e-3)
    assert (passed.gap_bound <= 1e-10 * passed.objective).all()
    assert (held.passes == 0).all() and (passed.passes > passed.iterations).all()


@pytest.mark.usefixtures("float64")
def test_gap_bound_is_never_below_the_true_gap():
    """At whatever iteration a trial ends, converged or not."""
    for seed in range(4):
        problem = random_problem(seed)
        best = minimise(problem, L2, tolerance=1e-11).objective
        for most in (0, 1, 3, 8):
            found = minimise(problem, L2, tolerance=1e-11, max_iterations=most, tile_rows=16)
            assert np.isfinite(found.gap_bound).all()
            assert (found.gap_bound >= found.objective - best * (1 + 1e-10)).all()
            assert (found.iterations <= most).all()


@pytest.mark.usefixtures("float64")
def test_soft_labels_in_passes_are_weighted_copies():
    problem = soft_problem(4)
    soft, hard = (
        minimise(one, L2, tolerance=1e-10, tile_rows=16) for one in (problem, copies(problem))
    )
    np.testing.assert_allclose(soft.objective, hard.objective, rtol=1e-9)
    with pytest.raises(ValueError, match="sum to 1 .* the first row 33"):
        y = problem.y.copy()
        y[33] += 0.1
        minimise(problem._replace(y=y), L2, tile_rows=16)


def test_passes_without_penalty_stop_where_the_first_way_does():
    problem = random_problem(5)
    apart = problem._replace(x=problem.x / problem.x.std() + 20 * np.eye(3)[problem.y])
    assert minimise(apart, [0.0, 0.1], tile_rows=13).separable.tolist() == [True, False]
    overlapping = minimise(problem, [0.0, 0.1], tile_rows=13)
    assert overlapping.converged.all() and not overlapping.separable.any()
    expected = minimise(problem, [0.0, 0.1])
    np.testing.assert_allclose(overlapping.objective, expected.objective, rtol=1e-4)


def test_initial_values_and_many_trials():
    problem, l2 = random_problem(1), np.geomspace(1e-4, 1, 5)
    first = minimise(problem, l2, tolerance=1e-5, tile_rows=20)
    again = minimise(problem, l2, tolerance=1e-4, tile_rows=20, initial=(first.W, first.b))
    assert again.converged.all() and again.iterations.max() <= 2
    np.testing.assert_allclose(first.objective, minimise(problem, l2).objective, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.uint8, np.int32, np.float64])
def test_optimum_is_that_of_the_features_as_stored(tmp_path, dtype):
    """From a mapped file, and from shards of several lengths; also far from zero."""
    problem = random_problem(3)
    x = (problem.x - problem.x.min()) / np.ptp(problem.x) * 200
    x = x + (1e9 if dtype in (np.int32, np.float64) else 0)
    x = np.asfortranarray(x.astype(dtype))
    exact = problem._replace(x=x.astype(np.float64) - x.astype(np.float64).mean(0))
    expected = minimise(exact, [1e-2], tolerance=1e-5)
    np.save(tmp_path / "x.npy", x.view(np.uint16) if dtype == ml_dtypes.bfloat16 else x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    mapped = mapped.view(dtype) if dtype == ml_dtypes.bfloat16 else mapped
    for stored in (mapped, [x[:1], mapped[1:29], x[29:29], x[29:]], (x[:40],)):
        found = minimise(problem._replace(x=stored), [1e-2], tolerance=1e-5)
        assert found.converged.all() and found.passes.all()
        np.testing.assert_allclose(found.objective, expected.objective, rtol=2e-5)
        np.testing.assert_allclose(found.W, expected.W, atol=0.02 * abs(expected.W).max())


def test_way_follows_from_sizes(monkeypatch):
    problem = random_problem(0)
    assert not passes.wanted(problem, 1, None) and passes.wanted(problem, 1, 100)
    assert not passes.wanted(problem._replace(x=problem.x.tolist()), 1, None)
    needed = passes.resident_bytes(40, 3, 3, 50)
    monkeypatch.setattr(passes.host, "available_memory", lambda: needed)
    assert passes.wanted(problem, 50, None) and not passes.wanted(problem, 5, None)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "change, words",
    [
        ({"x": [np.ones((20, 3)), np.ones((20, 2))]}, "shards"),
        ({"x": [np.ones((20, 3)), np.ones(20)]}, "shards"),
        ({"x": [np.ones((20, 3)), np.ones((19, 3))]}, r"\(39, 3\)"),
        ({"x": [np.ones((20, 3)), np.full((20, 3), np.nan)]}, "NaN or infinity"),
        ({"x": [np.ones((20, 3)), np.full((20, 3), 1e39)]}, "NaN or infinity"),
        ({"x": [np.ones((40, 3), complex)]}, "real numbers"),
        ({"x": [np.full((40, 3), "a")]}, "real numbers"),
        ({"weights": np.full(40, -1.0)}, "Weights"),
        ({"y": np.full(40, 0.5)}, "integers"),
        ({"resamples": np.zeros((40, 2), int)}, "no example"),
    ],
)
def test_problems_in_shards_are_checked(change, words):
    problem = random_problem(0)
    problem = problem._replace(x=[problem.x[:30], problem.x[30:]])
    with pytest.raises(ValueError, match=words):
        minimise(problem._replace(**change), L2)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("rows", [0, -5, 1.5, True, "many"])
def test_invalid_tile_rows_are_refused(rows):
    with pytest.raises(ValueError, match="tile_rows must be a whole number"):
        minimise(random_problem(0), L2, tile_rows=rows)


def test_prepared_problems_are_not_solved_in_passes():
    with pytest.raises(ValueError, match="tile_rows is for dense x"):
        minimise(optimum.prepare(random_problem(0)), L2, tile_rows=16)


_LIMITED = """
import resource, sys
import numpy as np
from softmax_jax.optimum import Problem, minimise

def used():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmData")).split()[1])

shard, y = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
def fit(times):
    problem = Problem([shard] * times, np.tile(y, times))
    return minimise(problem, [1e-2], tolerance=1e-4, tile_rows=4096)
one = fit(1)
room = 64 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (used() + room, resource.RLIM_INFINITY))
times = 4 * room // shard.nbytes
try:
    np.concatenate([shard] * times)
    raise SystemExit("the limit is none")
except MemoryError:
    pass
many = fit(times)
assert many.converged.all()
np.testing.assert_allclose(many.objective, one.objective, rtol=2e-4)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of Linux")
def test_features_larger_than_the_memory(tmp_path):
    """X is four times what the process may still allocate; copies change no optimum."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2**14, 256)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    np.save(
        tmp_path / "y.npy", (x[:, :2] + rng.gumbel(size=(len(x), 2))).argmax(1).astype(np.int32)
    )
    files = str(tmp_path / "x.npy"), str(tmp_path / "y.npy")
    done = subprocess.run([sys.executable, "-c", _LIMITED, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_weights_that_are_exactly_zero_need_the_examples_in_memory():
    with pytest.raises(ValueError, match="l1 and l1_group need all examples in memory"):
        minimise(random_problem(0), L2, l1=[0.0, 0.1], tile_rows=16)
