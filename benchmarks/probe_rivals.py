"""The contenders of probe.py in PyTorch and scikit-learn. No command of its own."""

import functools
import warnings
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import probe_task
from benchmarks.rivals import describe  # noqa: F401, called by its name here

_MOST = 20_000


def scikit_learn(
    dataset, l2, minima, gap, limit, warm_start=False, solver="lbfgs", dtype="float32"
):
    """scikit-learn's `LogisticRegression`, whose solver is seen at each of its evaluations."""
    x, y = problem = probe_task.load(dataset)
    fitted = _ScikitLearn(_as_type(dataset, dtype), y, solver)
    return probe_task.fit_path(fitted, problem, l2, minima, gap, limit, warm_start)


def pytorch(dataset, l2, minima, gap, limit, warm_start=False):
    """PyTorch's LBFGS with its strong Wolfe line search, float32."""
    problem = probe_task.load(dataset)
    solver = _PyTorch(*_tensors(dataset))
    return probe_task.fit_path(solver, problem, l2, minima, gap, limit, warm_start)
