import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from softmax_jax import data, host
from softmax_jax.data import loading
from softmax_jax.data.loading import load_or_stream

X = np.random.default_rng(0).normal(size=(100, 8))


@pytest.fixture
def mapped(tmp_path):
    """mapped(dtype, rows): a dataset of which x is mapped from a file."""

    def make(dtype=np.float16, rows=100):
        np.save(tmp_path / "x.npy", X[:rows].astype(dtype))
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
        return data.Dataset(x, np.zeros(rows, np.int32), 1.0, ("ant", "bee"), "toy")

    return make


@pytest.fixture
def machine(monkeypatch):
    """machine(available, part): one with so many bytes of memory, of which a part takes some."""

    def make(available, part=1 << 29):
        monkeypatch.setattr(host, "available_memory", lambda: available)
        monkeypatch.setattr(loading, "_SHARD_BYTES", part)

    return make


def test_what_fits_is_converted_and_no_longer_mapped(mapped):
    given = mapped()
    train = load_or_stream({"train": given}, "auto")["train"]
    assert type(train.x) is np.ndarray and train.x.dtype == np.float32
    np.testing.assert_array_equal(train.x, given.x.astype(np.float32))
    assert train.shard_size is None


def test_what_fits_and_has_its_form_is_not_copied(mapped):
    given = mapped(np.float32)
    train = load_or_stream({"train": given}, "auto")["train"]
    assert type(train.x) is np.ndarray and np.shares_memory(train.x, given.x)


def test_what_takes_a_quarter_of_the_memory_together_is_read_in_parts(mapped, machine):
    """As float32 in memory, however small the file: 3,200 and 1,600 bytes."""
    splits = {"train": mapped(), "val": mapped(rows=50)}
    machine(4 * 4800)
    assert load_or_stream(splits, "auto")["train"].shard_size is None
    machine(4 * 4800 - 1)
    placed = load_or_stream(splits, "auto")
    assert placed["train"].x is splits["train"].x
    assert placed["train"].shard_size == (4 * 4800 - 1) // 8 // 32  # an eighth of the memory
    assert placed["val"].shard_size is None  # and this is less than one part


def test_parts_are_of_the_same_size_on_all_machines_with_memory(mapped, machine):
    sizes = []
    for available in (10**4, 10**5):
        machine(available, part=640)
        sizes.append(load_or_stream({"train": mapped()}, True)["train"].shard_size)
    assert sizes == [20, 20]


def test_what_is_in_memory_already_stays_there_unless_told_otherwise(machine):
    machine(8000, part=640)
    x = X.astype(np.float32)
    given = data.Dataset(x, np.zeros(100, np.int32), 1.0, ("ant", "bee"), "toy")
    for stream, size in (("auto", None), (False, None), (True, 20)):
        train = load_or_stream({"train": given}, stream)["train"]
        assert train.x is x and train.shard_size == size
    on_device = dataclasses.replace(given, x=jnp.asarray(x))
    assert load_or_stream({"train": on_device}, True)["train"].x is on_device.x


def test_what_shall_be_in_memory_and_does_not_fit_is_refused(mapped, machine):
    machine(3900)
    with pytest.raises(data.DataError, match="train, as float32, would take .* stream='auto'"):
        load_or_stream({"train": mapped()}, False)
    assert (
        load_or_stream({"train": mapped(np.float32)}, False)["train"].shard_size is None
    )  # no copy


def test_an_example_larger_than_a_part_is_a_part(mapped, machine):
    machine(80)
    assert load_or_stream({"train": mapped()}, "auto")["train"].shard_size == 1
