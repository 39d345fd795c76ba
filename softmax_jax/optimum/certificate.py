"""The figures of a trial at a point, and what they prove."""

import jax.numpy as jnp

from softmax_jax import losses
from softmax_jax.optimum.bias import polish
from softmax_jax.optimum.problem import product


def measure(prepared, shares, trial, params, loss, p):
    """The trial at new parameters, with its gradient and figures; the bound is not yet one."""
    labels = jnp.arange(len(p))[:, None] == prepared.y
    penalised = params.at[:, -1].set(0)
    gradient = product((p - labels) * shares, prepared.features.T) + trial.l2 * penalised
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
    separable = _separates(trial, losses.cross_entropy(logits, prepared.y, axis=0), shares)
    wanted = prepared.fit_bias & ~separable
    shift, loss, p, exact = polish(logits, prepared.y, shares, wanted)
    exact |= ~prepared.fit_bias
    params = trial.params.at[:, -1].add(shift)
    new = measure(prepared, shares, trial, params, loss, p)
    new = new._replace(gap_bound=jnp.where(exact, new.gap_bound, jnp.inf))
    return new._replace(converged=exact & _close(new, tolerance), separable=separable)
