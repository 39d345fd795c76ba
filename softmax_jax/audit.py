"""Which labels to look at again: each example's probability under a model that never saw it."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from softmax_jax import losses, optimum


class Suspects(NamedTuple):
    """Examples in the order of their suspicion; every field [n].

    row: of the dataset · given, predicted: classes · probability: of the given label.
    """

    row: np.ndarray
    given: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray

    def table(self, label_names):
        """A list of dicts, a row per suspect, with the names of the classes."""
        rows = zip(*(field.tolist() for field in self), strict=True)
        return [
            {
                "row": row,
                "given": label_names[given],
                "predicted": label_names[predicted],
                "probability": probability,
            }
            for row, given, predicted, probability in rows
        ]


def out_of_sample_probabilities(problem: optimum.Problem, l2, **options) -> np.ndarray:
    """Each example's probabilities by the optimum of the folds without it: float32 [N, C].

    problem.resamples [N, K]: counts that are zero in exactly one column, that of the example's own
    fold (as from `sweep.resampling.fold_counts`); the K trials are one program. l2: one number.
    options: of `optimum.minimise`. Raises ValueError for other resamples.
    """
    counts = np.zeros((0, 0)) if problem.resamples is None else np.asarray(problem.resamples)
    left_out = counts == 0
    if counts.ndim != 2 or not counts.size or not (left_out.sum(1) == 1).all():
        raise ValueError(
            "resamples must be [N, K] counts that leave out every example exactly once: use "
            "sweep.resampling.fold_counts."
        )
    num_folds = counts.shape[1]
    folds = np.arange(num_folds)
    optima = optimum.minimise(problem, np.full(num_folds, l2), columns=folds, **options)
    x = np.asarray(problem.x).astype(optima.W.dtype, copy=False)
    logits = np.empty((len(x), optima.b.shape[1]), optima.W.dtype)
    for fold, members in enumerate(left_out.T):
        logits[members] = x[members] @ optima.W[fold] + optima.b[fold]
    return np.asarray(losses.softmax(jnp.asarray(logits)))


def suspects(probabilities, labels, most=None) -> Suspects:
    """The `most` examples (None: all) whose given label is the least probable, that one first.

    probabilities [N, C], out of sample · labels [N]. A label of low probability is a mistake, an
    ambiguous example, or a rare kind: a person has to look. (The "self-confidence" of Northcutt,
    Jiang and Chuang, *Confident Learning*, 2021.)

    >>> p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> suspects(p, [1, 1, 0], most=2).row.tolist()
    [0, 2]
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    own = probabilities[np.arange(len(labels)), labels]
    row = np.argsort(own, kind="stable")[:most]
    return Suspects(row, labels[row], probabilities[row].argmax(1), own[row])
