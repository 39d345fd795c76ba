"""The problem of one dataset: checked, centred, and with the spectrum of its features."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from softmax_jax.optimum import blocks

# Above this many features the spectrum is that of as many examples: an eigendecomposition of all of
# it would cost more than the iterations that it saves.
_MOST_DIRECTIONS = 1024


class Problem(NamedTuple):
    """A dataset: x [N, D] float, y [N] int in 0..C-1, weights [N] (None: ones).

    resamples: None, or [N, R] counts: what each example's weight is multiplied with in resample r.
    num_classes: C, where some class may be missing from y (None: the largest label + 1).
    fit_bias: False keeps the bias at zero.
    """

    x: jax.Array
    y: jax.Array
    weights: jax.Array | None = None
    resamples: jax.Array | None = None
    num_classes: int | None = None
    fit_bias: bool = True


class Prepared(NamedTuple):
    """A problem on the device, in the coordinates of the solver.

    features [D + 1, N]: x - mean, transposed, and a row of ones, for the bias · y [N] · weights [N]
    · resamples [N, R] or None; mean [D] · priors [C]: the probabilities at zero weights and the
    best bias, each class's share of the weights · directions [D, K], eigenvalues [K]: eigenvectors
    and eigenvalues of the covariance of x · sample [n]: the rows that the spectrum comes from ·
    squares [K, n]: of their features along the directions · fit_bias: whether there is a bias.

    A few examples of weight zero at the end make N a number that can be cut into equal `blocks`.

    Centring changes nothing but the bias, which absorbs it; it takes the mean, usually by far the
    largest direction, out of the condition number. Without a bias nothing can absorb it: the mean
    is zero, so is the last row of the features, and the priors are 1/C.
    """

    features: jax.Array
    y: jax.Array
    weights: jax.Array
    resamples: jax.Array | None
    mean: jax.Array
    priors: jax.Array
    directions: jax.Array
    eigenvalues: jax.Array
    sample: jax.Array
    squares: jax.Array
    fit_bias: jax.Array


def prepare(problem: Problem) -> Prepared:
    """The problem checked, centred and decomposed: once, for every l2 and every resample.

    x of float64 stays float64 where `jax_enable_x64` is set; all else becomes float32. Costs one
    copy of x, and an eigendecomposition of at most 1024 × 1024 from at most 8 examples a feature.
    The spectrum only preconditions: what it leaves out costs iterations, never correctness.

    Raises ValueError for sizes that do not fit, for NaN or infinity, for labels outside 0..C-1,
    and for weights that are negative or all zero.
    """
    x = jnp.asarray(problem.x)
    x = x if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize >= 4 else x.astype("f4")
    y = np.asarray(problem.y)
    weights = np.ones(len(y)) if problem.weights is None else np.asarray(problem.weights, float)
    num_classes = _check(x, y, weights, problem.resamples, problem.num_classes)
    priors = np.bincount(y, weights, minlength=num_classes) / weights.sum()
    priors = priors if problem.fit_bias else np.full(num_classes, 1 / num_classes)
    shares = jnp.asarray(weights / weights.sum(), x.dtype)
    missing = -len(y) % blocks.wanted(num_classes, len(y)) if jax.device_count() == 1 else 0
    features, mean = _centre(x, shares, problem.fit_bias, missing)
    sample = _sample(weights, x.shape[1])
    roots = jnp.asarray(np.sqrt(weights[sample] / weights[sample].sum()), x.dtype)
    directions, eigenvalues, squares = _spectrum(features[:-1, sample], roots)
    resamples = problem.resamples
    return Prepared(
        features=features,
        y=jnp.asarray(np.pad(y, (0, missing)), jnp.int32),
        weights=jnp.asarray(np.pad(weights, (0, missing)), x.dtype),
        resamples=None if resamples is None else jnp.pad(resamples, ((0, missing), (0, 0))),
        mean=mean,
        priors=jnp.asarray(priors, x.dtype),
        directions=directions,
        eigenvalues=eigenvalues,
        sample=jnp.asarray(sample),
        squares=squares,
        fit_bias=jnp.asarray(problem.fit_bias),
    )


def product(a, b):
    """ab, in the precision of its inputs on every backend."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def residual(p, y):
    """p - Y [C, N], of probabilities p [C, N] and Y, the one-hot vectors of labels y [N]."""
    return p - (jnp.arange(len(p))[:, None] == y)


def _check(x, y, weights, resamples, num_classes):
    if x.ndim != 2 or y.shape != x.shape[:1] or weights.shape != y.shape or not len(y):
        raise ValueError(
            "x must be [N, D], y and weights [N], with at least one example; "
            f"got {x.shape}, {y.shape}, {weights.shape}."
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError("Labels must be integers of 0 or greater.")
    num_classes = int(y.max()) + 1 if num_classes is None else num_classes
    if num_classes < max(2, y.max() + 1):
        raise ValueError(f"{num_classes} classes do not fit labels from {y.min()} to {y.max()}.")
    if resamples is not None and np.shape(resamples)[:1] != y.shape:
        raise ValueError(f"resamples must be [{len(y)}, R]; got {np.shape(resamples)}.")
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.sum() > 0:
        raise ValueError("Weights must be finite, of 0 or greater, and not all zero.")
    if resamples is not None and not (weights @ np.asarray(resamples) > 0).all():
        raise ValueError("A resample leaves no example with any weight.")
    if not jnp.isfinite(x).all():
        raise ValueError("The features hold NaN or infinity.")
    return num_classes


@functools.partial(jax.jit, static_argnames="missing")
def _centre(x, shares, fit_bias, missing):
    # From the first example on: a constant column becomes exactly zero, whatever the rounding.
    mean = jnp.where(fit_bias, x[0] + product(shares, x - x[0]), 0)
    # The examples last: a product with the weights is then 1.5 times as fast, one with residuals as
    # fast as the other way round.
    features = jnp.concatenate([(x - mean).T, jnp.full((1, len(x)), fit_bias, x.dtype)])
    return jnp.pad(features, ((0, 0), (0, missing))), mean


def _sample(weights, num_features):
    """All rows, or evenly spaced ones that weigh something; how many, the shape alone says."""
    wanted = 8 * num_features if num_features <= _MOST_DIRECTIONS else _MOST_DIRECTIONS
    if len(weights) <= wanted:
        return np.arange(len(weights), dtype=np.int32)
    there = np.flatnonzero(weights).astype(np.int32)
    return there[np.linspace(0, len(there) - 1, wanted).round().astype(int)]


@jax.jit
def _spectrum(x, roots):
    """Eigenvectors and eigenvalues, ascending, of x diag(roots²) xᵀ, and (directionsᵀ x)².

    A direction whose eigenvalue is only rounding gets the figures of the first one that is sound:
    a curvature of zero would let the preconditioner amplify rounding without bound.
    """
    scaled = x * roots
    if x.shape[1] >= len(x):
        eigenvalues, directions = jnp.linalg.eigh(product(scaled, scaled.T))
    else:
        directions, singular, _ = jnp.linalg.svd(scaled, full_matrices=False)
        eigenvalues, directions = singular[::-1] ** 2, directions[:, ::-1]
    sound = eigenvalues > 10 * jnp.finfo(x.dtype).eps * eigenvalues[-1]
    place = jnp.maximum(jnp.arange(len(sound)), sound.argmax())
    eigenvalues = jnp.maximum(eigenvalues[place], jnp.finfo(x.dtype).tiny)
    return directions, eigenvalues, product(directions.T, x)[place] ** 2
