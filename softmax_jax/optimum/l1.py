"""Weights that are exactly zero: the optimum under l1 ‖W‖₁ and l1_group Σ_d ‖W_d‖₂.

The objective is loss + l2/2 ‖W‖² + l1 ‖W‖₁ + l1_group Σ_d ‖W_d‖₂, where W_d are the weights of
feature d in all classes; the bias is free. Along a path of penalties each trial starts from the
optimum of the next stronger one, on the working set of the features that matter there: those with
weights, and those whose correlation with the residuals is near the penalty (a strong rule). All
trials at hand share one working set, so that an iteration is two matrix products. The certificate
is the duality gap of the whole problem: a feature that was left out wrongly opens it, and is added.

Sources: Beck and Teboulle, *A fast iterative shrinkage-thresholding algorithm* (2009); O'Donoghue
and Candès, *Adaptive restart for accelerated gradient schemes* (2015); Tibshirani and others,
*Strong rules for discarding predictors in lasso-type problems* (2012); Ndiaye and others, *Gap safe
screening rules for sparse-group lasso* (2016).
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from softmax_jax import checks, losses, metrics
from softmax_jax.optimum import certificate
from softmax_jax.optimum.problem import (
    LEAST_PRIOR,
    Prepared,
    choose,
    gradient_at_zero,
    product,
    residual,
    weight_fractions,
)

_FEWEST_FEATURES = 128  # of a working set: each size is compiled separately
_NEAR = 0.9  # of the penalty: a feature correlated so strongly may soon have weights
_INNER = 0.25  # of the tolerance: the gap at which a working set is left
_FEWEST_STEPS = 10  # of FISTA in a round
_ROUND = 30  # steps of FISTA before one of Newton's method
_MOST_PRODUCTS = 50  # of the Hessian in one of these
_FORCING = 0.1  # of the gradient is left in it
_SHORTEST = 1e-2  # of its length is tried
_CHORDS = 3


class Penalty(NamedTuple):
    """Of each trial, or of one: the penalties of ‖W‖²/2, ‖W‖₁ and Σ_d ‖W_d‖₂."""

    l2: Float[Array | np.ndarray, "*T"]
    l1: Float[Array | np.ndarray, "*T"]
    l1_group: Float[Array | np.ndarray, "*T"]


class State(NamedTuple):
    """Trials in progress; the first axis of every leaf is the trials [T].

    params [T, C, D + 1]: the weights, and the best bias for them in the last column, for the
    centred features · gradient: of the loss, in the same shape · penalty · column: of the resamples
    · objective, loss, gradient_norm, gap_bound, iterations, converged: as in `Optimum`; separable
    is never True, as every direction of the weights is penalised.
    """

    params: Float[Array, "*T C D+1"]
    gradient: Float[Array, "*T C D+1"]
    penalty: Penalty
    column: Int[Array, "*T"]
    objective: Float[Array, "*T"]
    loss: Float[Array, "*T"]
    gradient_norm: Float[Array, "*T"]
    gap_bound: Float[Array, "*T"]
    iterations: Int[Array, "*T"]
    converged: Bool[Array, "*T"]
    separable: Bool[Array, "*T"]

    @property
    def done(self) -> Bool[Array | np.ndarray, "*T"]:
        """Whether more iterations would change nothing."""
        return self.converged

    @property
    def free(self) -> Bool[np.ndarray, "*T"]:
        """Whether nothing is penalised: never."""
        return np.zeros(len(self.column), bool)


def soft(v: Float[Array, "*shape"], by: Float[Array, "..."] | float) -> Float[Array, "*shape"]:
    """Every number moved towards zero: sign(v) max(|v| - by, 0).

    >>> soft(jnp.array([-3.0, 0.5, 2.0]), 1.0).tolist()
    [-2.0, 0.0, 1.0]
    """
    return jnp.sign(v) * jnp.maximum(abs(v) - by, 0)


def shrink(W, step, penalty):
    """The proximal operator: argmin over V of ‖V - W‖² / (2 step) + the penalties of V.

    W [C, D], step [D]: thresholding of each weight, then of each feature's norm, then scaling.
    """
    W = soft(W, step * penalty.l1)
    norm = jnp.linalg.norm(W, axis=0)
    kept = jnp.maximum(1 - step * penalty.l1_group / jnp.maximum(norm, _tiny(W)), 0)
    return W * kept / (1 + step * penalty.l2)


def value(W, penalty):
    """The penalties of W [C, D], of each feature [D]."""
    norm = jnp.linalg.norm(W, axis=0)
    return penalty.l2 / 2 * norm**2 + penalty.l1 * abs(W).sum(0) + penalty.l1_group * norm


def excess(V, penalty):
    """By how much the correlations V [C, D] exceed what zero weights bear: [D], negative below."""
    return jnp.linalg.norm(soft(V, penalty.l1), axis=0) - penalty.l1_group


def feasible_scale(V, penalty):
    """The largest s ≤ 1, or slightly less, at which sV is no longer in excess.

    excess(sV) is convex in s: at the point where a chord from below to s = 1 crosses zero, it is
    negative. Exact for l1 or l1_group alone.
    """
    largest = jnp.maximum(abs(V).max(0), _tiny(V))
    s, one = jnp.minimum(penalty.l1 / largest, 1), excess(V, penalty)
    for _ in range(_CHORDS):
        below = jnp.minimum(excess(s * V, penalty), 0)
        s += (1 - s) * -below / jnp.maximum(one - below, _tiny(V))
    return jnp.where(one <= 0, 1, s).min()


def duality_gap(W, V, loss, fractions, penalty):
    """The objective at W less the dual at the residuals scaled by s, for the better of two s.

    Scaled residuals s (p - Y) are the loss's derivative at the probabilities q = s p + (1 - s) Y,
    and the gap is Σ w KL(q ‖ p) + Σ_d [Ω(W_d) + Ω*(s V_d) - s W_d·V_d], where no term is negative
    and Ω*(V) = max(excess, 0)² / (2 l2). With l2 = 0 that is infinite in excess, so that s must be
    small enough; with l2 > 0, s = 1 will do, too.

    Args:
      W: the weights [C, D].
      V: the correlations -∂loss/∂W [C, D], at the best bias for W.
      loss: of each example [N].
      fractions: the weights of the examples [N], of sum 1.
      penalty: of the trial.
    """
    s = jnp.maximum(feasible_scale(V, penalty), _tiny(V))
    other = -jnp.expm1(-loss)  # 1 - p of the label, where q is 1 - s · other
    mixed = jnp.maximum(1 - s * other, _tiny(V))
    apart = s * other * jnp.log(s) + mixed * (jnp.log(mixed) + loss)
    along, cost = (W * V).sum(0), value(W, penalty)
    scaled = jnp.sum(fractions * jnp.maximum(apart, 0)) + jnp.maximum(cost - s * along, 0).sum()
    over = jnp.maximum(excess(V, penalty), 0)
    conjugate = jnp.where(over > 0, over**2 / (2 * penalty.l2), 0)
    return jnp.minimum(scaled, jnp.maximum(cost + conjugate - along, 0).sum())


def subgradient(W, V, penalty):
    """The subgradient of the objective with the smallest norm [C, D]: zero at the optimum."""
    norm = jnp.linalg.norm(W, axis=0)
    group = penalty.l1_group * W / jnp.maximum(norm, _tiny(W))
    smooth = penalty.l2 * W + group - V
    inside = jnp.where(W != 0, smooth + penalty.l1 * jnp.sign(W), soft(smooth, penalty.l1))
    outside = (
        soft(V, penalty.l1)
        * jnp.maximum(excess(V, penalty), 0)
        / jnp.maximum(excess(V, penalty) + penalty.l1_group, _tiny(W))
    )
    return jnp.where(norm > 0, inside, outside)


def _tiny(array):
    return jnp.finfo(array.dtype).tiny


@functools.partial(jax.jit, donate_argnames="state")
def certify(prepared, state, rows, tolerance):
    """The trials in `rows` with the best bias for their weights, gradient, metrics and gap."""
    part = jax.tree.map(lambda leaf: leaf[rows], state)
    new = jax.vmap(functools.partial(_certify, prepared, tolerance))(part)
    return jax.tree.map(lambda leaf, own: leaf.at[rows].set(own), state, new)


def _certify(prepared, tolerance, trial):
    fractions, y = weight_fractions(prepared, trial.column), prepared.y
    logits = product(trial.params, prepared.features)
    shift, loss, p = certificate.polish_bias(logits, y, fractions, prepared.fit_bias)
    params = trial.params.at[:, -1].add(shift)
    if p is None:
        p = losses.softmax(logits + shift[:, None], axis=0)
    gradient = product(residual(p, y) * fractions, prepared.features.T)
    W, V, penalty = params[:, :-1], -gradient[:, :-1], trial.penalty
    exact = abs(gradient[:, -1]).max() <= jnp.sqrt(jnp.finfo(W.dtype).eps) / 10
    gap = jnp.where(exact, duality_gap(W, V, loss, fractions, penalty), jnp.inf)
    mean_loss = metrics.total(fractions * loss)
    objective = mean_loss + value(W, penalty).sum()
    return trial._replace(
        params=params,
        gradient=gradient,
        loss=mean_loss,
        objective=objective,
        gap_bound=gap,
        gradient_norm=jnp.linalg.norm(subgradient(W, V, penalty)),
        converged=gap <= tolerance * objective,
    )


class _Point(NamedTuple):
    """One trial on its working set: the last point and the one before, with their logits."""

    params: Any
    before: Any
    logits: Any
    logits_before: Any
    momentum: Any
    curvature: Any  # of the loss, in units in which every feature has variance 1
    gap: Any
    steps: Any


class _Subset(NamedTuple):
    """What a trial is solved on: features x [K + 1, N], labels, weights, and the variances of x."""

    x: Any
    y: Any
    fractions: Any
    scale: Any
    penalty: Penalty


@functools.partial(jax.jit, donate_argnames="state")
def improve(prepared, state, rows, features, tolerance, max_iterations, segment):
    """At most `segment` steps of the trials in `rows` with the weights of some features.

    features [K + 1]: their numbers, padded with ones out of range, then that of the bias.
    """
    part = jax.tree.map(lambda leaf: leaf[rows], state)
    x = prepared.features.at[features].get(mode="fill", fill_value=0)
    y = prepared.y

    def of_trial(trial):
        fractions = weight_fractions(prepared, trial.column)
        params = trial.params.at[:, features].get(mode="fill", fill_value=0)
        limit = jnp.minimum(segment, max_iterations - trial.iterations)
        wanted = _INNER * tolerance * trial.objective
        params, steps = _descend(x, y, fractions, params, trial.penalty, wanted, limit)
        whole = trial.params.at[:, features].set(params, mode="drop")
        return trial._replace(params=whole, iterations=trial.iterations + steps)

    part = jax.vmap(of_trial)(part)
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), state, part)


def _descend(x, y, fractions, params, penalty, wanted, limit):
    """Rounds of FISTA, which finds the support, and a step of Newton's method on it."""
    scale = product(x**2, fractions)
    on = _Subset(x, y, fractions, jnp.where(scale > 0, scale, 1), penalty)

    def unfinished(now):
        return (now.steps < limit) & (now.gap > wanted)

    def round_(now):
        end = jnp.minimum(limit, now.steps + _ROUND)
        least = jnp.minimum(limit, now.steps + _FEWEST_STEPS)

        def going(now):
            return (now.steps < least) | ((now.steps < end) & (now.gap > wanted))

        now = lax.while_loop(going, functools.partial(_fista, on), now)
        return _newton(on, now, jnp.where(unfinished(now), limit - now.steps, 0))

    logits, one = product(params, x), jnp.ones_like(wanted)
    first = _Point(params, params, logits, logits, one, one, one * jnp.inf, jnp.int32(0))
    last = lax.while_loop(unfinished, round_, first)
    return last.params, last.steps


