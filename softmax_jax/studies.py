"""Studies of a dataset: how the error falls with more examples, and which labels are suspect.

    subsets = nested_subsets(y, sizes=(1000, 10_000, len(y)), seeds=(0, 1, 2))
    problem = optimum.Problem(x, y, resamples=subsets.counts)
    l2 = same_prior(1e-4, len(y), subsets.size)
    optima = optimum.minimise(problem, l2, columns=np.arange(len(l2)))
    law = fit_power_law(subsets.size, 1 - accuracies)

All sizes and seeds are trials of one program; a subset is a column of counts, zero or one. Both
studies train to the certified optimum, so that neither learning rate nor number of epochs matters.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, UInt8

from softmax_jax import calibration, checks, host, losses, metrics, optimum
from softmax_jax.classifier import Classifier
from softmax_jax.data import Dataset, Splits, validation
from softmax_jax.data.dataset import example_weights
from softmax_jax.sweep import inputs

_ArrayLike = Array | np.ndarray | Sequence
_EXPONENTS = np.linspace(0.02, 3, 150)  # the grid that the search for the best exponent starts from


class Subsets(NamedTuple):
    """T subsets of N examples, one for each seed and size.

    Attributes:
      counts: 1 where an example is in the subset, else 0.
      size: the number of examples.
      seed: of the order of the examples.
    """

    counts: UInt8[np.ndarray, "N T"]
    size: Int[np.ndarray, " T"]
    seed: Int[np.ndarray, " T"]


class PowerLaw(NamedTuple):
    """error(n) = a + b · n^(-c): the floor a, and an excess that a doubling of n divides by 2^c."""

    a: float
    b: float
    c: float

    def __call__(self, n: _ArrayLike | int | float) -> np.ndarray | np.floating:
        """The error at n examples, in the shape of n."""
        return self.a + self.b * np.asarray(n, np.float64) ** -self.c


def nested_subsets(labels: _ArrayLike, sizes: _ArrayLike, seeds: Sequence[int] = (0,)) -> Subsets:
    """Random stratified subsets; each seed's smaller ones lie within its larger ones.

    Each class makes up the same fraction of every subset as of all N examples, up to one example
    more or less.

    Args:
      labels: integers [N].
      sizes: numbers of examples, each from the number of classes to N.
      seeds: each orders the examples at random; its subsets are the beginnings of that order.

    Raises:
      ValueError: a size is out of range.

    >>> subsets = nested_subsets([0, 0, 1, 1, 0, 1], sizes=(2, 4), seeds=(0,))
    >>> subsets.counts.sum(0).tolist(), bool((subsets.counts[:, 0] <= subsets.counts[:, 1]).all())
    ([2, 4], True)
    """
    labels, sizes = np.asarray(labels), np.asarray(sizes)
    check_sizes(labels, sizes, len(seeds))
    orders = [_stratified_order(labels, np.random.default_rng(seed)) for seed in seeds]
    size, seed = np.tile(sizes, len(seeds)), np.repeat(np.asarray(seeds), len(sizes))
    counts = np.zeros((len(labels), len(size)), np.uint8)
    for column, (order, n) in enumerate(zip(np.repeat(orders, len(sizes), 0), size, strict=True)):
        counts[order[:n], column] = 1
    return Subsets(counts, size, seed)


def check_sizes(labels: _ArrayLike, sizes: _ArrayLike, num_seeds: int) -> None:
    """Raises ValueError for subsets that the examples or the memory do not allow.

    labels: integers [N] · sizes: as in `nested_subsets`.
    """
    labels, sizes = np.asarray(labels), np.asarray(sizes)
    num_classes = len(np.unique(labels))
    if not sizes.size or sizes.min() < num_classes or sizes.max() > len(labels):
        raise ValueError(
            f"Sizes must be from {num_classes}, the number of classes, to all {len(labels)} "
            f"examples; got {host.brief(sizes.tolist())}."
        )
    needed = 8 * len(labels) * num_seeds * (len(sizes) + 1)  # the orders, and the counts as floats
    what = f"{num_seeds:,} draws of {len(sizes):,} subsets of {len(labels):,} examples"
    host.require_memory(needed, what, "Ask for fewer seeds or sizes.")


def same_prior(
    l2: int | float, num_examples: int | float, sizes: _ArrayLike
) -> Float64[np.ndarray, " T"]:
    """The penalties under which subsets have the same prior as l2 gives to all N examples: [T].

    Σ loss + n · l2/2 · ‖W‖² is the negative log posterior of the weights given n examples, with a
    normal prior of variance 1 / (n · l2): the prior is the same where n · l2 is.
    """
    return np.divide(l2 * num_examples, np.asarray(sizes, np.float64))


def fit_power_law(
    sizes: _ArrayLike, errors: _ArrayLike, weights: _ArrayLike | None = None
) -> PowerLaw:
    """The power law with the least Σ weights · (a + b n^(-c) - error)², with a, b and c positive.

    For a given c the best a and b are a linear problem (variable projection, Golub and Pereyra
    1973), so that the search is in one dimension and finds the global minimum.

    Args:
      sizes: numbers of examples [T]; a size may be repeated.
      errors: the error at each size [T].
      weights: [T]; None: 1 / error², so that relative deviations count equally.

    Raises:
      ValueError: there are fewer than three different sizes, or an error is not positive.

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
    unit = np.exp(np.log(sizes).mean())  # gives both columns of the problem similar magnitudes

    def residual(c):
        return _floor_and_excess(c, sizes / unit, errors, roots)[1]

    grid = [residual(c) for c in _EXPONENTS]
    best = int(np.argmin(grid))
    around = _EXPONENTS[max(best - 1, 0)], _EXPONENTS[min(best + 1, len(_EXPONENTS) - 1)]
    c = minimize_scalar(residual, bounds=around, method="bounded", options={"xatol": 1e-10}).x
    (a, b), _ = _floor_and_excess(c, sizes / unit, errors, roots)
    return PowerLaw(float(a), float(b * unit**c), float(c))


