import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from softmax_jax.data import dataset
from softmax_jax.data.dataset import Dataset
from softmax_jax.data.validation import check_alike, check_dataset
from softmax_jax.host import DataError


def make(**changes):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    dataset = Dataset(x, np.array([0, 1, 2, 1], np.int32), 1.0, ("ant", "bee", "cat"), "toy")
    return dataclasses.replace(dataset, **changes)


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


X, Y, ONES = make().x, make().y, np.ones(4, np.float32)


def test_good_data_passes():
    assert check_dataset(make(), "train") is None
    assert check_dataset(make(weights=changed(ONES, 0, 0)), "train") is None
    assert check_dataset(make(x=np.zeros((4, 2, 2, 3), np.uint8)), "train") is None


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"x": X[:0], "y": Y[:0]}, "no examples"),
        ({"x": X[:3]}, r"3 examples, and y has shape \(4,\)"),
        ({"y": np.eye(4, dtype=np.int32)}, r"y has shape \(4, 4\).*one integer label"),
        ({"x": X[:, 0]}, r"x has shape \(4,\).*reshape\(-1, 1\)"),
        ({"x": X[:, :0]}, "at least one feature"),
        ({"y": changed(Y, 2, 3)}, r"label 3 of example 2 is outside 0\.\.2"),
        ({"y": changed(Y, 1, -1)}, r"label -1 of example 1 is outside 0\.\.2"),
        ({"label_names": ("ant",), "y": 0 * Y}, "only one class, 'ant'.*at least two"),
        ({"x": changed(X, (3, 1), np.nan)}, "feature nan in row 3, column 1"),
        ({"x": changed(X, (0, 2), -np.inf)}, "feature -inf in row 0, column 2"),
        ({"weights": ONES[:3]}, r"weights have shape \(3,\)"),
        ({"weights": changed(ONES, 1, -1)}, "weight -1.0 of example 1"),
        ({"weights": changed(ONES, 3, np.inf)}, "weight inf of example 3"),
        ({"weights": 0 * ONES}, "all weights are 0"),
    ],
)
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_bad_data_is_refused_by_split_place_and_rule(changes, why, convert):
    changes = {
        name: value if name == "label_names" else convert(value) for name, value in changes.items()
    }
    with pytest.raises(DataError, match=f"^train: .*{why}"):
        check_dataset(make(**changes), "train")


def test_columns_of_larger_examples_are_counted_flat():
    x = np.zeros((4, 2, 5), np.float32)
    with pytest.raises(DataError, match="row 3, column 7"):
        check_dataset(make(x=changed(x, (3, 1, 2), np.nan)), "val")


def test_rows_are_counted_over_all_blocks(monkeypatch):
    monkeypatch.setattr(dataset, "_BLOCK_VALUES", 3 * 300)
    x = np.zeros((1000, 3), np.float16)
    check_dataset(make(x=x, y=np.zeros(1000, np.int32)), "train")
    for row in (0, 299, 300, 999):
        with pytest.raises(DataError, match=f"nan in row {row}, column 2 is not a finite float32"):
            check_dataset(make(x=changed(x, (row, 2), np.nan), y=np.zeros(1000, np.int32)), "train")


@pytest.mark.parametrize("dtype, fits", [("float32", False), ("float64", True)])
def test_what_the_type_in_memory_cannot_hold_is_not_finite(dtype, fits):
    dataset = make(x=changed(X.astype(np.float64), (2, 0), 1e300), dtype=dtype)
    if fits:
        assert check_dataset(dataset, "train") is None
    else:
        with pytest.raises(DataError, match="feature inf in row 2, column 0"):
            check_dataset(dataset, "train")


def test_alike_is_what_is_alike_in_memory():
    """A file of another float type is read as the same; bytes are not."""
    check_alike({"train": make(shard_size=2), "val": make(x=X.astype(np.float16), shard_size=2)})
    with pytest.raises(DataError, match="float32 of shape.*one in val is uint8"):
        check_alike({"train": make(), "val": make(x=X.astype(np.uint8))})


@pytest.mark.parametrize("x", [X[:, :2], X.reshape(4, 3, 1), X.astype(np.uint8)])
def test_examples_must_be_alike_in_all_splits(x):
    check_alike({"train": make(), "val": make(x=X[:2])})
    with pytest.raises(DataError, match="one in val is"):
        check_alike({"train": make(), "val": make(x=x)})
