"""Metrics: sums over a batch on the device, counts by class on the host, confidence intervals.

Every `Metric` is a sum over examples that becomes a value at the very end. Sums add up over batches
and devices, so that a short last batch counts by its examples. To add a metric, add a line to
`METRICS`: no loop names them. `confusion_matrix` and the functions of its counts run on the host.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, Real

from softmax_jax import checks

_Array = Array | np.ndarray
_ArrayLike = Array | np.ndarray | Sequence


class Metric(NamedTuple):
    """sums(scores, labels, weights, axis) -> a pytree of sums, and value(sums) -> the value."""

    sums: Callable
    value: Callable


_PLAIN, _BLOCK = 2**16, 2**8  # values that are added up as they come; in a block of more


def total(values: Float[_Array, "N ..."]) -> Any:
    """Σ over the first axis: of many values in blocks, and so are their sums.

    Under `jax.vmap` the compiler adds up one value after the other: of 20 million, float32 loses
    the fifth digit.
    """
    if len(values) > _PLAIN:
        while len(values) > _BLOCK:
            padding = [(0, -len(values) % _BLOCK)] + [(0, 0)] * (values.ndim - 1)
            values = jnp.pad(values, padding).reshape(-1, _BLOCK, *values.shape[1:]).sum(1)
    return values.sum(0)


def mean_of(per_example: Callable | None) -> Metric:
    """The weighted mean Σ w·f / Σ w of a function f(scores, labels, axis) -> [B].

    None makes a metric whose sums are computed elsewhere: it has a value, and no sums.
    """

    def sums(scores, labels, weights, axis=-1):
        if per_example is None:
            raise ValueError("The sums of this metric are computed elsewhere; it has only a value.")
        values = per_example(_without_absent(scores, weights, axis), labels, axis)
        return {"sum": total(weights * values), "weight": total(weights)}

    def value(sums):
        return ratio(sums["sum"], sums["weight"])

    return Metric(sums, value)


def accuracy(
    scores: Float[_Array, "..."], labels: Integer[_Array, "*batch"], axis: int = -1
) -> Float[Array, "*batch"]:
    """1 where the largest score is the label's, else 0: [..., C] and integers [...] -> [...].

    Of equal scores the first counts, as in argmax; NaN is never correct.

    Raises:
      ValueError: a label is known to be outside 0..C-1.
    """
    checks.check_range(checks.as_array(labels), scores.shape[axis])
    # argmax as two plain reductions: the compiler vectorises these, and not argmax itself (which
    # took 12 % of a sweep of 64). float32 numbers 16 million classes exactly.
    classes = jax.lax.broadcasted_iota(jnp.float32, scores.shape, axis % scores.ndim)
    largest = scores == scores.max(axis, keepdims=True)
    first = jnp.where(largest, classes, jnp.inf).min(axis)
    return (first == labels).astype(jnp.float32)


def rank(
    scores: Real[_Array, "..."], labels: Integer[_Array, "*batch"], axis: int = -1
) -> Int32[Array, "*batch"]:
    """How many classes beat the label: scores [..., C], integer labels [...] -> int32 [...].

    A class beats the label if its score is larger, or equal with a smaller index: rank 0 is what
    argmax calls correct. A NaN beats the label, and every other class beats a label whose own score
    is NaN.

    Raises:
      ValueError: a label is known to be outside 0..C-1.
    """
    checks.check_range(checks.as_array(labels), scores.shape[axis])
    label = jnp.expand_dims(labels, axis)
    own = jnp.take_along_axis(scores, label, axis)
    classes = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis % scores.ndim)
    beats = jnp.where(classes < label, ~(scores < own), ~(scores <= own))
    return beats.sum(axis)


def top(k: int) -> Callable:
    """f(scores, labels, axis): 1 where the label is among the k largest scores, else 0."""

    def among_the_largest(scores, labels, axis=-1):
        return (rank(scores, labels, axis) < k).astype(jnp.float32)

    return among_the_largest


def _by_class_sums(scores, labels, weights, axis=-1):
    members = jax.nn.one_hot(labels, scores.shape[axis], axis=0) * weights
    correct = top(1)(_without_absent(scores, weights, axis), labels, axis)
    return {"correct": members @ correct, "weight": total(members.T)}


def _balanced_value(sums):
    present = sums["weight"] > 0
    recalls = jnp.where(present, ratio(sums["correct"], sums["weight"]), 0)
    return ratio(recalls.sum(-1), present.sum(-1))


# The balanced accuracy is the mean of the classes' recalls, leaving out classes without examples,
# as in scikit-learn's balanced_accuracy_score.
# `top(1)` is `accuracy` computed from the rank, which the compiler shares among all three: an
# evaluation of 256 trials takes 15 % less time. Alone, `accuracy` is faster.
METRICS = {
    "accuracy": mean_of(top(1)),
    "balanced_accuracy": Metric(_by_class_sums, _balanced_value),
    "top5": mean_of(top(5)),
}


def sums(
    metrics: dict[str, Metric],
    scores: Float[_Array, "..."],
    labels: Integer[_Array, " B"],
    weights: Float[_Array, " B"],
    axis: int = -1,
    offsets: Float[_Array, "..."] | None = None,
) -> dict[str, Any]:
    """{name: sums} over the examples, for metrics {name: Metric}.

    offsets: what class weights have added to the scores (`losses.weight_offsets`). The loss is that
    of the probabilities without them; what is most probable is judged as the model was trained.
    """
    true = scores if offsets is None else scores - offsets
    return {
        name: metric.sums(true if name == "loss" else scores, labels, weights, axis=axis)
        for name, metric in metrics.items()
    }


def values(metrics: dict[str, Metric], sums: dict[str, Any]) -> dict[str, Any]:
    """{name: value} of {name: sums}, for the metrics {name: Metric} that made the sums."""
    return {name: metrics[name].value(sums[name]) for name in sums}


def _without_absent(scores, weights, axis):
    # A weight of zero means that the example is absent. Its scores are replaced, not its value: an
    # infinite loss times zero is NaN, and so is its gradient.
    return jnp.where(jnp.expand_dims(weights > 0, axis), scores, 0)


def ratio(sum_: Any, weight: Any) -> Any:
    """sum / weight; 0 where both are 0."""
    return sum_ / jnp.maximum(weight, jnp.finfo(jnp.float32).tiny)


def confusion_matrix(
    labels: _ArrayLike,
    predicted: _ArrayLike,
    num_classes: int,
    num_actions: int | None = None,
    weights: _ArrayLike | None = None,
) -> Real[np.ndarray, "*tables C A"]:
    """How often each class met each prediction: [..., C, A], true classes by rows.

    Args:
      labels: [N] in 0..C-1.
      predicted: [..., N] in 0..A-1: classes, or other actions.
      num_classes: C.
      num_actions: A; None: C.
      weights: how often each example counts, [..., N] or [N], as float64; None: once, and the table
        is of integers.

    Raises:
      ValueError: labels or predictions that are no whole numbers, or out of range: they would count
        in another cell.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    num_actions = num_classes if num_actions is None else num_actions
    labels = _numbers("labels", labels, num_classes)
    predicted = _numbers("predicted", predicted, num_actions)
    shape = (*predicted.shape[:-1], num_classes, num_actions)
    tables = np.arange(np.prod(shape[:-2], dtype=int)).reshape(*shape[:-2], 1)
    cells = (tables * num_classes + labels) * num_actions + predicted
    counts = None
    if weights is not None:
        counts = np.broadcast_to(np.asarray(weights, np.float64), cells.shape).ravel()
    return np.bincount(cells.ravel(), counts, np.prod(shape, dtype=int)).reshape(shape)


