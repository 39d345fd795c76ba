"""Fashion-MNIST from the four IDX files in which it is published."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from softmax_jax.data import cache, idx
from softmax_jax.data.errors import DataError
from softmax_jax.data.source import Source

NAME = "fashion_mnist"
LABEL_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

_PREFIXES = {"train": "train", "test": "t10k"}
_KINDS = {"images-idx3-ubyte": 3, "labels-idx1-ubyte": 1}  # with the rank of the values
FILES = tuple(f"{prefix}-{kind}" for prefix in _PREFIXES.values() for kind in _KINDS)


def find(folders: Sequence[Path]) -> dict[str, Path] | None:
    """The four files, compressed (`.gz`) or not, in the first folder that has them all.

    In each folder, a subfolder `fashion_mnist` is looked into as well.
    """
    for folder in [place for given in folders for place in (given, given / NAME)]:
        found = {
            name: path
            for name in FILES
            for path in (folder / f"{name}.gz", folder / name)
            if path.is_file()
        }
        if len(found) == len(FILES):
            return found
    return None


def source(files: Mapping[str, Path]) -> Source:
    """The dataset in the files that `find` has found; its arrays are cached beside them.

    Raises:
      DataError: a file is damaged or not what its name says, or images and labels differ in
        number. So does `read`.
    """
    pairs = {
        split: [(files[f"{prefix}-{kind}"], rank) for kind, rank in _KINDS.items()]
        for split, prefix in _PREFIXES.items()
    }
    lengths = {split: (_count(pair),) for split, pair in pairs.items()}

    def read(split: str) -> tuple[np.ndarray, np.ndarray]:
        paths = [path for path, _ in pairs[split]]
        build = functools.partial(_decode, pairs[split])
        arrays = cache.recall(f"split-{split}", paths, build).arrays
        return arrays["x"], arrays["y"]

    return Source(NAME, LABEL_NAMES, 255.0, lengths, read)


def _count(pair: Sequence[tuple[Path, int]]) -> int:
    (images, num_images), (labels, num_labels) = [
        (path, idx.read_sizes(path, rank)[0]) for path, rank in pair
    ]
    if num_images != num_labels:
        raise DataError(
            f"{images} holds {num_images:,} images and {labels} {num_labels:,} labels: they do not "
            "belong together. Put the original files there, or delete both."
        )
    return num_images


def _decode(pair: Sequence[tuple[Path, int]]) -> cache.Entry:
    x, y = [idx.read(path, rank) for path, rank in pair]
    return cache.Entry({"x": x, "y": y.astype(np.int32)}, {})
