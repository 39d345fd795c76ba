import os
import shutil
import time

import numpy as np
import pytest

from softmax_jax import data
from softmax_jax.data.sources import FASHION_LABELS


@pytest.fixture
def folder(tmp_path, write_prepared, images):
    """A TFDS data folder with a dataset `toy`: 7 examples in train, 3 in test."""
    x, y = images
    write_prepared(tmp_path, "toy", {"train": (x, y), "test": (x[:3], y[:3])})
    return tmp_path


def test_loads_a_prepared_dataset(folder, images):
    splits = data.load("toy", train="train[:4]", val="train[4:]", test="test", data_dir=folder)
    x, y = images
    for dataset, rows in ((splits.train, x[:4]), (splits.val, x[4:]), (splits.test, x[:3])):
        np.testing.assert_array_equal(dataset.x, rows)
        assert (dataset.scale, dataset.mean, dataset.name) == (255.0, 0.0, "toy")
        assert dataset.x.dtype == np.uint8 and dataset.y.dtype == np.int32
    np.testing.assert_array_equal(splits.val.y, y[4:])
    assert (splits.name, splits.label_names) == ("toy", ("ant", "bee", "cat"))
    assert not splits.val_is_test


def test_pieces_are_put_together_in_order(folder, images):
    splits = data.load("toy", train="train[5:]+train[:2]", val="test", data_dir=folder)
    np.testing.assert_array_equal(splits.train.x, images[0][[5, 6, 0, 1]])
    np.testing.assert_array_equal(splits.train.y, images[1][[5, 6, 0, 1]])


def test_slices_are_views(folder):
    splits = data.load("toy", train="train[:4]", val="train[4:]", data_dir=folder)
    assert splits.train.x.base is splits.val.x.base is not None


def test_defaults_are_the_books(folder):
    splits = data.load("toy", data_dir=folder)
    assert (splits.train.num_examples, splits.val.num_examples, splits.test) == (7, 3, None)


def test_val_and_test_may_share_examples_which_the_result_says(folder):
    assert data.load("toy", val="test", test="test", data_dir=folder).val_is_test
    assert data.load("toy", val="test[:2]", test="test[1:]", data_dir=folder).val_is_test
    assert not data.load("toy", val="test[:2]", test="test[2:]", data_dir=folder).val_is_test


@pytest.mark.parametrize(
    "specs, why",
    [
        ({"train": "train", "val": "train[5:]"}, r"val='train\[5:\]' share.*train\[5:7\]"),
        ({"train": "train[:6]", "val": "test", "test": "train[-2:]"}, r"test=.*train\[5:6\]"),
        ({"train": ""}, "must be a train split"),
        ({"val": ""}, "must be a val split"),
        ({"val": "tset"}, r"'tset' cannot be read.*there are 'train' \(7\), 'test' \(3\)"),
        ({"val": "test[:0]"}, "empty"),
    ],
)
def test_splits_that_cannot_be_are_refused(folder, specs, why):
    with pytest.raises(data.DataError, match=why):
        data.load("toy", **specs, data_dir=folder)


def test_labels_out_of_range_are_refused(tmp_path, write_prepared, images):
    folder = write_prepared(tmp_path, "toy", {"train": images, "test": images})
    labels = folder / "label.labels.txt"
    labels.write_text("ant\nbee\n")
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"3"', '"2"'))
    with pytest.raises(data.DataError, match=r"train: label 2 of example 2 is outside 0\.\.1"):
        data.load("toy", data_dir=tmp_path)


def test_digits_are_always_there(isolated):
    splits = data.load("digits", train="train[:80%]", val="train[80%:]", test="test")
    sizes = [splits.train.num_examples, splits.val.num_examples, splits.test.num_examples]
    assert sizes == [1150, 287, 360]
    assert splits.train.scale == 16.0 and splits.train.is_image
    assert os.listdir(isolated) == []


def test_what_cannot_be_read_is_a_data_error(tmp_path, write_idx):
    files = write_idx(tmp_path)
    cached = data.load("fashion_mnist", data_dir=tmp_path)
    assert cached.train.num_examples == 7
    path = files["train-labels-idx1-ubyte"]
    os.truncate(path, 0)
    with pytest.raises(data.DataError, match="train-labels.*truncated") as error:
        data.load("fashion_mnist", data_dir=tmp_path)
    assert type(error.value) is data.DataError  # there, but damaged: no reason for a fallback


def test_the_real_fashion_mnist(fashion_mnist_dir, tmp_path):
    shutil.copytree(fashion_mnist_dir / "fashion_mnist", tmp_path / "fashion_mnist")
    splits = data.load("fashion_mnist", data_dir=tmp_path, test="test[:5000]")
    x = splits.train.x
    assert x.shape == (60000, 28, 28) and splits.val.x.shape == (10000, 28, 28)
    assert abs(np.mean(x) / 255 - 0.28604) < 1e-5  # as published
    assert abs(np.std(x) / 255 - 0.35302) < 1e-5
    assert (np.bincount(splits.train.y) == 6000).all() and (np.bincount(splits.val.y) == 1000).all()
    assert splits.label_names == FASHION_LABELS and splits.val_is_test
    start = time.monotonic()
    again = data.load("fashion_mnist", data_dir=tmp_path, test="test[:5000]")
    assert time.monotonic() - start < 1.0  # 0.1 s on an idle machine; decoding takes 4 s or more
    assert data.fingerprint(again) == data.fingerprint(splits)
