"""Mean and scale of every feature, over resamples of a dataset that need not fit into memory."""

from collections.abc import Iterable

import numpy as np

_CANCELLED = 1e-8  # of the squares: where less is left of a difference, its digits are lost


def moments(blocks: Iterable, counts=None, constant=1.0):
    """Mean [R, D] and standard deviation [R, D], float64, of each feature in each resample.

    One pass, and two matrix products for all resamples. Each block gives its means and sums of
    squared deviations; those of two sets are put together as in Chan, Golub and LeVeque,
    *Updating Formulae and a Pairwise Algorithm for Computing Sample Variances* (1979), which loses
    no digits to a large mean.

    blocks: pairs (number of the first example, x [n, ...]), as `Dataset.blocks()` has them.
    counts [N, R]: how often each example counts in each resample (None: once, R = 1). constant: a
    number or [D], the scale of a feature that does not vary within a resample.

    >>> x = np.array([[1.0, 5.0], [3.0, 5.0], [9.0, 5.0]])
    >>> mean, scale = moments([(0, x)], counts=np.array([[1], [1], [0]]), constant=2.0)
    >>> mean.round(6).tolist(), scale.round(6).tolist()
    ([[2.0, 5.0]], [[1.0, 2.0]])
    """
    total, mean, squares = 0.0, 0.0, 0.0
    for start, x in blocks:
        x = np.asarray(x, np.float64).reshape(len(x), -1)
        there = np.ones((len(x), 1)) if counts is None else counts[start : start + len(x)]
        n, own_mean, own_squares = _of_block(x, np.asarray(there, np.float64).T)
        share = n / np.maximum(total + n, 1)
        difference = own_mean - mean
        mean = mean + difference * share
        squares = squares + own_squares + difference**2 * share * total
        total = total + n
    scale = np.sqrt(squares / total)
    # A reciprocal must be a finite float32.
    return mean, np.where(scale >= np.finfo(np.float32).tiny, scale, constant)


def _of_block(x, counts):
    """Count [R, 1], mean and sum of squared deviations [R, D] of x [n, D] for counts [R, n]."""
    n = counts.sum(1, keepdims=True)
    centre = x.mean(0)
    centred = x - centre
    offset = counts @ centred / np.maximum(n, 1)
    mean, squares = centre + offset, counts @ centred**2 - n * offset**2
    cancelled = (squares <= _CANCELLED * n * offset**2) & (offset != 0)
    for r in np.flatnonzero(cancelled.any(1)):
        rows, columns = np.flatnonzero(counts[r]), np.flatnonzero(cancelled[r])
        mean[r, columns], squares[r, columns] = _directly(x[rows][:, columns], counts[r, rows])
    return n, mean, squares


def _directly(x, counts):
    """Mean and sum of squared deviations [D] of x [n, D]: exact where a feature is constant."""
    shifted = x - x[0]
    mean = counts @ shifted / counts.sum()
    return x[0] + mean, counts @ (shifted - mean) ** 2
