"""The contenders of probe.py in JAX: this project, and SciPy on a jitted objective. No command.

All data lies in memory, on the device, before a measurement starts.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize

from benchmarks import probe_task
from benchmarks.in_jax import describe  # noqa: F401, called by its name here
from softmax_jax import optimum

_MOST = 20_000


def minima(dataset, l2, tolerance):
    """The minimum for each l2, in float64, and how sure it is."""
    with jax.enable_x64(True):
        x, y = probe_task.load(dataset)
        problem = optimum.Problem(x.astype(np.float64), y)
        found = optimum.minimise(problem, l2, tolerance=tolerance, max_iterations=_MOST)
    return {
        "minima": found.objective.tolist(),
        "bound": float((found.gap_bound / found.objective).max()),
        "parameters": found.W[0].size + found.b[0].size,
    }


def certified(dataset, l2, minima, gap):
    """This project, until its certificates say that every gap is small enough."""
    x, y = _on_device(dataset)
    start = time.perf_counter(), time.process_time()
    found = optimum.minimise(optimum.Problem(x, y), l2, tolerance=gap, max_iterations=_MOST)
    return _figures(start, dataset, found, l2, minima, found.converged)


def until_true_gap(dataset, l2, minima, gap):
    """This project, until every objective is under its target: seen at the ends of its spans."""
    x, y = _on_device(dataset)
    targets = (1 + gap) * np.asarray(minima)
    start = time.perf_counter(), time.process_time()
    prepared = optimum.prepare(optimum.Problem(x, y))
    first = optimum.start(prepared, *optimum.check_trials(prepared, l2))
    for state in optimum.iterate(prepared, first, tolerance=gap, max_iterations=_MOST):
        if (np.asarray(state.objective) <= targets).all():
            break
    found = optimum.report(prepared, state)
    return _figures(start, dataset, found, l2, minima, found.objective <= targets)


def _figures(start, dataset, found, l2, minima, reached):
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    weights = zip(found.W, found.b, strict=True)
    return {
        "seconds": seconds[0],
        "processor_seconds": seconds[1],
        "evaluations": int(found.iterations.sum()),
        "reached": int(reached.sum()),
        "gap": probe_task.true_gap(probe_task.load(dataset), weights, l2, minima),
    }


def scipy(dataset, l2, minima, gap, limit, warm_start, dtype):
    """SciPy's L-BFGS on the jitted objective and its gradient."""
    with jax.enable_x64(dtype == "float64"):
        solver = _SciPy(*_on_device(dataset, dtype))
        problem = probe_task.load(dataset)
        return probe_task.fit_path(solver, problem, l2, minima, gap, limit, warm_start)


class _SciPy:
    def __init__(self, x, y):
        self.x, self.y = x, y
        self.shape = x.shape[1] + 1, int(y.max()) + 1

    def solve(self, see, l2, initial):
        def value_and_gradient(v):
            params = jnp.asarray(v.reshape(self.shape), self.x.dtype)
            value, gradient = _value_and_gradient(params, self.x, self.y, l2)
            see(float(value), v)
            return float(value), np.asarray(gradient, np.float64).ravel()

        initial = np.zeros(self.shape).ravel() if initial is None else initial
        options = {"maxcor": 20, "maxiter": _MOST, "maxfun": _MOST, "ftol": 0, "gtol": 0}
        optimize.minimize(value_and_gradient, initial, jac=True, method="L-BFGS-B", options=options)

    def weights(self, v):
        params = v.reshape(self.shape)
        return params[:-1], params[-1]


@jax.jit
@jax.value_and_grad
def _value_and_gradient(params, x, y, l2):
    W, b = params[:-1], params[-1]
    logits = jnp.matmul(x, W, precision=jax.lax.Precision.HIGHEST) + b
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return loss + l2 / 2 * jnp.vdot(W, W)


@functools.cache
def _on_device(dataset, dtype="float32"):
    x, y = probe_task.load(dataset)
    return jax.device_put(x.astype(dtype)), jax.device_put(y.astype(np.int32))
