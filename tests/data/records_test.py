import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from softmax_jax.data import tfds
from softmax_jax.host import DataError

KEYS = ("image", "label")


def records_file(folder):
    return next(folder.glob("*array_record*"))


def test_describes_the_dataset(tmp_path, write_prepared, images):
    x, y = images
    folder = write_prepared(tmp_path, "toy", {"train": (x, y), "test": (x[:2], y[:2])})
    assert tfds.describe(folder).facts == {
        "keys": ["image", "label"],
        "label_names": ["ant", "bee", "cat"],
        "shard_lengths": {"train": [7], "test": [2]},
    }


def test_grey_images_lose_their_channel(tmp_path, write_prepared, images):
    x, y = images
    arrays = tfds.decode(write_prepared(tmp_path, "toy", {"train": images}), "train", KEYS)[0]
    np.testing.assert_array_equal(arrays["x"], x)
    np.testing.assert_array_equal(arrays["y"], y)
    assert (arrays["x"].dtype, arrays["y"].dtype) == (np.uint8, np.int32)


def test_colour_images_keep_theirs_and_blocks_join(tmp_path, write_prepared, monkeypatch):
    monkeypatch.setattr(tfds, "_RECORDS_AT_ONCE", 4)
    x = np.random.default_rng(0).integers(0, 256, (9, 2, 3, 3), dtype=np.uint8)
    y = np.arange(9) % 3
    folder = write_prepared(tmp_path, "toy", {"train": (x, y)})
    arrays = tfds.decode(folder, "train", KEYS).arrays
    np.testing.assert_array_equal(arrays["x"], x)
    np.testing.assert_array_equal(arrays["y"], y)


def test_says_that_it_decodes_and_nothing_about_opencv(tmp_path, write_prepared, images, caplog):
    folder = write_prepared(tmp_path, "toy", {"train": images})
    with caplog.at_level(logging.INFO):
        tfds.decode(folder, "train", KEYS)
    assert "Decoding 7 images" in caplog.text
    assert "OpenCV" not in caplog.text


def test_reads_without_tensorflow(tmp_path, write_prepared, images):
    folder = write_prepared(tmp_path, "toy", {"train": images})
    program = f"""
import pathlib, sys
from softmax_jax.data import records
tfds.decode(pathlib.Path({str(folder)!r}), "train", {KEYS})
print("tensorflow" in sys.modules)
"""
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (b"False", b"")


@pytest.mark.parametrize(
    "info, why",
    [
        ({"fileFormat": "tfrecord"}, "format tfrecord.*Prepare it again"),
        ({"supervisedKeys": None}, "no image classification set"),
        (
            {"supervisedKeys": {"tuple": {"items": [{"featureKey": "label"}] * 2}}},
            "no image classification set",
        ),
    ],
)
def test_another_kind_of_dataset_is_refused(tmp_path, write_prepared, images, info, why):
    folder = write_prepared(tmp_path, "toy", {"train": images}, **info)
    with pytest.raises(DataError, match=why):
        tfds.describe(folder)


def test_images_of_varying_size_are_refused(tmp_path, write_prepared, images):
    folder = write_prepared(tmp_path, "toy", {"train": images}, shape=(None, None, 1))
    with pytest.raises(DataError, match="one size.*resize"):
        tfds.describe(folder)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("length", [0, 10, 100])
def test_a_damaged_description_is_refused(tmp_path, write_prepared, images, name, length):
    folder = write_prepared(tmp_path, "toy", {"train": images})
    os.truncate(folder / name, length)
    with pytest.raises(DataError, match=r"1\.0\.0 is incomplete or damaged.*prepare it again"):
        tfds.describe(folder)


@pytest.mark.parametrize("length", [0, 100, 65536, -1])
def test_truncated_records_are_refused(tmp_path, write_prepared, images, length):
    folder = write_prepared(tmp_path, "toy", {"train": images})
    path = records_file(folder)
    os.truncate(path, length % path.stat().st_size)
    with pytest.raises(DataError, match="incomplete or damaged"):
        tfds.decode(folder, "train", KEYS)


def test_a_changed_byte_never_gives_other_images(tmp_path, write_prepared, images):
    folder = write_prepared(tmp_path, "toy", {"train": images})
    path = records_file(folder)
    good = path.read_bytes()
    used = [i for i, byte in enumerate(good) if byte][::37]  # most of the file is padding
    refused = 0
    for position in used:
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        try:
            arrays = tfds.decode(folder, "train", KEYS).arrays
        except DataError:
            refused += 1
        else:
            np.testing.assert_array_equal(arrays["x"], images[0])
    assert refused > len(used) / 2


def test_missing_records_are_refused(tmp_path, write_prepared, images):
    folder = write_prepared(tmp_path, "toy", {"train": images})
    records_file(folder).unlink()
    with pytest.raises(DataError, match="incomplete or damaged"):
        tfds.decode(folder, "train", KEYS)
