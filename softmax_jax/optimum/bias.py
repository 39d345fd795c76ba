"""The best bias for given weights: Newton's method on C numbers, without a product with x."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax import losses
from softmax_jax.optimum.problem import product

_MOST_STEPS = 20


class _Point(NamedTuple):
    shift: jax.Array  # [C]
    loss: jax.Array  # [N]
    p: jax.Array  # [C, N]
    gradient: jax.Array  # [C]
    scale: jax.Array  # of the next step: 1, or less after a step that was too long
    steps: jax.Array


def polish(logits, y, shares, wanted):
    """The shift of the bias that minimises the loss at logits [C, N] + shift [C].

    shares [N]: weights of sum 1. Returns (shift, loss [N], probabilities [C, N], exact): exact says
    whether the gradient in the bias (the mean residual of each class) is zero up to rounding. A
    step multiplies a C × C Hessian out of the probabilities; where not `wanted`, nothing is done.
    """
    eps = jnp.finfo(logits.dtype).eps

    def at(shift):
        scores = logits + shift[:, None]
        p = losses.softmax(scores, axis=0)
        residual = p - (jnp.arange(len(p))[:, None] == y)
        return losses.cross_entropy(scores, y, axis=0), p, (residual * shares).sum(1)

    def step(point):
        shift = point.shift - point.scale * _newton(point.p, point.gradient, shares)
        loss, p, gradient = at(shift)
        # Downhill, or so near the optimum that only the gradient can tell.
        better = jnp.sum(shares * (loss - point.loss)) <= 0
        better |= abs(gradient).max() < abs(point.gradient).max() / 2
        new = _Point(shift, loss, p, gradient, jnp.ones_like(point.scale), point.steps + 1)
        old = point._replace(scale=point.scale / 4, steps=point.steps + 1)
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

    def going(point):
        far = abs(point.gradient).max() > 10 * eps
        return wanted & far & (point.steps < _MOST_STEPS) & (point.scale > 1e-3)

    zero = jnp.zeros_like(logits[:, 0])
    first = _Point(zero, *at(zero), jnp.ones_like(zero[0]), jnp.int32(0))
    last = lax.while_loop(going, step, first)
    return last.shift, last.loss, last.p, abs(last.gradient).max() <= jnp.sqrt(eps) / 10


def _newton(p, gradient, shares):
    """H⁻¹ · gradient, at most 2 long in any class.

    H = diag(m) - Σ w p pᵀ, with m the mean probabilities, is singular along the vector of ones,
    which changes no probability. Scaled to a unit diagonal by √m, that direction is √m, of length
    1: adding its outer product makes its eigenvalue 1 and leaves the others.
    """
    root = jnp.sqrt(jnp.maximum((p * shares).sum(1), jnp.finfo(p.dtype).tiny))
    scaled = product(p * shares, p.T) / root[:, None] / root
    eye = jnp.eye(len(root), dtype=p.dtype)
    hessian = (1 + 1e-6) * eye - scaled + root[:, None] * root
    step = jnp.linalg.solve(hessian, gradient / root) / root
    return step * jnp.minimum(1, 2 / jnp.maximum(abs(step).max(), 1e-30))
