"""What is measured, of a batch on the device and by class on the host, with intervals.

Every `Metric` is a sum over examples, and becomes a value at the very end: sums add up over batches
(and over devices) without rounding away the short last batch. A new metric joins by a line in
`METRICS`; no loop knows their names. `confusion_matrix` and what follows from it count on the host.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Metric(NamedTuple):
    """sums(scores, labels, weights, axis) -> a pytree of sums; value(sums) -> the figure."""

    sums: Callable
    value: Callable


def mean_of(per_example):
    """The weighted mean Σ w·f / Σ w of a function f(scores, labels, axis) -> [B]."""

    def sums(scores, labels, weights, axis=-1):
        values = per_example(_of_those_there(scores, weights, axis), labels, axis)
        return {"sum": (weights * values).sum(), "weight": weights.sum()}

    def value(sums):
        return _ratio(sums["sum"], sums["weight"])

    return Metric(sums, value)


def accuracy(scores, labels, axis=-1):
    """1 where the largest score is the label's, else 0: [..., C] and integers [...] -> [...].

    Of equal scores the first counts, as in argmax; NaN is never right.
    """
    # argmax as two plain reductions: the compiler vectorises these, and not argmax itself (which
    # took 12 % of a sweep of 64). float32 numbers 16 million classes exactly.
    classes = jax.lax.broadcasted_iota(jnp.float32, scores.shape, axis % scores.ndim)
    largest = scores == scores.max(axis, keepdims=True)
    first = jnp.where(largest, classes, jnp.inf).min(axis)
    return (first == labels).astype(jnp.float32)


def rank(scores, labels, axis=-1):
    """How many classes beat the label: scores [..., C], integer labels [...] -> int32 [...].

    A class beats the label if its score is larger, or equal with a smaller index (so rank 0 is
    what argmax calls correct). Where scores are NaN, the label is beaten by every class.
    """
    label = jnp.expand_dims(labels, axis)
    own = jnp.take_along_axis(scores, label, axis)
    classes = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis % scores.ndim)
    beats = jnp.where(classes < label, ~(scores < own), ~(scores <= own))
    return beats.sum(axis)


def top(k):
    """1 where the label is among the k largest scores, else 0: a function of (scores, labels)."""

    def among_the_largest(scores, labels, axis=-1):
        return (rank(scores, labels, axis) < k).astype(jnp.float32)

    return among_the_largest


def _by_class_sums(scores, labels, weights, axis=-1):
    members = jax.nn.one_hot(labels, scores.shape[axis], axis=0) * weights
    correct = top(1)(_of_those_there(scores, weights, axis), labels, axis)
    return {"correct": members @ correct, "weight": members.sum(1)}


def _balanced_value(sums):
    present = sums["weight"] > 0
    recalls = jnp.where(present, _ratio(sums["correct"], sums["weight"]), 0)
    return _ratio(recalls.sum(-1), present.sum(-1))


# The balanced accuracy is the mean over the classes of their recalls (classes without examples
# are left out), as in scikit-learn's balanced_accuracy_score.
# `top(1)` is `accuracy` by way of the rank, which is made only once for all three: an evaluation of
# 256 trials takes 15 % less time. Without the others `accuracy` is the faster way.
METRICS = {
    "accuracy": mean_of(top(1)),
    "balanced_accuracy": Metric(_by_class_sums, _balanced_value),
    "top5": mean_of(top(5)),
}


def sums(metrics, scores, labels, weights, axis=-1):
    """{name: sums} over the examples, for metrics {name: Metric}."""
    return {
        name: metric.sums(scores, labels, weights, axis=axis) for name, metric in metrics.items()
    }


def values(metrics, sums):
    """{name: value} of {name: sums}, for the metrics {name: Metric} that made the sums."""
    return {name: metrics[name].value(sums[name]) for name in sums}


def _of_those_there(scores, weights, axis):
    # A weight of zero means that the example is not there. Its scores are replaced, not its value:
    # an infinite loss times zero is NaN, and so would be its gradient.
    return jnp.where(jnp.expand_dims(weights > 0, axis), scores, 0)


def _ratio(sum_, weight):
    return sum_ / jnp.maximum(weight, jnp.finfo(jnp.float32).tiny)


def confusion_matrix(labels, predicted, num_classes, num_actions=None, included=None):
    """How often each class met each prediction: int64 [..., C, A], true classes by rows.

    labels [N] in 0..C-1 · predicted [..., N] in 0..A-1, classes or other actions · num_actions: A
    (None: C) · included [..., N]: which examples count, such as those that each of R resamples
    held out (None: all).

    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    predicted = np.asarray(predicted)
    num_actions = num_classes if num_actions is None else num_actions
    shape = (*predicted.shape[:-1], num_classes, num_actions)
    tables = np.arange(np.prod(shape[:-2], dtype=int)).reshape(*shape[:-2], 1)
    cells = (tables * num_classes + np.asarray(labels)) * num_actions + predicted
    kept = cells.ravel() if included is None else cells[np.broadcast_to(included, cells.shape)]
    return np.bincount(kept, minlength=np.prod(shape, dtype=int)).reshape(shape)


def per_class(confusion) -> dict:
    """Of a confusion matrix [..., C, C] for every class, arrays [..., C].

    precision: the share of what was taken for the class that is of it · recall: the share of the
    class that was found; of two classes, that of the positive one is the sensitivity, that of the
    other the specificity · f1 = 2 · precision · recall / (precision + recall) · support: the
    examples of the class. NaN where there is nothing to take a share of: a class never predicted
    has no precision.

    >>> [round(recall, 2) for recall in per_class([[1, 1], [0, 1]])["recall"].tolist()]
    [0.5, 1.0]
    """
    counts = np.asarray(confusion)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    taken, support = counts.sum(-2), counts.sum(-1)
    return {
        "precision": _share(right, taken),
        "recall": _share(right, support),
        "f1": _share(2 * right, taken + support),
        "support": support,
    }


def mean_cost(confusion, cost):
    """Σ counts · cost / N of tables [..., C, A] and a cost matrix [C, A]: [...].

    >>> mean_cost([[1, 1], [0, 2]], [[0, 10], [1, 0]]).item()
    2.5
    """
    counts = np.asarray(confusion)
    return _share((counts * np.asarray(cost)).sum((-2, -1)), counts.sum((-2, -1)))


def _share(part, whole):
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def wilson_interval(successes, trials, confidence=0.95):
    """Wilson's score interval [lo, hi] for a proportion, such as an accuracy.

    Unlike the normal interval it stays inside [0, 1] and keeps its coverage near the ends.
    Source: E. B. Wilson (1927), by `scipy.stats.binomtest`.
    """
    from scipy.stats import binomtest  # half a second to import: only where a test split is used

    interval = binomtest(int(successes), int(trials)).proportion_ci(confidence, method="wilson")
    return [float(interval.low), float(interval.high)]


def normal_interval(mean, standard_deviation, n, confidence=0.95):
    """mean ± z · sd / √n: the interval [lo, hi] for the mean of n independent values."""
    from scipy.stats import norm

    half = norm.ppf(0.5 + confidence / 2) * standard_deviation / math.sqrt(n)
    return [float(mean - half), float(mean + half)]
