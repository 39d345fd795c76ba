"""Minibatch SGD on one model: batches, the loss, the step, the epoch, the evaluation. All pure.

Nothing here knows of trials: `softmax_jax.sweep` adds their axis with `jax.vmap`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from jax import lax

from softmax_jax import losses, metrics
from softmax_jax.hyperparameters import Hyperparameters
from softmax_jax.model import Model, concise


class Batch(NamedTuple):
    """A minibatch: x [B, D] float32, y [B] int32, and two kinds of weights, float32 [B].

    weights say how often an example counts (0: not there), in the objective and in every figure;
    importance, None or of mean 1 over the dataset, weighs it in the objective alone.
    """

    x: jax.Array
    y: jax.Array
    weights: jax.Array
    importance: jax.Array | None = None


class Data(NamedTuple):
    """A dataset on the device; a batch takes its features as (x - mean) / scale.

    x [N, ...] uint8 or float32 · y [N] int32 · weights [N] float32 · mean, scale: scalars or [D]
    (mean None: 0) · resamples: None, or [N, R] uint8: how often each example counts in resample r ·
    importance: None, or [N] float32: see `Batch`.
    """

    x: jax.Array
    y: jax.Array
    weights: jax.Array
    mean: jax.Array | None
    scale: jax.Array
    resamples: jax.Array | None = None
    importance: jax.Array | None = None


def gather_batch(data: Data, rows, resample) -> Batch:
    """The examples of the given rows [B]; a row of -1 is padding and weighs nothing."""

    def at_rows(leaf):
        return jnp.take(leaf, rows, axis=0, mode="clip")  # of padding the first row

    weights = jnp.where(rows >= 0, at_rows(data.weights), 0)
    if data.resamples is not None:
        weights = weights * at_rows(data.resamples)[:, resample]
    importance = None if data.importance is None else at_rows(data.importance)
    return Batch(normalise(data, at_rows(data.x)), at_rows(data.y), weights, importance)


def slice_batch(data: Data, start, size, resample) -> Batch:
    """`size` examples from row `start` on.

    Where fewer are left, it begins earlier; what it repeats of the block before weighs nothing.
    """
    first = jnp.minimum(start, data.y.shape[0] - size)

    def part(leaf):
        return lax.dynamic_slice_in_dim(leaf, first, size)

    weights = part(data.weights) * (first + jnp.arange(size) >= start)
    if data.resamples is not None:
        weights = weights * part(data.resamples)[:, resample]
    return Batch(normalise(data, part(data.x)), part(data.y), weights)


def normalise(data: Data, x) -> jax.Array:
    """(x - mean) / scale of x [B, ...], flattened to [B, D], in the type of the scale."""
    features = x.reshape(len(x), -1).astype(data.scale.dtype)
    if data.mean is not None:
        features = features - data.mean
    return features * (1 / data.scale)  # one division, not one per pixel


class State(TrainState):
    """A Flax `TrainState`, with all else that training a model changes or differs in.

    hyperparameters: those of the model · resample: its column of the resamples · num_steps: of the
    whole training · average: the mean of the iterates · stopped: whether nothing may change any
    more. Each of the last three is None where no hyperparameter needs it.
    """

    hyperparameters: Hyperparameters
    resample: jax.Array
    num_steps: jax.Array | None
    average: Any
    stopped: jax.Array | None

    @property
    def averaged(self):
        """The parameters that count: the mean of the iterates, or without averaging the last."""
        return self.params if self.average is None else self.average


# Made once for all runs: a transformation is part of what a compiled program is keyed by, and a new
# one per run would compile anew. The zeros are placeholders for the traced values of
# `create_state`. Without momentum there is no buffer to keep, to read and to write.
SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
MOMENTUM_SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.0)


def create_state(
    key,
    model: Model,
    hyperparameters: Hyperparameters,
    num_features: int,
    num_classes: int,
    *,
    num_steps=None,
    resample=0,
) -> State:
    """A fresh model: weights from N(0, init_scale²), biases zero, no momentum gathered.

    num_steps: of the whole training, for warm-up, decay and averaging: raises ValueError if one of
    them is there without it.
    """
    h = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), hyperparameters)
    params = model.init(key, num_features, num_classes, h.init_scale)
    timed = not (h.warmup is None and h.final_rate is None and h.averaging is None)
    if timed and num_steps is None:
        raise ValueError("warmup, final_rate and averaging are fractions of num_steps: give it.")
    state = State.create(
        apply_fn=model.apply,
        params=params,
        tx=SGD if h.momentum is None else MOMENTUM_SGD,
        hyperparameters=h,
        resample=jnp.asarray(resample, jnp.int32),
        num_steps=jnp.asarray(num_steps, jnp.float32) if timed else None,
        average=None if h.averaging is None else params,
        stopped=None if h.patience is None else jnp.zeros((), bool),
    )
    own = {name: getattr(h, name) for name in state.opt_state.hyperparams}
    opt_state = optax.tree.set(state.opt_state, **own)
    return state.replace(step=jnp.zeros((), jnp.int32), opt_state=opt_state)


class Criterion(NamedTuple):
    """What is minimised and measured on a batch: pure functions, hashable, so static in a program.

    loss(params, batch, label_smoothing, step) -> (the data part of the objective, sums of the train
        metrics); label_smoothing may be None, and the step is for losses that draw samples.
    evaluate(params, batch) -> sums of the validation metrics.
    values(sums) -> {name: metric}, of either sums.
    squared_norm(params) -> ‖W‖².
    holds_logits: whether loss and evaluate hold those of a whole batch.
    """

    loss: Callable
    evaluate: Callable
    values: Callable
    squared_norm: Callable
    holds_logits: bool


@functools.cache
def criterion_of_logits(model: Model = concise, loss=losses.cross_entropy) -> Criterion:
    """A loss(logits, labels, axis) of `softmax_jax.losses` on a model, and every metric."""
    measured = {"loss": metrics.mean_of(loss), **metrics.METRICS}
    in_training = {"loss": measured["loss"], "accuracy": metrics.mean_of(metrics.accuracy)}

    def logits(params, batch):
        return model.apply(params, batch.x).T  # [C, B]: see `model.product`

    def mean_loss(params, batch, label_smoothing, _step):
        """Σ w·v·loss / Σ w; the sums of the plain loss and the accuracy are weighted by w alone."""
        scores = logits(params, batch)
        sums = metrics.sums(in_training, scores, batch.y, batch.weights, axis=0)
        if batch.importance is None and label_smoothing is None:
            return metrics.values(in_training, sums)["loss"], sums  # the loss already measured
        minimised = loss if label_smoothing is None else losses.smoothed(loss, label_smoothing)

        def weighted(scores, labels, axis):
            each = minimised(scores, labels, axis)
            return each if batch.importance is None else batch.importance * each

        metric = metrics.mean_of(weighted)
        return metric.value(metric.sums(scores, batch.y, batch.weights, axis=0)), sums

    def evaluate(params, batch):
        return metrics.sums(measured, logits(params, batch), batch.y, batch.weights, axis=0)

    values = functools.partial(metrics.values, measured)
    return Criterion(mean_loss, evaluate, values, model.squared_norm, holds_logits=True)


def train_step(state: State, batch: Batch, criterion: Criterion, schedule="constant"):
    """One step of SGD on Σ w·v·loss / Σ w + l2/2 · ‖W‖²: (state, batch) -> (state, sums).

    w are the weights of the batch and v its importance (1 where that is None); the labels of this
    loss may be smoothed. The sums are those of the train metrics over the batch, before the update.
    A batch whose weights are all zero has a data gradient of zero. schedule: one of `SCHEDULES`.
    """
    h = state.hyperparameters

    def loss_fn(params, batch):
        loss, sums = criterion.loss(params, batch, h.label_smoothing, state.step)
        return loss + h.l2 / 2 * criterion.squared_norm(params), sums

    gradient, sums = jax.grad(loss_fn, has_aux=True)(state.params, batch)
    return _update(state, gradient, schedule), sums


def train_epoch(state: State, data: Data, order, criterion: Criterion, schedule="constant"):
    """A segment of steps, usually an epoch: (state, data, order) -> (state, sums over its steps).

    order [steps, B] int32 holds the row of every example of every minibatch; -1 is padding.
    """

    def step(state, rows):
        return train_step(state, gather_batch(data, rows, state.resample), criterion, schedule)

    state, sums = lax.scan(step, state, order)
    return state, jax.tree.map(lambda leaf: leaf.sum(0), sums)


def evaluate(state: State, data: Data, criterion: Criterion, *, batch_size: int = 1000):
    """Sums of every metric over the data, scanned in batches: memory does not grow with N."""
    num_examples = data.y.shape[0]
    size = -(-num_examples // -(-num_examples // batch_size))  # batches as even as possible

    def one_batch(start):
        batch = slice_batch(data, start, size, state.resample)
        return criterion.evaluate(state.averaged, batch)

    def add(sums, start):
        return jax.tree.map(jnp.add, sums, one_batch(start)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one_batch, 0)
    )
    return lax.scan(add, zeros, jnp.arange(0, num_examples, size))[0]


def predict(state: State, x):
    """Probabilities [B, C] of normalised features x [B, ...]."""
    return losses.softmax(state.apply_fn(state.averaged, x))


def _update(state, gradient, schedule):
    """Applies one SGD update at the scheduled rate, then averages; a stopped state stays."""
    h, new = state.hyperparameters, state
    timing = {name: getattr(h, name) for name in ("warmup", "final_rate")}
    timing = {name: value for name, value in timing.items() if value is not None}
    if timing:
        multiplier = rate_multiplier(schedule, state.step / state.num_steps, **timing)
        opt_state = optax.tree.set(state.opt_state, learning_rate=h.learning_rate * multiplier)
        new = new.replace(opt_state=opt_state)
    new = new.apply_gradients(grads=gradient)
    if h.averaging is not None:
        done = new.params, new.step, state.num_steps
        new = new.replace(average=tail_mean(state.average, *done, h.averaging))
    return new if h.patience is None else freeze(state.stopped, state, new)


def _constant(_fraction, _final_rate):
    return 1.0


def _cosine(fraction, final_rate):
    return optax.cosine_decay_schedule(1.0, 1.0, final_rate)(fraction)


def _exponential(fraction, final_rate):
    return final_rate**fraction


_DECAYS = {"constant": _constant, "cosine": _cosine, "exponential": _exponential}

# What `config.schedule` may name.
SCHEDULES = tuple(_DECAYS)


def rate_multiplier(schedule, fraction, warmup=0.0, final_rate=1.0):
    """The rate in units of its peak, after a fraction of training. All are scalars.

    fraction/warmup up to warmup; from there 'constant', or a decay that arrives at final_rate r
    at the end: with u the fraction of the rest, 'cosine' is r + (1 - r)(1 + cos πu)/2, and
    'exponential' is rᵘ.

    >>> [round(float(rate_multiplier("cosine", u, 0.2, 0.1)), 2) for u in (0.1, 0.2, 0.6, 1)]
    [0.5, 1.0, 0.55, 0.1]
    """
    rest = jnp.maximum(fraction - warmup, 0) / (1 - warmup)
    rising = jnp.divide(fraction, warmup)
    return jnp.where(fraction < warmup, rising, _DECAYS[schedule](rest, final_rate))


def tail_mean(mean, params, step, num_steps, fraction):
    """The mean of the parameters after each of the last `fraction` of all steps, one step further.

    mean: that of the step before; params: those after `step` of the `num_steps` steps. As long as
    the last `fraction` has not begun, the mean is the parameters as they are. Source: Polyak and
    Juditsky (1992) for fraction 1; Rakhlin, Shamir and Sridharan (2012) for less, which forgets the
    way from the initial weights.

    >>> means = [tail_mean(10.0, 3.0, step, 4, 0.5) for step in (2, 3, 4)]
    >>> [float(mean) for mean in means]  # before the last half, its first step, its second
    [3.0, 3.0, 6.5]
    """
    count = step - jnp.round((1 - fraction) * num_steps)
    weight = 1 / jnp.maximum(count, 1)
    return jax.tree.map(lambda old, new: (1 - weight) * old + weight * new, mean, params)


def freeze(stopped, old, new):
    """Where `stopped`, everything as it was."""
    return jax.tree.map(lambda before, after: jnp.where(stopped, before, after), old, new)
