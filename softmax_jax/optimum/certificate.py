"""The figures of a trial at a point, and what they prove."""

import functools

import jax.numpy as jnp

from softmax_jax import losses
from softmax_jax.optimum import blocks
from softmax_jax.optimum.bias import polish
from softmax_jax.optimum.problem import product, residual


def each_loss(logits, y):
    """The loss [N] of every example at logits [C, N]."""
    return blocks.each(functools.partial(losses.cross_entropy, axis=0), logits, y)


def measure(prepared, shares, trial, params, loss, logits, p=None):
    """The trial at new parameters, with its gradient and figures; the bound is not yet one.

    p: the probabilities, where they are at hand.
    """
    examples = prepared.y, shares, prepared.features
    if p is None:
        gradient = blocks.total(_gradient_at, logits, *examples)
    else:
        gradient = _gradient(p, *examples)
    penalised = params.at[:, -1].set(0)
    gradient = gradient + trial.l2 * penalised
    mean_loss = jnp.sum(shares * loss)
    norm = jnp.linalg.norm(gradient[:, :-1])
    return trial._replace(
        params=params,
        gradient=gradient,
        loss=mean_loss,
        objective=mean_loss + trial.l2 / 2 * jnp.vdot(penalised, penalised),
        gradient_norm=norm,
        gap_bound=jnp.where(trial.l2 > 0, norm**2 / (2 * trial.l2), jnp.inf),
    )


def hopeful(trial, loss, shares, tolerance):
    """Whether the certificate is worth its price now."""
    return _close(trial, tolerance) | _separates(trial, loss, shares)


def _close(trial, tolerance):
    certified = trial.gap_bound <= tolerance * trial.objective
    return jnp.where(trial.l2 > 0, certified, trial.gradient_norm <= tolerance * trial.reference)


def _separates(trial, loss, shares):
    # A loss below log 2 is a probability above 1/2: every example on its right side, strictly.
    return (trial.l2 == 0) & (jnp.where(shares > 0, loss, 0).max() < jnp.log(2.0))


def certify(prepared, trial, logits, shares, tolerance):
    """The trial with its bias made optimal for its weights, and what can then be said of it.

    min over b of F(W, b) is l2-strongly convex in W, since F - l2/2 ‖W‖² is jointly convex, and
    its gradient is ∂F/∂W at the best b: so F(W, best b) - min F ≤ ‖∂F/∂W‖² / (2 · l2). This is
    also the duality gap at the dual point y - p, which the best bias makes feasible. Without a bias
    F(W) itself is l2-strongly convex: there is none to find.
    """
    loss = each_loss(logits, prepared.y)
    separable = _separates(trial, loss, shares)
    wanted = prepared.fit_bias & ~separable
    shift, loss, p, exact = polish(logits, prepared.y, shares, wanted)
    exact |= ~prepared.fit_bias
    params = trial.params.at[:, -1].add(shift)
    new = measure(prepared, shares, trial, params, loss, logits + shift[:, None], p)
    new = new._replace(gap_bound=jnp.where(exact, new.gap_bound, jnp.inf))
    return new._replace(converged=exact & _close(new, tolerance), separable=separable)


def _gradient_at(logits, y, shares, features):
    return _gradient(losses.softmax(logits, axis=0), y, shares, features)


def _gradient(p, y, shares, features):
    """That of the loss: [C, D + 1]."""
    return product(residual(p, y) * shares, features.T)
