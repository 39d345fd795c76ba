"""What is known of a trial at a point, and what it proves: the best bias, the gap bound.

The best bias for given weights comes from Newton's method on C numbers, without a product with x.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax import losses
from softmax_jax.optimum import problem
from softmax_jax.optimum.problem import product, residual

_MOST_STEPS = 20


class _Point(NamedTuple):
    shift: jax.Array  # [C]
    loss: jax.Array  # [N]
    p: jax.Array | None  # [C, N]; None where examples are taken in tiles
    gradient: jax.Array  # [C]
    scale: jax.Array  # of the next step: 1, or less after a step that was too long
    steps: jax.Array


def polish_bias(logits, y, fractions, wanted):
    """The shift of the bias that minimises the loss at logits [C, N] + shift [C].

    fractions [N]: weights of sum 1. Returns (shift, loss [N], probabilities [C, N], exact): exact
    says whether the gradient in the bias (the mean residual of each class) is zero up to rounding.
    A step multiplies a C × C Hessian out of the probabilities; where not `wanted`, nothing is done.
    Where examples are taken in `tiles`, the probabilities are None.
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
        shift = point.shift - point.scale * _newton_step(*moments(point), point.gradient)
        loss, p, gradient = at(shift)
        # Downhill, or so near the optimum that only the gradient can tell.
        better = jnp.sum(fractions * (loss - point.loss)) <= 0
        better |= abs(gradient).max() < abs(point.gradient).max() / 2
        new = _Point(shift, loss, p, gradient, jnp.ones_like(point.scale), point.steps + 1)
        old = point._replace(scale=point.scale / 4, steps=point.steps + 1)
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

    def unfinished(point):
        far = abs(point.gradient).max() > 10 * eps
        return wanted & far & (point.steps < _MOST_STEPS) & (point.scale > 1e-3)

    zero = jnp.zeros_like(logits[:, 0])
    first = _Point(zero, *at(zero), jnp.ones_like(zero[0]), jnp.int32(0))
    last = lax.while_loop(unfinished, step, first)
    return last.shift, last.loss, last.p, abs(last.gradient).max() <= jnp.sqrt(eps) / 10


def _bias_point(shift, logits, y, fractions):
    """The loss [B] of examples at a shift, their probabilities, the gradient in the shift [C]."""
    scores = logits + shift[:, None]
    p = losses.softmax(scores, axis=0)
    return losses.cross_entropy(scores, y, axis=0), p, (residual(p, y) * fractions).sum(1)


def _probability_moments(p, fractions):
    """The means of the probabilities [C] and of their products [C, C]."""
    weighted = p * fractions
    return weighted.sum(1), product(weighted, p.T)


def _newton_step(means, products, gradient):
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


def each_loss(logits, y):
    """The loss [N] of every example at logits [C, N]."""
    return problem.map_tiles(functools.partial(losses.cross_entropy, axis=0), logits, y)


def measure(prepared, fractions, trial, params, loss, logits, p=None):
    """The trial at new parameters, with its gradient and figures; the bound is not yet one.

    p: the probabilities, where they are at hand.
    """
    examples = prepared.y, fractions, prepared.features
    if p is None:
        gradient = problem.sum_tiles(_gradient_at, logits, *examples)
    else:
        gradient = _gradient(p, *examples)
    penalised = params.at[:, -1].set(0)
    gradient = gradient + trial.l2 * penalised
    mean_loss = jnp.sum(fractions * loss)
    norm = jnp.linalg.norm(gradient[:, :-1])
    return trial._replace(
        params=params,
        gradient=gradient,
        loss=mean_loss,
        objective=mean_loss + trial.l2 / 2 * jnp.vdot(penalised, penalised),
        gradient_norm=norm,
        gap_bound=jnp.where(trial.l2 > 0, norm**2 / (2 * trial.l2), jnp.inf),
    )


def promising(trial, loss, fractions, tolerance):
    """Whether the certificate is worth its price now."""
    return _close(trial, tolerance) | _separates(trial, loss, fractions)


def _close(trial, tolerance):
    certified = trial.gap_bound <= tolerance * trial.objective
    return jnp.where(trial.l2 > 0, certified, trial.gradient_norm <= tolerance * trial.reference)


def _separates(trial, loss, fractions):
    # A loss below log 2 is a probability above 1/2: every example on its right side, strictly.
    return (trial.l2 == 0) & (jnp.where(fractions > 0, loss, 0).max() < jnp.log(2.0))


def certify(prepared, trial, logits, fractions, tolerance):
    """The trial with its bias made optimal for its weights, and what can then be said of it.

    min over b of F(W, b) is l2-strongly convex in W, since F - l2/2 ‖W‖² is jointly convex, and
    its gradient is ∂F/∂W at the best b: so F(W, best b) - min F ≤ ‖∂F/∂W‖² / (2 · l2). This is
    also the duality gap at the dual point y - p, which the best bias makes feasible. Without a bias
    F(W) itself is l2-strongly convex: there is none to find.
    """
    loss = each_loss(logits, prepared.y)
    separable = _separates(trial, loss, fractions)
    wanted = prepared.fit_bias & ~separable
    shift, loss, p, exact = polish_bias(logits, prepared.y, fractions, wanted)
    exact |= ~prepared.fit_bias
    params = trial.params.at[:, -1].add(shift)
    new = measure(prepared, fractions, trial, params, loss, logits + shift[:, None], p)
    new = new._replace(gap_bound=jnp.where(exact, new.gap_bound, jnp.inf))
    return new._replace(converged=exact & _close(new, tolerance), separable=separable)


def _gradient_at(logits, y, fractions, features):
    return _gradient(losses.softmax(logits, axis=0), y, fractions, features)


def _gradient(p, y, fractions, features):
    """That of the loss: [C, D + 1]."""
    return product(residual(p, y) * fractions, features.T)
