"""Which setting wins: honest comparison of settings, on figures averaged over their trials."""

import math
from typing import NamedTuple

import numpy as np

RULES = ("best", "one_se")


class Comparison(NamedTuple):
    """The settings (groups of trials that differ in seed and fold only), in order of their number.

    Arrays [G]: `mean` and `spread` (standard deviation) of the figure over the group's trials,
    `count` of those, whether one of them `diverged`, and `first`, its first trial.
    """

    mean: np.ndarray
    spread: np.ndarray
    count: np.ndarray
    diverged: np.ndarray
    first: np.ndarray


def compare(group, figures, diverged) -> Comparison:
    """Summarises the figures [T] of trials by their group [T]."""
    _, first, inverse, count = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    mean = np.bincount(inverse, figures) / count
    with np.errstate(invalid="ignore"):  # the figures of diverged trials may be infinite
        squares = np.bincount(inverse, np.square(figures - mean[inverse]))
    spread = np.sqrt(squares / np.maximum(count - 1, 1))
    return Comparison(mean, spread, count, np.bincount(inverse, diverged) > 0, first)


def winner(comparison: Comparison, l2, learning_rate, *, larger_wins=False, rule="best"):
    """The number of the winning group, or None where every one diverged.

    rule 'best': the best mean; ties go to the larger l2, then to the smaller learning rate.
    rule 'one_se': the simplest group (largest l2, then smallest learning rate) whose mean is
    within one standard error (of the best group) of the best mean; it needs at least two seeds or
    folds. l2, learning_rate: arrays [G]. Raises ValueError for an unknown rule, or no spread.

    Source of one_se: Breiman et al., *Classification and Regression Trees* (1984), section 3.4.3.
    """
    if rule not in RULES:
        raise ValueError(f"The rule must be one of {RULES}; it is {rule!r}.")
    cost = np.where(
        comparison.diverged, np.inf, -comparison.mean if larger_wins else comparison.mean
    )
    if not np.isfinite(cost).any():
        return None
    best = np.lexsort((learning_rate, -np.asarray(l2), cost))[0]
    if rule == "best":
        return int(best)
    if comparison.count[best] < 2:
        raise ValueError("The rule 'one_se' needs a spread: two or more seeds or folds.")
    limit = cost[best] + comparison.spread[best] / np.sqrt(comparison.count[best])
    within = np.flatnonzero(cost <= limit)
    simplest = np.lexsort((cost[within], learning_rate[within], -l2[within]))[0]
    return int(within[simplest])


def edges(axes, chosen, limits=None):
    """Hints where the winner lies at the end of a swept axis: the optimum may be beyond.

    axes: {name: array [G]}; chosen: the winning group; limits: {name: (low, high)}, ends that
    cannot be passed and are no hint (0 is one without saying). Two values of an axis that is not
    crossed with the others are an off and an on, and have no ends.
    """
    hints, lengths = [], [len(np.unique(values)) for values in axes.values()]
    crossed = math.prod(lengths) == len(next(iter(axes.values())))
    for name, values in axes.items():
        tried = np.unique(values)
        low, high = (limits or {}).get(name, (0, np.inf))
        if len(tried) < (2 if crossed else 3):
            continue
        if values[chosen] == tried[-1] < high:
            hints.append(f"{name} = {tried[-1]:g} is the largest tried: extend {name} upwards")
        elif values[chosen] == tried[0] > low:
            hints.append(f"{name} = {tried[0]:g} is the smallest tried: extend {name} downwards")
    return hints
