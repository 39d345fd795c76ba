"""Features of your own: arrays in a .npz file or in a folder of .npy files, without pickles.

Headers are read and checked before anything is allocated.
"""

import contextlib
import io
import lzma
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from softmax_jax import host
from softmax_jax.data.dataset import Features
from softmax_jax.data.sources import Source
from softmax_jax.host import DataError, DatasetNotFoundError, as_path, brief, cut, open_regular


class Header(NamedTuple):
    """What a .npy file says of its array; the values begin after `offset` bytes."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


class Stored(NamedTuple):
    """An array that has been found but not yet read.

    Attributes:
      where: its file and name, for messages.
      header: its shape and type.
      read: reads it, or maps it into memory.
      mapped: whether it is mapped.
    """

    where: str
    header: Header
    read: Callable[[], Shaped[np.ndarray, "..."]]
    mapped: bool = False


_SPLITS = ("train", "val", "test")
_FORM = (
    "Needed are x_train and y_train, or x and y for a single split 'train'; x_val, y_val, x_test, "
    "y_test, the weights w_train, w_val, w_test and the groups are optional."
)


def is_path(name: str) -> bool:
    """Whether a dataset's name is a path: to a .npz file, or to a folder of .npy files.

    It is if it ends in .npz, if it begins with '/', '.' or '~', or if it is a folder that holds
    x_train or x. ('set/config' may be a name in TFDS.)
    """
    if name.endswith(".npz") or name.startswith((os.sep, ".", "~")):
        return True
    path = as_path(name, "The dataset")
    names = (f"{stem}.{end}" for stem in ("x_train", "x") for end in ("npy", "npz"))
    return any(os.path.isfile(path / file) for file in names)


def file_source(name: str, group_column: str = "") -> Source:
    """The dataset in a file or folder, of which only the headers are read.

    The splits are those of the arrays `x_train`, `y_train`, `x_val`, ...; arrays `x` and `y` are
    the split `train` if there are no `x_train` and `y_train`. `w_train` (or `w`), `w_val` and
    `w_test` are their weights: how often each example counts, in the fit and in every score.
    `groups` (or `groups_train`), `groups_val` and `groups_test` are groups of examples that stay
    together, and `feature_names` [D] what the features are called.

    x [N, ...] holds numbers of any type: uint8 is taken for images, or features from 0 to 255, and
    all else becomes floats. In a folder it may be a sparse matrix, as `scipy.sparse.save_npz` saves
    it (x_train.npz), which becomes dense. y [N] holds integers, booleans or text.

    Args:
      name: the path; `~` is the home folder.
      group_column: the name of the groups, instead of 'groups'.

    Raises:
      DatasetNotFoundError: there is no such file or folder.
      DataError: an array is missing, damaged, pickled or of a wrong type, examples and labels
        differ in number, or memory does not suffice for what the file would unpack to.
    """
    path = as_path(name, "The dataset")
    if not path.exists():
        raise DatasetNotFoundError(f"There is no file or folder {path}. Check the path.")
    splits = _find_splits(path, group_column)
    read_whole = [one for found in splits.values() for one in found.values() if not one.mapped]
    if read_whole:
        needed = sum(one.header.nbytes for one in read_whole)
        remedy = "Save each array as a .npy file in a folder of its own: those are read by shards."
        host.require_memory(needed, f"What {path} unpacks to", remedy)

    def read(split: str) -> tuple[np.ndarray | None, ...]:
        found = splits[split]
        return tuple(found[letter].read() if letter in found else None for letter in "xywg")

    lengths = {split: (_check_lengths(found),) for split, found in splits.items()}
    scale = 255.0 if splits["train"]["x"].header.dtype == np.uint8 else 1.0
    shape = splits["train"]["x"].header.shape
    features = _feature_names(path, math.prod(shape[1:]))
    return Source(name, None, scale, lengths, read, features=features)


def _feature_names(path: Path, num_features: int) -> Features | None:
    if "feature_names" not in array_names(path):
        return None
    stored = find_array(path, "feature_names")
    if stored.header.shape != (num_features,) or stored.header.dtype.kind != "U":
        raise DataError(
            f"{stored.where} has shape {stored.header.shape} of {stored.header.dtype}, and there "
            f"are {num_features} features. Give each a name, as text."
        )
    names = tuple(stored.read().tolist())
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{stored.where} has the name {brief(twice)} twice. Rename one.")
    return Features(names, names)


def _find_splits(path: Path, group_column: str = "") -> dict[str, dict[str, Stored]]:
    """For each split its x, y and, where given, w and g."""
    there = array_names(path)
    _check_weights_used(path, there)
    group = group_column or "groups"
    if group_column and not {group, f"{group}_train"} & set(there):
        raise DataError(
            f"{path} has no {brief(group)}, as group_column says; it holds: {', '.join(there)}."
        )
    splits = {}
    for split in _SPLITS:
        wanted = {letter: f"{letter}_{split}" for letter in "xyw"} | {"g": f"{group}_{split}"}
        if split == "train" and not {"x_train", "y_train"} & set(there):
            wanted = {letter: letter for letter in "xyw"} | {"g": wanted["g"]}
        if split == "train" and wanted["g"] not in there:
            wanted["g"] = group
        present = {letter: name for letter, name in wanted.items() if name in there}
        if split == "train" or {"x", "y"} & set(present):
            _check_present(path, wanted, present, there)
            splits[split] = {letter: find_array(path, name) for letter, name in present.items()}
    return splits


def _check_weights_used(path: Path, there: list[str]) -> None:
    """Raises DataError for weights that nothing would read."""
    shadowed = "w" if {"x_train", "y_train"} & set(there) else "w_train"
    alone = [f"w_{split}" for split in ("val", "test") if f"x_{split}" not in there]
    unused = [name for name in (shadowed, *alone) if name in there]
    if unused:
        remedy = {"w": "Rename it w_train.", "w_train": "Rename it w."}.get(
            unused[0], f"Add {unused[0].replace('w', 'x', 1)}, or leave it out."
        )
        raise DataError(
            f"{path} holds {unused[0]}, which would be ignored: weights are w_train, w_val and "
            f"w_test beside their x_ and y_ (or w beside x and y). {remedy}"
        )


def _check_present(path: Path, wanted: Mapping, present: Mapping, there: list[str]) -> None:
    missing = [wanted[letter] for letter in "xy" if letter not in present]
    if missing and set(there) >= _SPARSE:
        raise DataError(
            f"{path} holds a sparse matrix, and no labels. Put it into a folder as x.npz, beside "
            "y.npy, and give the folder."
        )
    if missing:
        missing = ["x_train (or x)", "y_train (or y)"] if len(missing) == 2 else missing
        raise DataError(
            f"{path} has no {' and no '.join(missing)}; it holds: {', '.join(there) or 'nothing'}. "
            f"{_FORM}"
        )


def _check_lengths(found: Mapping[str, Stored]) -> int:
    """N, which must be the same for all of them; checks the types of x and w as well."""
    x = found["x"]
    for letter, one in found.items():
        where, shape, dtype = one.where, one.header.shape, one.header.dtype
        if not shape or shape[0] != x.header.shape[0] or (one is not x and len(shape) > 1):
            raise DataError(
                f"{where} has shape {shape}, and {x.where} has shape {x.header.shape}. Each "
                "example needs a row of x and one label (and one weight and group, if there are "
                "any)."
            )
        if letter in "xw" and not is_number(dtype):
            raise DataError(
                f"{where} must hold numbers, and holds {dtype}. Encode them as floats first."
            )
    return x.header.shape[0]


def array_names(path: Path) -> list[str]:
    """The names of the arrays in a .npz file or in a folder of .npy files, in ascending order.

    Raises:
      DataError: the file is damaged.
    """
    if path.is_dir():
        return sorted({file.stem for end in ("npy", "npz") for file in path.glob(f"*.{end}")})
    with _opened(path) as archive:
        found = archive.namelist()
    return sorted(name.removesuffix(".npy") for name in found if name.endswith(".npy"))


def find_array(path: Path, name: str) -> Stored:
    """Finds one array, of which only the header is read.

    An array in a folder is mapped into memory instead of read, so that it may be larger.

    Args:
      path: a .npz file, or a folder of .npy files.
      name: of the array, without `.npy`.

    Raises:
      DataError: the file is damaged, holds more or less than the header says, or is pickled; also
        raised by the `read` of what is returned.
    """
    if not path.is_dir():
        return _in_archive(path, name)
    if os.path.lexists(path / f"{name}.npy"):
        return _in_folder(path / f"{name}.npy")
    return find_sparse(path / f"{name}.npz")


def _in_folder(path: Path) -> Stored:
    with open_regular(path) as file:
        header = read_header(file, str(path))
        _check_size(str(path), header, os.fstat(file.fileno()).st_size)

    def read() -> np.ndarray:
        order: Literal["F", "C"] = "F" if header.fortran_order else "C"
        if not header.nbytes:  # there is nothing to map
            return np.empty(header.shape, header.dtype)
        with open_regular(path) as file:
            _check_size(str(path), header, os.fstat(file.fileno()).st_size)
            return np.memmap(file, header.dtype, "r", header.offset, header.shape, order)

    return Stored(str(path), header, read, mapped=True)


_SPARSE = {"data", "format", "shape"}  # what `scipy.sparse.save_npz` always writes


def holds_sparse(path: Path) -> bool:
    """Whether a .npz file holds a sparse matrix of SciPy."""
    return set(array_names(path)) >= _SPARSE


def find_sparse(path: Path) -> Stored:
    """A sparse matrix in a .npz of `scipy.sparse.save_npz`, which is made dense when it is read."""
    if not holds_sparse(path):
        raise DataError(
            f"{path} is no sparse matrix of scipy.sparse.save_npz. In a folder, save each dense "
            "array as a .npy file."
        )
    shape = _in_archive(path, "shape")
    if shape.header.shape != (2,) or shape.header.dtype.kind not in "iu":
        raise DataError(f"{path} is damaged: its shape is no two whole numbers. Write it again.")
    rows, columns = map(int, shape.read())
    if min(rows, columns) < 0:
        raise DataError(f"{path} is damaged: its shape is {rows} × {columns}. Write it again.")
    header = Header((rows, columns), False, _in_archive(path, "data").header.dtype, 0)

    return Stored(str(path), header, lambda: dense(_load_sparse(path), str(path)))


def read_sparse(path: Path) -> Any:
    """The sparse matrix in such a file, as CSR.

    Raises:
      DataError: the file is damaged.
    """
    return valid_rows(_load_sparse(path), str(path))


def _load_sparse(path):
    from scipy import sparse

    with _opened(path):
        pass
    with host.reading(path):
        return sparse.load_npz(path)


_LARGE = 1 << 30  # bytes of a dense copy that nobody is surprised by


def dense(matrix: Any, what: str) -> Shaped[np.ndarray, "N D"]:
    """A sparse matrix of SciPy as an array, if it fits into the memory; from 1 GiB with a warning.

    Raises:
      DataError: it does not, or its indices are outside its shape.
    """
    size = math.prod(matrix.shape) * matrix.dtype.itemsize
    remedy = (
        "Datasets are dense: leave out features or examples, or use SoftmaxRegression or "
        "optimum.minimise, which take sparse features as they are."
    )
    host.require_memory(size, f"{what}, as a dense array,", remedy)
    if size >= _LARGE:
        warnings.warn(
            f"{what} is sparse, and takes {size / 2**30:.1f} GiB as a dense array. {remedy}",
            stacklevel=2,
        )
    return valid_rows(matrix, what).toarray()


def valid_rows(matrix: Any, what: str) -> Any:
    """A sparse matrix of SciPy as CSR.

    Raises:
      DataError: its indices are outside its shape.
    """
    try:
        matrix = matrix.tocoo().tocsr()
        matrix.check_format(full_check=True)
    except (ValueError, IndexError) as error:
        raise DataError(f"{what} is no valid sparse matrix: {cut(str(error), 200)}.") from error
    return matrix


def _in_archive(path: Path, name: str) -> Stored:
    where = f"{path}: {name}"
    with _opened(path) as archive, archive.open(f"{name}.npy") as file:
        header = read_header(file, where)
        _check_size(where, header, archive.getinfo(f"{name}.npy").file_size)

    def read() -> np.ndarray:
        with _opened(path) as archive, archive.open(f"{name}.npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
        return array.view(header.dtype)  # NumPy reads bfloat16 as untyped bytes

    return Stored(where, header, read)


def _check_size(where: str, header: Header, size: int) -> None:
    promised = header.offset + header.nbytes
    if min(header.shape, default=0) < 0 or promised != size:
        would = f"{promised:,}" if promised < 2**63 else "more than 2**63"
        raise DataError(
            f"{where} is truncated or damaged: with shape {brief(header.shape)} of "
            f"{brief(header.dtype)} it would be {would} bytes, and it is {size:,}. Write it again."
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an archive; within the block, every sign of damage is raised as a DataError."""
    damage = (ValueError, EOFError, LookupError, RuntimeError, struct.error, ArithmeticError)
    damage += (TypeError, AttributeError, SyntaxError, MemoryError, tokenize.TokenError)
    with open_regular(path) as file:  # that it cannot be opened is an OSError
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except DataError:
            raise
        except (*damage, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"{path} is truncated, damaged or no .npz file: {cut(str(error), 200)}. Write it "
                "again, with np.savez."
            ) from error


_MOST_HEADER_BYTES = 1 << 14  # bytes of a header: NumPy itself reads no more than 10,000 characters
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_header(file: io.BufferedIOBase | IO[bytes], where: str) -> Header:
    """Reads the header at the beginning of a .npy file.

    Args:
      file: opened for reading bytes.
      where: what the file is called in messages.

    Raises:
      DataError: it is not the header of an array, or that of Python objects, which are pickled.
    """
    start = io.BytesIO(file.read(_MOST_HEADER_BYTES))
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
    return Header(shape, fortran_order, number_dtype(dtype), start.tell())


def number_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype itself, or bfloat16 for two untyped bytes, as which NumPy saves bfloat16."""
    unnamed = dtype.kind == "V" and dtype.fields is None and dtype.subdtype is None
    is_bfloat16 = unnamed and dtype.itemsize == 2 and dtype.isbuiltin != 2
    return np.dtype(ml_dtypes.bfloat16) if is_bfloat16 else dtype


def is_number(dtype: np.dtype) -> bool:
    """Whether values of this dtype can become floats: not text, objects or complex numbers."""
    return dtype.kind in "biuf" or "float" in dtype.name  # bfloat16 and its smaller kin
