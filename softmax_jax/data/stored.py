"""Arrays in a .npz file or in a folder of .npy files, without pickles."""

import contextlib
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from softmax_jax.data import npy
from softmax_jax.data.errors import DataError


class Stored(NamedTuple):
    """An array that has been found but not yet read: where it is, its header, how to read it."""

    where: str
    header: npy.Header
    read: Callable[[], np.ndarray]


def names(path: Path) -> list[str]:
    """The names of the arrays in the file or folder."""
    if path.is_dir():
        return sorted(file.stem for file in path.glob("*.npy"))
    with _opened(path) as archive:
        found = archive.namelist()
    return sorted(name.removesuffix(".npy") for name in found if name.endswith(".npy"))


def find(path: Path, name: str) -> Stored:
    """One array, of which the header alone has been read.

    An array in a folder is mapped into memory instead of read, so that it may be larger.

    Raises:
      DataError: the file is damaged, holds more or less than the header says, or pickles. So does
        `read`.
    """
    return _in_folder(path / f"{name}.npy") if path.is_dir() else _in_archive(path, name)


def _in_folder(path: Path) -> Stored:
    with open(path, "rb") as file:
        header = npy.read_header(file, str(path))
    _check_size(str(path), header, path.stat().st_size)

    def read() -> np.ndarray:
        order = "F" if header.fortran_order else "C"
        if not header.nbytes:  # there is nothing to map
            return np.empty(header.shape, header.dtype)
        return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)

    return Stored(str(path), header, read)


def _in_archive(path: Path, name: str) -> Stored:
    where = f"{path}: {name}"
    with _opened(path) as archive, archive.open(f"{name}.npy") as file:
        header = npy.read_header(file, where)
        _check_size(where, header, archive.getinfo(f"{name}.npy").file_size)

    def read() -> np.ndarray:
        with _opened(path) as archive, archive.open(f"{name}.npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
        return array.view(header.dtype)  # bfloat16 comes without its meaning

    return Stored(where, header, read)


def _check_size(where: str, header: npy.Header, size: int) -> None:
    promised = header.offset + header.nbytes
    if min(header.shape, default=0) < 0 or promised != size:
        raise DataError(
            f"{where} is truncated or damaged: with shape {header.shape} of {header.dtype} it "
            f"would be {promised:,} bytes, and it is {size:,}. Write it again."
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; within the block, what is wrong with it is a DataError."""
    damage = (ValueError, EOFError, LookupError, RuntimeError, struct.error, OverflowError)
    with open(path, "rb") as file:  # what is wrong with opening it is an OSError
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except DataError:
            raise
        except (*damage, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"{path} is truncated, damaged or no .npz file: {error}. Write it again, with "
                "np.savez."
            ) from error
