"""The path of penalties: each trial starts from the optima of those before it.

Source of the idea: Friedman, Hastie and Tibshirani, "Regularization Paths for Generalized Linear
Models via Coordinate Descent" (2010), section 2.6: warm starts along a path.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from softmax_jax.optimum import certificate, lbfgs
from softmax_jax.optimum.problem import Prepared, product
from softmax_jax.optimum.solver import State, choose, shares_of


def leaders(l2, columns) -> np.ndarray:
    """[T, 2] int32: the trials of the same column with the next greater l2, the nearer one first.

    Where there is no such trial, the nearer one again, or the trial itself: it leads its column.
    """
    order = np.lexsort((-np.asarray(l2), columns))
    found = np.tile(np.arange(len(order), dtype=np.int32)[:, None], 2)
    for before, trial in zip(order[:-1], order[1:], strict=True):
        if columns[before] == columns[trial]:
            found[trial] = before, found[before, 0]
    return found


def ready(going, leaders) -> np.ndarray:
    """Which of the trials that are `going` [T] have nothing to wait for: [T] bool."""
    nearest = leaders[:, 0]
    return going & ((nearest == np.arange(len(going))) | ~going[nearest])


def batch(ready, leaders, small) -> np.ndarray:
    """The trials to compute, [K] int32: all that are `ready`, and the last of them again.

    K is a power of two, because each size is compiled for itself, and at most the number of
    columns; of a small problem, where compiling costs more than computing, always that.
    """
    found = np.flatnonzero(ready).astype(np.int32)
    most = int((leaders[:, 0] == np.arange(len(leaders))).sum())
    size = most if small else min(1 << (len(found) - 1).bit_length(), most)
    return np.pad(found, (0, size - len(found)), mode="edge")


@functools.partial(jax.jit, donate_argnames="state")
def follow(prepared: Prepared, state: State, rows, leaders) -> State:
    """The trials in `rows` [K] that have not begun, where their leaders [K, 2] lead them.

    The weights go on in a straight line over log l2, through both optima; the memory of L-BFGS is
    that of the nearer one, under the new penalty. A trial that has begun, leads itself, or stands
    lower already, stays as it is. Costs two matrix products [K·C, D] × [D, N].
    """
    own, near, far = (
        jax.tree.map(lambda leaf, which=which: leaf[which], state)
        for which in (rows, leaders[:, 0], leaders[:, 1])
    )
    new = jax.vmap(functools.partial(_follow, prepared))(own, near, far)
    new = jax.vmap(choose)((own.iterations == 0) & (rows != leaders[:, 0]), new, own)
    return jax.tree.map(lambda leaf, part: leaf.at[rows].set(part), state, new)


def _follow(prepared, trial, near, far):
    # No further than the last step: l2 may be spaced unevenly, or end at 0.
    step = jnp.log(trial.l2 / near.l2) / jnp.log(near.l2 / far.l2)
    step = jnp.where(jnp.isnan(step), 0, jnp.clip(step, 0, 1))
    params = near.params + step * (near.params - far.params)
    logits, shares = product(params, prepared.features), shares_of(prepared, trial.column)
    loss = certificate.each_loss(logits, prepared.y)
    new = certificate.measure(prepared, shares, trial, params, loss, logits)
    memory = lbfgs.transfer(near.memory, trial.l2 - near.l2)
    new = new._replace(memory=memory, gap_bound=jnp.full_like(new.gap_bound, jnp.inf))
    return choose(new.objective < trial.objective, new, trial)
