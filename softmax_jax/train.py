"""Minibatch SGD on one model: batches, the loss, the step, the epoch, the evaluation. All pure.

Nothing here knows of trials: `softmax_jax.sweep` adds their axis with `jax.vmap`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, PRNGKeyArray, PyTree, Shaped, UInt8

from softmax_jax import losses, metrics
from softmax_jax.hyperparameters import OFF, Hyperparameters
from softmax_jax.model import Model, Params, concise

_Array = Array | np.ndarray
_Index = int | np.integer | Int[_Array, ""]
_Scalar = int | float | np.number | Float[_Array, ""] | Int[_Array, ""]
Sums = dict[str, Any]  # of the metrics, by name: what `Criterion.values` takes


class Batch(NamedTuple):
    """A minibatch.

    Attributes:
      x: the features.
      y: the labels.
      weights: how often each example counts (0: it is absent), in the objective and every metric.
      class_weight: of the classes, which weigh each example's loss in the objective alone; None: 1.
      total: what the sum of the weighted losses is divided by in the objective; None: the sum of
        the weights.
    """

    x: Float[_Array, "B D"]
    y: Int32[_Array, " B"]
    weights: Float[_Array, " B"]
    class_weight: Float[_Array, " C"] | None = None
    total: Float[_Array, ""] | None = None


class Data(NamedTuple):
    """A dataset on the device; a batch has its features as (x - mean) / scale.

    Attributes:
      x: uint8 or floating point.
      y: the labels.
      weights: see `Batch`; of mean 1 over the dataset.
      mean: a scalar, or one number per feature; None: 0.
      scale: a scalar, or one number per feature.
      resamples: how often each example counts in resample r; None: once.
      class_weight: see `Batch`.
      mean_weight: the mean weight in the objective, those of the classes included, of the examples
        in resample r; without resamples, R = 1. None: 1.
    """

    x: Shaped[_Array, "N ..."]
    y: Int32[_Array, " N"]
    weights: Float[_Array, " N"]
    mean: Float[_Array, "*D"] | None
    scale: Float[_Array, "*D"]
    resamples: UInt8[_Array, "N R"] | None = None
    class_weight: Float[_Array, " C"] | None = None
    mean_weight: Float[_Array, " R"] | None = None


def gather_batch(data: Data, rows: Int[_Array, " B"], resample: _Index) -> Batch:
    """The examples of the given rows; a row of -1 is padding and weighs nothing.

    Weighted losses are divided by the number of examples times their mean weight in the resample,
    and not by the weights that the batch happens to have: on average a batch then has the gradient
    of Σ w·v·loss / Σ w·v over the resample, beside which l2 means what it says. (So it does only
    where a batch without any example of the resample is no step: see `train_step`.)
    """

    def at_rows(leaf):
        return jnp.take(leaf, rows, axis=0, mode="clip")  # padding takes the first row

    weights, total = jnp.where(rows >= 0, at_rows(data.weights), 0), None
    count = (rows >= 0).astype(weights.dtype)
    if data.resamples is not None:
        own = at_rows(data.resamples)[:, resample]
        weights, count = weights * own, count * own
        total = weights.sum()
    if data.mean_weight is not None:
        total = count.sum() * data.mean_weight[resample]
    x, y = normalise(data, at_rows(data.x)), at_rows(data.y)
    return Batch(x, y, weights, data.class_weight, total)


def slice_batch(data: Data, start: _Index, size: int, resample: _Index) -> Batch:
    """`size` examples from row `start` on.

    Where fewer remain, it begins earlier; the rows repeated from the batch before weigh nothing.
    """
    first = jnp.minimum(start, data.y.shape[0] - size)

    def rows(leaf):
        return lax.dynamic_slice_in_dim(leaf, first, size)

    weights = rows(data.weights) * (first + jnp.arange(size) >= start)
    if data.resamples is not None:
        weights = weights * rows(data.resamples)[:, resample]
    return Batch(normalise(data, rows(data.x)), rows(data.y), weights, data.class_weight)


def normalise(data: Data, x: Shaped[_Array, "B ..."]) -> Float[_Array, "B D"]:
    """(x - mean) / scale of x [B, ...], flattened to [B, D], in the dtype of the scale."""
    features = x.reshape(len(x), -1).astype(data.scale.dtype)
    if data.mean is not None:
        features = features - data.mean
    return features * (1 / data.scale)  # one division, not one per pixel


class State(TrainState):
    """A Flax `TrainState` with everything else that differs between models or changes in training.

    The fields have no types, because a pytree's leaves may be anything: shapes, shardings, axes.

    Attributes:
      step: the number of steps done, an int32 scalar.
      params: those of the model.
      hyperparameters: those of the model, float32 scalars or None.
      resample: the model's column of `Data.resamples`, an int32 scalar.
      num_steps: of the whole training, a float32 scalar; None where no hyperparameter needs it.
      average: the mean of the iterates, like params; None without averaging.
      stopped: whether the state is frozen, a boolean scalar; None without early stopping.
    """

    step: Any
    params: Any
    hyperparameters: Any
    resample: Any
    num_steps: Any
    average: Any
    stopped: Any

    @property
    def averaged(self) -> Params:
        """The parameters to evaluate: the mean of the iterates, or without averaging the last."""
        return self.params if self.average is None else self.average


# Made once for all runs: compiled programs are keyed by the transformation, and a new one per run
# would be compiled again. The zeros are placeholders for the traced values of `create_state`.
# Without momentum there is no buffer to store, read and write.
SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
MOMENTUM_SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.0)
_NESTEROV = optax.inject_hyperparams(optax.sgd, static_args="nesterov")(
    learning_rate=0.0, momentum=0.0, nesterov=True
)
_ADAM = optax.inject_hyperparams(optax.adam, static_args=("eps", "eps_root", "nesterov"))(
    learning_rate=0.0, b1=0.0, b2=0.0
)

# What `config.optimizer` may name, beside 'lbfgs', and the transformation with momentum or moments.
# AdamW is Adam, and a decay of the weights that `train_step` adds: it knows which are the biases.
OPTIMIZERS = {"sgd": MOMENTUM_SGD, "nesterov": _NESTEROV, "adam": _ADAM, "adamw": _ADAM}
_OWN_NAMES = {"b1": "beta1", "b2": "beta2"}  # of Optax's hyperparameters


def create_state(
    key: PRNGKeyArray,
    model: Model,
    hyperparameters: Hyperparameters,
    num_features: int,
    num_classes: int,
    *,
    num_steps: _Scalar | None = None,
    resample: _Index = 0,
    optimizer: str = "sgd",
) -> State:
    """A new model: weights from N(0, init_scale²), biases zero, zero momentum.

    Args:
      key: of the initial weights.
      model: of `softmax_jax.model`.
      hyperparameters: scalars; None leaves a hyperparameter out of the program.
      num_features: D.
      num_classes: C.
      num_steps: of the whole training, which warm-up, decay and averaging are fractions of.
      resample: the column of `Data.resamples` that the model counts its examples by.
      optimizer: one of `OPTIMIZERS`.

    Raises:
      ValueError: warmup, final_rate or averaging is given, and num_steps is not.
    """
    h = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), hyperparameters)
    params = model.init(key, num_features, num_classes, h.init_scale)
    timed = not (h.warmup is None and h.final_rate is None and h.averaging is None)
    if timed and num_steps is None:
        raise ValueError("warmup, final_rate and averaging are fractions of num_steps: give it.")
    state = State.create(
        apply_fn=model.apply,
        params=params,
        tx=SGD if h.momentum is None and optimizer == "sgd" else OPTIMIZERS[optimizer],
        hyperparameters=h,
        resample=jnp.asarray(resample, jnp.int32),
        num_steps=jnp.asarray(num_steps, jnp.float32) if timed else None,
        average=None if h.averaging is None else params,
        stopped=None if h.patience is None else jnp.zeros((), bool),
    )
    names = {name: _OWN_NAMES.get(name, name) for name in state.opt_state.hyperparams}
    given = {name: getattr(h, own) for name, own in names.items()}
    own = {name: OFF[names[name]] if value is None else value for name, value in given.items()}
    opt_state = optax.tree.set(state.opt_state, **own)
    return state.replace(step=jnp.zeros((), jnp.int32), opt_state=opt_state)


class Criterion(NamedTuple):
    """What is minimised and measured on a batch: pure functions, hashable, so static in a program.

    Attributes:
      loss: (params, batch, label_smoothing, step) -> (the data part of the objective, sums of the
        train metrics); label_smoothing may be None, and the step is for losses that draw samples.
      evaluate: (params, batch) -> sums of the validation metrics.
      values: sums of either kind -> {name: value}.
      squared_norm: params -> ‖W‖².
      holds_logits: whether loss and evaluate hold the logits of a whole batch in memory.
    """

    loss: Callable
    evaluate: Callable
    values: Callable
    squared_norm: Callable
    holds_logits: bool


@functools.cache
def criterion_of_logits(model: Model = concise, loss: Callable = losses.cross_entropy) -> Criterion:
    """A loss(logits, labels, axis) of `softmax_jax.losses` on a model's logits, and every metric.

    Cached: equal arguments give the same criterion, and so the same compiled program.
    """
    measured = {"loss": metrics.mean_of(loss), **metrics.METRICS}
    in_training = {"loss": measured["loss"], "accuracy": metrics.mean_of(metrics.accuracy)}

    def logits(params, batch):
        return model.apply(params, batch.x).T  # [C, B]: see `model.product`

    def measure(which, scores, batch):
        return metrics.sums(which, scores, batch.y, batch.weights, 0, _offsets(batch))

    def mean_loss(params, batch, label_smoothing, _step):
        """Σ w·v·loss / total, and the sums of the train metrics, which are weighted by w alone."""
        scores = logits(params, batch)
        sums = measure(in_training, scores, batch)
        if batch.total is None and batch.class_weight is None and label_smoothing is None:
            # The measured loss is the objective's.
            return metrics.values(in_training, sums)["loss"], sums
        minimised = loss if label_smoothing is None else losses.smoothed(loss, label_smoothing)
        weights = batch.weights
        if batch.class_weight is not None:
            weights = weights * jnp.take(batch.class_weight, batch.y)
        own = metrics.mean_of(minimised).sums(scores, batch.y, weights, axis=0)
        total = batch.weights.sum() if batch.total is None else batch.total
        return metrics.ratio(own["sum"], total), sums

    def evaluate(params, batch):
        return measure(measured, logits(params, batch), batch)

    values = functools.partial(metrics.values, measured)
    return Criterion(mean_loss, evaluate, values, model.squared_norm, holds_logits=True)


def _offsets(batch):
    """[C, 1]: what class weights add to the logits; None without them."""
    if batch.class_weight is None:
        return None
    return losses.weight_offsets(batch.class_weight)[:, None]


def train_step(
    state: State, batch: Batch, criterion: Criterion, schedule: str = "constant"
) -> tuple[State, Sums]:
    """One step on Σ w·v·loss / total + l2/2 · ‖W‖², where the loss may have smoothed labels.

    The state's optimiser makes it: SGD, with or without momentum, or Adam; a weight_decay takes its
    part of W beside it, outside of the objective and of Adam's moments.

    w are the weights of the batch, v those of the classes (1 where there are none), and total is
    Σ w unless the batch says otherwise. A batch whose weights are all zero has a data gradient of
    zero, and with a total of 0 no penalty either.

    Args:
      state: the model, its hyperparameters and its optimiser's state.
      batch: a minibatch of normalised features.
      criterion: what is minimised and measured.
      schedule: one of `SCHEDULES`.

    Returns:
      The state after the update, and the sums of the train metrics over the batch before it.
    """
    h = state.hyperparameters

    def loss_fn(params, batch):
        loss, sums = criterion.loss(params, batch, h.label_smoothing, state.step)
        l2 = h.l2 if batch.total is None else h.l2 * (batch.total > 0)
        return loss + l2 / 2 * criterion.squared_norm(params), sums

    def decay_fn(params):
        decay = h.weight_decay if batch.total is None else h.weight_decay * (batch.total > 0)
        return decay / 2 * criterion.squared_norm(params)

    gradient, sums = jax.grad(loss_fn, has_aux=True)(state.params, batch)
    decay = None if h.weight_decay is None else jax.grad(decay_fn)(state.params)
    return _update(state, gradient, decay, schedule), sums


def train_epoch(
    state: State,
    data: Data,
    order: Int[_Array, "steps B"],
    criterion: Criterion,
    schedule: str = "constant",
) -> tuple[State, Sums]:
    """A segment of steps, usually an epoch.

    Args:
      state: see `train_step`.
      data: the training set.
      order: the row of every example of every minibatch; -1 is padding.
      criterion: see `train_step`.
      schedule: one of `SCHEDULES`.

    Returns:
      The state after the last step, and the sums of the train metrics over all steps.
    """

    def step(state, rows):
        return train_step(state, gather_batch(data, rows, state.resample), criterion, schedule)

    state, sums = lax.scan(step, state, order)
    return state, jax.tree.map(metrics.total, sums)


def evaluate(state: State, data: Data, criterion: Criterion, *, batch_size: int = 1000) -> Sums:
    """Sums of every metric over the data, scanned in batches: memory does not grow with N.

    Many batches are scanned in groups, whose sums are added up with what rounding takes from them:
    float32 alone counts to 16,777,216.
    """
    num_examples = data.y.shape[0]
    num_batches = -(-num_examples // batch_size)
    size = -(-num_examples // num_batches)  # batches as even as possible
    num_groups = -(-num_batches // _GROUP)
    length = -(-num_batches // num_groups)  # what begins behind the last example weighs nothing

    def one_batch(start):
        batch = slice_batch(data, start, size, state.resample)
        return criterion.evaluate(state.averaged, batch)

    def add(sums, start):
        return jax.tree.map(jnp.add, sums, one_batch(start)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one_batch, 0)
    )
    if num_groups == 1:
        return lax.scan(add, zeros, size * jnp.arange(length))[0]

    def add_group(sums, starts):
        (total, lost), own = sums, lax.scan(add, zeros, starts)[0]
        new = jax.tree.map(jnp.add, total, own)
        return (new, jax.tree.map(_add_rounding, lost, total, own, new)), None

    starts = size * jnp.arange(num_groups * length).reshape(num_groups, length)
    sums, lost = lax.scan(add_group, (zeros, zeros), starts)[0]
    return jax.tree.map(jnp.add, sums, lost)


_GROUP = 16  # batches whose sums are added up as they come


def _add_rounding(lost, total, more, new):
    """lost, and what rounding took from new = total + more, by Knuth's two-sum."""
    added = new - total
    return lost + ((total - (new - added)) + (more - added))


