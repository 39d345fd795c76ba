"""Train and val as one dataset: in order, with weights that do not favour either."""

import dataclasses

import numpy as np
import pytest

from softmax_jax import data


@pytest.fixture
def splits():
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    y = np.array([0, 1, 0, 1, 1, 0])
    return data.from_arrays((x[:4], y[:4], np.array([1.0, 2.0, 3.0, 2.0])), (x[4:], y[4:]))


def test_the_examples_of_val_follow_those_of_train(splits):
    both = data.joined(splits.train, splits.val)
    assert both.x.ravel().tolist() == list(range(12))
    assert both.y.tolist() == [0, 1, 0, 1, 1, 0]


def test_an_example_of_val_weighs_as_one_of_train_does_on_average(splits):
    assert data.joined(splits.train, splits.val).weights.tolist() == [1, 2, 3, 2, 2, 2]
    plain = dataclasses.replace(splits.train, weights=None)
    assert data.joined(plain, splits.val).weights is None


def test_what_is_read_in_parts_is_refused(splits):
    with pytest.raises(data.DataError, match="read by shards"):
        data.joined(dataclasses.replace(splits.train, shard_size=2), splits.val)
