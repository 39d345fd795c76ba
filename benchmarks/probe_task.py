"""What probe.py measures: data, the objective by its definition, when a solver has arrived.

NumPy alone: every contender's process imports it. No command of its own.
"""

import functools
import time

import numpy as np
from scipy import special

from softmax_jax import data

_BLOCK = 4096


class Stop(Exception):
    """Ends a solver from within its objective."""


class Watch:
    """Stops a solver at the first value of its own objective that is at most `target`, or late.

    No stopping rule of a solver could be better: it costs nothing, and knows the minimum. After
    `run`: seconds, of the clock and of all processors, evaluations, reached, and params, where the
    solver stood.
    """

    def __init__(self, target, limit):
        self.target, self.limit = target, limit
        self.seconds = self.processor_seconds = 0.0
        self.evaluations, self.reached, self.params = 0, False, None

    def run(self, solve):
        """Calls solve(self.see)."""
        self._start, processor = time.perf_counter(), time.process_time()
        try:
            solve(self.see)
        except Stop:
            pass
        self.seconds = time.perf_counter() - self._start
        self.processor_seconds = time.process_time() - processor
        return self

    def see(self, value, params):
        """To be called with every value of the objective."""
        self.evaluations += 1
        self.params, self.reached = params, value <= self.target
        if self.reached or time.perf_counter() - self._start > self.limit:
            raise Stop


def fit_path(solver, problem, l2, minima, gap, limit, warm_start):
    """The path of l2 [T], one after the other, each until its relative gap or until `limit` seconds
    are over for all. Returns the figures of a contender.

    solver(see, l2, initial): calls see(value, params) · problem: of `load` · params: what
    `solver.weights` makes (W [D, C], b [C]) of.
    """
    fits, initial, left = [], None, limit
    for value, minimum in zip(l2, minima, strict=True):
        watch = Watch((1 + gap) * minimum, left)
        fits.append(watch.run(functools.partial(solver.solve, l2=value, initial=initial)))
        left -= watch.seconds
        initial = watch.params if warm_start else None
        if not watch.reached:
            break
    weights = [solver.weights(fit.params) for fit in fits]
    return {
        "seconds": sum(fit.seconds for fit in fits),
        "processor_seconds": sum(fit.processor_seconds for fit in fits),
        "evaluations": sum(fit.evaluations for fit in fits),
        "reached": sum(fit.reached for fit in fits),
        "gap": true_gap(problem, weights, l2, minima),
    }


@functools.cache
def load(dataset):
    """(x [N, D] float32, y [N]): 'fashion_mnist', 'digits', or 'NxDxC' of synthetic embeddings."""
    if "x" in dataset:
        return embeddings(*map(int, dataset.split("x")))
    train = data.load(dataset).train
    x = np.asarray(train.x).reshape(len(train.y), -1)
    return x.astype(np.float32) / np.float32(train.scale), np.asarray(train.y)


def embeddings(num_examples, num_features, num_classes):
    """Classes around random centres; the spectrum of both falls as 1/k, and is turned at random.

    Centred, with a mean square of 1 a feature.
    """
    rng = np.random.default_rng(0)
    roots = np.arange(1, num_features + 1) ** -0.5
    turn = np.linalg.qr(rng.standard_normal((num_features, num_features)))[0] * roots[:, None]
    centres = rng.standard_normal((num_classes, num_features))
    y = rng.integers(0, num_classes, num_examples)
    y[:num_classes] = np.arange(num_classes)
    x = (centres[y] + 1.5 * rng.standard_normal((num_examples, num_features))) @ turn
    x -= x.mean(0)
    return (x / np.sqrt((x**2).mean())).astype(np.float32), y


def objective(problem, W, b, l2):
    """mean CE(xW + b, y) + l2/2 · ‖W‖², in float64."""
    x, y = problem
    W, total = W.astype(np.float64), 0.0
    for start in range(0, len(y), _BLOCK):
        rows = slice(start, start + _BLOCK)
        logits = x[rows].astype(np.float64) @ W + b
        labels = np.take_along_axis(logits, y[rows, None], 1)[:, 0]
        total += (special.logsumexp(logits, 1) - labels).sum()
    return total / len(y) + l2 / 2 * (W**2).sum()


def true_gap(problem, weights, l2, minima):
    """The largest relative gap of weights [(W, b)]."""
    found = [
        (objective(problem, W, b, value) - minimum) / minimum
        for (W, b), value, minimum in zip(weights, l2, minima, strict=False)
    ]
    return float(max(found))
