import dataclasses

import ml_dtypes
import numpy as np
import pytest

from softmax_jax.data import Dataset
from softmax_jax.data.dataset import shuffled_shards

N = 103


@pytest.fixture
def dataset(tmp_path):
    """103 examples on disk, each of which says which it is; 20 of them fit into memory."""
    np.save(tmp_path / "x.npy", np.arange(2 * N, dtype=np.float16).reshape(N, 2))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    weights = np.arange(N, dtype=np.float32)
    y = np.arange(N, dtype=np.int32) % 7
    names = tuple("abcdefg")
    return Dataset(x, y, 1.0, names, "toy", weights=weights, shard_size=20)


def sizes(parts):
    return [len(part.rows) for part in parts]


def all_rows(parts):
    return np.concatenate([part.rows for part in parts])


def assert_is_of(part, dataset):
    """Every example has the features, label and weight of its row."""
    own = part.dataset
    np.testing.assert_array_equal(own.x, np.asarray(dataset.x)[part.rows].astype(dataset.form))
    np.testing.assert_array_equal(own.y, dataset.y[part.rows])
    np.testing.assert_array_equal(own.weights, dataset.weights[part.rows])
    assert type(own.x) is np.ndarray and own.x.dtype == dataset.form and own.shard_size is None


@pytest.mark.parametrize("batch_size", [1, 7, 20, 33])
@pytest.mark.parametrize("block_size", [1, 3, 8, 50])
def test_an_epoch_is_every_example_once(dataset, batch_size, block_size):
    parts = list(shuffled_shards(dataset, 3, batch_size, block_size))
    assert sorted(all_rows(parts)) == list(range(N))
    assert [part.number for part in parts] == list(range(len(parts)))
    for part in parts:
        assert_is_of(part, dataset)


def test_an_epoch_has_as_many_steps_as_in_memory(dataset):
    for batch_size, expected in ((1, 20), (7, 14), (20, 20), (33, 33)):
        found = sizes(shuffled_shards(dataset, 1, batch_size))
        assert found[:-1] == [expected] * (len(found) - 1)
        assert sum(-(-size // batch_size) for size in found) == -(-N // batch_size)


def test_the_order_is_a_function_of_the_epoch(dataset):
    def of(epoch):
        return [part.rows.tolist() for part in dataset.shuffled(epoch)]

    assert of(1) == of(1)
    first, second = of(1), of(2)
    assert first != second
    assert {tuple(sorted(rows)) for rows in first} != {tuple(sorted(rows)) for rows in second}


def test_a_block_stays_together_and_a_part_is_of_many(dataset):
    """But for the one block that is cut in two at the end of a part."""
    for part in list(shuffled_shards(dataset, 1, block_size=4))[:-1]:
        blocks = np.unique(part.rows // 4, return_counts=True)[1]
        assert (blocks < 4).sum() <= 3  # the cut ones at both ends, the last of the file
        assert len(blocks) >= 5
        assert (np.diff(part.rows) > 0).all()  # read in the order of the file


def test_over_epochs_every_example_meets_every_other(dataset):
    """Examples far apart share a part as often as chance has it: 19 of 102 times."""
    together = 0
    for epoch in range(300):
        for part in shuffled_shards(dataset, epoch, block_size=4):
            together += {10, 90} <= set(part.rows)
    assert 0.12 < together / 300 < 0.26


def test_small_parts_are_still_of_many_blocks(dataset):
    """A block is of 1 MiB, here far more than there is, or of a 16th of a part."""
    runs = [np.count_nonzero(np.diff(part.rows) > 1) for part in dataset.shuffled(1)]
    assert min(runs[:-1]) >= 10


def test_in_order_is_in_order(dataset):
    parts = list(dataset.in_order())
    np.testing.assert_array_equal(all_rows(parts), np.arange(N))
    assert sizes(parts) == [20] * 5 + [3]
    for part in parts:
        assert_is_of(part, dataset)


@pytest.mark.parametrize("part_size", [None, N, 10 * N])
def test_what_is_in_memory_is_one_part_as_it_is(dataset, shard_size):
    dataset = dataclasses.replace(dataset, shard_size=shard_size)
    for parts in (dataset.shuffled(5, 8), dataset.in_order()):
        (part,) = parts
        assert part.number == 0 and part.dataset is dataset
        np.testing.assert_array_equal(part.rows, np.arange(N))


def test_the_first_part_is_shuffled_as_a_dataset_in_memory_is():
    """NumPy takes (seed, epoch, 0) for (seed, epoch): one part is the same run as no parts."""
    for seed, epoch in ((0, 1), (7, 12), (2**32 - 1, 3)):
        plain, first, second = (
            np.random.default_rng(key).permutation(50)
            for key in ((seed, epoch), (seed, epoch, 0), (seed, epoch, 1))
        )
        np.testing.assert_array_equal(plain, first)
        assert (plain != second).any()


@pytest.mark.parametrize("stored", [np.uint8, np.float32, np.float64, ml_dtypes.bfloat16, ">f4"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_are_in_the_form_in_which_training_takes_them(dataset, stored, dtype):
    x = np.asfortranarray(np.arange(2 * N).reshape(N, 2) % 256).astype(stored)
    dataset = dataclasses.replace(dataset, x=x, dtype=dtype)
    for part in shuffled_shards(dataset, 1, block_size=6):
        assert_is_of(part, dataset)


def test_a_part_owns_its_memory(dataset):
    """A device may still be reading one when the next is made."""
    first, second, *_ = dataset.shuffled(1)
    assert not np.shares_memory(first.dataset.x, second.dataset.x)
    np.testing.assert_array_equal(first.dataset.x, np.asarray(dataset.x)[first.rows])
