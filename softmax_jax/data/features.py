"""Features of one's own: arrays in a .npz file or in a folder of .npy files."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from softmax_jax.data import memory, npy, stored
from softmax_jax.data.errors import DataError, DatasetNotFoundError
from softmax_jax.data.source import Source
from softmax_jax.data.stored import Stored

_SPLITS = ("train", "val", "test")
_FORM = (
    "Needed are x_train and y_train, or x and y for a single split 'train'; x_val, y_val, x_test, "
    "y_test and the weights w_train may be there."
)


def is_path(name: str) -> bool:
    """Whether a dataset's name is a path: to a .npz file, or to a folder of .npy files.

    So is what ends in .npz, what begins with '/', '.' or '~', and what is a folder that holds
    x_train.npy or x.npy. ('set/config' may be a name in TFDS.)
    """
    if name.endswith(".npz") or name.startswith((os.sep, ".", "~")):
        return True
    return any((Path(name) / file).is_file() for file in ("x_train.npy", "x.npy"))


def source(name: str) -> Source:
    """The dataset in a file or folder, from which so far only the headers have been read.

    The splits are those of the arrays `x_train`, `y_train`, `x_val`, ...; arrays `x` and `y` are
    the split `train`, if there are no `x_train` and `y_train`. `w_train` or `w` are weights.

    x [N, ...] holds numbers of any type: images or features from 0 to 255 if uint8, else floats.
    y [N] holds integers, booleans or text.

    Raises:
      DatasetNotFoundError: there is no such file or folder.
      DataError: an array is missing, damaged, pickled or of a wrong type, examples and labels
        differ in number, or there is no memory for what the file would unpack to.
    """
    path = Path(name).expanduser()
    if not path.exists():
        raise DatasetNotFoundError(f"There is no file or folder {path}. Mend the path.")
    splits = _find(path)
    if not path.is_dir():  # what is in a folder is mapped, not read
        needed = sum(part.header.nbytes for parts in splits.values() for part in parts.values())
        mend = "Save each array as a .npy file in a folder of its own: those are read in parts."
        memory.require(needed, f"What {path} unpacks to", mend)

    def read(split: str) -> tuple[np.ndarray, ...]:
        return tuple(part.read() for part in splits[split].values())

    lengths = {split: (_count(parts),) for split, parts in splits.items()}
    scale = 255.0 if splits["train"]["x"].header.dtype == np.uint8 else 1.0
    return Source(name, None, scale, lengths, read)


def _find(path: Path) -> dict[str, dict[str, Stored]]:
    """For each split its x, y and, where given, w."""
    there = stored.names(path)
    splits = {}
    for split in _SPLITS:
        wanted = {letter: f"{letter}_{split}" for letter in "xyw"}
        if split == "train" and not {"x_train", "y_train"} & set(there):
            wanted = {letter: letter for letter in "xyw"}
        present = {letter: name for letter, name in wanted.items() if name in there}
        if split == "train" or {"x", "y"} & set(present):
            _check_present(path, wanted, present, there)
            splits[split] = {letter: stored.find(path, name) for letter, name in present.items()}
    return splits


def _check_present(path: Path, wanted: Mapping, present: Mapping, there: list[str]) -> None:
    missing = [wanted[letter] for letter in "xy" if letter not in present]
    if missing:
        missing = ["x_train (or x)", "y_train (or y)"] if len(missing) == 2 else missing
        raise DataError(
            f"{path} has no {' and no '.join(missing)}; it holds: {', '.join(there) or 'nothing'}. "
            f"{_FORM}"
        )


def _count(parts: Mapping[str, Stored]) -> int:
    """N, the same for x, y and w, whose types are looked at as well."""
    x, y = parts["x"], parts["y"]
    for part in parts.values():
        where, shape, dtype = part.where, part.header.shape, part.header.dtype
        if not shape or shape[0] != x.header.shape[0] or (part is not x and len(shape) > 1):
            raise DataError(
                f"{where} has shape {shape}, and {x.where} has shape {x.header.shape}. Each "
                "example needs a row of x and one label (and one weight, if there are any)."
            )
        if part is not y and not npy.is_number(dtype):
            raise DataError(
                f"{where} must hold numbers, and holds {dtype}. Encode them as floats first."
            )
    return x.header.shape[0]
