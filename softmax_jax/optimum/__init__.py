"""The certified optimum of softmax regression, for many trials at once. Pure.

optimum = minimise(Problem(x, y), l2=[1e-4, 1e-2])
"""

from softmax_jax.optimum.certificate import State
from softmax_jax.optimum.l1 import l1_max, l1_path
from softmax_jax.optimum.minimise import (
    SEGMENT,
    Optimum,
    advance,
    check_trials,
    iterate,
    minimise,
    report,
    separable_in_part,
    start,
    unfinished_rows,
)
from softmax_jax.optimum.problem import Prepared, Problem, l2_path, prepare, product
from softmax_jax.optimum.sparse import Sparse

__all__ = [
    "SEGMENT",
    "Optimum",
    "Prepared",
    "Problem",
    "Sparse",
    "State",
    "advance",
    "check_trials",
    "iterate",
    "l1_max",
    "l1_path",
    "l2_path",
    "minimise",
    "prepare",
    "product",
    "report",
    "separable_in_part",
    "start",
    "unfinished_rows",
]
