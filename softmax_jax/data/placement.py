"""What is kept in memory as a whole, and what is read in parts because it is too large."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from softmax_jax.data import memory
from softmax_jax.data.dataset import Dataset
from softmax_jax.data.errors import DataError

_SHARE = 1 / 4  # of the memory that datasets may take: the rest is for copies, trials, neighbours
_PART = 1 << 29  # bytes of a part, the same on all machines: it decides the order of the examples
_PART_SHARE = 1 / 8  # of the memory that a part may take, which exists two or three times
_STREAM = ("auto", True, False)


def place(datasets: Mapping[str, Dataset], stream: str | bool) -> dict[str, Dataset]:
    """The same datasets, x converted to its form in memory, or else with a part_size.

    Args:
      stream: False: all are in memory. True: none that is larger than one part. `'auto'`: as True
        for arrays mapped from disk, if all datasets together take more than a quarter of the
        memory, else as False.

    Raises:
      DataError: there is no memory for what is to be in it.
    """
    if stream not in _STREAM:
        raise DataError(f"stream must be 'auto', True or False; it is {stream!r}.")
    needed = sum(dataset.num_examples * _bytes(dataset) for dataset in datasets.values())
    wanted = stream is True or (stream == "auto" and needed > _SHARE * memory.available())
    kind = np.ndarray if stream is True else np.memmap
    placed = {}
    for role, dataset in datasets.items():
        size = _part_size(dataset)
        if wanted and isinstance(dataset.x, kind) and size < dataset.num_examples:
            dataset = dataclasses.replace(dataset, part_size=size)
        else:
            dataset = _resident(dataset, role)
        weights = dataset.weights
        if weights is not None:
            weights = _converted(weights, np.dtype(dataset.dtype))
        placed[role] = dataclasses.replace(dataset, weights=weights)
    return placed


def _part_size(dataset: Dataset) -> int:
    most = min(_PART, _PART_SHARE * memory.available())
    return max(1, int(most // _bytes(dataset)))


def _resident(dataset: Dataset, role: str) -> Dataset:
    if dataset.x.dtype != dataset.form:
        needed = dataset.num_examples * _bytes(dataset)
        mend = "Save it as .npy files in a folder, and let it be read in parts: stream='auto'."
        memory.require(needed, f"{role}, as {dataset.form},", mend)
    return dataclasses.replace(dataset, x=_converted(dataset.x, dataset.form))


def _converted(array, dtype: np.dtype):
    if isinstance(array, np.ndarray) or dtype == np.float64:  # JAX has no float64 by default
        array = np.asarray(array)  # no longer a memmap
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported so
        return array.astype(dtype, copy=False)


def _bytes(dataset: Dataset) -> int:
    """Of an example in memory."""
    return max(dataset.num_features, 1) * dataset.form.itemsize