def _fista(on, now):
    """A proximal step from beyond the last point; the curvature is raised where it is too small."""
    x, y, fractions, scale, penalty = on
    later = (1 + jnp.sqrt(1 + 4 * now.momentum**2)) / 2
    along = (now.momentum - 1) / later
    at = now.params + along * (now.params - now.before)
    logits = now.logits + along * (now.logits - now.logits_before)
    p = losses.softmax(logits, axis=0)
    gradient = product(residual(p, y) * fractions, x.T)
    step = 1 / (now.curvature * scale)
    moved = at - step * gradient
    new = jnp.append(shrink(moved[:, :-1], step[:-1], penalty), moved[:, -1:], 1)
    new_logits = product(new, x)
    moved, change = new - at, new_logits - logits
    size = jnp.sum(scale * moved**2)
    bent = jnp.sum((losses.softmax(new_logits, axis=0) - p) * fractions * change)
    rounding = 4 * jnp.finfo(x.dtype).eps * jnp.sum(fractions * abs(change).max(0))
    good = bent - rounding <= now.curvature * size
    back = jnp.sum(scale * (at - new) * (new - now.params)) > 0
    loss = -jnp.log(jnp.maximum(jnp.take_along_axis(p, y[None], 0)[0], _tiny(p)))
    accepted = now._replace(
        params=new,
        before=now.params,
        logits=new_logits,
        logits_before=now.logits,
        momentum=jnp.where(back, 1, later),
        curvature=now.curvature * 0.97,
        gap=duality_gap(new[:, :-1], -gradient[:, :-1], loss, fractions, penalty),
    )
    found = bent / jnp.maximum(size, _tiny(size))
    refused = now._replace(curvature=jnp.clip(found, 1.2 * now.curvature, 4 * now.curvature))
    return choose(good, accepted, refused)._replace(steps=now.steps + 1)