def predict(state: State, x: Float[_Array, "B ..."]) -> Float[Array, "B C"]:
    """Probabilities [B, C] of normalised features x [B, ...]."""
    return losses.softmax(state.apply_fn(state.averaged, x))


def _update(state, gradient, decay, schedule):
    """Applies one update at the scheduled rate, then averages; a stopped state is kept."""
    h, new = state.hyperparameters, state
    timing = {name: getattr(h, name) for name in ("warmup", "final_rate")}
    timing = {name: value for name, value in timing.items() if value is not None}
    if timing:
        multiplier = rate_multiplier(schedule, state.step / state.num_steps, **timing)
        opt_state = optax.tree.set(state.opt_state, learning_rate=h.learning_rate * multiplier)
        new = new.replace(opt_state=opt_state)
    new = new.apply_gradients(grads=gradient)
    if decay is not None:
        rate = new.opt_state.hyperparams["learning_rate"]
        params = jax.tree.map(lambda leaf, own: leaf - rate * own, new.params, decay)
        new = new.replace(params=params)
    if h.averaging is not None:
        average = tail_mean(state.average, new.params, new.step, state.num_steps, h.averaging)
        new = new.replace(average=average)
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


def rate_multiplier(
    schedule: str,
    fraction: _Scalar,
    warmup: _Scalar = 0.0,
    final_rate: _Scalar = 1.0,
) -> Float[Array, ""]:
    """Multiplier of the peak rate after a fraction of training. All are scalars.

    fraction/warmup up to warmup. From there 'constant' is 1; the others decay to final_rate r at
    the end: with u the fraction of the remaining training that is done, 'cosine' is
    r + (1 - r)(1 + cos πu)/2, and 'exponential' is rᵘ.

    >>> [round(float(rate_multiplier("cosine", u, 0.2, 0.1)), 2) for u in (0.1, 0.2, 0.6, 1)]
    [0.5, 1.0, 0.55, 0.1]
    """
    rest = jnp.maximum(fraction - warmup, 0) / (1 - warmup)
    rising = jnp.divide(fraction, warmup)
    return jnp.where(fraction < warmup, rising, _DECAYS[schedule](rest, final_rate))