def _floor_and_excess(c, sizes, errors, roots):
    """((a, b), residual) of the non-negative least squares problem for a given c."""
    from scipy.optimize import nnls

    columns = np.stack([np.ones_like(sizes), sizes**-c], 1) * roots[:, None]
    return nnls(columns, errors * roots)


def _stratified_order(labels, rng):
    """A random order of all examples, every beginning of which is stratified.

    Each class is shuffled and spread evenly over 0..1 from a random start; then all are sorted.
    """
    shuffled = rng.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (np.arange(len(members)) + rng.uniform()) / len(members)
    return np.argsort(position, kind="stable")


class Suspects(NamedTuple):
    """Suspect examples, the most suspect first.

    Attributes:
      row: of the dataset.
      given: the label in the dataset.
      predicted: the most probable class.
      probability: of the given label.
    """

    row: Int[np.ndarray, " n"]
    given: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    probability: Float[np.ndarray, " n"]

    def table(self, label_names: Sequence[str]) -> list[dict[str, Any]]:
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


def out_of_sample_probabilities(
    problem: optimum.Problem, l2: int | float, **options: Any
) -> Float[np.ndarray, "N C"]:
    """Each example's probabilities at the optimum of the folds without it: float32 [N, C].

    Args:
      problem: its resamples [N, K] are counts that are zero in exactly one column, that of the
        example's own fold (see `sweep.fold_counts`). The K trials are one program.
      l2: the penalty.
      **options: of `optimum.minimise`.

    Raises:
      ValueError: the resamples do not leave out every example exactly once.
    """
    counts = np.zeros((0, 0)) if problem.resamples is None else np.asarray(problem.resamples)
    left_out = counts == 0
    if counts.ndim != 2 or not counts.size or not (left_out.sum(1) == 1).all():
        raise ValueError(
            "resamples must be [N, K] counts that leave out every example exactly once: use "
            "sweep.fold_counts."
        )
    num_folds = counts.shape[1]
    folds = np.arange(num_folds)
    optima = optimum.minimise(problem, np.full(num_folds, l2), columns=folds, **options)
    x = np.asarray(problem.x).astype(optima.W.dtype, copy=False)
    logits = np.empty((len(x), optima.b.shape[1]), optima.W.dtype)
    for fold, members in enumerate(left_out.T):
        logits[members] = x[members] @ optima.W[fold] + optima.b[fold]
    return np.asarray(losses.softmax(jnp.asarray(logits)))


