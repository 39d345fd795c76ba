"""How the estimators come from what scikit-learn's users give to a problem, and to its optimum.

Examples with their weights and classes, penalties and coefficients in scikit-learn's units, the
problem in one of a few shapes, and the warnings where the optimum is not reached.
"""

import math
import warnings
from numbers import Real
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy import sparse
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    validate_data,
)

from softmax_jax import checks, host
from softmax_jax.data import validation
from softmax_jax.data.dataset import column_moments
from softmax_jax.optimum import Optimum, Prepared, Problem, Sparse, minimise, prepare
from softmax_jax.optimum.problem import class_sums, relative

# Relative gaps that the arithmetic reaches easily, even for features on different scales.
_TOLERANCES = {"float64": 1e-6, "float32": 1e-4}


# What float32 tries to reach beyond its tolerance, and in how many iterations: the error of the
# weights goes with the square root of the gap.
_FINER, _MORE = 1e-11, 100


_ROWS = 4096  # rows whose moments are computed at a time


def is_foreign(array):
    """Whether it is an array of another library, and scikit-learn is told to take it as such."""
    own = isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__")
    return get_config()["array_api_dispatch"] and not own


def to_numpy(array):
    """A foreign array as NumPy's; anything else as it is."""
    if not is_foreign(array):
        return array
    from sklearn.utils._array_api import move_to

    return move_to(array, xp=np, device="cpu")


def like(array, values):
    """The values as an array of the library and on the device of `array`; text is NumPy's."""
    values = to_numpy(values)
    if not is_foreign(array) or values.dtype.kind not in "biuf":
        return values
    from sklearn.utils._array_api import get_namespace_and_device, move_to

    xp, _, device = get_namespace_and_device(array)
    return move_to(values, xp=xp, device=device)


def swap_C_and_l2(
    value: float | int | np.ndarray, total_weight: float | int | np.ndarray, num_classes: int
) -> np.floating | np.ndarray:
    """l2 = 1 / (C · Σ weights), and likewise C = 1 / (l2 · Σ weights); with two classes 2 / (…).

    scikit-learn minimises C · Σ weights · loss + ‖coef‖²/2: a sum, where the objective here has a
    mean. With two classes its coef is W₁ - W₀. At the optimum W₁ = -W₀, so that ‖W‖² is half of
    ‖coef‖², and l2 must be twice as large.

    >>> float(swap_C_and_l2(1.0, 100, num_classes=3)), float(swap_C_and_l2(1.0, 100, num_classes=2))
    (0.01, 0.02)
    """
    factor = 2 if num_classes == 2 else 1
    with np.errstate(divide="ignore"):  # no penalty is C = inf
        return np.divide(factor, np.multiply(value, total_weight))


def split_penalty(
    l2: float | np.floating | np.ndarray, l1_ratio: float | np.ndarray, num_classes: int
) -> tuple[np.floating | np.ndarray, np.floating | np.ndarray]:
    """(l2, l1) of the penalty with scikit-learn's l1_ratio r, from the l2 of r = 0.

    scikit-learn minimises C · Σ weights · loss + r ‖coef‖₁ + (1 - r) ‖coef‖²/2. With two classes
    coef is W₁ - W₀ and W₁ = -W₀, so that ‖W‖₁ is ‖coef‖₁, while l2 has been doubled.

    >>> l2, l1 = split_penalty(0.02, 0.25, num_classes=2)
    >>> float(l2), float(l1)
    (0.015, 0.0025)
    """
    l1 = np.multiply(l2, l1_ratio) / (2 if num_classes == 2 else 1)
    return np.multiply(l2, np.subtract(1, l1_ratio)), l1


def to_scikit_learn(
    W: Float[np.ndarray, "*T D C"], b: Float[np.ndarray, "*T C"], *, centred: bool = True
) -> tuple[Float[np.ndarray, "*T rows D"], Float[np.ndarray, "*T rows"]]:
    """W [D, C], b [C] -> coef_ [C, D], intercept_ [C]; with two classes [1, D], [1]: W₁ - W₀.

    Adding a constant to all logits of an example changes no probability. Of all equivalent W and b,
    these have a mean of zero over the classes. Further axes may come first. centred=False keeps W
    as it is: under an L1 penalty it is one of its own, with exact zeros.
    """
    coef = W.swapaxes(-1, -2)
    if b.shape[-1] == 2:
        return coef[..., 1:, :] - coef[..., :1, :], b[..., 1:] - b[..., :1]
    coef = coef - coef.mean(-2, keepdims=True) if centred else coef
    return coef, b - b.mean(-1, keepdims=True)