def _numbers(name, values, count):
    """Whole numbers in 0..count-1, as an array; booleans are 0 and 1."""
    values = np.asarray(values)
    values = values.astype(np.int64) if values.dtype == bool else values
    checks.check_integers(values, name)
    checks.check_range(values, count, name=name)
    return checks.widened(values)


def per_class(confusion: _ArrayLike) -> dict[str, Real[np.ndarray, "*tables C"]]:
    """Precision, recall, F1 and support of each class, from a confusion matrix [..., C, C].

    precision: the fraction of the predictions of the class that are correct · recall: the fraction
    of the class's examples that were found; with two classes, the positive class's recall is the
    sensitivity and the other's the specificity · f1 = 2 · precision · recall / (precision + recall)
    · support: the number of the class's examples, or the sum of their weights. Where a denominator
    is zero the value is NaN: a class that is never predicted has no precision.

    >>> [round(recall, 2) for recall in per_class([[1, 1], [0, 1]])["recall"].tolist()]
    [0.5, 1.0]
    """
    counts = np.asarray(confusion)
    correct = np.diagonal(counts, axis1=-2, axis2=-1)
    predicted, support = counts.sum(-2), counts.sum(-1)
    return {
        "precision": _fraction(correct, predicted),
        "recall": _fraction(correct, support),
        "f1": _fraction(2 * correct, predicted + support),
        "support": support,
    }