def _newton(on, now, limit):
    """A step towards the minimum among weights of the same signs, where it lowers the objective.

    There the penalties are smooth. Conjugate gradients solve for the step, two products with x an
    iteration; a weight that would change its sign becomes zero.
    """
    x, y, fractions, scale, penalty = on
    p, W = losses.softmax(now.logits, axis=0), now.params[:, :-1]
    norm = jnp.linalg.norm(W, axis=0)
    unit, inverse = W / jnp.maximum(norm, _tiny(W)), jnp.where(norm > 0, 1 / norm, 0)
    inverse = penalty.l1_group * inverse
    free = jnp.append(W != 0, jnp.ones_like(W[:, :1], bool), 1)
    slope = penalty.l2 * W + penalty.l1 * jnp.sign(W) + penalty.l1_group * unit
    gradient = product(residual(p, y) * fractions, x.T) + jnp.append(slope, 0 * W[:, :1], 1)
    gradient = jnp.where(free, gradient, 0)
    inner = ((p * (1 - p)) @ fractions)[:, None]
    diagonal = inner * scale + jnp.append(penalty.l2 + inverse, 1e-3 * inner.mean(), None)
    diagonal = jnp.maximum(diagonal, 1e-3 * diagonal.mean())

    def hessian(v):
        change = product(v, x)
        bent = p * (change - (p * change).sum(0)) * fractions
        across = v[:, :-1] - unit * (unit * v[:, :-1]).sum(0)
        own = penalty.l2 * v[:, :-1] + inverse * across
        return jnp.where(free, product(bent, x.T) + jnp.append(own, 0 * own[:, :1], 1), 0)

    def iteration(carry):
        step, left, direction, square, count = carry
        image = hessian(direction)
        curvature = jnp.vdot(direction, image)
        length = jnp.where(curvature > 0, square / jnp.where(curvature > 0, curvature, 1), 0)
        step, left = step + length * direction, left - length * image
        new = jnp.vdot(left, left / diagonal)
        direction = left / diagonal + new / jnp.maximum(square, _tiny(W)) * direction
        return step, left, direction, new, count + 1

    def going(carry):
        square, count = carry[3:]
        return (square > _FORCING**2 * whole) & (count < jnp.minimum(limit, _MOST_PRODUCTS))

    left = -gradient
    whole = jnp.vdot(left, left / diagonal)
    carry = jnp.zeros_like(left), left, left / diagonal, whole, jnp.int32(0)
    step, _, _, _, count = lax.while_loop(going, iteration, carry)
    old_loss, old_cost = certificate.each_loss(now.logits, y), value(W, penalty)

    def attempt(carry):
        t, _, _, _ = carry
        moved = now.params + t * step
        crosses = (moved * now.params < 0) & (penalty.l1 > 0)
        moved = jnp.where(crosses.at[:, -1].set(False), 0, moved)
        logits = product(moved, x)
        change = jnp.sum(fractions * (certificate.each_loss(logits, y) - old_loss))
        change += jnp.sum(value(moved[:, :-1], penalty) - old_cost)
        return t / 4, moved, logits, change < 0

    def refused(carry):
        return ~carry[3] & (carry[0] > _SHORTEST) & (count > 0)

    first = jnp.ones_like(whole), now.params, now.logits, jnp.zeros_like(whole, bool)
    _, moved, logits, good = lax.while_loop(refused, attempt, first)
    one = jnp.ones_like(now.momentum)
    new = now._replace(
        params=moved, before=moved, logits=logits, logits_before=logits, momentum=one
    )
    return choose(good, new, now)._replace(steps=now.steps + count)


