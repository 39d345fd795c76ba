"""The best bias for given weights: Newton's method on C numbers, without a product with x."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax import losses
from softmax_jax.optimum import blocks
from softmax_jax.optimum.problem import product, residual

_MOST_STEPS = 20


class _Point(NamedTuple):
    shift: jax.Array  # [C]
    loss: jax.Array  # [N]
    p: jax.Array | None  # [C, N]; None where examples are taken in blocks
    gradient: jax.Array  # [C]
    scale: jax.Array  # of the next step: 1, or less after a step that was too long
    steps: jax.Array


def polish(logits, y, shares, wanted):
    """The shift of the bias that minimises the loss at logits [C, N] + shift [C].

    shares [N]: weights of sum 1. Returns (shift, loss [N], probabilities [C, N], exact): exact says
    whether the gradient in the bias (the mean residual of each class) is zero up to rounding. A
    step multiplies a C × C Hessian out of the probabilities; where not `wanted`, nothing is done.
    Where examples are taken in `blocks`, the probabilities are None.
    """
    eps, cut = jnp.finfo(logits.dtype).eps, blocks.count(*logits.shape) > 1

    def at(shift):
        if not cut:
            return _at(shift, logits, y, shares)
        loss = blocks.each(lambda *part: _at(shift, *part)[0], logits, y, shares)
        return loss, None, blocks.total(lambda *part: _at(shift, *part)[2], logits, y, shares)

    def moments(point):
        if not cut:
            return _moments(point.p, shares)

        def of_block(logits, y, shares):
            return _moments(_at(point.shift, logits, y, shares)[1], shares)

        return blocks.total(of_block, logits, y, shares)

    def step(point):
        shift = point.shift - point.scale * _newton(*moments(point), point.gradient)
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


def _at(shift, logits, y, shares):
    """The loss [B] of examples at a shift, their probabilities, the gradient in the shift [C]."""
    scores = logits + shift[:, None]
    p = losses.softmax(scores, axis=0)
    return losses.cross_entropy(scores, y, axis=0), p, (residual(p, y) * shares).sum(1)


def _moments(p, shares):
    """The means of the probabilities [C] and of their products [C, C]."""
    weighted = p * shares
    return weighted.sum(1), product(weighted, p.T)


def _newton(means, products, gradient):
    """H⁻¹ · gradient, at most 2 long in any class.

    H = diag(m) - Σ w p pᵀ, with m the mean probabilities, is singular along the vector of ones,
    which changes no probability. Scaled to a unit diagonal by √m, that direction is √m, of length
    1: adding its outer product makes its eigenvalue 1 and leaves the others.
    """
    root = jnp.sqrt(jnp.maximum(means, jnp.finfo(means.dtype).tiny))
    scaled = products / root[:, None] / root
    eye = jnp.eye(len(root), dtype=root.dtype)
    hessian = (1 + 1e-6) * eye - scaled + root[:, None] * root
    step = jnp.linalg.solve(hessian, gradient / root) / root
    return step * jnp.minimum(1, 2 / jnp.maximum(abs(step).max(), 1e-30))