def tail_mean(
    mean: PyTree, params: PyTree, step: _Scalar, num_steps: _Scalar, fraction: _Scalar
) -> PyTree:
    """The running mean of the parameters over the last `fraction` of all steps, updated by a step.

    Until the last `fraction` begins, the mean is the parameters themselves. Source: Polyak and
    Juditsky (1992) for fraction 1; Rakhlin, Shamir and Sridharan (2012) for less, which forgets the
    path from the initial weights.

    Args:
      mean: the mean after the step before.
      params: the parameters after this step.
      step: the number of this step, from 1.
      num_steps: of the whole training.
      fraction: of training, at its end, to average over.

    >>> means = [tail_mean(10.0, 3.0, step, 4, 0.5) for step in (2, 3, 4)]
    >>> [float(mean) for mean in means]  # before the last half, then its first and second step
    [3.0, 3.0, 6.5]
    """
    count = step - jnp.round((1 - fraction) * num_steps)
    weight = 1 / jnp.maximum(count, 1)
    return jax.tree.map(lambda old, new: (1 - weight) * old + weight * new, mean, params)


def freeze(stopped: Bool[_Array, ""], old: PyTree, new: PyTree) -> PyTree:
    """The old pytree where `stopped`, else the new one."""
    return jax.tree.map(lambda before, after: jnp.where(stopped, before, after), old, new)
