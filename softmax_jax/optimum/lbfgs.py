"""L-BFGS for one trial: the preconditioner, the memory, the direction, the line search on logits.

The preconditioner is the Hessian's diagonal in a basis in which the Hessian is nearly diagonal.

Source: Nocedal and Wright, *Numerical Optimization*, 2nd ed.: algorithm 7.4 (two-loop recursion),
section 3.1 (Wolfe conditions); Hager and Zhang, *A new conjugate gradient method with guaranteed
descent and an efficient line search*, SIAM J. Optim. 16 (2005), section 4.1 (near the optimum).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from softmax_jax import losses
from softmax_jax.optimum import problem
from softmax_jax.optimum.problem import Prepared, product, residual

# With more classes than this, the eigenvectors would cost more than the iterations they save.
_MOST_CLASSES = 256


class Curvature(NamedTuple):
    """The diagonal of the loss's Hessian in the basis mixtures ⊗ directions.

    values [C, K + 1]: the curvature for each mixture of classes along each of the directions
    [D, K], and for its bias · mixtures [C, C]: the mixtures as orthonormal columns; None: each
    class by itself, for more than 256 classes.
    """

    values: Float[Array, "C K+1"]
    mixtures: Float[Array, "C C"] | None


def estimate_curvature(
    prepared: Prepared, fractions: Float[Array, " N"], logits: Float[Array, "C N"]
) -> Curvature:
    """The curvature at the logits, from the sample of `Prepared`.

    The Hessian is Σ w (diag(p) - p pᵀ) ⊗ x xᵀ. The mixtures u are the eigenvectors of the mean of
    its first factor: where two classes are confused, their difference has a high curvature and
    their sum has none, which single classes do not show. Along u and a direction the curvature is
    Σ w Var(u) (x · direction)², where Var(u) = Σ p u² - (Σ p u)²; for the bias, Σ w Var(u). It is
    kept above zero, which it approaches where probabilities are confident, and is for the mixture
    of all classes.
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


def precondition(
    gradient: Float[Array, "C D1"],
    gamma: Float[Array, ""] | float = 1.0,
    *,
    curvature: Curvature,
    l2: Float[Array, ""] | float,
    directions: Float[Array, "D K"],
) -> Float[Array, "C D1"]:
    """γ · (Λ + l2)⁻¹ · gradient in the basis of the curvature Λ.

    What lies outside the directions gets the curvature of the first direction, which has the
    smallest eigenvalue. No curvature of the objective is below l2, so no factor exceeds 1 / l2,
    whatever γ is.
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
MOST_TRIES = 30
_SUFFICIENT, _CURVATURE = 1e-4, 0.9
_ROUNDING = 4  # the error of a mean loss, in units of eps · loss


class Memory(NamedTuple):
    """The last M steps s and changes of the gradient y [M, C, D + 1], oldest first.

    rho [M]: 1 / sᵀy, or 0 for a pair that does not count.
    """

    s: Float[Array, "M C D+1"]
    y: Float[Array, "M C D+1"]
    rho: Float[Array, " M"]


class Point(NamedTuple):
    """The state of a line search: step t, and the loss [N] and probabilities [C, N] at it.

    With several tiles of examples the probabilities are None, as they are never held together.

    slope: the derivative of the objective along the line · low, high: (t, slope) at the ends of the
    bracket · good: whether t is accepted · tries: the number of steps evaluated.
    """

    t: Float[Array, ""]
    loss: Float[Array, " N"]
    probabilities: Float[Array, "C N"] | None
    slope: Float[Array, ""]
    low: tuple[Any, Any]
    high: tuple[Any, Any]
    good: Bool[Array, ""]
    tries: Int[Array, ""]


def empty_memory(like: Float[Array, "C D1"]) -> Memory:
    """A memory without pairs, for parameters of the given shape and type."""
    pairs = jnp.zeros((MEMORY, *like.shape), like.dtype)
    return Memory(pairs, pairs, jnp.zeros(MEMORY, like.dtype))


def remember(memory: Memory, s: Float[Array, "C D1"], y: Float[Array, "C D1"]) -> Memory:
    """Replaces the oldest pair by a new one; a pair without positive curvature does not count."""
    newest = Memory(s, y, _rho(s, y))
    return jax.tree.map(lambda old, new: jnp.append(old[1:], new[None], 0), memory, newest)


def transfer(memory: Memory, change: Float[Array, ""] | float) -> Memory:
    """The memory of the same loss under a penalty that is greater by `change`.

    Exact: the penalty contributes l2 · s to y, except for the bias, which is not penalised.
    """
    y = memory.y + change * memory.s.at[:, :, -1].set(0)
    return Memory(memory.s, y, jnp.where(memory.rho > 0, jax.vmap(_rho)(memory.s, y), 0))


def _rho(s, y):
    curvature = jnp.vdot(s, y)
    good = curvature > jnp.finfo(s.dtype).eps * jnp.vdot(y, y)
    return jnp.where(good, 1 / jnp.where(good, curvature, 1), 0)


def direction(
    gradient: Float[Array, "C D1"], memory: Memory, precondition: Callable
) -> Float[Array, "C D1"]:
    """-H · gradient by the two-loop recursion, from H₀ = `precondition` at the scale γ.

    γ = sᵀy / yᵀ(precondition y) for the newest pair; with it, t = 1 is nearly always accepted.
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


