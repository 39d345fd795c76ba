"""Two datasets made one, to train on both."""

import dataclasses

import numpy as np

from softmax_jax.data import memory
from softmax_jax.data.dataset import Dataset
from softmax_jax.data.errors import DataError


def joined(one: Dataset, other: Dataset) -> Dataset:
    """The examples of both, in this order, with all else as in `one`.

    Where `one` has weights, an example of `other` that has none weighs as those do on average.

    Raises:
      DataError: one of them is read in parts, or there is no memory for both together.
    """
    if one.part_size or other.part_size:
        raise DataError(
            "Datasets that are read in parts cannot be put together. Train on one of them, or "
            "write both into one file and divide that with split strings."
        )
    size = one.x.nbytes + other.x.nbytes
    memory.require(size, "train and val put together", "Train on one of them.")
    x, y = [
        np.concatenate([np.asarray(a), np.asarray(b)])
        for a, b in ((one.x, other.x), (one.y, other.y))
    ]
    return dataclasses.replace(one, x=x, y=y, weights=_weights(one, other))


def _weights(one: Dataset, other: Dataset) -> np.ndarray | None:
    if one.weights is None:
        return None
    weights, others = np.asarray(one.weights), other.weights
    if others is None:
        others = np.full(other.num_examples, weights.mean(), weights.dtype)
    return np.concatenate([weights, np.asarray(others)])
