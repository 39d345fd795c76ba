"""The compiled programs of a sweep: the functions of `softmax_jax.train` under two `jax.vmap`s.

The inner axis is that of the trials [K], which share each minibatch: their products are one matrix
product [B, D] × [D, K·C]. The outer axis is that of the seeds [S], each with its own initial
weights and its own order of the data. This is the only place where either axis is added.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from softmax_jax import train

_STATIC = ("model", "loss", "tx", "num_features", "num_classes")


class Best(NamedTuple):
    """The best epoch so far of every trial [S, K]: its number, its figure, its parameters."""

    epoch: jax.Array
    value: jax.Array
    params: dict


def device_data(dataset, importance=None, resamples=None) -> train.Data:
    """A `data.Dataset` on the device; arrays that are there already stay where they are."""
    return jax.device_put(
        train.Data(
            x=dataset.x,
            y=dataset.y,
            weights=np.ones(len(dataset.y), np.float32),
            mean=np.asarray(dataset.mean, np.float32) if np.any(dataset.mean) else None,
            scale=np.asarray(dataset.scale, np.float32),
            resamples=None if resamples is None else np.asarray(resamples, np.uint8),
            importance=importance,
        )
    )


@functools.partial(jax.jit, static_argnames=_STATIC)
def create(seeds, hyperparameters, resample, *, model, loss, tx, num_features, num_classes):
    """Fresh states [S, K] for seeds [S], hyperparameters [K] and columns of the resamples [K]."""

    def one(seed, hyperparameters, resample):
        return train.create_state(
            jax.random.key(seed),
            model,
            hyperparameters,
            num_features,
            num_classes,
            loss=loss,
            tx=tx,
            resample=resample,
        )

    return jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)), in_axes=(0, None, None))(
        seeds, hyperparameters, resample
    )


@functools.partial(jax.jit, donate_argnames="states")
def train_epoch(states, data, orders):
    """`train.train_epoch` for states [S, K], with an order [S, steps, B] per seed."""
    trials = jax.vmap(train.train_epoch, in_axes=(0, None, None))
    if len(orders) > 1:
        return jax.vmap(trials, in_axes=(0, None, 0))(states, data, orders)
    # One seed needs no axis: a batched product of length one is slower than a plain one.
    alone = trials(jax.tree.map(lambda leaf: leaf[0], states), data, orders[0])
    return jax.tree.map(lambda leaf: leaf[None], alone)


@jax.jit
def values(states, sums):
    """The figures {name: [S, K]} of sums over training steps."""
    return jax.vmap(jax.vmap(train.values))(states, sums)


@jax.jit
def evaluate(states, data):
    """The figures {name: [S, K]} of every metric over the data."""

    def one(state):
        return train.values(state, train.evaluate(state, data))

    return jax.vmap(jax.vmap(one))(states)


@jax.jit
def no_best(states) -> Best:
    """Before the first epoch: epoch 0, an infinite value, the initial parameters (a copy)."""
    shape = states.step.shape
    params = jax.tree.map(jnp.copy, states.params)
    return Best(jnp.zeros(shape, jnp.int32), jnp.full(shape, jnp.inf, jnp.float32), params)


@functools.partial(jax.jit, donate_argnames="best")
def keep_best(best, states, value, epoch) -> Best:
    """Where `value` [S, K] is below the best one, the present epoch and parameters replace it."""
    better = value < best.value

    def choose(new, old):
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old)

    now = Best(jnp.full(best.epoch.shape, epoch, jnp.int32), value, states.params)
    return jax.tree.map(choose, now, best)