@jax.jit
def needed_features(state, rows):
    """Which features [D] some trial in `rows` gives weights, or is near to giving them."""
    part = jax.tree.map(lambda leaf: leaf[rows], state)

    def of_trial(trial):
        near = jax.tree.map(lambda number: _NEAR * number, trial.penalty)
        inside = (trial.params[:, :-1] != 0).any(0)
        return inside | (excess(trial.gradient[:, :-1], near) > 0)

    return jax.vmap(of_trial)(part).any(0)


@functools.partial(jax.jit, donate_argnames="state")
def follow(
    state: State,
    rows: Int[Array | np.ndarray, " K"],
    leaders: Int[Array | np.ndarray, " K"],
    before: Int[Array | np.ndarray, " K"],
) -> State:
    """The trials in `rows` that have not begun, nor been given weights, from their leaders' optima.

    The weights are extrapolated linearly in the logarithm of the penalty through the optimum of the
    leader and that of the one before it; a weight that is zero there, or would change its sign, is
    zero. The state given is consumed.
    """
    own, near, far = (
        jax.tree.map(lambda leaf, at=at: leaf[at], state) for at in (rows, leaders, before)
    )
    given = (own.params[:, :, :-1] != 0).any((1, 2))
    begins = (own.iterations == 0) & (rows != leaders) & ~given
    now, then, earlier = (
        jnp.log(one.penalty.l1 + one.penalty.l1_group) for one in (own, near, far)
    )
    step = (now - then) / (then - earlier)
    step = jnp.where(jnp.isfinite(step), jnp.clip(step, 0, 1), 0)[:, None, None]
    params = near.params + step * (near.params - far.params)
    kept = (params * near.params > 0).at[:, :, -1].set(True)
    moved = own._replace(
        params=jnp.where(kept, params, 0), gradient=near.gradient, objective=near.objective
    )
    new = jax.vmap(choose)(begins, moved, own)
    return jax.tree.map(lambda leaf, part: leaf.at[rows].set(part), state, new)


