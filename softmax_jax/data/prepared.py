"""Datasets that TFDS has prepared on disk: finding one, and its arrays through the cache."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from softmax_jax.data import cache, records
from softmax_jax.data.errors import DataError
from softmax_jax.data.source import Source

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?")


def find(name: str, folders: Sequence[Path]) -> Path | None:
    """The folder of a prepared dataset, in the first of the folders that has it.

    Args:
      name: as in TFDS: `'mnist'`, `'set/config'`, `'set:1.0.0'`. Without a version, the highest
        one; without a config, the one that is there.
      folders: TFDS data folders, in order of preference.

    Raises:
      DataError: several configs are there and the name does not say which.
    """
    parts = _NAME.fullmatch(name)
    for folder in folders if parts else ():
        home = folder / parts["set"]
        home = home / parts["config"] if parts["config"] else _only_config(home)
        versions = [path for path in _versions(home) if parts["version"] in (None, path.name)]
        if versions:
            return versions[-1]
    return None


def names(folders: Sequence[Path]) -> set[str]:
    """The names of the datasets prepared in these folders, without their configs."""
    patterns = ("*/*/dataset_info.json", "*/*/*/dataset_info.json")  # without and with a config
    found = [
        (folder, path)
        for folder in folders
        for pattern in patterns
        for path in folder.glob(pattern)
    ]
    return {path.relative_to(folder).parts[0] for folder, path in found}


def source(name: str, folder: Path) -> Source:
    """A dataset in the folder that `find` has found; its arrays are cached beside its files.

    Raises:
      DataError: see `records.describe`; and `read` as `records.decode`.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    facts = cache.recall("facts", files, functools.partial(records.describe, folder)).facts

    def read(split: str) -> tuple[np.ndarray, np.ndarray]:
        build = functools.partial(records.decode, folder, split, facts["keys"])
        arrays = cache.recall(f"split-{split}", files, build).arrays
        return arrays["x"], arrays["y"]

    lengths = {split: tuple(sizes) for split, sizes in facts["shard_lengths"].items()}
    return Source(name, tuple(facts["label_names"]), 255.0, lengths, read)


def _only_config(home: Path) -> Path:
    """The folder that holds the versions: that of the only config, or `home` if there is none."""
    configs = [path for path in sorted(home.glob("*")) if _versions(path)]
    if len(configs) > 1:
        choices = ", ".join(f"'{home.name}/{config.name}'" for config in configs)
        raise DataError(f"{home} holds several configs of the dataset. Name one: {choices}.")
    return configs[0] if configs else home


def _versions(folder: Path) -> list[Path]:
    """Complete versions, ascending; a folder without this file is still being prepared."""
    found = [path.parent for path in folder.glob("*.*.*/dataset_info.json")]
    found = [path for path in found if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return sorted(found, key=lambda path: [int(number) for number in path.name.split(".")])
