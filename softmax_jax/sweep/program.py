"""The compiled programs of a sweep: the functions of `softmax_jax.train` under two `jax.vmap`s.

The inner axis is that of the trials [K], which share each minibatch: their products are one matrix
product [B, D + 1] × [D + 1, K·C] (where a CPU takes them in `portions`, one for each). The outer
axis is that of the seeds [S], each with its own initial weights and its own order of the data. This
is the only place where either axis is added.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax import train
from softmax_jax.batches import Data
from softmax_jax.sweep.placement import ONE, constrain

_STATIC = ("model", "objective", "schedule", "tx", "num_features", "num_classes", "placement")


# The axis of the examples in a `Data`.
_EXAMPLES = Data(x=0, y=0, weights=0, mean=None, scale=None, resamples=0, importance=0)


class Best(NamedTuple):
    """The best epoch so far of every trial [S, K]: its number, its figure, its parameters."""

    epoch: jax.Array
    value: jax.Array
    params: dict


@functools.partial(jax.jit, static_argnames=_STATIC)
def create(
    seeds,
    hyperparameters,
    resample,
    num_steps=None,
    *,
    model,
    objective,
    schedule="constant",
    tx,
    num_features,
    num_classes,
    placement=ONE,
):
    """Fresh states [S, K] for seeds [S], hyperparameters [K] and columns of the resamples [K].

    A column of hyperparameters that is None is left out of the program. placement: of the states on
    devices, from the first moment on.
    """

    def one(seed, hyperparameters, resample):
        return train.create_state(
            jax.random.key(seed),
            model,
            hyperparameters,
            num_features,
            num_classes,
            objective=objective,
            schedule=schedule,
            num_steps=num_steps,
            tx=tx,
            resample=resample,
        )

    states = jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)), in_axes=(0, None, None))(
        seeds, hyperparameters, resample
    )
    return placement.divide(states)


@functools.partial(jax.jit, static_argnames="at_once", donate_argnames="states")
def train_epoch(states, data, orders, at_once=None):
    """`train.train_epoch` for states [S, K], with an order [S, steps, B] per seed.

    at_once: how many of the K trials, a divisor of K (None: all). Each portion takes the epoch
    from its beginning to its end.
    """
    trials = jax.vmap(train.train_epoch, in_axes=(0, None, None))
    if at_once is not None:
        trials = functools.partial(_by_portions, trials, at_once)
    if len(orders) > 1:
        return jax.vmap(trials, in_axes=(0, None, 0))(states, data, orders)
    # One seed needs no axis: a batched product of length one is slower than a plain one.
    alone = trials(jax.tree.map(lambda leaf: leaf[0], states), data, orders[0])
    return jax.tree.map(lambda leaf: leaf[None], alone)


def _by_portions(trials, at_once, states, *shared):
    """trials(states [K], *shared) -> (states, sums), a portion after the other, each in its place.

    As a loop over one set of states: a map would keep the old ones beside the new.
    """
    _, sums = jax.eval_shape(trials, states, *shared)
    everything = states, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)

    def portion(number, everything):
        start = number * at_once

        def replace(whole, part):
            return lax.dynamic_update_slice_in_dim(whole, part, start, axis=0)

        own = jax.tree.map(
            lambda leaf: lax.dynamic_slice_in_dim(leaf, start, at_once), everything[0]
        )
        return jax.tree.map(replace, everything, trials(own, *shared))

    return lax.fori_loop(0, len(states.step) // at_once, portion, everything)


@jax.jit
def values(states, sums):
    """The figures {name: [S, K]} of sums over steps of training or blocks of evaluation."""
    return jax.vmap(jax.vmap(train.values))(states, sums)


@functools.partial(jax.jit, static_argnames=("sharding", "at_once"))
def evaluate(states, data, sharding=None, at_once=None):
    """The sums [S, K] of every metric over the data.

    sharding: of the examples over devices. at_once: how many of the K trials (None: all).
    """

    def of_seed(states, data):
        return lax.map(lambda state: train.evaluate(state, data), states, batch_size=at_once)

    if at_once is None:
        of_seed = jax.vmap(train.evaluate, in_axes=(0, None))
    trials = jax.vmap(of_seed, in_axes=(0, None))
    if sharding is None:
        return trials(states, data)
    sums = jax.vmap(trials, in_axes=(None, _EXAMPLES))(states, _dealt(data, sharding))
    return jax.tree.map(lambda leaf: leaf.sum(0), sums)


@jax.jit
def add(sums, more):
    """Both sums together."""
    return jax.tree.map(jnp.add, sums, more)


@jax.jit
def no_best(states) -> Best:
    """Before the first epoch: epoch 0, an infinite value, the initial parameters (a copy)."""
    shape = states.step.shape
    params = jax.tree.map(jnp.copy, states.averaged)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    return Best(jnp.zeros(shape, jnp.int32), jnp.full(shape, jnp.inf, dtype), params)


@functools.partial(jax.jit, donate_argnames="best")
def keep_best(best, states, value, epoch) -> Best:
    """Where `value` [S, K] is below the best one, the present epoch and parameters replace it."""
    better = value < best.value

    def choose(new, old):
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old)

    now = Best(jnp.full(best.epoch.shape, epoch, jnp.int32), value, states.averaged)
    return jax.tree.map(choose, now, best)


@jax.jit
def stopped(states, best, epoch):
    """Whether each trial [S, K] has stopped by now: its best epoch is `patience` epochs ago."""
    patience = states.hyperparameters.patience
    return states.stopped | ((patience > 0) & (epoch - best.epoch >= patience))


def _dealt(data, sharding):
    """The examples as [P, N / P, ...], a share for each of P devices; filled up with zeros."""
    num_shares = sharding.mesh.shape[sharding.spec[0]]

    def deal(leaf):
        missing = -len(leaf) % num_shares
        leaf = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
        return constrain(leaf.reshape(num_shares, -1, *leaf.shape[1:]), sharding)

    parts = {name: getattr(data, name) for name in data._fields if getattr(_EXAMPLES, name) == 0}
    return data._replace(**jax.tree.map(deal, parts))
