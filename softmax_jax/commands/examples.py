"""The examples that a model is to be put to work on: features or images from a file."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from softmax_jax.commands.opening import reading
from softmax_jax.data import DataError, memory, npy, stored

_BLOCK_VALUES = 1 << 24  # in a block of examples: 64 MiB as float32


def read(path: Path, num_features: int) -> np.ndarray:
    """The array [N, ...] of a .npy, mapped into memory, or of an .npz: `x`, or the only one.

    Raises:
      DataError: the file is missing, damaged or a pickle, there is no such array, its examples are
        not of `num_features` numbers each, or there is no memory for what an .npz unpacks to.
    """
    with reading(path):
        with open(path, "rb") as file:
            zipped = file.read(2) == b"PK"
        if not zipped and path.suffix != ".npy":
            raise DataError(f"{path} is neither .npy nor .npz. Save it with np.save.")
        part = stored.find(path, _name(path)) if zipped else stored.find(path.parent, path.stem)
        _check(path, part.header.shape, part.header.dtype, num_features)
        if zipped:
            mend = "Save it as .npy, which is read in parts."
            memory.require(part.header.nbytes, f"What {path} unpacks to", mend)
        return part.read()


def blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    """The examples some at a time, as uint8 or float32.

    Raises:
      DataError: a value is not a finite float32; it says in which row and column.
    """
    size = max(1, _BLOCK_VALUES // math.prod(x.shape[1:]))
    for start in range(0, len(x), size):
        block = np.asarray(x[start : start + size])
        if block.dtype != np.uint8:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
                block = block.astype(np.float32)
            _check_finite(block, start)
        yield block


def _name(path):
    names = stored.names(path)
    if "x" in names or len(names) == 1:
        return "x" if "x" in names else names[0]
    raise DataError(
        f"{path} holds the arrays {', '.join(names) or '(none)'}. Name the one to use 'x'."
    )


def _check(path, shape, dtype, num_features):
    if not npy.is_number(dtype):
        raise DataError(f"{path} holds {dtype}, and numbers are needed.")
    if len(shape) < 2:
        raise DataError(
            f"{path} has shape {shape}, and [N, ...] is needed: a row per example. "
            "A single example is x[None]."
        )
    if math.prod(shape[1:]) != num_features:
        raise DataError(
            f"The model was trained on {num_features} features an example; {path} of shape "
            f"{shape} has {math.prod(shape[1:])}."
        )


def _check_finite(block, start):
    if not np.isfinite(block).all():
        rows = block.reshape(len(block), -1)
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise DataError(
            f"Feature {rows[row, column]} in row {start + row}, column {column} is not a finite "
            "float32. Fill in or leave out what is missing."
        )
