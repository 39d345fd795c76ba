"""Datasets that TFDS has prepared on disk, read without TensorFlow."""

import contextlib
import functools
import json
import logging
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from softmax_jax import host
from softmax_jax.data import sources
from softmax_jax.data.sources import CacheEntry, Source
from softmax_jax.host import DataError, brief, cut, open_regular

_RECORDS_AT_ONCE = 1000  # records decoded at a time
_MOST_DESCRIPTION = 1 << 24  # bytes of a file that describes the set
_MOST_CLASSES = 1 << 20  # more are taken for a mistake
# The classes of TFDS that a description may name: TFDS imports whatever module it finds there.
_FEATURES = {
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        *("bounding_boxes.BBoxFeature", "class_label_feature.ClassLabel"),
        *("features_dict.FeaturesDict", "image_feature.Image", "scalar.Scalar"),
        *("sequence_feature.Sequence", "tensor_feature.Tensor", "text_feature.Text"),
    )
}
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

    Nothing of TFDS sees the description before `_check_features` has.

    Args:
      name: what the user called it.
      folder: what `find_prepared` has found.

    Raises:
      DataError: as `describe`; the source's `read` raises it as `decode` does.
    """
    files = _files(folder)
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
        where = host.shown(folder)
        _log.info("Decoding %d images (%s, %s), once", len(records), where, split)
        shape = (len(records), *builder.info.features[image_key].shape)
        host.require_memory(math.prod(shape), f"{folder}, decoded,", "Choose a smaller set.")
        x = np.empty(shape, np.uint8)
        y = np.empty(len(records), np.int32)
        for start in range(0, len(records), _RECORDS_AT_ONCE):
            stop = min(start + _RECORDS_AT_ONCE, len(records))
            block = records.__getitems__(range(start, stop))
            x[start:stop] = [record[image_key] for record in block]
            y[start:stop] = [record[label_key] for record in block]
    return CacheEntry({"x": x[..., 0] if x.shape[-1] == 1 else x, "y": y}, {})


def _files(folder: Path) -> list[Path]:
    """The files of a set: a pipe among them would make TFDS wait forever.

    Raises:
      DataError: there is something that is neither a file nor a folder, or an endless description.
    """
    found = sorted(folder.iterdir())
    for path in found:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError(f"{path} is a pipe, a socket or a device. Remove it.")
        if path.suffix in (".json", ".txt") and path.stat().st_size > _MOST_DESCRIPTION:
            raise DataError(f"{path} is larger than any description of a dataset. Remove it.")
    return [path for path in found if path.is_file()]


def _check_features(folder: Path) -> None:
    """Checks that features.json names only those classes of TFDS that an image set needs.

    It is read as TFDS reads it, and before TFDS does. What is damaged is an error of any kind.

    Raises:
      DataError: it names another class, or has content that can name one.
    """
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import feature_pb2

    path = folder / "features.json"
    with open_regular(path) as file:
        value = json.loads(file.read(_MOST_DESCRIPTION))
    if not isinstance(value, dict) or "type" in value:
        raise ValueError(f"{path.name} is of an old format")
    for message in _messages(json_format.ParseDict(value, feature_pb2.Feature())):
        _check_feature(path, message)


def _messages(message) -> Iterator:
    """A message of protobuf and all that are in it; the names of features are checked here."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            for name in value:
                if not re.fullmatch(r"[\w. -]+", name) or name.startswith("."):
                    raise ValueError(f"{brief(name)} is no name of a feature")
            within = [value[name] for name in value if hasattr(value[name], "ListFields")]
        else:
            within = [value] if hasattr(value, "ListFields") else list(value)
        for inner in within:
            yield from _messages(inner)


def _check_feature(path: Path, message) -> None:
    name = message.DESCRIPTOR.name
    if name == "JsonFeature":
        raise DataError(f"{path} has a feature of an old format. Prepare the set again with TFDS.")
    if name == "ClassLabel" and message.num_classes > _MOST_CLASSES:
        raise DataError(
            f"{path} has {message.num_classes:,} classes, which is taken for a mistake."
        )
    if name == "Feature" and message.python_class_name not in _FEATURES:
        raise DataError(
            f"{path} names {brief(message.python_class_name)}, which TFDS would import, and an "
            "image classification set needs no such class: a set from somebody else can run their "
            "code in this way. Prepare the set anew with TFDS."
        )


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
    tfds = host.require("tensorflow_datasets", "data")
    host.require("array_record", "data")
    absl_log = logging.getLogger("absl")
    absl_log.addFilter(_is_relevant)
    try:
        _check_features(folder)
        yield tfds.builder_from_directory(folder)
    except (DataError, host.NotInstalledError):
        raise
    except Exception as error:  # of TFDS, protobuf, the decoders of images: any of many kinds
        reason = f"{type(error).__name__}: {cut(str(error), 200)}"
        raise DataError(
            f"{folder} is incomplete or damaged: {reason}. Delete it and prepare it again with "
            "TFDS and file_format='array_record'."
        ) from error
    finally:
        absl_log.removeFilter(_is_relevant)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("OpenCV is not installed")
