"""The .npy format, looked into before anything is allocated, and the types of numbers it holds."""

import io
import math
import tokenize
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from softmax_jax.data.errors import DataError

_MOST = 1 << 14  # bytes of a header: NumPy itself reads no more than 10,000 characters
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """What a .npy file says about its array; the values begin after `offset` bytes."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO, where: str) -> Header:
    """The header at the beginning of a file, called `where` in the messages.

    Raises:
      DataError: it is no header of an array, or of Python objects, which are pickled.
    """
    start = io.BytesIO(file.read(_MOST))
    errors = (ValueError, LookupError, TypeError, SyntaxError, tokenize.TokenError)
    try:
        header = _READERS[np.lib.format.read_magic(start)](start)
    except (*errors, RecursionError, MemoryError) as error:
        raise DataError(
            f"{where} is truncated, damaged or no .npy array. Write it again, with np.save or "
            "np.savez."
        ) from error
    shape, fortran_order, dtype = header
    if dtype.hasobject:
        raise DataError(
            f"{where} holds pickled Python objects, which are not read: a pickle can run any "
            "program. Save plain numbers, or text as np.array(labels, dtype=str)."
        )
    return Header(shape, fortran_order, numbers(dtype), start.tell())


def numbers(dtype: np.dtype) -> np.dtype:
    """The dtype itself; bfloat16 for two bytes without a meaning, as which NumPy saves it."""
    unnamed = dtype.kind == "V" and dtype.fields is None and dtype.subdtype is None
    is_bfloat16 = unnamed and dtype.itemsize == 2 and dtype.isbuiltin != 2
    return np.dtype(ml_dtypes.bfloat16) if is_bfloat16 else dtype


def is_number(dtype: np.dtype) -> bool:
    """Whether values of this dtype can become floats: not text, objects or complex numbers."""
    return dtype.kind in "biuf" or "float" in dtype.name  # as bfloat16 and its smaller kin
