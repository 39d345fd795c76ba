"""The certified optimum on a mesh: every device moves its own share of the trials, and no other.

The trials [K] are taken as [P, K / P], neighbours together, a row for each of the P devices of the
axis of trials; a choice of trials is `rows` [P, n], counted within the share. So each gather and
scatter stays within a device.
"""

import functools

import jax

from softmax_jax import optimum
from softmax_jax.sweep.placement import constrain


def rows(going, cost, placement):
    """The trials to compute, [P, n]: see `optimum.rows`."""
    return optimum.rows(going.reshape(placement.size("trials"), -1), cost)


@functools.partial(jax.jit, static_argnums=3)
def start(prepared, l2, columns, sharding):
    """`optimum.start`, with the trials [K] divided from the first moment on."""
    return constrain(optimum.start(prepared, l2, columns), sharding)


@functools.partial(jax.jit, donate_argnums=1, static_argnums=4)
def advance(prepared, state, rows, limits, sharding):
    """`optimum.advance` of the trials in `rows`; limits: (tolerance, max_iterations, span)."""
    if len(rows) == 1:
        return optimum.advance(prepared, state, rows[0], *limits)
    one = jax.vmap(optimum.advance, in_axes=(None, 0, 0, None, None, None))
    moved = one(prepared, jax.tree.map(lambda leaf: _dealt(leaf, rows), state), rows, *limits)
    return constrain(jax.tree.map(_together, moved), sharding)


@jax.jit
def chosen(states, rows):
    """Of leaves [1, K, ...] the trials in `rows`: [1, P · n, ...]."""

    def choose(leaf):
        return _together(jax.vmap(lambda own, rows: own[rows])(_dealt(leaf[0], rows), rows))[None]

    return jax.tree.map(choose, states)


def _dealt(leaf, rows):
    return leaf.reshape(len(rows), -1, *leaf.shape[1:])


def _together(leaf):
    return leaf.reshape(-1, *leaf.shape[2:])
