"""What every source of a named dataset offers, and the folders in which sources look."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """A dataset that has been found but not yet read.

    Attributes:
      name: what the user called it.
      label_names: C names, by label; or None: the labels are still to be made classes 0..C−1.
      scale: the largest value that a pixel can take; 1 for features.
      shard_lengths: for each split, the number of examples in each of its files.
      read: from the name of a split to its images, uint8 [N, H, W] or [N, H, W, 3], or features
        [N, ...] of any type; its labels, int32 [N]; and, where there are any, weights [N].
    """

    name: str
    label_names: tuple[str, ...] | None
    scale: float
    shard_lengths: dict[str, tuple[int, ...]]
    read: Callable[[str], tuple[np.ndarray, ...]]


def data_folders(data_dir: str | os.PathLike | None) -> list[Path]:
    """Where datasets may lie, in order: data_dir, $TFDS_DATA_DIR, ~/tensorflow_datasets."""
    given = (data_dir, os.environ.get("TFDS_DATA_DIR"), "~/tensorflow_datasets")
    return [Path(folder).expanduser() for folder in given if folder]


def user_cache() -> Path:
    """This program's own folder: $XDG_CACHE_HOME/softmax_jax, by default ~/.cache/softmax_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "softmax_jax"
