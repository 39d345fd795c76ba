"""From the arguments of `fit` to a problem of `softmax_jax.optimum`, and to its solution."""

import warnings
from typing import NamedTuple

import jax
import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from softmax_jax.optimum import Optimum, Prepared, Problem, minimise, prepare

# What the arithmetic reaches without effort: of features that nobody standardised, too.
TOLERANCES = {"float64": 1e-6, "float32": 1e-4}
_BLOCK = 4096  # rows of a sparse matrix at a time


class Examples(NamedTuple):
    """Training data: x [N, D] dense or CSR, labels [N] in 0..C-1, classes [C], sample_weight [N].

    weights [N]: the sample weights times those of the classes.
    """

    x: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    sample_weight: np.ndarray
    weights: np.ndarray


def read(estimator, X, y, sample_weight) -> Examples:
    """The arguments of `fit`, checked; n_features_in_ and the like are set on the estimator."""
    X, y = validate_data(estimator, X, y, accept_sparse="csr", dtype=[np.float64, np.float32])
    check_classification_targets(y)
    classes, labels = np.unique(y, return_inverse=True)
    own = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    weights = own * _class_weights(estimator.class_weight, classes, labels, own)[labels]
    present = np.unique(labels[weights > 0])
    if len(present) < 2:
        raise ValueError(
            "A classifier needs 2 classes or more with examples whose weight is not zero; "
            f"got {len(present)} class{'es' * (len(present) != 1)}."
        )
    return Examples(X, labels, classes, own, weights)


def prepared(estimator, examples: Examples, resamples=None) -> Prepared:
    """The examples for the solver: dense, in shapes of which there are few.

    Each shape is compiled for itself, which takes seconds. So N and D are rounded up, by at most
    a 16th (to 256 and 32 at least): with copies of the first example, of weight zero, and features
    that are zero. They change no optimum, and the folds of a cross-validation compile once.
    """
    num_examples, num_features = examples.x.shape
    more = _rounded_up(num_examples, 256) - num_examples
    x = np.zeros((num_examples + more, _rounded_up(num_features, 32)), estimator.dtype)
    for start in range(0, num_examples, _BLOCK):
        block = examples.x[start : start + _BLOCK]
        dense = block.toarray() if sparse.issparse(block) else block
        x[start : start + len(dense), :num_features] = dense
    x[num_examples:] = x[0]
    problem = Problem(
        x=x,
        y=np.pad(examples.labels, (0, more)),
        weights=np.pad(examples.weights, (0, more)),
        resamples=None if resamples is None else np.pad(resamples, ((0, more), (0, 0))),
        num_classes=len(examples.classes),
        fit_bias=bool(estimator.fit_intercept),
    )
    with jax.enable_x64(estimator.dtype == "float64"):
        return prepare(problem)


def solve(estimator, problem: Prepared, l2, columns=None, initial=None) -> Optimum:
    """The optima for l2 [T] as `minimise` finds them, and a warning where it does not reach them.

    initial and the result are those of the D features without what `prepared` added.
    """
    tol = TOLERANCES[estimator.dtype] if estimator.tol is None else estimator.tol
    num_features = estimator.n_features_in_
    if initial is not None:
        more = len(problem.mean) - num_features
        initial = np.pad(initial[0], ((0, 0), (0, more), (0, 0))), initial[1]
    with jax.enable_x64(estimator.dtype == "float64"):
        found = minimise(
            problem,
            l2,
            columns=columns,
            tolerance=tol,
            max_iterations=estimator.max_iter,
            initial=initial,
        )
    _report(estimator, found, tol)
    return found._replace(W=found.W[:, :num_features])


def _report(estimator, found, tol):
    if found.separable.any():
        _warn(
            "The classes are separable and nothing is penalised (C=inf or l2=0): the optimum is at "
            "infinity. These weights classify every example right, and larger ones would only be "
            "surer of it. With a finite C there is an optimum."
        )
    failed = ~(found.converged | found.separable)
    if failed.any():
        _warn(_why_not(estimator, found, failed, tol))


def _why_not(estimator, found, failed, tol):
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (found.gap_bound / found.objective)[failed].max()
    reached = f"a relative gap of at most {gap:.1e}" if np.isfinite(gap) else "no proof of a gap"
    if (found.iterations[failed] >= estimator.max_iter).any():
        end, mend = f"max_iter={estimator.max_iter} iterations", "a larger max_iter"
    else:
        end = f"the end of {estimator.dtype} arithmetic"
        mend = "dtype='float64'" if estimator.dtype == "float32" else "a larger tol"
    return (
        f"{failed.sum()} of {len(failed)} fits came to {end} with {reached}, where tol={tol} was "
        f"asked for. Features on one scale (StandardScaler), more penalty, or {mend} would help."
    )


def _warn(message):
    warnings.warn(message, ConvergenceWarning, stacklevel=5)


def _class_weights(class_weight, classes, labels, weights):
    """One weight for each class; 'balanced': Σ weights / (C · Σ weights of the class)."""
    if isinstance(class_weight, str) and class_weight == "balanced":
        sums = np.bincount(labels, weights)
        return weights.sum() / (len(classes) * np.where(sums > 0, sums, 1))
    return compute_class_weight(class_weight, classes=classes, y=classes[labels])


def _rounded_up(size, least):
    step = 1 << max(0, int(size).bit_length() - 5)
    return max(least, -(-size // step) * step)
