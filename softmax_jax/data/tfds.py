"""Datasets that TFDS has prepared on disk, read without TensorFlow."""

import contextlib
import functools
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from softmax_jax.data import sources
from softmax_jax.data.sources import CacheEntry, Source
from softmax_jax.host import DataError

_RECORDS_AT_ONCE = 1000  # records decoded at a time
_log = logging.getLogger("softmax_jax")
_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?")


def find_prepared(name: str, folders: Sequence[Path]) -> Path | None:
    """The folder of a prepared dataset, in the first of the folders that has it.

    Args:
      name: as in TFDS: `'mnist'`, `'set/config'`, `'set:1.0.0'`. Without a version, the highest
        one; without a config, the one that is there.
      folders: TFDS data folders, in order of preference.

    Raises:
      DataError: several configs are there and the name does not say which.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    for folder in folders:
        home = folder / parts["set"]
        home = home / parts["config"] if parts["config"] else _only_config(home)
        versions = [path for path in _versions(home) if parts["version"] in (None, path.name)]
        if versions:
            return versions[-1]
    return None


def prepared_names(folders: Sequence[Path]) -> set[str]:
    """The names of the datasets prepared in these folders, without configs and versions."""
    patterns = ("*/*/dataset_info.json", "*/*/*/dataset_info.json")  # without and with a config
    found = [
        (folder, path)
        for folder in folders
        for pattern in patterns
        for path in folder.glob(pattern)
    ]
    return {path.relative_to(folder).parts[0] for folder, path in found}


def prepared_source(name: str, folder: Path) -> Source:
    """A prepared dataset; its arrays are cached beside its files.

    Args:
      name: what the user called it.
      folder: what `find_prepared` has found.

    Raises:
      DataError: as `describe`; the source's `read` raises it as `decode` does.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    facts = sources.cached("facts", files, functools.partial(describe, folder)).facts

    def read(split: str) -> tuple[np.ndarray, np.ndarray]:
        build = functools.partial(decode, folder, split, facts["keys"])
        arrays = sources.cached(f"split-{split}", files, build).arrays
        return arrays["x"], arrays["y"]

    lengths = {split: tuple(sizes) for split, sizes in facts["shard_lengths"].items()}
    return Source(name, tuple(facts["label_names"]), 255.0, lengths, read)


def _only_config(home: Path) -> Path:
    """The folder that holds the versions: the only config, or `home` if there is none."""
    configs = [path for path in sorted(home.glob("*")) if _versions(path)]
    if len(configs) > 1:
        choices = ", ".join(f"'{home.name}/{config.name}'" for config in configs)
        raise DataError(f"{home} holds several configs of the dataset. Name one: {choices}.")
    return configs[0] if configs else home


def _versions(folder: Path) -> list[Path]:
    """Complete versions, ascending: a folder without dataset_info.json is still being prepared."""
    found = [path.parent for path in folder.glob("*.*.*/dataset_info.json")]
    found = [path for path in found if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return sorted(found, key=lambda path: [int(number) for number in path.name.split(".")])


def describe(folder: Path) -> CacheEntry:
    """What must be known before decoding: keys, label_names, and shard_lengths of each split.

    Args:
      folder: that of one version of a dataset, with its dataset_info.json.

    Raises:
      DataError: it is no image classification set (a uint8 image and a class label as the
        supervised keys), its images vary in size, it is not in the array_record format, or
        the description is damaged.
    """
    with _builder(folder) as builder:
        info = builder.info
        _check_description(info, folder)
        image_key, label_key = info.supervised_keys
        facts = {
            "keys": [image_key, label_key],
            "label_names": info.features[label_key].names,
            "shard_lengths": {name: split.shard_lengths for name, split in info.splits.items()},
        }
    return CacheEntry({}, facts)


def decode(folder: Path, split: str, keys: Sequence[str]) -> CacheEntry:
    """Decodes a split: x uint8 [N, H, W] or [N, H, W, channels], and y int32 [N].

    Args:
      folder: as in `describe`.
      split: the name of the split.
      keys: of the image and of the label in a record.

    Raises:
      DataError: records are missing or damaged.
    """
    image_key, label_key = keys
    with _builder(folder) as builder:
        records = builder.as_data_source(split)
        _log.info("Decoding %d images (%s, %s), once", len(records), folder, split)
        x = np.empty((len(records), *builder.info.features[image_key].shape), np.uint8)
        y = np.empty(len(records), np.int32)
        for start in range(0, len(records), _RECORDS_AT_ONCE):
            stop = min(start + _RECORDS_AT_ONCE, len(records))
            block = records.__getitems__(range(start, stop))
            x[start:stop] = [record[image_key] for record in block]
            y[start:stop] = [record[label_key] for record in block]
    return CacheEntry({"x": x[..., 0] if x.shape[-1] == 1 else x, "y": y}, {})


def _check_description(info, folder: Path) -> None:
    import tensorflow_datasets as tfds

    if tfds.core.FileFormat.ARRAY_RECORD not in info.available_file_formats():
        raise DataError(
            f"{folder} is in the format {info.file_format.value}, which cannot be read without "
            "TensorFlow. Prepare it again with TFDS and file_format='array_record'."
        )
    keys = info.supervised_keys
    plain = keys is not None and len(keys) == 2 and all(isinstance(key, str) for key in keys)
    kinds = [type(info.features[key]) for key in keys] if plain else None
    if kinds != [tfds.features.Image, tfds.features.ClassLabel]:
        raise DataError(
            f"{folder} is no image classification set: its supervised keys are {keys}, and not "
            "an image and a class label. Choose another set, or make arrays of this one and "
            "pass them to data.from_arrays."
        )
    image = info.features[keys[0]]
    if None in image.shape or image.np_dtype != np.uint8:
        raise DataError(
            f"{folder} has images of shape {image.shape} and type {image.np_dtype}, where all "
            "must be uint8 and of one size. Choose another set, or resize its images and pass "
            "them to data.from_arrays."
        )


@contextlib.contextmanager
def _builder(folder: Path) -> Iterator:
    """The TFDS builder; within the block, its errors about damaged files become DataErrors."""
    import tensorflow_datasets as tfds
    from google.protobuf import json_format, message

    damage = (OSError, ValueError, LookupError, TypeError, RuntimeError)
    absl_log = logging.getLogger("absl")
    absl_log.addFilter(_is_relevant)
    try:
        yield tfds.builder_from_directory(folder)
    except DataError:
        raise
    except (*damage, json_format.Error, message.Error) as error:
        raise DataError(
            f"{folder} is incomplete or damaged: {type(error).__name__}: {error}. Delete it and "
            "prepare it again with TFDS and file_format='array_record'."
        ) from error
    finally:
        absl_log.removeFilter(_is_relevant)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("OpenCV is not installed")
