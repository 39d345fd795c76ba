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


def scikit_learn(dataset, l2, minima, gap, limit, warm_start, dtype, solver):
    """scikit-learn's `LogisticRegression`."""
    problem = probe_task.load(dataset)
    solver = _ScikitLearn(_as_type(dataset, dtype), problem[1], solver)
    return probe_task.fit_path(solver, problem, l2, minima, gap, limit, warm_start)


def pytorch(dataset, l2, minima, gap, limit, warm_start, dtype):
    """PyTorch's LBFGS with its strong Wolfe line search."""
    problem = probe_task.load(dataset)
    solver = _PyTorch(_as_type(dataset, dtype), problem[1])
    return probe_task.fit_path(solver, problem, l2, minima, gap, limit, warm_start)


class _ScikitLearn:
    def __init__(self, x, y, solver):
        self.x, self.y, self.solver = x, y, solver
        self.num_classes = int(y.max()) + 1

    def solve(self, see, l2, initial):
        from sklearn.linear_model import LogisticRegression
        from sklearn.linear_model._linear_loss import LinearModelLoss

        evaluate = LinearModelLoss.loss_gradient

        def watched(loss, coef, *arguments, **more):
            value, gradient = evaluate(loss, coef, *arguments, **more)
            see(value, coef)
            return value, gradient

        model = LogisticRegression(
            C=1 / (l2 * len(self.y)),
            solver=self.solver,
            tol=1e-14,
            max_iter=_MOST,
            warm_start=initial is not None,
        )
        if initial is not None:
            W, b = self.weights(initial)
            model.coef_, model.intercept_ = np.ascontiguousarray(W.T), b
        # It calls nothing back from newton-cholesky: this is where both solvers get their values.
        with mock.patch.object(LinearModelLoss, "loss_gradient", watched):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(self.x, self.y)

    def weights(self, coef):
        params = coef.reshape(self.num_classes, -1, order="F").T
        return params[:-1], params[-1]


class _PyTorch:
    def __init__(self, x, y):
        self.x, self.y = torch.tensor(x), torch.tensor(y).long()
        self.shape = int(y.max()) + 1, x.shape[1]

    def solve(self, see, l2, initial):
        zeros = self.x.new_zeros(self.shape), self.x.new_zeros(self.shape[0])
        W, b = (tensor.clone().requires_grad_() for tensor in initial or zeros)
        optimizer = torch.optim.LBFGS(
            [W, b],
            max_iter=_MOST,
            history_size=20,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def closure():
            optimizer.zero_grad()
            value = F.cross_entropy(F.linear(self.x, W, b), self.y) + l2 / 2 * W.square().sum()
            value.backward()
            see(value.item(), (W.detach(), b.detach()))
            return value

        optimizer.step(closure)

    def weights(self, params):
        W, b = params
        return W.numpy().T, b.numpy()


@functools.cache
def _as_type(dataset, dtype):
    return probe_task.load(dataset)[0].astype(dtype)