def suspects(probabilities: _ArrayLike, labels: _ArrayLike, most: int | None = None) -> Suspects:
    """The `most` examples (None: all) whose given label is the least probable, that one first.

    probabilities [N, C], out of sample · labels [N]. A label of low probability is a mistake, an
    ambiguous example, or a rare kind: a person has to look. (The "self-confidence" of Northcutt,
    Jiang and Chuang, *Confident Learning*, 2021.)

    >>> p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> suspects(p, [1, 1, 0], most=2).row.tolist()
    [0, 2]

    Raises:
      ValueError: probabilities outside 0..1 or not of sum 1 (such as logits); labels of another
        length, or not integers in 0..C-1; `most` that is not a whole number of at least 0.
    """
    probabilities = np.asarray(checks.as_probabilities(probabilities, ndim=2))
    labels = np.asarray(checks.as_labels(labels, *probabilities.shape))
    if most is not None:
        checks.check_whole("most", most, 0)
    own = probabilities[np.arange(len(labels)), labels]
    row = np.argsort(own, kind="stable")[:most]
    return Suspects(row, labels[row], probabilities[row].argmax(1), own[row])


_TOLERANCE = 1e-3  # relative, of the objective: far less than a subset or a fold changes it
MOST_SUSPECTS = 1000  # that an audit lists


def learning_curve(
    splits: Splits,
    classifier: Classifier,
    l2: int | float,
    sizes: Sequence[int],
    num_seeds: int,
    class_weight: str | Sequence[float] | None = None,
) -> tuple[list[dict[str, Any]], PowerLaw | None]:
    """The validation error as a function of the number of training examples.

    Args:
      splits: train has the subsets; val measures their optima.
      classifier: its normalisation is used for every subset.
      l2: the penalty of the whole train split; smaller subsets get the same prior (`same_prior`,
        of sums of weights).
      sizes: numbers of training examples.
      num_seeds: the draws of the subsets, which are nested and stratified.
      class_weight: see `sweep.Objective`.

    Returns:
      A row for each seed and size, and the power law of the validation error, which is None for
      fewer than three sizes.

    Raises:
      ValueError: a size is out of range.
    """
    train, val = inputs.leave_out_absent(splits.train), splits.val.without_absent()
    subsets, weights = nested_subsets(train.y, sizes, range(num_seeds)), example_weights(train)
    by_class = inputs.class_weights(train, class_weight)
    problem = _problem(train, classifier, subsets.counts, by_class)
    penalties = same_prior(l2, weights.sum(), weights @ subsets.counts)
    columns = np.arange(len(penalties))
    optima = optimum.minimise(problem, penalties, columns=columns, tolerance=_TOLERANCE)
    rows = []
    for trial in columns:
        fitted = classifier._replace(W=optima.W[trial], b=optima.b[trial]).corrected(by_class)
        values: dict[str, Any] = fitted.test(val)
        train_loss: Any = optima.loss[trial]
        if by_class is not None:  # the loss that was minimised is weighed by class
            own = weights * subsets.counts[:, trial]
            train_loss = fitted.test(dataclasses.replace(train, weights=own))["loss"]
        rows.append(
            {
                "size": int(subsets.size[trial]),
                "seed": int(subsets.seed[trial]),
                "l2": float(penalties[trial]),
                "train_loss": float(train_loss),
                "val_loss": values["loss"],
                "val_accuracy": values["accuracy"],
                "converged": bool(optima.converged[trial]),
            }
        )
    return rows, _law(rows, metrics.effective_size(example_weights(val)))