def from_scikit_learn(
    coef: Float[np.ndarray, "rows D"], intercept: Float[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, "D C"], Float[np.ndarray, " C"]]:
    """The inverse of `to_scikit_learn`."""
    if len(intercept) == 1:
        coef, intercept = np.append(-coef, coef, 0) / 2, np.append(-intercept, intercept) / 2
    return coef.T, intercept


_ABSENT = -1000.0  # an intercept; the largest logit is never below 0: a probability of 0


def with_absent(W, b, known, centred=True):
    """coef_ and intercept_ of all classes from W and b of the `known` [C]; else _ABSENT."""
    own = to_scikit_learn(W, b, centred=centred)
    if known.all():
        return own
    W, b = from_scikit_learn(*own)
    coef, intercept = np.zeros((len(known), len(W)), W.dtype), np.full(len(known), _ABSENT, b.dtype)
    coef[known], intercept[known] = W.T, b
    return coef, intercept


class Examples(NamedTuple):
    """Training data: x [N, D] dense or CSR, labels [N], classes [C], sample_weight [N].

    labels may be soft ones [N, C]; then class weights are in them, as copies of each class would
    have them, and in the weights.

    The N examples have weights above 0: `there` [M] says which of all they are, `known` [C] of
    which classes; labels are numbers of these alone. weights [N] · unit: the sample weights times
    those of the classes, divided by a power of two, so that no sum of them overflows.
    """

    x: Any
    labels: np.ndarray
    classes: np.ndarray
    sample_weight: np.ndarray
    weights: np.ndarray
    unit: float
    class_weight: np.ndarray
    there: np.ndarray
    known: np.ndarray

    @property
    def names(self):
        """The labels as they were given, [N]."""
        return self.classes[self.known][self.labels]


def total_weight(examples, counts=None):
    """Σ weights of the examples, or for each column of counts [N, R]; inf beyond float64."""
    weights = examples.weights
    with np.errstate(over="ignore"):
        return (weights.sum() if counts is None else weights @ counts) * examples.unit


def read_examples(estimator, X, y, sample_weight) -> Examples:
    """Validates the arguments of `fit`; sets n_features_in_ and the like on the estimator."""
    X, sample_weight, dtypes = to_numpy(X), to_numpy(sample_weight), [np.float64, np.float32]
    soft = are_soft(y)
    if soft:
        X = validate_data(estimator, X, accept_sparse="csr", dtype=dtypes)
        classes, labels = _soft_labels(y)
        check_consistent_length(X, labels)
    else:
        X, y = validate_data(estimator, X, to_numpy(y), accept_sparse="csr", dtype=dtypes)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
    own = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    there = own > 0
    if not there.any():
        raise ValueError("The sample_weight of every example is zero.")
    given = labels
    X, labels, own = (X, labels, own) if there.all() else (X[there], labels[there], own[there])
    if soft:
        checks.check_soft_labels(labels)
    weights, unit = relative(own)
    own = own if float(weights.sum()) * unit < np.inf else weights.copy()  # scorers add them up
    by_class = _class_weights(estimator.class_weight, classes, labels, weights)
    of_example = labels @ by_class if soft else by_class[labels]
    weights *= of_example
    present = np.flatnonzero(class_sums(labels.T, weights, len(classes)))
    if len(present) < 2:
        raise ValueError(
            "A classifier needs 2 classes or more with examples whose weight is not zero; "
            f"got {len(present)} class{'es' * (len(present) != 1)}."
        )
    if soft:
        rows, columns = np.nonzero(given > 0)
        validation.warn_absent_classes(columns, there[rows], classes.tolist())
        known = np.asarray(labels.any(0))
        labels = labels * by_class / np.where(of_example > 0, of_example, 1)[:, None]
        labels = labels[:, known]
    else:
        validation.warn_absent_classes(given, there, classes.tolist())
        known = np.bincount(labels, minlength=len(classes)) > 0
        labels = (np.cumsum(known) - 1)[labels]
    return Examples(X, labels, classes, own, weights, unit, by_class, there, known)


def are_soft(y):
    """Whether y has columns for classes: it is no list of labels."""
    values = np.asarray(to_numpy(y))
    return values.ndim == 2 and values.shape[1] > 1


def _soft_labels(y):
    """(classes [C], Y [N, C]): what the columns of a data frame are called, or 0..C-1."""
    Y = np.asarray(to_numpy(y))
    names = np.asarray(getattr(y, "columns", np.arange(Y.shape[1])))
    if Y.dtype.kind not in "biuf":
        raise ValueError(
            "y must be labels [N], or soft labels [N, C], which are numbers of sum 1 in each row; "
            f"it is {Y.dtype} {list(Y.shape)}."
        )
    names = names.astype(str) if names.dtype == object else names
    if len(np.unique(names)) < len(names):
        raise ValueError(f"Soft labels have columns of one name: {host.brief(names.tolist())}.")
    return names, Y.astype(np.float64)


