"""Studies of a dataset: how the error falls with the number of examples, which labels to doubt.

    subsets = nested_subsets(y, sizes=(1000, 10_000, len(y)), seeds=(0, 1, 2))
    problem = optimum.Problem(x, y, resamples=subsets.counts)
    l2 = same_prior(1e-4, len(y), subsets.size)
    optima = optimum.minimise(problem, l2, columns=np.arange(len(l2)))
    law = fit_power_law(subsets.size, 1 - accuracies)

All sizes and seeds are trials of one program; a subset is a column of counts, zero or one. Both
studies train to the certified optimum, so that neither learning rate nor number of epochs matters.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from softmax_jax import losses, optimum
from softmax_jax.sweep import inputs

_EXPONENTS = np.linspace(0.02, 3, 150)  # where the search for the best one starts


class Subsets(NamedTuple):
    """T subsets of N examples, one for each seed and size: counts [N, T] uint8, size, seed [T]."""

    counts: np.ndarray
    size: np.ndarray
    seed: np.ndarray


class PowerLaw(NamedTuple):
    """error(n) = a + b · n^(-c): the floor a, and an excess that each doubling divides by 2^c."""

    a: float
    b: float
    c: float

    def __call__(self, n):
        """The error at n examples, of the shape of n."""
        return self.a + self.b * np.asarray(n, np.float64) ** -self.c


def nested_subsets(labels, sizes, seeds=(0,)) -> Subsets:
    """Random subsets of the labels' examples; each seed's smaller ones lie within its larger ones.

    Every subset has each class in its share of all N, up to one example more or less. labels [N] of
    integers · sizes: each from the number of classes to N · seeds: one order of the examples each;
    the subsets are its beginnings. Raises ValueError for sizes out of range.

    >>> subsets = nested_subsets([0, 0, 1, 1, 0, 1], sizes=(2, 4), seeds=(0,))
    >>> subsets.counts.sum(0).tolist(), bool((subsets.counts[:, 0] <= subsets.counts[:, 1]).all())
    ([2, 4], True)
    """
    labels, sizes = np.asarray(labels), np.asarray(sizes)
    num_classes = len(np.unique(labels))
    if not sizes.size or sizes.min() < num_classes or sizes.max() > len(labels):
        raise ValueError(
            f"Sizes must be from {num_classes}, the number of classes, to all {len(labels)} "
            f"examples; got {sizes.tolist()}."
        )
    orders = [_stratified_order(labels, np.random.default_rng(seed)) for seed in seeds]
    size, seed = np.tile(sizes, len(seeds)), np.repeat(np.asarray(seeds), len(sizes))
    counts = np.zeros((len(labels), len(size)), np.uint8)
    for column, (order, n) in enumerate(zip(np.repeat(orders, len(sizes), 0), size, strict=True)):
        counts[order[:n], column] = 1
    return Subsets(counts, size, seed)


def same_prior(l2, num_examples, sizes):
    """The penalties of subsets that say the same about the weights as l2 says of all N: [T].

    Σ loss + n · l2/2 ‖W‖² is a negative log posterior with a normal prior of variance 1 / (n · l2)
    (of the weights, given the n examples): it stays the same where l2 · n does.
    """
    return l2 * num_examples / np.asarray(sizes, np.float64)


def fit_power_law(sizes, errors, weights=None) -> PowerLaw:
    """The power law with the least Σ weights · (a + b n^(-c) - error)², with a, b and c positive.

    sizes, errors, weights [T] (None: 1 / error², so that relative deviations count alike); equal
    sizes may repeat. For a given c the best a and b are a linear problem (variable projection,
    Golub and Pereyra 1973), so that the search is in one dimension and finds the global minimum.
    Raises ValueError for fewer than three different sizes, and for errors that are not positive.

    >>> n = np.array([100, 1000, 10_000, 60_000])
    >>> law = fit_power_law(n, 0.1 + 2 * n**-0.5)
    >>> round(law.a, 3), round(law.b, 3), round(law.c, 3)
    (0.1, 2.0, 0.5)
    """
    from scipy.optimize import minimize_scalar

    sizes, errors = np.asarray(sizes, np.float64), np.asarray(errors, np.float64)
    if len(np.unique(sizes)) < 3 or not (sizes > 0).all() or not (errors > 0).all():
        raise ValueError("A power law needs at least three different sizes, and positive errors.")
    roots = 1 / errors if weights is None else np.sqrt(np.asarray(weights, np.float64))
    unit = np.exp(np.log(sizes).mean())  # keeps the two columns of the problem comparable

    def residual(c):
        return _floor_and_excess(c, sizes / unit, errors, roots)[1]

    grid = [residual(c) for c in _EXPONENTS]
    best = int(np.argmin(grid))
    around = _EXPONENTS[max(best - 1, 0)], _EXPONENTS[min(best + 1, len(_EXPONENTS) - 1)]
    c = minimize_scalar(residual, bounds=around, method="bounded", options={"xatol": 1e-10}).x
    (a, b), _ = _floor_and_excess(c, sizes / unit, errors, roots)
    return PowerLaw(float(a), float(b * unit**c), float(c))


def _floor_and_excess(c, sizes, errors, roots):
    """((a, b), residual): the non-negative least squares problem that a given c leaves."""
    from scipy.optimize import nnls

    columns = np.stack([np.ones_like(sizes), sizes**-c], 1) * roots[:, None]
    return nnls(columns, errors * roots)


def _stratified_order(labels, rng):
    """All examples in an order every beginning of which has the classes in their shares.

    Each class is shuffled and spread evenly over 0..1, from a random start; then all are sorted.
    """
    shuffled = rng.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + rng.uniform()) / len(members)
    return np.argsort(place, kind="stable")


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


_TOLERANCE = 1e-3  # relative, of the objective: far less than a subset or a fold changes it
MOST_SUSPECTS = 1000  # suspects, at most


def learning_curve(splits, classifier, l2, sizes, num_seeds, class_weight=None):
    """(rows, law): a row for each seed and size, and the power law of the validation error.

    sizes: numbers of training examples; the subsets of each of `num_seeds` seeds are nested and
    stratified. l2 is that of the whole split; smaller subsets get the same prior
    (`same_prior`). Raises ValueError for sizes that do not fit.
    """
    train = splits.train
    subsets = nested_subsets(train.y, sizes, range(num_seeds))
    problem = _problem(train, classifier, subsets.counts, class_weight)
    penalties = same_prior(l2, len(train.y), subsets.size)
    columns = np.arange(len(penalties))
    optima = optimum.minimise(problem, penalties, columns=columns, tolerance=_TOLERANCE)
    rows = []
    for trial in columns:
        figures = classifier._replace(W=optima.W[trial], b=optima.b[trial]).test(splits.val)
        rows.append(
            {
                "size": int(subsets.size[trial]),
                "seed": int(subsets.seed[trial]),
                "l2": float(penalties[trial]),
                "train_loss": float(optima.loss[trial]),
                "val_loss": figures["loss"],
                "val_accuracy": figures["accuracy"],
                "converged": bool(optima.converged[trial]),
            }
        )
    return rows, _law(rows, len(splits.val.y))


def label_audit(dataset, classifier, l2, folds, class_weight=None, seed=0) -> Suspects:
    """The examples whose labels are the least probable to the folds without them."""
    counts = inputs.fold_counts(dataset.y, folds, seed=seed)
    problem = _problem(dataset, classifier, counts, class_weight)
    probabilities = out_of_sample_probabilities(problem, l2, tolerance=_TOLERANCE)
    return suspects(probabilities, np.asarray(dataset.y), MOST_SUSPECTS)


def _problem(dataset, classifier, counts, class_weight):
    x = np.asarray(dataset.x, classifier.W.dtype).reshape(len(dataset.y), -1)
    importance = inputs.example_importance(dataset, class_weight)
    return optimum.Problem(
        (x - classifier.mean) / classifier.scale,
        np.asarray(dataset.y),
        importance,
        counts,
        dataset.num_classes,
    )


def _law(rows, num_val):
    """The power law of the errors; None for fewer than three sizes."""
    sizes = [row["size"] for row in rows]
    if len(set(sizes)) < 3:
        return None
    # An error of zero on so few examples is one below half of one.
    errors = [max(1 - row["val_accuracy"], 0.5 / num_val) for row in rows]
    return fit_power_law(sizes, errors)