def line_search(
    logits: Float[Array, "C N"],
    along: Float[Array, "C N"],
    y: Num[Array, "*C N"],
    fractions: Float[Array, " N"],
    loss: Float[Array, " N"],
    slope: Float[Array, ""],
    penalty: tuple[Float[Array, ""], Float[Array, ""]],
) -> Point:
    """A step t that meets the strong Wolfe conditions (c₁ = 1e-4, c₂ = 0.9); t = 1 is tried first.

    Along a direction the logits are logits + t · along, so a try costs no matrix product. The
    decrease is summed over the differences of each example, whose rounding errors are far below
    those of two means. Where the required decrease is smaller than rounding, a rise within rounding
    is accepted, and the slopes decide.

    Args:
      logits, along: at t = 0, and their change per unit of t.
      y: labels.
      fractions: example weights of sum 1.
      loss, slope: of each example, and the objective's derivative along the line, at t = 0.
      penalty: its first and second derivative along the line at t = 0.

    Returns:
      The last point tried. `good` is False where 30 tries found no step: float precision is
      exhausted.
    """
    noise = rounding(jnp.sum(fractions * loss))

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
        good = accepts(rise, new_slope, point.t, slope, noise)
        low, high = bracket(point.t, new_slope, point.low, point.high)
        t = jnp.where(good, point.t, next_step(low, high, slope))
        return Point(t, new_loss, p, new_slope, low, high, good, point.tries + 1)

    zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
    ends = (zero, slope), (one * jnp.inf, zero)
    first = Point(one, loss, None if cut else logits, slope, *ends, slope >= 0, jnp.int32(0))
    point = lax.while_loop(lambda p: ~p.good & (p.tries < MOST_TRIES), attempt, first)
    return point._replace(good=point.good & (slope < 0))


def _at_step(t, logits, along, y, fractions):
    """The loss [B] of examples at a step, its sum's derivative along the line, probabilities."""
    new = logits + t * along
    p = losses.softmax(new, axis=0)
    change = jnp.sum(residual(p, y) * fractions * along)
    return losses.cross_entropy(new, y, axis=0), change, p


def rounding(loss: Float[Array, ""]) -> Float[Array, ""]:
    """The error that a mean loss of this size may have."""
    return _ROUNDING * jnp.finfo(loss.dtype).eps * loss


def accepts(
    rise: Float[Array, ""],
    new_slope: Float[Array, ""],
    t: Float[Array, ""],
    slope: Float[Array, ""],
    noise: Float[Array, ""],
) -> Bool[Array, ""]:
    """Whether the strong Wolfe conditions hold at t; a rise within rounding is none."""
    wanted = _SUFFICIENT * t * slope
    low_enough = rise <= jnp.where(-wanted > noise, wanted, noise)
    return low_enough & (abs(new_slope) <= -_CURVATURE * slope)


def bracket(
    t: Float[Array, ""],
    new_slope: Float[Array, ""],
    low: tuple[Array, Array],
    high: tuple[Array, Array],
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The ends (t, slope) of the bracket, of which t with its slope becomes one."""
    here, downhill = (t, new_slope), new_slope < 0
    new_low = jax.tree.map(lambda a, b: jnp.where(downhill, a, b), here, low)
    return new_low, jax.tree.map(lambda a, b: jnp.where(downhill, a, b), high, here)


def next_step(
    low: tuple[Array, Array], high: tuple[Array, Array], slope: Float[Array, ""]
) -> Float[Array, ""]:
    """The zero of the straight line through the slopes, kept well inside the bracket."""
    (a, slope_a), (b, slope_b) = low, high
    farther = jnp.clip(a * slope / jnp.minimum(slope - slope_a, -1e-30), 2 * a, 10 * a)
    width = b - a
    between = a + width * jnp.clip(slope_a / (slope_a - slope_b), 0.1, 0.9)
    return jnp.where(jnp.isinf(b), farther, between)
