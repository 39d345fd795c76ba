"""The host's part: spans of iterations until every trial is done, and the report."""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from softmax_jax.optimum.following import batch, follow, leaders, ready
from softmax_jax.optimum.problem import Prepared, Problem, prepare
from softmax_jax.optimum.solver import State, advance, start

SPAN = 20
# Multiplications an iteration from which on it pays to compile anew for fewer trials.
_WORTH_COMPILING = 1e9


class Optimum(NamedTuple):
    """The optima of T trials, in the coordinates of x: logits = x @ W[t] + b[t].

    W [T, D, C] · b [T, C] · objective = loss + l2/2 · ‖W‖² and loss: means over the weighted
    examples, in nats · gradient_norm: ‖∂objective/∂W‖ with the best bias for W · gap_bound: the
    objective is at most this far above its minimum · iterations · converged: the certificate holds
    · separable: l2 is 0 and the weights classify every example right, so that growing weights send
    the loss to zero: the optimum is at infinity. All [T], NumPy.
    """

    W: np.ndarray
    b: np.ndarray
    objective: np.ndarray
    loss: np.ndarray
    gradient_norm: np.ndarray
    gap_bound: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray
    separable: np.ndarray


def minimise(
    problem: Problem | Prepared,
    l2,
    *,
    columns=None,
    tolerance=1e-4,
    max_iterations=1000,
    initial=None,
) -> Optimum:
    """The minimum of Σ w CE(xW + b, y) / Σ w + l2/2 · ‖W‖² for each of T trials.

    problem: or what `prepare` made of it, for another run · l2 [T], of 0 or greater · columns [T]:
    each trial's column of `problem.resamples` (None: the first) · tolerance: the relative gap ·
    initial: (W [T, D, C], b [T, C]) to start from, instead of zero weights.

    A trial with l2 > 0 stops when gap_bound ≤ tolerance · objective, which is proof; one with
    l2 = 0, where there is none (gap_bound is inf), when its gradient is `tolerance` times that at
    zero weights, or when the data prove to be separable (some class apart from the others, but not
    every class, is not detected: there the gradient decides).
    A trial that ran for max_iterations, or came to the end of its arithmetic, is not `converged`.

    float32 has a floor, higher for smaller l2 and for worse conditioned features. Relative bounds
    reached: 3e-7 on Fashion-MNIST and 1e-6 on standardised digits at l2 = 1e-4, 3e-6 on wine there;
    features whose covariance has a condition of 1e8 may fail 5e-6. float64 (features of float64
    under `jax_enable_x64`) reaches 1e-10. Memory: about 8 arrays [T, C, N] and 40 [T, C, D]
    beside one copy of x.

    Method: L-BFGS with 20 pairs, preconditioned by the diagonal of the Hessian in the eigenvectors
    of the covariance (Nocedal and Wright, *Numerical Optimization*, chapter 7). Raises ValueError
    for what `prepare` refuses, and for l2, columns or initial values that do not fit.

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> optimum = minimise(Problem(x, np.array([0, 1, 0, 1])), [0.1])
    >>> optimum.converged.tolist(), (x @ optimum.W[0] + optimum.b[0]).argmax(1).tolist()
    ([True], [0, 0, 1, 1])
    """
    prepared = problem if isinstance(problem, Prepared) else prepare(problem)
    state = start(prepared, *check_trials(prepared, l2, columns, initial))
    for reached in iterate(prepared, state, tolerance=tolerance, max_iterations=max_iterations):
        state = reached
    return report(prepared, state)


