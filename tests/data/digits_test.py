import hashlib

import numpy as np

from softmax_jax.data import digits


def read():
    source = digits.source()
    return source, *source.read("train"), *source.read("test")


def test_is_what_the_docstring_says():
    source, x, y, x_test, y_test = read()
    assert x.shape == (1437, 8, 8) and x_test.shape == (360, 8, 8)
    assert source.shard_lengths == {"train": (1437,), "test": (360,)}
    assert x.dtype == np.uint8 and y.dtype == np.int32
    assert x.min() == 0 and x.max() == source.scale == 16
    assert source.label_names == tuple("0123456789")


def test_the_division_is_stratified_and_a_partition():
    from sklearn.datasets import load_digits

    _, x, y, x_test, y_test = read()
    counts = np.bincount(y) + np.bincount(y_test)
    assert (np.abs(np.bincount(y_test) - counts / 5) < 1).all()
    both = np.concatenate([x, x_test]).reshape(1797, 64)
    everything = load_digits().data
    assert sorted(map(bytes, both)) == sorted(map(bytes, everything.astype(np.uint8)))


def test_the_division_is_fixed():
    _, _, _, x_test, y_test = read()
    content = x_test.tobytes() + y_test.astype(np.uint8).tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "5ccada37b7bb7f1f"
