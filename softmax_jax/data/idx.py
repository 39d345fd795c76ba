"""The IDX format, in which MNIST and its kin are published.

A file is a header and then the values, row by row. The header is two zero bytes, a byte for the
type of the values (8: uint8), a byte for the rank r, and r sizes as big-endian uint32.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from softmax_jax.data.errors import DataError

_UINT8 = 8


def read_sizes(path: Path, rank: int) -> tuple[int, ...]:
    """The shape that the header of the file promises; see `read`."""
    return _read(path, rank, header_only=True)[0]


def read(path: Path, rank: int) -> np.ndarray:
    """Reads a whole file, unpacked or (`.gz`) compressed, as a uint8 array of the given rank.

    Raises:
      DataError: the file is not IDX, not uint8, of another rank, longer or shorter than its
        header says, or its compression is damaged.
    """
    sizes, values = _read(path, rank, header_only=False)
    # The bytes are here already, so that a damaged header cannot make us allocate anything.
    if len(values) != math.prod(sizes):
        raise _damaged(
            path,
            f"its header promises {math.prod(sizes):,} values of shape "
            f"{sizes}, and {len(values):,} are there",
        )
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _read(path: Path, rank: int, header_only: bool) -> tuple[tuple[int, ...], bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            sizes = _read_header(file, path, rank)
            return sizes, b"" if header_only else file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, f"it cannot be decompressed ({error})") from error


def _read_header(file: BinaryIO, path: Path, rank: int) -> tuple[int, ...]:
    header = file.read(4 + 4 * rank)
    if header[:2] != b"\0\0" or len(header) < 4:
        raise _damaged(path, f"it does not start as an IDX file does (but with {header[:4]!r})")
    if header[2] != _UINT8:
        raise _damaged(path, f"its values are of IDX type {header[2]}, not {_UINT8} (uint8)")
    if header[3] != rank:
        raise _damaged(path, f"its values have rank {header[3]}, not {rank}")
    if len(header) < 4 + 4 * rank:
        raise _damaged(path, f"it ends within its header, after {len(header)} bytes")
    return struct.unpack(f">{rank}I", header[4:])


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} is truncated, damaged or another file under this name: {what}. "
        "Delete it, and put the original in its place or let it be downloaded again."
    )