def iterate(
    prepared: Prepared, state: State, *, tolerance=1e-4, max_iterations=1000, span=SPAN
) -> Iterator[State]:
    """Yields the trials after every span of at most `span` iterations, until all are done.

    The state given and each state yielded are valid until the next step (their memory is used
    again). Saved between two spans, and given back with the same `span`, a state goes on bit for
    bit. Its gap_bound always holds. A span of 1 costs about twice as much an iteration.
    """
    dtype = state.params.dtype
    tolerance, limit = jnp.asarray(tolerance, dtype), jnp.int32(max_iterations)
    order = leaders(np.asarray(state.l2), np.asarray(state.column))
    cost = state.params[0].size * len(prepared.y) * 2 * len(order)
    small = cost < _WORTH_COMPILING
    while True:
        unfinished = going(state, max_iterations)
        if not unfinished.any():
            return
        chosen = batch(ready(unfinished, order), order, small)
        state = follow(prepared, state, jnp.asarray(chosen), jnp.asarray(order[chosen]))
        state = advance(prepared, state, jnp.asarray(chosen), tolerance, limit, jnp.int32(span))
        yield state


def report(prepared: Prepared, state: State) -> Optimum:
    """The trials as they stand, in the coordinates of x."""
    params = np.asarray(state.params)
    W = np.ascontiguousarray(params[:, :, :-1].swapaxes(1, 2))
    shift = np.asarray(prepared.mean, np.float64) @ W.astype(np.float64)
    figures = {name: np.asarray(getattr(state, name)) for name in Optimum._fields[2:]}
    return Optimum(W, (params[:, :, -1] - shift).astype(W.dtype), **figures)


def check_trials(prepared: Prepared, l2, columns=None, initial=None):
    """What `start` takes after the problem: (l2 [T], columns [T], params or None), checked."""
    l2 = np.atleast_1d(np.asarray(l2, np.float64))
    if l2.ndim != 1 or not l2.size or not (np.isfinite(l2) & (l2 >= 0)).all():
        raise ValueError(f"l2 must be finite numbers of 0 or greater, one a trial; got {l2}.")
    columns = np.zeros(len(l2), np.int32) if columns is None else np.asarray(columns, np.int32)
    most = 1 if prepared.resamples is None else prepared.resamples.shape[1]
    if columns.shape != l2.shape or columns.min() < 0 or columns.max() >= most:
        raise ValueError(f"columns must be {len(l2)} numbers from 0 to {most - 1}; got {columns}.")
    dtype = prepared.features.dtype
    params = None if initial is None else _centred(prepared, *initial, len(l2)).astype(dtype)
    return jnp.asarray(l2, dtype), jnp.asarray(columns), params


def _centred(prepared, W, b, num_trials):
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    num_features, num_classes = len(prepared.mean), len(prepared.priors)
    if W.shape != (num_trials, num_features, num_classes) or b.shape != (num_trials, num_classes):
        raise ValueError(
            f"initial must be W [{num_trials}, {num_features}, {num_classes}] and "
            f"b [{num_trials}, {num_classes}]; got {W.shape} and {b.shape}."
        )
    if b.any() and not prepared.fit_bias:
        raise ValueError("initial has a bias, but the problem says fit_bias=False: give zeros.")
    b = b + np.asarray(prepared.mean, np.float64) @ W
    return np.concatenate([W.swapaxes(1, 2), b[:, :, None]], 2)


def going(state: State, max_iterations) -> np.ndarray:
    """Which trials are neither done nor out of iterations: [T] bool."""
    return ~np.asarray(state.done) & (np.asarray(state.iterations) < max_iterations)


def rows(going, cost):
    """The trials to compute, [K] int32: all that are `going` [T]; cost: multiplications of each.

    Filled up to a power of two, because each size is compiled for itself, with finished trials,
    because they stay as they are. Of `going` [..., T] the same along the last axis, in one size.
    """
    num_trials = going.shape[-1]
    size = min(1 << int(going.sum(-1).max() - 1).bit_length(), num_trials)
    if num_trials * cost < _WORTH_COMPILING:
        size = num_trials
    chosen = np.argsort(~going, axis=-1, kind="stable")[..., :size]
    return np.sort(chosen, axis=-1).astype(np.int32)