def floor_interval(
    rows: Sequence[dict[str, Any]], num_val: int | float, *, draws: int = 200, seed: int = 0
) -> list[float] | None:
    """A 95 % interval for the floor a of the law: what no number of examples gets below.

    Percentiles over laws fitted to drawn errors: of each size as many as there are, with
    replacement, all of them times one common factor, since all are measured on the same validation
    examples (binomial error). None for fewer than three sizes.

    Args:
      rows: of `learning_curve`.
      num_val: the (effective) number of validation examples.
      draws: how many laws.
      seed: of the draws.
    """
    size = np.array([row["size"] for row in rows])
    errors = _errors(rows, num_val)
    if len(np.unique(size)) < 3:
        return None
    by_size = [errors[size == n] for n in np.unique(size)]
    at = np.sort(size)
    rng = np.random.default_rng(seed)
    error = by_size[-1].mean()
    deviation = np.sqrt((1 - error) / (error * num_val))  # of the error, relative to it
    floors = []
    for _ in range(draws):
        drawn = np.concatenate([rng.choice(own, len(own)) for own in by_size])
        factor = max(1 + deviation * rng.normal(), 0.01)
        floors.append(fit_power_law(at, drawn * factor).a)
    return [float(end) for end in np.quantile(floors, (0.025, 0.975))]


def label_audit(
    dataset: Dataset,
    classifier: Classifier,
    l2: int | float,
    folds: int,
    class_weight: str | Sequence[float] | None = None,
    seed: int = 0,
) -> Suspects:
    """The examples whose labels are least probable under a model trained without their fold.

    Args:
      dataset: the examples to audit; those of weight 0 are left out.
      classifier: its normalisation is used for every fold.
      l2: the penalty.
      folds: their number K.
      class_weight: see `sweep.Objective`.
      seed: of the assignment of examples to folds.
    """
    there = inputs.leave_out_absent(dataset)
    counts = audit_folds(there, folds, seed)
    by_class = inputs.class_weights(there, class_weight)
    problem = _problem(there, classifier, counts, by_class)
    probabilities = out_of_sample_probabilities(problem, l2, tolerance=_TOLERANCE)
    if by_class is not None:
        probabilities = np.asarray(calibration.unweighted(probabilities, by_class))
    found = suspects(probabilities, np.asarray(there.y), MOST_SUSPECTS)
    return found._replace(row=np.flatnonzero(example_weights(dataset))[found.row])


def audit_folds(dataset: Dataset, folds: int, seed: int = 0) -> UInt8[np.ndarray, "N K"]:
    """The folds of a label audit: a copy of an example in another fold would confirm its label.

    Raises:
      ValueError: see `sweep.fold_counts`.
    """
    together = validation.together(dataset)
    return inputs.fold_counts(dataset.y, folds, seed=seed, together=together)


def _problem(dataset, classifier, counts, by_class):
    dtype = classifier.W.dtype if dataset.shift is None else np.float64
    x = np.asarray(dataset.x, dtype).reshape(len(dataset.y), -1)
    weights = inputs.objective_weights(dataset, by_class)
    return optimum.Problem(
        (x - classifier.mean) / classifier.scale,
        np.asarray(dataset.y),
        weights,
        counts,
        dataset.num_classes,
    )


def _law(rows, num_val):
    """The power law of the validation errors; None for fewer than three sizes."""
    sizes = [row["size"] for row in rows]
    if len(set(sizes)) < 3:
        return None
    return fit_power_law(sizes, _errors(rows, num_val))


def _errors(rows, num_val):
    """One of zero on (effectively) num_val examples is taken as half an example's."""
    return np.maximum([1 - row["val_accuracy"] for row in rows], 0.5 / num_val)
