"""Minibatch SGD on one model: the state, the step, the epoch, the evaluation. All pure.

Nothing here knows of trials: `softmax_jax.sweep` adds their axis with `jax.vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState
from jax import lax

from softmax_jax import batches, losses, metrics, models
from softmax_jax.batches import Batch, Data


class Hyperparameters(NamedTuple):
    """What may differ between trials: float32 scalars, or arrays [T] of one value per setting."""

    learning_rate: Any = 0.1
    momentum: Any = 0.0
    l2: Any = 0.0
    init_scale: Any = 0.01


class State(TrainState):
    """A Flax `TrainState` with its hyperparameters, its column of the resamples and its loss."""

    hyperparameters: Hyperparameters
    resample: jax.Array
    loss: Callable = struct.field(pytree_node=False)


# Made once for all runs: a transformation is part of what a compiled program is keyed by, and a new
# one per run would compile anew. The zeros are placeholders for the traced values of
# `create_state`. Without momentum there is no buffer to keep, to read and to write.
SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
MOMENTUM_SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.0)


def create_state(
    key,
    model: models.Model,
    hyperparameters: Hyperparameters,
    num_features: int,
    num_classes: int,
    *,
    loss=losses.cross_entropy,
    tx=MOMENTUM_SGD,
    resample=0,
) -> State:
    """A fresh model: weights from N(0, init_scale²), biases zero, no momentum gathered.

    tx: `SGD` where the momentum is known to be zero, else `MOMENTUM_SGD`.
    """
    h = Hyperparameters(*(jnp.asarray(value, jnp.float32) for value in hyperparameters))
    state = State.create(
        apply_fn=model.apply,
        params=model.init(key, num_features, num_classes, h.init_scale),
        tx=tx,
        hyperparameters=h,
        resample=jnp.asarray(resample, jnp.int32),
        loss=loss,
    )
    traced = {"learning_rate": h.learning_rate, "momentum": h.momentum}
    own = {name: traced[name] for name in state.opt_state.hyperparams}
    opt_state = optax.tree.set(state.opt_state, **own)
    return state.replace(step=jnp.zeros((), jnp.int32), opt_state=opt_state)


def train_step(state: State, batch: Batch):
    """One step of SGD on Σ w·v·loss / Σ w + l2/2 · ‖W‖²: (state, batch) -> (state, sums).

    w are the weights of the batch and v its importance (1 where that is None). The sums are those
    of loss and accuracy over the batch, before the update, weighted by w alone. A batch whose
    weights are all zero has a data gradient of zero.
    """

    def objective(params):
        scores = state.apply_fn(params, batch.x).T  # [C, B]: see models.product
        sums = _measure(state.loss, _TRAIN_METRICS, scores, batch)
        value = _mean_loss(state.loss, scores, batch, sums)
        return value + state.hyperparameters.l2 / 2 * models.squared_norm(params), sums

    gradient, sums = jax.grad(objective, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradient), sums


def train_epoch(state: State, data: Data, order):
    """A span of steps, usually an epoch: (state, data, order) -> (state, sums over the span).

    order [steps, B] int32 holds the row of every example of every minibatch; -1 is padding.
    """

    def step(state, rows):
        return train_step(state, batches.take(data, rows, state.resample))

    state, sums = lax.scan(step, state, order)
    return state, jax.tree.map(lambda leaf: leaf.sum(0), sums)


def evaluate(state: State, data: Data, *, batch_size: int = 1000):
    """Sums of every metric over the data, scanned in blocks: memory does not grow with N."""
    num_examples = data.y.shape[0]
    size = -(-num_examples // -(-num_examples // batch_size))  # blocks as even as can be

    def one_block(start):
        batch = batches.block(data, start, size, state.resample)
        scores = state.apply_fn(state.params, batch.x).T
        return _measure(state.loss, _EVALUATION_METRICS, scores, batch)

    def add(sums, start):
        return jax.tree.map(jnp.add, sums, one_block(start)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one_block, 0)
    )
    return lax.scan(add, zeros, jnp.arange(0, num_examples, size))[0]


def values(state: State, sums):
    """{name: figure} of the sums that `train_step`, `train_epoch` and `evaluate` return."""
    return metrics.values(_metrics(state.loss, sums), sums)


def predict(state: State, x):
    """Probabilities [B, C] of normalised features x [B, ...]."""
    return losses.softmax(state.apply_fn(state.params, x))


_TRAIN_METRICS = ("loss", "accuracy")
_EVALUATION_METRICS = ("loss", *metrics.METRICS)


def _metrics(loss, names):
    chosen = {name: metrics.METRICS[name] for name in names if name != "loss"}
    return {"loss": metrics.mean_of(loss), **chosen}


def _mean_loss(loss, scores, batch, sums):
    """The data part of the objective; without importance it is the loss already measured."""
    if batch.importance is None:
        return metrics.mean_of(loss).value(sums["loss"])

    def weighted(scores, labels, axis):
        return batch.importance * loss(scores, labels, axis)

    metric = metrics.mean_of(weighted)
    return metric.value(metric.sums(scores, batch.y, batch.weights, axis=0))


def _measure(loss, names, scores, batch):
    return {
        name: metric.sums(scores, batch.y, batch.weights, axis=0)
        for name, metric in _metrics(loss, names).items()
    }
