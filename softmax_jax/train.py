"""Minibatch SGD on one model: the step, the epoch, the evaluation. All pure.

Nothing here knows of trials: `softmax_jax.sweep` adds their axis with `jax.vmap`.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from softmax_jax import batches, cures, losses, schedules
from softmax_jax.batches import Batch, Data
from softmax_jax.state import MOMENTUM_SGD, SGD, Hyperparameters, State, create_state

__all__ = [
    "MOMENTUM_SGD",
    "SGD",
    "Batch",
    "Data",
    "Hyperparameters",
    "State",
    "create_state",
    "evaluate",
    "predict",
    "train_epoch",
    "train_step",
    "values",
]


def train_step(state: State, batch: Batch):
    """One step of SGD on Σ w·v·loss / Σ w + l2/2 · ‖W‖²: (state, batch) -> (state, sums).

    w are the weights of the batch and v its importance (1 where that is None); the labels of this
    loss may be smoothed. The sums are those of the plain loss and the accuracy over the batch,
    before the update, weighted by w alone. A batch whose weights are all zero has a data gradient
    of zero.
    """

    def objective(params):
        value, sums = state.objective.train(state, params, batch)
        return value + state.hyperparameters.l2 / 2 * state.squared_norm(params), sums

    gradient, sums = jax.grad(objective, has_aux=True)(state.params)
    return _update(state, gradient), sums


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
        return state.objective.evaluate(state, batch)

    def add(sums, start):
        return jax.tree.map(jnp.add, sums, one_block(start)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one_block, 0)
    )
    return lax.scan(add, zeros, jnp.arange(0, num_examples, size))[0]


def values(state: State, sums):
    """{name: figure} of the sums that `train_step`, `train_epoch` and `evaluate` return."""
    return state.objective.values(sums)


def predict(state: State, x):
    """Probabilities [B, C] of normalised features x [B, ...]."""
    return losses.softmax(state.apply_fn(state.averaged, x))


def _update(state, gradient):
    """The state a step further: at the rate of the hour, averaged, and unless it has stopped."""
    h, new = state.hyperparameters, state
    course = {name: getattr(h, name) for name in ("warmup", "final_rate")}
    course = {name: value for name, value in course.items() if value is not None}
    if course:
        height = schedules.height(state.schedule, state.step / state.num_steps, **course)
        opt_state = optax.tree.set(state.opt_state, learning_rate=h.learning_rate * height)
        new = new.replace(opt_state=opt_state)
    new = new.apply_gradients(grads=gradient)
    if h.averaging is not None:
        done = new.params, new.step, state.num_steps
        new = new.replace(average=cures.tail_mean(state.average, *done, h.averaging))
    return new if h.patience is None else cures.held(state.stopped, state, new)
