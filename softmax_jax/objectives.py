"""What is minimised and measured on a batch: by way of its logits, or for huge C without them.

Pure, for one model, like `softmax_jax.train`, which uses them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

from softmax_jax import cures, losses, metrics, models, vocabulary


class Objective(NamedTuple):
    """Three pure functions; hashable, since it is part of what a program is keyed by.

    train(state, params, batch) -> (value, sums): the data part of the objective at the parameters,
    and the sums of the train figures. evaluate(state, batch) -> sums of the validation figures, at
    the parameters that count. values(sums) -> {name: figure}. holds_logits: of a whole batch.
    """

    train: Callable
    evaluate: Callable
    values: Callable
    holds_logits: bool


@functools.cache
def of_logits(loss) -> Objective:
    """A loss(logits, labels, axis) of `softmax_jax.losses`, and every metric."""
    every = {"loss": metrics.mean_of(loss), **metrics.METRICS}
    in_training = {"loss": every["loss"], "accuracy": metrics.mean_of(metrics.accuracy)}

    def measure(figures, scores, batch):
        return {
            name: figure.sums(scores, batch.y, batch.weights, axis=0)
            for name, figure in figures.items()
        }

    def train(state, params, batch):
        scores = state.apply_fn(params, batch.x).T  # [C, B]: see models.product
        sums = measure(in_training, scores, batch)
        return _mean_loss(loss, state, scores, batch, sums), sums

    def evaluate(state, batch):
        scores = state.apply_fn(state.averaged, batch.x).T
        return measure(every, scores, batch)

    def values(sums):
        return metrics.values(every, sums)

    return Objective(train, evaluate, values, holds_logits=True)


CROSS_ENTROPY = of_logits(losses.cross_entropy)


@functools.cache
def of_vocabulary(name, num_classes, num_samples=0, sharding=None) -> Objective:
    """A loss of `softmax_jax.vocabulary` on an augmented model: it never holds a batch's logits.

    name: one of `vocabulary.OBJECTIVES`; num_samples: words drawn for each batch, the same for all
    trials. The train loss is the one that is minimised, on samples; validation is exact: loss,
    accuracy and top5. sharding: see `vocabulary.objective`.
    """
    minimised = vocabulary.objective(name, num_classes, num_samples or None, sharding)
    measure = functools.partial(_measure_words, axis_name=None)
    if sharding is not None:
        (axis,) = sharding.spec
        measure = functools.partial(_measure_words, axis_name=axis)
        measure = vocabulary.over_vocabulary(measure, sharding.mesh, axis)

    def train(state, params, batch):
        key = jax.random.fold_in(jax.random.key(0), state.step)
        weights = count = batch.weights
        if batch.importance is not None:
            weights = weights * batch.importance
        x, W = models.layer(params, batch.x)
        value = minimised(key, x, W, batch.y, example_weights=weights)
        sums = {"sum": value * weights.sum(), "weight": count.sum()}
        return metrics.mean_of(None).value(sums), {"loss": sums}

    def evaluate(state, batch):
        x, W = models.layer(state.averaged, batch.x)
        w, found = batch.weights, measure(W, None, x, batch.y)
        return {name: {"sum": (w * f).sum(), "weight": w.sum()} for name, f in found.items()}

    def values(sums):
        return {name: metrics.mean_of(None).value(own) for name, own in sums.items()}

    return Objective(train, evaluate, values, holds_logits=False)


def _measure_words(W, b, x, y, axis_name):
    """The figures [B] of every example."""
    log_p, rank = vocabulary.log_prob_and_rank(x, W, y, bias=b, axis_name=axis_name)
    return {"loss": -log_p, "accuracy": rank == 0, "top5": rank < 5}


def _mean_loss(loss, state, scores, batch, sums):
    """The data part of the objective; often it is the loss already measured."""
    smoothing = state.hyperparameters.label_smoothing
    if batch.importance is None and smoothing is None:
        return metrics.mean_of(loss).value(sums["loss"])
    if smoothing is not None:
        loss = cures.smoothed(loss, smoothing)

    def weighted(scores, labels, axis):
        each = loss(scores, labels, axis)
        return each if batch.importance is None else batch.importance * each

    metric = metrics.mean_of(weighted)
    return metric.value(metric.sums(scores, batch.y, batch.weights, axis=0))
