"""Datasets that TFDS has prepared: found by name, decoded once, without TensorFlow."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from softmax_jax.data import tfds
from softmax_jax.host import DataError
from tests.data_on_disk import IMAGES, LABELS, isolate, write_prepared  # noqa: F401

KEYS = ("image", "label")


def make(folder):
    """What `find_prepared` looks for, without the records."""
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    return folder


@pytest.fixture
def toy(tmp_path):
    """The folder of a prepared dataset: seven grey images [4, 5] of three classes."""
    return write_prepared(tmp_path, "toy", {"train": (IMAGES, LABELS)})


def records_file(folder):
    return next(folder.glob("*array_record*"))


def test_the_highest_version_by_number_is_taken(tmp_path):
    for version in ("1.0.0", "9.0.0", "10.0.0", "10.0.0.incompleteABC"):
        make(tmp_path / "toy" / version)
    (tmp_path / "toy" / "11.0.0").mkdir()  # still being prepared
    assert tfds.find_prepared("toy", [tmp_path]).name == "10.0.0"
    assert tfds.find_prepared("toy:1.0.0", [tmp_path]).name == "1.0.0"
    assert tfds.find_prepared("toy:2.0.0", [tmp_path]) is None


def test_a_config_is_named_or_the_only_one(tmp_path):
    small = make(tmp_path / "toy" / "small" / "1.0.0")
    assert tfds.find_prepared("toy", [tmp_path]) == small
    large = make(tmp_path / "toy" / "large" / "1.2.0")
    assert tfds.find_prepared("toy/large", [tmp_path]) == large
    assert tfds.find_prepared("toy/large:1.2.0", [tmp_path]) == large
    assert tfds.find_prepared("toy/other", [tmp_path]) is None
    with pytest.raises(DataError, match="'toy/large', 'toy/small'"):
        tfds.find_prepared("toy", [tmp_path])


def test_the_first_folder_wins(tmp_path):
    first = make(tmp_path / "a" / "toy" / "1.0.0")
    make(tmp_path / "b" / "toy" / "2.0.0")
    folders = [tmp_path / "absent", tmp_path / "a", tmp_path / "b"]
    assert tfds.find_prepared("toy", folders) == first


@pytest.mark.parametrize("name", ["", "..", "../toy", "/toy", "toy/../toy", "to", "*"])
def test_a_malformed_name_is_not_found(tmp_path, name):
    make(tmp_path / "toy" / "1.0.0")
    assert tfds.find_prepared(name, [tmp_path]) is None


def test_prepared_names_are_those_of_the_sets(tmp_path):
    make(tmp_path / "toy" / "1.0.0")
    make(tmp_path / "other" / "config" / "1.0.0")
    (tmp_path / "downloads").mkdir()
    assert tfds.prepared_names([tmp_path, tmp_path / "absent"]) == {"toy", "other"}


def test_each_split_is_decoded_once_and_only_when_it_is_read(tmp_path):
    splits = {"train": (IMAGES, LABELS), "test": (IMAGES[:2], LABELS[:2])}
    folder = write_prepared(tmp_path, "toy", splits)
    source = tfds.prepared_source("toy", folder)
    assert source.shard_lengths == {"train": (7,), "test": (2,)}
    assert (source.scale, source.label_names) == (255.0, ("ant", "bee", "cat"))
    np.testing.assert_array_equal(source.read("train")[0], IMAGES)
    cached = {path.name for path in (folder / "softmax_jax_cache").iterdir()}
    assert {"facts.json", "split-train.json", "split-train-x.npy"} <= cached
    assert "split-test.json" not in cached
    x, y = tfds.prepared_source("toy", folder).read("train")
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, LABELS)


def test_a_description_holds_keys_names_and_lengths(tmp_path):
    splits = {"train": (IMAGES, LABELS), "test": (IMAGES[:2], LABELS[:2])}
    assert tfds.describe(write_prepared(tmp_path, "toy", splits)).facts == {
        "keys": ["image", "label"],
        "label_names": ["ant", "bee", "cat"],
        "shard_lengths": {"train": [7], "test": [2]},
    }


def test_grey_images_lose_their_channel(toy):
    arrays = tfds.decode(toy, "train", KEYS).arrays
    np.testing.assert_array_equal(arrays["x"], IMAGES)
    np.testing.assert_array_equal(arrays["y"], LABELS)
    assert (arrays["x"].dtype, arrays["y"].dtype) == (np.uint8, np.int32)


def test_colour_images_keep_theirs_and_blocks_join(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "_RECORDS_AT_ONCE", 4)
    x = np.random.default_rng(0).integers(0, 256, (9, 2, 3, 3), dtype=np.uint8)
    y = np.arange(9) % 3
    arrays = tfds.decode(write_prepared(tmp_path, "toy", {"train": (x, y)}), "train", KEYS).arrays
    np.testing.assert_array_equal(arrays["x"], x)
    np.testing.assert_array_equal(arrays["y"], y)


def test_decoding_is_announced_without_a_word_about_opencv(toy, caplog):
    with caplog.at_level(logging.INFO):
        tfds.decode(toy, "train", KEYS)
    assert "Decoding 7 images" in caplog.text
    assert "OpenCV" not in caplog.text


def test_decoding_does_without_tensorflow(toy):
    program = f"""
import pathlib, sys
from softmax_jax.data import tfds
tfds.decode(pathlib.Path({str(toy)!r}), "train", {KEYS})
print("tensorflow" in sys.modules)
"""
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (b"False", b"")


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"fileFormat": "tfrecord"}, "format tfrecord.*Prepare it again"),
        ({"supervisedKeys": None}, "no image classification set"),
        (
            {"supervisedKeys": {"tuple": {"items": [{"featureKey": "label"}] * 2}}},
            "no image classification set",
        ),
        ({"shape": (None, None, 1)}, "one size.*resize"),
    ],
)
def test_another_kind_of_dataset_is_refused(tmp_path, changes, why):
    folder = write_prepared(tmp_path, "toy", {"train": (IMAGES, LABELS)}, **changes)
    with pytest.raises(DataError, match=why):
        tfds.describe(folder)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_damaged_description_is_refused(toy, name):
    for length in (100, 10, 0):
        os.truncate(toy / name, length)
        with pytest.raises(DataError, match=r"1\.0\.0 is incomplete or damaged.*prepare it again"):
            tfds.describe(toy)


def test_truncated_or_missing_records_are_refused(toy):
    path = records_file(toy)
    for length in (path.stat().st_size - 1, 65536, 100, 0):
        os.truncate(path, length)
        with pytest.raises(DataError, match="incomplete or damaged"):
            tfds.decode(toy, "train", KEYS)
    path.unlink()
    with pytest.raises(DataError, match="incomplete or damaged"):
        tfds.decode(toy, "train", KEYS)


def test_a_changed_byte_never_gives_other_images(toy):
    path = records_file(toy)
    good = path.read_bytes()
    used = [i for i, byte in enumerate(good) if byte][::37]  # most of the file is padding
    refused = 0
    for position in used:
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        try:
            arrays = tfds.decode(toy, "train", KEYS).arrays
        except DataError:
            refused += 1
        else:
            np.testing.assert_array_equal(arrays["x"], IMAGES)
    assert refused > len(used) / 2