@jax.jit
def start(
    prepared: Prepared,
    penalty: Penalty,
    columns: Int[Array | np.ndarray, " T"],
    params: Float[Array | np.ndarray, "T C D1"] | None = None,
) -> State:
    """The trials at their first point: `params`, or zero weights and the best bias for them."""
    num_trials, dtype = len(columns), prepared.features.dtype
    shape = len(prepared.priors), len(prepared.features)
    bias = jnp.log(jnp.maximum(prepared.priors, LEAST_PRIOR))
    zero = jnp.zeros((num_trials, *shape), dtype).at[:, :, -1].set(bias * prepared.fit_bias)
    unknown, false = jnp.zeros(num_trials, dtype), jnp.zeros(num_trials, bool)
    state = State(
        params=zero if params is None else jnp.asarray(params, dtype),
        gradient=zero,
        penalty=jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), penalty),
        column=jnp.asarray(columns),
        **dict.fromkeys(("objective", "loss", "gradient_norm", "gap_bound"), unknown),
        iterations=jnp.zeros(num_trials, jnp.int32),
        converged=false,
        separable=false,
    )
    return certify(prepared, state, jnp.arange(num_trials), -1.0)


def leaders(penalty: Penalty, columns: Int[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    """For each trial the one that it starts from: the next stronger penalty of its path, or itself.

    A path has one column, one ratio of l1 to l1_group, and either one l2 or one ratio of l2 to the
    others: whichever makes fewer paths.
    """
    l2, l1, group = (np.asarray(leaf, np.float64) for leaf in penalty)
    strength = l1 + group
    share = np.round(group / strength, 4)

    def paths(other):
        return np.unique(np.stack([columns, share, other], 1), axis=0, return_inverse=True)[1]

    by_value, by_ratio = paths(l2), paths(np.round(l2 / (strength + l2), 4))
    path = (by_value if by_value.max() <= by_ratio.max() else by_ratio).ravel()
    order = np.lexsort((-l2, -strength, path))
    found = np.arange(len(order), dtype=np.int32)
    same = path[order[1:]] == path[order[:-1]]
    found[order[1:][same]] = order[:-1][same]
    return found


def iterate(
    prepared: Prepared,
    state: State,
    *,
    tolerance: float | int = 1e-4,
    max_iterations: int = 1000,
    segment: int = 1000,
) -> Iterator[State]:
    """Yields the trials after each working set, until all are done: see `minimise.iterate`.

    The choice of the working set and of the trials depends on the state alone: one that is saved
    and passed again resumes bit for bit.
    """
    order = leaders(state.penalty, np.asarray(state.column))
    most = int((order == np.arange(len(order))).sum())
    D = len(prepared.features) - 1
    while True:
        todo = ~np.asarray(state.converged) & (np.asarray(state.iterations) < max_iterations)
        if not todo.any():
            return
        ready = np.flatnonzero(todo & ((order == np.arange(len(order))) | ~todo[order]))
        rows = np.pad(ready.astype(np.int32)[:most], (0, max(0, most - len(ready))), mode="edge")
        state = follow(state, rows, order[rows], order[order[rows]])
        # Sizes are powers of two, since each is compiled; numbers beyond D read zeros.
        chosen = np.flatnonzero(np.asarray(needed_features(state, rows)))
        size = min(D, max(_FEWEST_FEATURES, 1 << (max(len(chosen), 1) - 1).bit_length()))
        features = np.append(np.pad(chosen, (0, size - len(chosen)), constant_values=D + 1), D)
        state = improve(
            prepared, state, rows, features.astype(np.int32), tolerance, max_iterations, segment
        )
        state = certify(prepared, state, rows, tolerance)
        yield state


def l1_max(prepared: Prepared, *, group: bool | np.bool_ = False) -> float:
    """The smallest l1 (or, for `group`, l1_group) at which the optimum has no weights but zeros.

    Weights of zero are the optimum where no correlation of a feature with the residuals at the best
    bias is greater than l1: max |∂loss/∂W|, or over the features the norm of ∂loss/∂W_d; l2 does
    not change it.
    """
    gradient = np.asarray(gradient_at_zero(prepared))
    return float(np.linalg.norm(gradient, axis=0).max() if group else abs(gradient).max())


def l1_path(
    prepared: Prepared, num: int, *, group: bool | np.bool_ = False, ratio: float = 1e-3
) -> Float[np.ndarray, " num"]:
    """Penalties in a geometric sequence from `l1_max` down to `ratio` times it: float64.

    Raises:
      ValueError: for num that is not a whole number from 1, a ratio that is not between 0 and 1,
        and for features that do not predict the labels.
    """
    checks.check_whole("num", num, 1)
    checks.check_number("ratio", ratio, 0, 1, ends=(False, False))
    largest = l1_max(prepared, group=group)
    if not largest > 0:
        raise ValueError("The features do not predict the labels: there is no path of penalties.")
    return np.geomspace(largest, largest * ratio, num)


def check_penalty(
    l2: Float[np.ndarray, " T"], l1: ArrayLike | Sequence, l1_group: ArrayLike | Sequence
) -> Penalty:
    """The penalties of T trials, checked.

    Raises:
      ValueError: for numbers below zero, or not one or T of them.
    """
    found = [l2]
    for name, given in (("l1", l1), ("l1_group", l1_group)):
        number = np.asarray(given)
        if number.shape not in ((), (1,), l2.shape):
            raise ValueError(
                f"{name} must be one number or {len(l2)}, as l2; its shape is {list(number.shape)}."
            )
        checks.check_number(name, number, 0, float(np.finfo(l2.dtype).max))
        found.append(np.broadcast_to(number.astype(l2.dtype), l2.shape))
    return Penalty(*found)