def class_intervals(
    confusion: _ArrayLike, squares: _ArrayLike | None = None, confidence: float = 0.95
) -> dict[str, list[list[float] | None]]:
    """Intervals for the precision, recall and F1 of each class, from a confusion matrix [C, C].

    Each is Wilson's, of a proportion of independent examples: of those predicted as the class, and
    of those that are of it. Of those that are either, let q be both: then F1 = 2q / (1 + q), which
    grows with q, so that the ends of q's interval give F1's.

    Args:
      confusion: see `confusion_matrix`.
      squares: the same table of the squared weights; None: all weights are 1.
      confidence: of each interval by itself.

    Returns:
      By name a list of [lo, hi], None where there is no such example.

    >>> [round(end, 2) for end in class_intervals([[9, 1], [0, 10]])["recall"][0]]
    [0.6, 0.98]
    """
    counts = np.asarray(confusion, np.float64)
    squared = counts if squares is None else np.asarray(squares, np.float64)
    found: dict[str, list[list[float] | None]] = {}
    for name, (total, of_squares) in {
        "precision": (counts.sum(0), squared.sum(0)),
        "recall": (counts.sum(1), squared.sum(1)),
        "f1": (_either(counts), _either(squared)),
    }.items():
        share, size = _fraction(counts.diagonal(), total), _fraction(total**2, of_squares)
        ends = [
            None if n != n else wilson_interval(q * n, n, confidence)
            for q, n in zip(share, size, strict=True)
        ]
        if name == "f1":
            ends = [end and [2 * q / (1 + q) for q in end] for end in ends]
        found[name] = ends
    return found


def _either(counts):
    """How many examples are of each class, predicted as it, or both."""
    return counts.sum(0) + counts.sum(1) - counts.diagonal()


def mean_cost(confusion: _ArrayLike, cost: _ArrayLike) -> Float[np.ndarray, "*tables"]:
    """Σ counts · cost / N of tables [..., C, A] and a cost matrix [C, A]: [...].

    >>> mean_cost([[1, 1], [0, 2]], [[0, 10], [1, 0]]).item()
    2.5
    """
    counts = np.asarray(confusion)
    return _fraction((counts * np.asarray(cost)).sum((-2, -1)), counts.sum((-2, -1)))


def _fraction(numerator, denominator):
    there = denominator > 0
    return np.where(there, numerator / np.where(there, denominator, 1), np.nan)


def effective_size(weights: Real[np.ndarray, " N"]) -> float:
    """(Σ w)² / Σ w²: as many equal weights give a weighted mean its variance. Source: Kish (1965).

    >>> effective_size(np.array([2.0, 2.0, 0.0])), round(effective_size(np.array([3.0, 1.0])), 2)
    (2.0, 1.6)
    """
    weights = weights / weights.max()
    return float(weights.sum() ** 2 / (weights**2).sum())


def mean_and_spread(
    values: Real[_Array, " N"], weights: Real[np.ndarray, " N"]
) -> tuple[float, float, float]:
    """(mean, standard deviation, n): weighted, with the n of `effective_size`.

    The variance is Σ w (value - mean)² / Σ w · n / (n - 1): that of a sample, where all weights are
    equal; 0 where n is 1.

    >>> mean_and_spread(np.array([1.0, 3.0]), np.ones(2))[0]
    2.0
    """
    values, n = np.asarray(values, np.float64), effective_size(weights)
    mean = np.average(values, weights=weights)
    variance = np.average((values - mean) ** 2, weights=weights)
    spread = math.sqrt(variance * n / (n - 1)) if n > 1 else 0.0
    return float(mean), spread, n


def wilson_interval(
    successes: float | np.number, trials: float | np.number, confidence: float = 0.95
) -> list[float]:
    """Wilson's score interval [lo, hi] for a proportion, such as an accuracy.

    Unlike the normal interval it stays inside [0, 1] and keeps its coverage near the ends. It is
    where |p - successes / trials| ≤ z √(p (1 - p) / trials); of weighted examples, `trials` is
    their `effective_size`. Source: E. B. Wilson (1927).
    """
    n, p = float(trials), float(successes) / float(trials)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(max(p * (1 - p), 0) / n + z**2 / (4 * n**2))
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return [0.0 if p <= 0 else low, 1.0 if p >= 1 else high]


