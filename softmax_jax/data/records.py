"""The records of a dataset prepared by TFDS, read without TensorFlow."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from softmax_jax.data.cache import Entry
from softmax_jax.data.errors import DataError

_BLOCK = 1000  # records decoded at a time
_log = logging.getLogger("softmax_jax")


def describe(folder: Path) -> Entry:
    """What there is to know before decoding: keys, label_names, shard_lengths of each split.

    Args:
      folder: of one version of a dataset, with its dataset_info.json.

    Raises:
      DataError: it is no image classification set (a uint8 image and a class label as the
        supervised keys), its images vary in size, it is not in the array_record format, or
        the description is damaged.
    """
    with _builder(folder) as builder:
        info = builder.info
        _check(info, folder)
        image_key, label_key = info.supervised_keys
        facts = {
            "keys": [image_key, label_key],
            "label_names": info.features[label_key].names,
            "shard_lengths": {name: split.shard_lengths for name, split in info.splits.items()},
        }
    return Entry({}, facts)


def decode(folder: Path, split: str, keys: Sequence[str]) -> Entry:
    """All examples of a split: x uint8 [N, H, W] or [N, H, W, channels], and y int32 [N].

    Args:
      folder, keys: as in `describe`.
      split: the name of a split.

    Raises:
      DataError: records are missing or damaged.
    """
    image_key, label_key = keys
    with _builder(folder) as builder:
        records = builder.as_data_source(split)
        _log.info("Decoding %d images (%s, %s), this once", len(records), folder, split)
        x = np.empty((len(records), *builder.info.features[image_key].shape), np.uint8)
        y = np.empty(len(records), np.int32)
        for start in range(0, len(records), _BLOCK):
            stop = min(start + _BLOCK, len(records))
            block = records.__getitems__(range(start, stop))
            x[start:stop] = [record[image_key] for record in block]
            y[start:stop] = [record[label_key] for record in block]
    return Entry({"x": x[..., 0] if x.shape[-1] == 1 else x, "y": y}, {})


def _check(info, folder: Path) -> None:
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
    """The TFDS builder; within the block, what TFDS says about damaged files is a DataError."""
    import tensorflow_datasets as tfds
    from google.protobuf import json_format, message

    damage = (OSError, ValueError, LookupError, TypeError, RuntimeError)
    absl_log = logging.getLogger("absl")
    absl_log.addFilter(_is_worth_saying)
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
        absl_log.removeFilter(_is_worth_saying)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("OpenCV is not installed")
