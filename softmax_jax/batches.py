"""From a dataset on the device to a minibatch: gathered, normalised, weighted. Pure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Batch(NamedTuple):
    """A minibatch: x [B, D] float32, y [B] int32, and two kinds of weights, float32 [B].

    weights say how often an example counts (0: not there), in the objective and in every figure;
    importance, None or of mean 1 over the dataset, weighs it in the objective alone.
    """

    x: jax.Array
    y: jax.Array
    weights: jax.Array
    importance: jax.Array | None = None


class Data(NamedTuple):
    """A dataset on the device; a batch takes its features as (x - mean) / scale.

    x [N, ...] uint8 or float32 · y [N] int32 · weights [N] float32 · mean, scale: scalars or [D]
    (mean None: 0) · resamples: None, or [N, R] uint8: how often each example counts in resample r ·
    importance: None, or [N] float32: see `Batch`.
    """

    x: jax.Array
    y: jax.Array
    weights: jax.Array
    mean: jax.Array | None
    scale: jax.Array
    resamples: jax.Array | None = None
    importance: jax.Array | None = None


def take(data: Data, rows, resample) -> Batch:
    """The examples of the given rows [B]; a row of -1 is padding and weighs nothing."""

    def at_rows(leaf):
        return jnp.take(leaf, rows, axis=0, mode="clip")  # of padding the first row

    weights = jnp.where(rows >= 0, at_rows(data.weights), 0)
    if data.resamples is not None:
        weights = weights * at_rows(data.resamples)[:, resample]
    importance = None if data.importance is None else at_rows(data.importance)
    return Batch(normalise(data, at_rows(data.x)), at_rows(data.y), weights, importance)


def block(data: Data, start, size, resample) -> Batch:
    """`size` examples from row `start` on.

    Where fewer are left, it begins earlier; what it repeats of the block before weighs nothing.
    """
    first = jnp.minimum(start, data.y.shape[0] - size)

    def part(leaf):
        return lax.dynamic_slice_in_dim(leaf, first, size)

    weights = part(data.weights) * (first + jnp.arange(size) >= start)
    if data.resamples is not None:
        weights = weights * part(data.resamples)[:, resample]
    return Batch(normalise(data, part(data.x)), part(data.y), weights)


def normalise(data: Data, x) -> jax.Array:
    """(x - mean) / scale of x [B, ...], flattened to [B, D], in the type of the scale."""
    features = x.reshape(len(x), -1).astype(data.scale.dtype)
    if data.mean is not None:
        features = features - data.mean
    return features * (1 / data.scale)  # one division, not one per pixel