class _Shifted(NamedTuple):
    """A problem whose features are those of the data less `shift` [D], or less nothing (None)."""

    prepared: Prepared | Sparse
    shift: np.ndarray | None


def prepare_problem(estimator, examples: Examples, resamples=None) -> _Shifted:
    """The examples for the solver: sparse as they are, or dense and padded to one of a few shapes.

    Each shape of a dense problem is compiled separately, which takes seconds. So N and D are
    rounded up by at most a 16th (and to at least 256 and 32), with copies of the first example of
    weight zero and with features that are zero. They change no optimum, and the folds of a
    cross-validation compile once.
    """
    host.begin()
    x, labels, weights, shift = examples.x, examples.labels, examples.weights, None
    ratios = getattr(estimator, "l1_ratio", getattr(estimator, "l1_ratios", None))
    needs_dense = labels.ndim > 1 or (ratios is not None and bool(np.any(ratios)))
    if sparse.issparse(x) and not needs_dense:
        _find_shift(estimator, x)
        x = x.astype(estimator.dtype, copy=False)
    else:
        num_examples, num_features = x.shape
        more = _rounded_up(num_examples, 256) - num_examples
        shape = num_examples + more, _rounded_up(num_features, 32)
        if sparse.issparse(x):
            what = "Sparse X as a dense array, which soft labels and an L1 penalty need,"
            remedy = "Labels [N] without l1_ratio take it as it is."
            host.require_memory(math.prod(shape) * np.dtype(estimator.dtype).itemsize, what, remedy)
        x = np.zeros(shape, estimator.dtype)
        shift = _find_shift(estimator, examples.x)
        for start, dense in _dense_rows(examples.x):
            own = x[start : start + len(dense), :num_features]
            np.subtract(dense, 0 if shift is None else shift, out=own, casting="same_kind")
        x[num_examples:] = x[0]
        labels = np.pad(labels, [(0, more)] + [(0, 0)] * (labels.ndim - 1))
        weights = np.pad(weights, (0, more))
        resamples = None if resamples is None else np.pad(resamples, ((0, more), (0, 0)))
    num_classes, fit_bias = int(examples.known.sum()), bool(estimator.fit_intercept)
    problem = Problem(x, labels, weights, resamples, num_classes, fit_bias)
    with jax.enable_x64(estimator.dtype == "float64"):
        return _Shifted(prepare(problem), shift)


def _dense_rows(x):
    """Pairs (number of the first row, rows [n, D]) of a dense or sparse matrix."""
    for start in range(0, x.shape[0], _ROWS):
        rows = x[start : start + _ROWS]
        yield start, rows.toarray() if sparse.issparse(rows) else rows


def _find_shift(estimator, x):
    """What is subtracted from features of float64 before they become float32: [D] or None.

    Warns of features that stay rounded: there is no intercept to absorb a shift, they are sparse,
    or they came as float32.
    """
    if estimator.dtype == "float64" and x.dtype == np.float64:
        return None
    if sparse.issparse(x):
        mean, variance = mean_variance_axis(x, axis=0)
        validation.warn_rounded(mean, np.sqrt(variance), np.float32)
        return None
    mean, deviation = column_moments(rows for _, rows in _dense_rows(x))
    if x.dtype == np.float64 and estimator.fit_intercept:
        return validation.find_shift(mean, deviation)
    validation.warn_rounded(mean, deviation, np.float32)
    return None


def solve_trials(estimator, problem: _Shifted, l2, columns=None, initial=None, l1=0.0) -> Optimum:
    """The optima for l2 and l1 [T] by `minimise`, with a warning where it does not reach them.

    initial and the result have the D features of the data, without padding or shift.
    """
    prepared, shift = problem
    tol = _TOLERANCES[estimator.dtype] if estimator.tol is None else estimator.tol
    num_features = estimator.n_features_in_
    if initial is not None:
        W, b = initial
        b = b if shift is None else b + shift @ W.astype(np.float64)
        more = len(prepared.mean) - num_features
        initial = np.pad(W, ((0, 0), (0, more), (0, 0))), b
    # Weights of any size give any l2 = 1 / (C · Σ weights); from here on the coefficients are zero.
    l2, l1 = np.minimum(l2, 2.0**100), np.minimum(l1, 2.0**100)
    with jax.enable_x64(estimator.dtype == "float64"):
        limits = {"l1": l1, "tolerance": tol, "max_iterations": estimator.max_iter}
        found = minimise(prepared, l2, columns=columns, initial=initial, **limits)
        if estimator.tol is None and estimator.dtype == "float32" and not np.any(l1):
            found = _refine(prepared, l2, columns, found, estimator.max_iter)
    _report(estimator, found, tol)
    found = found._replace(W=found.W[:, :num_features])
    if shift is None:
        return found
    W = found.W.astype(np.float64)  # as the intercept is, lest their rounding be multiplied by x
    return found._replace(W=W, b=found.b - shift @ W)


