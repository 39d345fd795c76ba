"""What the parameters of the estimators must be; an error names the one that is wrong."""

from numbers import Integral, Real

import numpy as np

from softmax_jax.estimator.training import TOLERANCES


def check(estimator):
    """Raises ValueError for a parameter that both estimators have, and that cannot be."""
    tol, max_iter = estimator.tol, estimator.max_iter
    dtypes = " or ".join(repr(name) for name in TOLERANCES)
    _require("solver", estimator.solver, "'lbfgs'", estimator.solver == "lbfgs")
    _require("dtype", estimator.dtype, dtypes, estimator.dtype in TOLERANCES)
    _require("tol", tol, "None or a number above 0", tol is None or (_is_number(tol) and tol > 0))
    whole = isinstance(max_iter, Integral) and max_iter > 0
    _require("max_iter", max_iter, "a whole number above 0", whole)


def check_penalty(C, l2):
    """Raises ValueError for a C or an l2 that cannot be, and where both are given."""
    _require("C", C, "a number above 0 (inf for no penalty)", _is_number(C) and C > 0)
    possible = l2 is None or (_is_number(l2) and 0 <= l2 < np.inf)
    _require("l2", l2, "None or a finite number of 0 or greater", possible)
    if l2 is not None and C != 1.0:
        raise ValueError(f"C={C} and l2={l2} are two names for one penalty: give one of them.")


def check_penalties(Cs, l2s):
    """The grid to be tried: (Cs [n], None) or (None, l2s [n]), float64; Cs may be how many.

    Raises ValueError for penalties that cannot be, and where both are given.
    """
    number = isinstance(Cs, Integral)
    if l2s is not None:
        if not number or Cs != 10:
            raise ValueError("Cs and l2s are two names for the same penalties: give one of them.")
        return None, _grid("l2s", l2s, lambda l2: check_penalty(1.0, l2))
    if number:
        _require("Cs", Cs, "numbers above 0, or how many of them", Cs > 0)
        return np.logspace(-4, 4, Cs), None
    return _grid("Cs", Cs, lambda C: check_penalty(C, None)), None


def _grid(name, values, check_one):
    grid = np.asarray(values, np.float64)
    _require(name, values, "a list of numbers", grid.ndim == 1 and grid.size > 0)
    for value in grid:
        check_one(value)
    return grid


def _is_number(value):
    return isinstance(value, Real) and not np.isnan(value)


def _require(name, value, rule, holds):
    if not holds:
        raise ValueError(f"{name} must be {rule}; got {value!r}.")
