"""Datasets larger than the memory: what is read by shards, and the order of their examples."""

import collections
import dataclasses
import tracemalloc

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_jax import data, host
from softmax_jax.data import Dataset, loading
from softmax_jax.data.dataset import shuffled_shards
from softmax_jax.data.loading import load_or_stream

N = 103
X = np.random.default_rng(0).normal(size=(100, 8))


def numbered(num_examples=N, shard_size=20, stored=np.float16, dtype="float32"):
    """Examples of which each says which it is; `shard_size` of them fit into memory."""
    x = np.arange(2 * num_examples).reshape(num_examples, 2) % 256
    y = np.arange(num_examples, dtype=np.int32) % 7
    weights = np.arange(num_examples, dtype=np.float32)
    names = tuple("abcdefg")
    return Dataset(
        np.asfortranarray(x.astype(stored)), y, 1.0, names, "toy", 0.0, weights, dtype, shard_size
    )


@pytest.fixture
def dataset(tmp_path):
    """103 examples on disk, of which 20 fit into memory."""
    np.save(tmp_path / "x.npy", numbered().x)
    return dataclasses.replace(numbered(), x=np.load(tmp_path / "x.npy", mmap_mode="r"))


def sizes(shards):
    return [len(shard.rows) for shard in shards]


def all_rows(shards):
    return np.concatenate([shard.rows for shard in shards])


def assert_is_of(shard, dataset):
    """Every example has the features, label and weight of its row."""
    own = shard.dataset
    np.testing.assert_array_equal(own.x, np.asarray(dataset.x)[shard.rows].astype(dataset.form))
    np.testing.assert_array_equal(own.y, dataset.y[shard.rows])
    np.testing.assert_array_equal(own.weights, dataset.weights[shard.rows])
    assert type(own.x) is np.ndarray and own.x.dtype == dataset.form and own.shard_size is None