def mean_interval(
    values: Real[_Array, " N"],
    weights: Real[_Array, " N"] | None = None,
    confidence: float = 0.95,
) -> list[float]:
    """An interval [lo, hi] for the mean of N independent values that may be skewed, as losses are.

    Student's, with the skewness removed by Hall's cubic transformation: with d the deviations from
    the (weighted) mean and γ = Σ(wd)³ / (Σ(wd)²)^1.5, the quantile y of t becomes
    3/γ · (∛(1 + γ(y - γ/6)) - 1). As good as a bootstrap-t, without its draws: of 100 losses of a
    calibrated model the normal interval covers the mean in 91 % of the cases, this one in 95 %. Of
    a very heavy tail no interval knows, see `is_heavy_tailed`. One value has no interval but
    itself.

    Source: Peter Hall, *On the Removal of Skewness by Transformation* (1992).

    >>> [round(end, 2) for end in mean_interval(np.arange(10.0) ** 2)]  # their mean is 28.5
    [11.09, 53.81]
    """
    from scipy.stats import t

    values, weights = _sample(values, weights)
    mean, n = np.average(values, weights=weights), effective_size(weights)
    skewness, deviation = _skewness(values, weights)
    if not deviation > 0 or n <= 1:
        return [float(mean), float(mean)]
    error = deviation / weights.sum() * math.sqrt(n / (n - 1))
    ends = t.ppf([0.5 + confidence / 2, 0.5 - confidence / 2], n - 1)
    if abs(skewness) > _NO_SKEWNESS:
        ends = 3 / skewness * (np.cbrt(1 + skewness * (ends - skewness / 6)) - 1)
    return [float(mean - end * error) for end in ends]


def is_heavy_tailed(values: Real[_Array, " N"], weights: Real[_Array, " N"] | None = None) -> bool:
    """Whether a few of the values decide the mean, so that no interval for it can be relied on.

    That is N < 8 · skewness² (by simulation: with a lognormal of σ = 2 intervals of nominal 95 %
    then cover .84 to .91).
    """
    return bool(8 * _skewness(*_sample(values, weights))[0] ** 2 > 1)


_NO_SKEWNESS = 1e-6  # of which nothing need be removed


def _sample(values, weights):
    """Values and weights as float64; None: all weights are 1."""
    values = np.asarray(values, np.float64)
    return values, np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)


def _skewness(values, weights):
    """(γ, √Σ(wd)²) of `mean_interval`: γ is the skewness / √N."""
    deviations = weights * (values - np.average(values, weights=weights))
    deviation = math.sqrt((deviations**2).sum())
    return (deviations**3).sum() / deviation**3 if deviation > 0 else 0.0, deviation


def spread_of(values: Real[np.ndarray, " n"]) -> dict[str, Any]:
    """Mean and standard deviation of values over folds or draws, and the central 95 % of them.

    >>> spread_of(np.array([1.0, 3.0]))["mean"]
    2.0
    """
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=len(values) > 1)),
        "spread": [float(bound) for bound in np.quantile(values, (0.025, 0.975))],
    }


def mcnemar(one: Bool[_Array, " N"], other: Bool[_Array, " N"]) -> float:
    """The p-value of equal accuracies, for two models measured on the same examples.

    The exact test: of the examples that only one of them gets right, each is as likely to be of
    either. Source: Quinn McNemar (1947).

    Args:
      one, other: whether each example is correct.

    >>> round(mcnemar(np.array([True] * 9 + [False]), np.array([True] * 3 + [False] * 7)), 4)
    0.0312
    """
    from scipy.stats import binomtest

    one, other = np.asarray(one, bool), np.asarray(other, bool)
    first, second = int((one & ~other).sum()), int((other & ~one).sum())
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def t_interval(
    mean: int | float | np.number,
    standard_error: int | float | np.number,
    degrees_of_freedom: int | np.integer,
    confidence: float = 0.95,
) -> list[float]:
    """mean ± t · standard error: Student's interval [lo, hi]."""
    from scipy.stats import t

    half = t.ppf(0.5 + confidence / 2, degrees_of_freedom) * standard_error
    return [float(mean - half), float(mean + half)]
