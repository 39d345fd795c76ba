import hashlib

import numpy as np
import pytest
from sklearn import datasets

from softmax_jax import data
from softmax_jax.data import sources

FEATURES = {
    "breast_cancer": (569, 30, ("malignant", "benign")),
    "iris": (150, 4, ("setosa", "versicolor", "virginica")),
    "wine": (178, 13, ("class_0", "class_1", "class_2")),
}


def read(name):
    source = sources.embedded_source(name)
    return source, *source.read("train"), *source.read("test")


def test_digits_are_what_the_docstring_says():
    source, x, y, x_test, y_test = read("digits")
    assert x.shape == (1437, 8, 8) and x_test.shape == (360, 8, 8)
    assert source.shard_lengths == {"train": (1437,), "test": (360,)}
    assert x.dtype == np.uint8 and y.dtype == np.int32
    assert x.min() == 0 and x.max() == source.scale == 16
    assert source.label_names == tuple("0123456789")


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_what_the_docstring_says(name):
    source, x, y, x_test, y_test = read(name)
    N, D, label_names = FEATURES[name]
    assert len(x) + len(x_test) == N and x.shape[1:] == x_test.shape[1:] == (D,)
    assert source.shard_lengths == {"train": (len(x),), "test": (len(x_test),)}
    assert x.dtype == np.float32 and y.dtype == np.int32 and source.scale == 1
    assert (source.name, source.label_names) == (name, label_names)


@pytest.mark.parametrize("name", sources.EMBEDDED)
def test_the_division_is_stratified_and_a_partition(name):
    _, x, y, x_test, y_test = read(name)
    counts = np.bincount(y) + np.bincount(y_test)
    assert (np.abs(np.bincount(y_test) - counts / 5) < 1).all()
    everything = getattr(datasets, f"load_{name}")()
    both = np.concatenate([x, x_test]).reshape(len(everything.target), -1)
    labels = np.concatenate([y, y_test])
    ours = sorted((label, bytes(row)) for label, row in zip(labels, both, strict=True))
    theirs = zip(everything.target, everything.data.astype(x.dtype), strict=True)
    assert ours == sorted((label, bytes(row)) for label, row in theirs)


def test_the_division_of_the_digits_is_fixed():
    _, _, _, x_test, y_test = read("digits")
    content = x_test.tobytes() + y_test.astype(np.uint8).tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "5ccada37b7bb7f1f"


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_loaded_by_name(name):
    splits = data.load(name, train="train[:80%]", val="train[80%:]", test="test")
    parts = splits.train, splits.val, splits.test
    assert sum(part.num_examples for part in parts) == FEATURES[name][0]
    assert not splits.train.is_image and splits.train.scale == 1 and splits.name == name


def test_a_malignant_tumour_is_class_zero():
    """As in scikit-learn: 212 of them, larger than the 357 benign ones."""
    train = data.load("breast_cancer").train
    radius = [
        train.x[train.y == train.label_names.index(name), 0].mean()
        for name in ("malignant", "benign")
    ]
    assert radius[0] > 17 > 13 > radius[1]
