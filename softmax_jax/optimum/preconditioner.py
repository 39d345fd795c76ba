"""The preconditioner: the Hessian's diagonal, in a basis in which little else is left of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from softmax_jax import losses
from softmax_jax.optimum.problem import product

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


def estimate(prepared, shares, logits) -> Curvature:
    """The curvature at logits [C, N], from the sample of `Prepared`.

    The Hessian is Σ w (diag(p) - p pᵀ) ⊗ x xᵀ. The mixtures u are the eigenvectors of its first
    factor's mean: where two classes are taken for each other their difference has a high curvature
    and their sum has none, which the classes by themselves do not show. Along u and a direction it
    is Σ w Var(u) (x · direction)², where Var(u) = Σ p u² - (Σ p u)²; for the bias, Σ w Var(u). Kept
    from zero, which a mixture of confident probabilities comes to, and that of all classes is.
    """
    p = losses.softmax(logits[:, prepared.sample], axis=0)
    w = shares[prepared.sample]
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
