"""The penalties worth trying, from the data alone."""

import jax
import jax.numpy as jnp
import numpy as np

from softmax_jax.optimum.problem import Prepared, product


def l2_path(prepared: Prepared, num: int) -> np.ndarray:
    """`num` penalties in a geometric sequence, the largest first: float64 [num].

    The largest gives almost zero weights. With g the gradient in W at W = 0 and the best bias there
    (the log of each class's share), the optimum has ‖W‖ ≤ ‖g‖ / l2, so that its logits differ from
    the bias by at most √λ₁ ‖g‖ / l2 in root mean square (λ₁: the largest eigenvalue of the
    covariance): 0.1 there. The smallest is too small to matter: seen as a prior, l2 is a normal
    distribution of each weight with variance 1 / (l2 · N), and the logits before any data have
    a standard deviation of 10 (tr Cov / (l2 · N) = 100).

    Raises ValueError for num < 1 and for features that are all constant.
    """
    if num < 1:
        raise ValueError(f"A path needs at least 1 penalty; it got {num}.")
    largest_root = float(jnp.sqrt(prepared.eigenvalues[-1]))
    largest = 10 * largest_root * float(jnp.linalg.norm(_gradient_at_zero(prepared)))
    if not largest > 0:
        raise ValueError("The features say nothing of the labels: there is no path of penalties.")
    smallest = float(_total_variance(prepared)) / (100 * len(prepared.y))
    return np.geomspace(largest, min(smallest, largest / 1000), num)


@jax.jit
def _total_variance(prepared: Prepared) -> jax.Array:
    """tr Cov of the features, with the common weights."""
    return prepared.weights @ (prepared.features[:-1] ** 2).sum(0) / prepared.weights.sum()


@jax.jit
def _gradient_at_zero(prepared: Prepared) -> jax.Array:
    """∂loss/∂W at W = 0 and the best bias there, with the common weights: [C, D]."""
    labels = jax.nn.one_hot(prepared.y, len(prepared.priors), axis=0, dtype=prepared.priors.dtype)
    residual = (prepared.priors[:, None] - labels) * (prepared.weights / prepared.weights.sum())
    return product(residual, prepared.features.T)[:, :-1]
