"""Figures by class, of counts: which class was taken for which, and what follows. On the host."""

import numpy as np


def confusion(labels, predicted, num_classes, num_actions=None, included=None):
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