def _refine(prepared, l2, columns, found, max_iter):
    """The optima after a few more iterations, where these prove a smaller gap."""
    more = min(_MORE, max_iter - int(found.iterations.max()))
    if more < 1 or not found.converged.all():
        return found
    options = {"tolerance": _FINER, "max_iterations": more, "initial": (found.W, found.b)}
    finer = minimise(prepared, l2, columns=columns, **options)
    better = finer.gap_bound < found.gap_bound
    merged = [
        np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        for new, old in zip(finer, found, strict=True)
    ]
    total = found.iterations + finer.iterations
    return Optimum(*merged)._replace(iterations=total, converged=found.converged)


def _report(estimator, found, tol):
    if found.separable.any():
        _warn(
            "The classes are separable, wholly or in part, and nothing is penalised (C=inf or "
            "l2=0): the optimum is at infinity. Larger weights would only make the probabilities "
            "of the separated examples more extreme. With a finite C there is an optimum."
        )
    failed = ~(found.converged | found.separable)
    if failed.any():
        _warn(_why_not(estimator, found, failed, tol))


def _why_not(estimator, found, failed, tol):
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (found.gap_bound / found.objective)[failed].max()
    reached = f"a relative gap of at most {gap:.1e}" if np.isfinite(gap) else "no proof of a gap"
    if (found.iterations[failed] >= estimator.max_iter).any():
        end, remedy = f"max_iter={estimator.max_iter} iterations", "a larger max_iter"
    else:
        end = f"the limit of {estimator.dtype} arithmetic"
        remedy = "dtype='float64'" if estimator.dtype == "float32" else "a larger tol"
    return (
        f"{failed.sum()} of {len(failed)} fits reached {end} with {reached}, not tol={tol}. "
        f"Features on one scale (StandardScaler), more penalty, or {remedy} would help."
    )


def _warn(message):
    warnings.warn(message, ConvergenceWarning, stacklevel=5)


def _class_weights(class_weight, classes, labels, weights):
    """One for each class; 'balanced': Σ weights / (C · Σ weights of it), C as far as it has any."""
    if isinstance(class_weight, str) and class_weight == "balanced":
        sums = class_sums(labels.T, weights, len(classes))
        return sums.sum() / ((sums > 0).sum() * np.where(sums > 0, sums, sums.max()))
    return compute_class_weight(class_weight, classes=classes, y=classes)


def _rounded_up(size, least):
    step = 1 << max(0, int(size).bit_length() - 5)
    return max(least, -(-size // step) * step)


def check_parameters(estimator):
    """Raises ValueError for an invalid parameter of those that both estimators have."""
    tol, max_iter = estimator.tol, estimator.max_iter
    dtypes = " or ".join(repr(name) for name in _TOLERANCES)
    intercept = estimator.fit_intercept
    require("fit_intercept", intercept, "True or False", isinstance(intercept, bool | np.bool_))
    require("solver", estimator.solver, "'lbfgs'", estimator.solver == "lbfgs")
    require("dtype", estimator.dtype, dtypes, estimator.dtype in _TOLERANCES)
    require("tol", tol, "None or a number above 0", tol is None or (is_number(tol) and tol > 0))
    whole = isinstance(max_iter, int | np.integer) and max_iter >= 0
    require("max_iter", max_iter, "a whole number of 0 or greater", whole)


def check_penalty(C, l2):
    """Raises ValueError for an invalid C or l2, and where both are given."""
    require("C", C, "a number above 0 (inf for no penalty)", is_number(C) and C > 0)
    possible = l2 is None or (is_number(l2) and 0 <= l2 < np.inf)
    require("l2", l2, "None or a finite number of 0 or greater", possible)
    if l2 is not None and C != 1.0:
        raise ValueError(f"C={C} and l2={l2} are two names for one penalty: give one of them.")


def check_ratio(name, ratio, l2=None):
    """Raises ValueError for an invalid l1_ratio, and for one that l2 leaves without a meaning."""
    possible = is_number(ratio) and 0 <= ratio <= 1
    require(name, ratio, "a number from 0 to 1", possible)
    if ratio and l2 is not None:
        raise ValueError(
            f"{name}={ratio} divides the penalty that C gives; with l2 there is none: give C, or "
            f"{name}=0."
        )


def is_number(value):
    return isinstance(value, Real) and value == value  # NaN is not equal to itself


def require(name, value, rule, holds):
    if not holds:
        raise ValueError(f"{name} must be {rule}; got {value!r}.")