@settings(deadline=None, database=None, max_examples=60)
@given(
    num_examples=st.integers(1, 120),
    shard_size=st.integers(1, 130),
    batch_size=st.integers(1, 40),
    run_length=st.none() | st.integers(1, 50),
    epoch=st.integers(0, 5),
)
def test_an_epoch_is_every_example_once_in_as_many_steps_as_in_memory(
    num_examples, shard_size, batch_size, run_length, epoch
):
    dataset = numbered(num_examples, shard_size)
    shards = list(shuffled_shards(dataset, epoch, batch_size, run_length))
    assert sorted(all_rows(shards)) == list(range(num_examples))
    assert [shard.number for shard in shards] == list(range(len(shards)))
    steps = sum(-(-size // batch_size) for size in sizes(shards))
    assert steps == -(-num_examples // batch_size)
    whole = max(shard_size // batch_size, 1) * batch_size
    assert all(size == whole for size in sizes(shards)[:-1])
    if len(shards) > 1:
        for shard in shards:
            assert_is_of(shard, dataset)


@pytest.mark.parametrize("stored", [np.uint8, np.float32, np.float64, ml_dtypes.bfloat16, ">f4"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shards_have_the_type_that_training_takes(stored, dtype):
    dataset = numbered(stored=stored, dtype=dtype)
    for shard in shuffled_shards(dataset, 1, run_length=6):
        assert_is_of(shard, dataset)


def test_shards_in_order_are_in_order(dataset):
    shards = list(dataset.in_order())
    np.testing.assert_array_equal(all_rows(shards), np.arange(N))
    assert sizes(shards) == [20] * 5 + [3]
    for shard in shards:
        assert_is_of(shard, dataset)


@pytest.mark.parametrize("shard_size", [None, N, 10 * N])
def test_a_dataset_in_memory_is_one_shard_as_it_is(dataset, shard_size):
    dataset = dataclasses.replace(dataset, shard_size=shard_size)
    for shards in (dataset.shuffled(5, 8), dataset.in_order()):
        (shard,) = shards
        assert shard.number == 0 and shard.dataset is dataset
        np.testing.assert_array_equal(shard.rows, np.arange(N))


def test_the_order_is_a_function_of_the_epoch(dataset):
    def of(epoch):
        return [shard.rows.tolist() for shard in dataset.shuffled(epoch)]

    assert of(1) == of(1)
    first, second = of(1), of(2)
    assert first != second
    assert {tuple(sorted(rows)) for rows in first} != {tuple(sorted(rows)) for rows in second}


def test_a_run_stays_together_and_a_shard_is_of_many(dataset):
    """But for the one run that is cut in two at the end of a shard."""
    for shard in list(shuffled_shards(dataset, 1, run_length=4))[:-1]:
        runs = np.unique(shard.rows // 4, return_counts=True)[1]
        assert (runs < 4).sum() <= 3  # those cut at both ends, the last of the file
        assert len(runs) >= 5
        assert (np.diff(shard.rows) > 0).all()  # read in the order of the file


def test_small_shards_are_still_of_many_runs(dataset):
    """A run is of 1 MiB, here far more than there is, or of a 16th of a shard."""
    runs = [np.count_nonzero(np.diff(shard.rows) > 1) for shard in dataset.shuffled(1)]
    assert min(runs[:-1]) >= 10


def test_over_epochs_every_example_meets_every_other(dataset):
    """Examples far apart share a shard as often as by chance: 19 of 102 times."""
    together = 0
    for epoch in range(300):
        for shard in shuffled_shards(dataset, epoch, run_length=4):
            together += {10, 90} <= set(shard.rows)
    assert 0.12 < together / 300 < 0.26


def test_the_first_shard_is_shuffled_as_a_dataset_in_memory_is():
    """NumPy takes (seed, epoch, 0) for (seed, epoch): one shard is the same run as no shards."""
    for seed, epoch in ((0, 1), (7, 12), (2**32 - 1, 3)):
        plain, first, second = (
            np.random.default_rng(key).permutation(50)
            for key in ((seed, epoch), (seed, epoch, 0), (seed, epoch, 1))
        )
        np.testing.assert_array_equal(plain, first)
        assert (plain != second).any()


def test_a_shard_owns_its_memory(dataset):
    """A device may still be reading one when the next is made."""
    first, second, *_ = dataset.shuffled(1)
    assert not np.shares_memory(first.dataset.x, second.dataset.x)
    np.testing.assert_array_equal(first.dataset.x, np.asarray(dataset.x)[first.rows])


def test_reading_takes_no_more_memory_than_a_few_shards(tmp_path):
    """A file of 64 MiB is read with a fifth of that at most."""
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (1 << 15, 1 << 10))
    y = np.zeros(len(x), np.int32)
    dataset = Dataset(x, y, 1.0, ("ant", "bee"), "toy", shard_size=500)
    peak = {}
    for name, read in (
        ("blocks", dataset.blocks),
        ("shuffled", lambda: dataset.shuffled(1)),
        ("in order", dataset.in_order),
        ("fingerprint", lambda: data.fingerprint(data.Splits(*[dataset] * 3, "", (), False))),
    ):
        tracemalloc.start()
        collections.deque(read(), maxlen=0)
        peak[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(peak.values()) < 13 << 20, peak  # shards are of 2 MB


@pytest.fixture
def mapped(tmp_path):
    """mapped(dtype, rows): a dataset of which x is mapped from a file."""

    def make(dtype=np.float16, rows=100):
        np.save(tmp_path / "x.npy", X[:rows].astype(dtype))
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
        return Dataset(x, np.zeros(rows, np.int32), 1.0, ("ant", "bee"), "toy")

    return make


@pytest.fixture
def machine(monkeypatch):
    """machine(available, shard): one with so many bytes of memory, and of a shard."""

    def make(available, shard=1 << 29):
        monkeypatch.setattr(host, "available_memory", lambda: available)
        monkeypatch.setattr(loading, "_SHARD_BYTES", shard)

    return make


def loaded(dataset, stream):
    return load_or_stream({"train": dataset}, stream)["train"]


def test_a_file_that_fits_is_converted_and_no_longer_mapped(mapped):
    given = mapped()
    train = loaded(given, "auto")
    assert type(train.x) is np.ndarray and train.x.dtype == np.float32
    np.testing.assert_array_equal(train.x, given.x.astype(np.float32))
    assert train.shard_size is None


def test_a_file_that_fits_and_has_the_right_type_is_not_copied(mapped):
    given = mapped(np.float32)
    train = loaded(given, "auto")
    assert type(train.x) is np.ndarray and np.shares_memory(train.x, given.x)


def test_files_of_more_than_a_quarter_of_the_memory_are_read_by_shards(mapped, machine):
    """As float32 in memory, however small the files: 3,200 and 1,600 bytes."""
    splits = {"train": mapped(), "val": mapped(rows=50)}
    machine(4 * 4800)
    assert load_or_stream(splits, "auto")["train"].shard_size is None
    machine(4 * 4800 - 1)
    placed = load_or_stream(splits, "auto")
    assert placed["train"].x is splits["train"].x
    assert placed["train"].shard_size == (4 * 4800 - 1) // 8 // 32  # an eighth of the memory
    assert placed["val"].shard_size is None  # less than one shard


def test_shards_are_of_one_size_on_all_machines_with_memory(mapped, machine):
    found = []
    for available in (10**4, 10**5):
        machine(available, shard=640)
        found.append(loaded(mapped(), True).shard_size)
    assert found == [20, 20]


def test_an_example_larger_than_a_shard_is_a_shard(mapped, machine):
    machine(80)
    assert loaded(mapped(), "auto").shard_size == 1


def test_an_array_in_memory_stays_there_unless_told_otherwise(machine):
    machine(8000, shard=640)
    x = X.astype(np.float32)
    given = Dataset(x, np.zeros(100, np.int32), 1.0, ("ant", "bee"), "toy")
    for stream, size in (("auto", None), (False, None), (True, 20)):
        train = loaded(given, stream)
        assert train.x is x and train.shard_size == size
    on_device = dataclasses.replace(given, x=jnp.asarray(x))
    assert loaded(on_device, True).x is on_device.x


def test_a_file_that_shall_be_in_memory_and_does_not_fit_is_refused(mapped, machine):
    machine(3900)
    with pytest.raises(data.DataError, match="train, as float32, would take .* stream='auto'"):
        loaded(mapped(), False)
    assert loaded(mapped(np.float32), False).shard_size is None  # no copy


def test_arrays_mapped_from_a_file_may_be_read_by_shards(tmp_path, machine):
    machine(10**6, shard=3 * 32)
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    x, y = np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(100) % 2
    given = (x[:60], y[:60]), (x[60:], y[60:])
    splits = data.from_arrays(*given, stream=True)
    assert isinstance(splits.train.x, np.memmap) and splits.train.shard_size == 3
    with pytest.raises(data.DataError, match="stream must be 'auto', True or False; it is 'yes'"):
        data.from_arrays(*given, stream="yes")


def test_a_folder_read_by_shards_has_the_checks_and_the_fingerprint_of_memory(
    tmp_path, monkeypatch
):
    x, y = X[:25, :4].astype(np.float16), np.arange(25) % 3
    arrays = {"x_train": x[:20], "y_train": y[:20], "x_val": x[20:], "y_val": y[20:]}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    in_memory = data.load(str(tmp_path), val="val")
    monkeypatch.setattr(host, "available_memory", lambda: 4 * 25 * 16 - 1)
    splits = data.load(str(tmp_path), val="val")
    assert isinstance(splits.train.x, np.memmap) and splits.train.x.dtype == np.float16
    assert splits.train.shard_size == 12 and splits.val.shard_size is None
    assert data.fingerprint(splits) == data.fingerprint(in_memory)
    found = np.concatenate([shard.dataset.x for shard in splits.train.in_order()])
    np.testing.assert_array_equal(found, in_memory.train.x)
    np.save(tmp_path / "x_train.npy", np.where(np.arange(20)[:, None] == 13, np.nan, x[:20]))
    with pytest.raises(data.DataError, match="train: feature nan in row 13, column 0"):
        data.load(str(tmp_path), val="val")
