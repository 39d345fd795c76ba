"""The metrics of a trial at a point, and what they prove: the best bias and the gap bound.

The best bias for given weights is found by Newton's method on C numbers, without a product with x.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from softmax_jax import losses, metrics
from softmax_jax.optimum import lbfgs, problem
from softmax_jax.optimum.problem import Prepared, product, residual, undecided_as_wrong
from softmax_jax.optimum.sparse import Sparse

_MOST_STEPS = 20


class State(NamedTuple):
    """Trials in progress; the first axis of every leaf is the trials [T].

    params [T, C, D + 1]: the weights, and the bias in the last column, for the centred features ·
    gradient: the same shape · memory: of L-BFGS · l2 [T] · column [T]: of the resamples ·
    reference [T]: the gradient's norm at zero weights · objective, loss, gradient_norm, gap_bound
    [T]: metrics, as in `Optimum` · iterations [T] · converged, separable, stalled [T]: why a trial
    is done, if it is.
    """

    params: Float[Array, "*T C D+1"]
    gradient: Float[Array, "*T C D+1"]
    memory: lbfgs.Memory
    l2: Float[Array, "*T"]
    column: Int[Array, "*T"]
    reference: Float[Array, "*T"]
    objective: Float[Array, "*T"]
    loss: Float[Array, "*T"]
    gradient_norm: Float[Array, "*T"]
    gap_bound: Float[Array, "*T"]
    iterations: Int[Array, "*T"]
    converged: Bool[Array, "*T"]
    separable: Bool[Array, "*T"]
    stalled: Bool[Array, "*T"]

    @property
    def done(self) -> Bool[Array | np.ndarray, "*T"]:
        """Whether more iterations would change nothing."""
        return self.converged | self.separable | self.stalled

    @property
    def free(self) -> Bool[np.ndarray, "*T"]:
        """Whether nothing is penalised, so that the optimum may be at infinity."""
        return np.asarray(self.l2) == 0


class _Point(NamedTuple):
    shift: Float[Array, " C"]
    loss: Float[Array, " N"]
    p: Float[Array, "C N"] | None  # None with several tiles of examples
    gradient: Float[Array, " C"]
    scale: Float[Array, ""]  # of the next step: 1, or less after a step that was too long
    steps: Int[Array, ""]


def polish_bias(
    logits: Float[Array, "C N"],
    y: Num[Array, "*C N"],
    fractions: Float[Array, " N"],
    wanted: Bool[Array, ""],
) -> tuple[Float[Array, " C"], Float[Array, " N"], Float[Array, "C N"] | None]:
    """The shift of the bias that minimises the loss at logits + shift.

    Each step computes a C × C Hessian from the probabilities.

    Args:
      logits, y: of the examples, and their labels.
      fractions: example weights of sum 1.
      wanted: where False, no step is taken and the shift is zero.

    Returns:
      (shift, loss, probabilities). The probabilities are None with several tiles of examples.
    """
    eps, cut = jnp.finfo(logits.dtype).eps, problem.num_tiles(*logits.shape) > 1

    def at(shift):
        if not cut:
            return _bias_point(shift, logits, y, fractions)
        loss = problem.map_tiles(lambda *tile: _bias_point(shift, *tile)[0], logits, y, fractions)
        return (
            loss,
            None,
            problem.sum_tiles(lambda *tile: _bias_point(shift, *tile)[2], logits, y, fractions),
        )

    def moments(point):
        if not cut:
            return _probability_moments(point.p, fractions)

        def of_tile(logits, y, fractions):
            p = _bias_point(point.shift, logits, y, fractions)[1]
            return _probability_moments(p, fractions)

        return problem.sum_tiles(of_tile, logits, y, fractions)

    def step(point):
        mean, second = moments(point)
        shift = point.shift - point.scale * newton_step(mean, second, point.gradient)
        loss, p, gradient = at(shift)
        # Downhill, or so near the optimum that only the gradient shows progress.
        better = jnp.sum(fractions * (loss - point.loss)) <= 0
        better |= abs(gradient).max() < abs(point.gradient).max() / 2
        better |= point.steps < 0
        new = _Point(shift, loss, p, gradient, jnp.ones_like(point.scale), point.steps + 1)
        old = point._replace(scale=point.scale / 4, steps=point.steps + 1)
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

    def unfinished(point):
        far = abs(point.gradient).max() > 10 * eps
        going = wanted & far & (point.steps < _MOST_STEPS) & (point.scale > 1e-3)
        return going | (point.steps < 0)

    # The first step is one of length zero: so the program has the evaluation once.
    zero, unknown = jnp.zeros_like(logits[:, 0]), jnp.zeros_like(logits[0])
    p = None if cut else jnp.zeros_like(logits)
    first = _Point(zero, unknown, p, zero, jnp.ones_like(zero[0]), jnp.int32(-1))
    last = lax.while_loop(unfinished, step, first)
    return last.shift, last.loss, last.p


def _bias_point(shift, logits, y, fractions):
    """The loss [B] of examples at a shift, their probabilities, the gradient [C] in the shift."""
    scores = logits + shift[:, None]
    p = losses.softmax(scores, axis=0)
    return losses.cross_entropy(scores, y, axis=0), p, (residual(p, y) * fractions).sum(1)


def _probability_moments(p, fractions):
    """The means of the probabilities [C] and of their products [C, C]."""
    weighted = p * fractions
    return weighted.sum(1), product(weighted, p.T)


def newton_step(
    means: Float[Array, " C"], products: Float[Array, "C C"], gradient: Float[Array, " C"]
) -> Float[Array, " C"]:
    """H⁻¹ · gradient, at most 2 long in any class.

    H = diag(m) - Σ w p pᵀ, with m the mean probabilities, is singular along the vector of ones,
    which changes no probability. Scaled to a unit diagonal by √m, that direction is √m, of length
    1: adding its outer product makes its eigenvalue 1 and leaves the others unchanged.
    """
    root = jnp.sqrt(jnp.maximum(means, jnp.finfo(means.dtype).tiny))
    scaled = products / root[:, None] / root
    eye = jnp.eye(len(root), dtype=root.dtype)
    hessian = (1 + 1e-6) * eye - scaled + root[:, None] * root
    step = jnp.linalg.solve(hessian, gradient / root) / root
    return step * jnp.minimum(1, 2 / jnp.maximum(abs(step).max(), 1e-30))


def each_loss(logits: Float[Array, "C N"], y: Num[Array, "*C N"]) -> Float[Array, " N"]:
    """The loss of every example."""
    return problem.map_tiles(functools.partial(losses.cross_entropy, axis=0), logits, y)


def measure(
    prepared: Prepared,
    fractions: Float[Array, " N"],
    trial: State,
    params: Float[Array, "C D1"],
    loss: Float[Array, " N"],
    logits: Float[Array, "C N"],
    p: Float[Array, "C N"] | None = None,
) -> State:
    """The trial at new parameters, with its gradient and metrics.

    Its gap_bound holds only where the bias is the best one: see `certify`. p: the probabilities, if
    they are known already.
    """
    examples = prepared.y, fractions, prepared.features
    if p is None:
        gradient = problem.sum_tiles(_gradient_at, logits, *examples)
    else:
        gradient = _gradient(p, *examples)
    penalised = params.at[:, -1].set(0)
    gradient = problem.held(gradient + trial.l2 * penalised, trial.l2)
    mean_loss = metrics.total(fractions * loss)
    norm = jnp.linalg.norm(gradient[:, :-1])
    return trial._replace(
        params=params,
        gradient=gradient,
        loss=mean_loss,
        objective=mean_loss + trial.l2 / 2 * jnp.vdot(penalised, penalised),
        gradient_norm=norm,
        gap_bound=jnp.where(trial.l2 > 0, norm**2 / (2 * trial.l2), jnp.inf),
    )


def promising(
    trial: State,
    loss: Float[Array, " N"],
    fractions: Float[Array, " N"],
    tolerance: Float[Array, ""] | float,
) -> Bool[Array, ""]:
    """Whether the trial looks done, so that it pays to compute its certificate."""
    return _close(trial, tolerance) | separates(trial, loss, fractions)


def _close(trial, tolerance):
    certified = trial.gap_bound <= tolerance * trial.objective
    return jnp.where(trial.l2 > 0, certified, trial.gradient_norm <= tolerance * trial.reference)


def separates(
    trial: State, loss: Float[Array, " N"], fractions: Float[Array, " N"]
) -> Bool[Array, ""]:
    """Whether nothing is penalised and every example with weight is classified right."""
    # A loss below log 2 is a probability above 1/2: every example is classified right, strictly.
    return (trial.l2 == 0) & (jnp.where(fractions > 0, loss, 0).max() < jnp.log(2.0))


_MOST_MARGINS = 2**22  # numbers in the linear programme


def recedes(prepared: Prepared | Sparse, column: int | np.integer = 0) -> bool:
    """Whether weights without a penalty can grow forever and never raise the loss of any example.

    Then the classes are separable, wholly or in part, and the optimum is at infinity. In such a
    direction d of the weights and the bias, the margin (d[y] - d[c])·x is 0 or greater for every
    example and class c, and not always 0. A linear programme seeks one (Albert and Anderson, *On
    the existence of maximum likelihood estimates in logistic regression models*, 1984), among the
    examples and classes that have weight in a column of the resamples. Where these have more than
    4 million numbers in all margins, it is not sought: False.
    """
    from scipy import optimize, sparse  # only here: its import takes as long as a small fit

    weights, y = np.asarray(prepared.weights), np.asarray(prepared.y)
    if prepared.resamples is not None:
        weights = weights * np.asarray(prepared.resamples)[:, column]
    # A soft label is a copy of the example for each class that it gives any weight.
    own, rows = (
        np.nonzero(y * (weights > 0)) if y.ndim == 2 else (y[weights > 0], weights.nonzero()[0])
    )
    classes, labels = np.unique(own, return_inverse=True)
    num_features = len(prepared.mean) + 1
    num_pairs = len(rows) * (len(classes) - 1)
    if not num_pairs or num_pairs * 2 * num_features > _MOST_MARGINS:
        return False
    if isinstance(prepared, Sparse):
        x = prepared.dense_rows(rows).astype(np.float64)
    else:
        x = np.asarray(prepared.features, np.float64)[:, rows]
    x = (x / np.maximum(abs(x).max(1, keepdims=True), np.finfo(np.float64).tiny)).T
    own = np.eye(len(classes))[labels]
    signs = (own[:, None] - np.eye(len(classes)))[np.arange(len(classes)) != labels[:, None]]
    of_pairs = sparse.csr_array(np.repeat(x, len(classes) - 1, 0))
    # Of all equivalent directions, the one in which the first class stays.
    margins = [of_pairs.multiply(signs[:, [c]]) for c in range(1, len(classes))]
    margins = sparse.csr_array(sparse.hstack(margins))
    total = margins.sum(0) / num_pairs
    found = optimize.linprog(-total, -margins, np.zeros(num_pairs), bounds=(-1, 1))
    if found.x is None:
        return False
    reached = margins @ found.x
    return bool(reached.max() > 1e-6 and reached.min() > -1e-9)


def certify(
    prepared: Prepared,
    trial: State,
    logits: Float[Array, "C N"],
    loss: Float[Array, " N"],
    fractions: Float[Array, " N"],
    tolerance: Float[Array, ""] | float,
) -> State:
    """The trial with the best bias for its weights, its gap bound, and whether it has converged.

    min over b of F(W, b) is l2-strongly convex in W, since F - l2/2 ‖W‖² is jointly convex, and
    its gradient is ∂F/∂W at the best b: so F(W, best b) - min F ≤ ‖∂F/∂W‖² / (2 · l2). This is
    also the duality gap at the dual point y - p, which the best bias makes feasible. Without a bias
    F(W) itself is l2-strongly convex, and no bias is computed.
    """
    loss = undecided_as_wrong(prepared.y, loss)
    wanted = prepared.fit_bias & ~separates(trial, loss, fractions)
    shift, better_loss, p = polish_bias(logits, prepared.y, fractions, wanted)
    params = trial.params.at[:, -1].add(shift)
    at_best = params, better_loss, logits + shift[:, None], p
    return proven(measure(prepared, fractions, trial, *at_best), loss, fractions, tolerance)


def proven(
    trial: State,
    loss: Float[Array, " N"],
    fractions: Float[Array, " N"],
    tolerance: Float[Array, ""] | float,
) -> State:
    """The trial with what its metrics prove if its bias is the best one, else without a bound.

    The bias is the best one where the gradient in it, the mean residual of each class, is zero up
    to rounding. loss: of the examples before the bias was improved.
    """
    rounding = jnp.sqrt(jnp.finfo(fractions.dtype).eps) / 10
    exact = abs(trial.gradient[:, -1]).max() <= rounding
    new = trial._replace(gap_bound=jnp.where(exact, trial.gap_bound, jnp.inf))
    separable = separates(trial, loss, fractions)
    return new._replace(converged=exact & _close(new, tolerance), separable=separable)


def _gradient_at(logits, y, fractions, features):
    return _gradient(losses.softmax(logits, axis=0), y, fractions, features)


def _gradient(p, y, fractions, features):
    """The gradient of the loss: [C, D + 1]."""
    return product(residual(p, y) * fractions, features.T)
