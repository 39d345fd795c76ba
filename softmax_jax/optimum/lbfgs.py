"""L-BFGS for one trial: the preconditioner, the memory, the direction, the line search on logits.

The preconditioner is the Hessian's diagonal, in a basis in which little else is left of it.

Source: Nocedal and Wright, *Numerical Optimization*, 2nd ed.: algorithm 7.4 (two-loop recursion),
section 3.1 (Wolfe conditions); Hager and Zhang, *A new conjugate gradient method with guaranteed
descent and an efficient line search*, SIAM J. Optim. 16 (2005), section 4.1 (near the optimum).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax import losses
from softmax_jax.optimum import problem
from softmax_jax.optimum.problem import product, residual

# Above this many classes the eigenvectors would cost more than the iterations that they save.
_MOST_CLASSES = 256


class Curvature(NamedTuple):
    """The diagonal of the loss's Hessian in the basis mixtures ⊗ directions.

    values [C, K + 1]: the curvature for each mixture of classes along each of the directions
    [D, K], and for its bias · mixtures [C, C]: the mixtures as columns, orthonormal; None: each
    class by itself, as it is for more than 256 classes.
    """

    values: jax.Array
    mixtures: jax.Array | None


def estimate_curvature(prepared, fractions, logits) -> Curvature:
    """The curvature at logits [C, N], from the sample of `Prepared`.

    The Hessian is Σ w (diag(p) - p pᵀ) ⊗ x xᵀ. The mixtures u are the eigenvectors of its first
    factor's mean: where two classes are taken for each other their difference has a high curvature
    and their sum has none, which the classes by themselves do not show. Along u and a direction it
    is Σ w Var(u) (x · direction)², where Var(u) = Σ p u² - (Σ p u)²; for the bias, Σ w Var(u). Kept
    from zero, which a mixture of confident probabilities comes to, and that of all classes is.
    """
    p = losses.softmax(logits[:, prepared.sample], axis=0)
    w = fractions[prepared.sample]
    w = w / jnp.maximum(w.sum(), jnp.finfo(w.dtype).tiny)
    mixtures = _mixtures(p, w) if len(p) <= _MOST_CLASSES else None
    spread = _variances(p, mixtures) * w
    bias = jnp.maximum(spread.sum(1, keepdims=True), 1e-3 / len(p))
    weights = jnp.maximum(product(spread, prepared.squares.T), 1e-3 * bias * prepared.eigenvalues)
    return Curvature(jnp.append(weights, bias, 1), mixtures)


def _mixtures(p, w):
    return jnp.linalg.eigh(jnp.diag((p * w).sum(1)) - product(p * w, p.T))[1]


def _variances(p, mixtures):
    if mixtures is None:
        return p * (1 - p)
    return jnp.maximum(product(mixtures.T**2, p) - product(mixtures.T, p) ** 2, 0)


def precondition(gradient, gamma=1.0, *, curvature: Curvature, l2, directions):
    """γ · (Λ + l2)⁻¹ · gradient in the basis of the curvature Λ: [C, D + 1] -> the same.

    Whatever lies outside the directions [D, K] counts as the first, which has the smallest
    eigenvalue. No curvature of the objective is below l2, so no factor goes above 1 / l2, whatever
    γ.
    """
    values, mixtures = curvature
    mixed = gradient if mixtures is None else product(mixtures.T, gradient)
    weights, bias = mixed[:, :-1], mixed[:, -1:]
    outside = jnp.minimum(gamma / (values[:, :1] + l2), 1 / l2)
    inside = jnp.minimum(gamma / (values[:, :-1] + l2), 1 / l2) - outside
    turned = product(inside * product(weights, directions), directions.T)
    new = jnp.append(outside * weights + turned, gamma * bias / values[:, -1:], 1)
    return new if mixtures is None else product(mixtures, new)


MEMORY = 20
_SUFFICIENT, _CURVATURE, _MOST_TRIES = 1e-4, 0.9, 30
_ROUNDING = 4  # what a mean loss can be wrong by, in units of eps · loss


class Memory(NamedTuple):
    """The last M steps s and changes of the gradient y [M, C, D + 1], oldest first.

    rho [M]: 1 / sᵀy, or 0 for a pair that does not count.
    """

    s: jax.Array
    y: jax.Array
    rho: jax.Array


class Point(NamedTuple):
    """Where a line search stands: step t, and there the loss [N] and probabilities [C, N].

    Where examples are taken in `tiles`, the probabilities are None: nobody holds all of them.

    slope: the derivative of the objective along the line; low, high: the ends of the bracket, with
    their slopes; good: whether t is accepted; tries: how many points were looked at.
    """

    t: jax.Array
    loss: jax.Array
    probabilities: jax.Array | None
    slope: jax.Array
    low: tuple
    high: tuple
    good: jax.Array
    tries: jax.Array


def empty_memory(like) -> Memory:
    """No pairs yet, for parameters of the given shape."""
    pairs = jnp.zeros((MEMORY, *like.shape), like.dtype)
    return Memory(pairs, pairs, jnp.zeros(MEMORY, like.dtype))


def remember(memory: Memory, s, y) -> Memory:
    """The newest pair in, the oldest one out; a pair without positive curvature counts nothing."""
    newest = Memory(s, y, _rho(s, y))
    return jax.tree.map(lambda old, new: jnp.append(old[1:], new[None], 0), memory, newest)


def transfer(memory: Memory, change) -> Memory:
    """The memory of the same loss under a penalty that is greater by `change`.

    Exact: the penalty's share of y is l2 · s, but for the bias, which is not penalised.
    """
    y = memory.y + change * memory.s.at[:, :, -1].set(0)
    return Memory(memory.s, y, jnp.where(memory.rho > 0, jax.vmap(_rho)(memory.s, y), 0))


def _rho(s, y):
    curvature = jnp.vdot(s, y)
    good = curvature > jnp.finfo(s.dtype).eps * jnp.vdot(y, y)
    return jnp.where(good, 1 / jnp.where(good, curvature, 1), 0)


def direction(gradient, memory: Memory, precondition) -> jax.Array:
    """-H · gradient by the two-loop recursion, from H₀ = `precondition` at the scale γ.

    γ = sᵀy / yᵀ(precondition y) of the newest pair: with it t = 1 nearly always suffices.
    """

    def down(q, pair):
        alpha = pair.rho * jnp.vdot(pair.s, q)
        return q - alpha * pair.y, alpha

    def up(r, pair_and_alpha):
        pair, alpha = pair_and_alpha
        return r + (alpha - pair.rho * jnp.vdot(pair.y, r)) * pair.s, None

    newest = jax.tree.map(lambda leaf: leaf[-1], memory)
    scale = newest.rho * jnp.vdot(newest.y, precondition(newest.y))
    gamma = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 1)
    q, alphas = lax.scan(down, gradient, memory, reverse=True)
    return -lax.scan(up, precondition(q, gamma), (memory, alphas))[0]


def line_search(logits, along, y, fractions, loss, slope, penalty) -> Point:
    """A step t that meets the strong Wolfe conditions (c₁ = 1e-4, c₂ = 0.9); t = 1 is tried first.

    Along a direction the logits are Z + t · dZ, so a try costs no matrix product. logits, along
    [C, N] · fractions [N]: weights of sum 1 · loss [N], slope: at t = 0 · penalty: (first, second)
    derivative of the penalty at t = 0. The decrease is summed from the differences of each example,
    whose rounding errors are far below those of two means. Where the decrease asked for is less
    than rounding, a rise of no more than rounding is accepted, and the slopes decide. `good` is
    False where 30 tries found nothing: float precision is exhausted.
    """
    noise = _ROUNDING * jnp.finfo(loss.dtype).eps * jnp.sum(fractions * loss)

    cut = problem.num_tiles(*logits.shape) > 1

    def at_step(t):
        if not cut:
            return _at_step(t, logits, along, y, fractions)
        return *problem.map_tiles(
            lambda *tile: _at_step(t, *tile)[:2], logits, along, y, fractions
        ), None

    def attempt(point):
        new_loss, change, p = at_step(point.t)
        new_slope = change.sum() + penalty[0] + point.t * penalty[1]
        rise = jnp.sum(fractions * (new_loss - loss))
        rise += point.t * (penalty[0] + point.t / 2 * penalty[1])
        wanted = _SUFFICIENT * point.t * slope
        low_enough = rise <= jnp.where(-wanted > noise, wanted, noise)
        good = low_enough & (abs(new_slope) <= -_CURVATURE * slope)
        here, downhill = (point.t, new_slope), new_slope < 0
        low = jax.tree.map(lambda a, b: jnp.where(downhill, a, b), here, point.low)
        high = jax.tree.map(lambda a, b: jnp.where(downhill, a, b), point.high, here)
        t = jnp.where(good, point.t, _next(low, high, slope))
        return Point(t, new_loss, p, new_slope, low, high, good, point.tries + 1)

    zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
    ends = (zero, slope), (one * jnp.inf, zero)
    first = Point(one, loss, None if cut else logits, slope, *ends, slope >= 0, jnp.int32(0))
    point = lax.while_loop(lambda p: ~p.good & (p.tries < _MOST_TRIES), attempt, first)
    return point._replace(good=point.good & (slope < 0))


def _at_step(t, logits, along, y, fractions):
    """The loss [B] of examples at a step, the sum's derivative along the line, probabilities."""
    new = logits + t * along
    p = losses.softmax(new, axis=0)
    change = jnp.sum(residual(p, y) * fractions * along)
    return losses.cross_entropy(new, y, axis=0), change, p


def _next(low, high, slope):
    """Where a straight line through the slopes is zero, kept well inside the bracket."""
    (a, slope_a), (b, slope_b) = low, high
    farther = jnp.clip(a * slope / jnp.minimum(slope - slope_a, -1e-30), 2 * a, 10 * a)
    width = b - a
    between = a + width * jnp.clip(slope_a / (slope_a - slope_b), 0.1, 0.9)
    return jnp.where(jnp.isinf(b), farther, between)
