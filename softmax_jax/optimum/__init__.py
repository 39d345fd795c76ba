"""The certified optimum of softmax regression, for many trials at once. Pure.

optimum = minimise(Problem(x, y), l2=[1e-4, 1e-2])
"""

from softmax_jax.optimum.minimise import (
    SPAN,
    Optimum,
    check_trials,
    iterate,
    minimise,
    report,
    rows,
)
from softmax_jax.optimum.path import l2_path
from softmax_jax.optimum.problem import Prepared, Problem, prepare, product
from softmax_jax.optimum.solver import State, advance, start

__all__ = [
    "SPAN",
    "Optimum",
    "Prepared",
    "Problem",
    "State",
    "advance",
    "check_trials",
    "iterate",
    "l2_path",
    "minimise",
    "prepare",
    "product",
    "report",
    "rows",
    "start",
]
