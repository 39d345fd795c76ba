import collections
import dataclasses
import hashlib
import tracemalloc

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from softmax_jax import data
from softmax_jax.data import dataset as dataset_module


def splits(x=((1, 2), (3, 4), (5, 6)), y=(0, 1, 1), x_val=((7, 8),), **kwargs):
    train = (np.array(x, np.float32), np.array(y))
    return data.from_arrays(train, (np.array(x_val, np.float32), np.array([0])), **kwargs)


@pytest.mark.parametrize(
    "shape, num_features, is_image",
    [
        ((3, 28, 28), 784, True),
        ((3, 28, 28, 1), 784, True),
        ((3, 32, 32, 3), 3072, True),
        ((3, 32, 32, 7), 7168, False),
        ((3, 784), 784, False),
        ((3, 2, 2, 2, 3), 24, False),
    ],
)
def test_properties(shape, num_features, is_image):
    x = np.zeros(shape, np.uint8)
    dataset = data.Dataset(x, np.zeros(3, np.int32), 255.0, ("ant", "bee"), "toy")
    assert (dataset.num_examples, dataset.num_features) == (3, num_features)
    assert (dataset.num_classes, dataset.is_image) == (2, is_image)


def test_floats_are_features_whatever_their_shape():
    x = np.zeros((3, 28, 28), np.float32)
    assert not data.Dataset(x, np.zeros(3, np.int32), 1.0, ("ant", "bee"), "toy").is_image


@pytest.mark.parametrize(
    "stored, dtype, form",
    [
        (np.uint8, "float64", np.uint8),
        (np.float16, "float32", np.float32),
        (np.float64, "float32", np.float32),
        (ml_dtypes.bfloat16, "float64", np.float64),
        (np.int64, "float32", np.float32),
    ],
)
def test_blocks_are_all_of_x_in_its_form(monkeypatch, stored, dtype, form):
    monkeypatch.setattr(dataset_module, "_BLOCK_VALUES", 4 * 6 + 5)
    monkeypatch.setattr(dataset_module, "_FEWEST_EXAMPLES", 1)
    x = np.random.default_rng(0).integers(0, 99, (11, 3, 2)).astype(stored)
    dataset = data.Dataset(
        x, np.zeros(11, np.int32), 1.0, ("ant", "bee"), "toy", dtype=dtype, shard_size=2
    )
    starts, blocks = zip(*dataset.blocks(), strict=True)
    assert starts == (0, 4, 8) and dataset.form == form
    assert {block.dtype for block in blocks} == {np.dtype(form)}
    np.testing.assert_array_equal(np.concatenate(blocks), x.astype(form))


def test_blocks_and_parts_take_no_more_memory_than_they_must(tmp_path):
    """A file of 64 MiB is read with less than a tenth of that."""
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (1 << 15, 1 << 10))
    y = np.zeros(len(x), np.int32)
    dataset = data.Dataset(x, y, 1.0, ("ant", "bee"), "toy", shard_size=500)
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
    assert max(peak.values()) < 13 << 20, peak  # parts are of 2 MB


def test_text_labels():
    dataset = splits(label_names=("ant", "bee")).train
    assert dataset.text_labels(dataset.y) == ["ant", "bee", "bee"]
    assert dataset.text_labels(jnp.array([1, 0])) == ["bee", "ant"]


def test_a_dataset_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        splits().train.scale = 2.0


def test_the_fingerprint_is_that_of_the_data_alone():
    fingerprint = data.fingerprint(splits())
    assert len(fingerprint) == 64 and int(fingerprint, 16)
    assert fingerprint == data.fingerprint(splits(name="other", label_names=("ant", "bee")))


def test_the_fingerprint_is_the_same_on_a_device():
    on_host = splits()
    train = dataclasses.replace(on_host.train, x=jnp.asarray(on_host.train.x))
    assert data.fingerprint(dataclasses.replace(on_host, train=train)) == data.fingerprint(on_host)


@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_the_fingerprint_is_that_of_the_data_in_memory(tmp_path, monkeypatch, stored):
    """However it is stored, and whether it is read by shards or not."""
    monkeypatch.setattr(dataset_module, "_FEWEST_EXAMPLES", 2)
    monkeypatch.setattr(dataset_module, "_BLOCK_VALUES", 1)
    on_host = splits(x=((1, 2), (3, 4), (5, 6), (7, 8), (9, 1.5)), y=(0, 1, 1, 0, 1))
    np.save(tmp_path / "x.npy", np.asfortranarray(on_host.train.x.astype(stored)))
    x = np.load(tmp_path / "x.npy", mmap_mode="r").view(stored)
    mapped = dataclasses.replace(on_host.train, x=x, shard_size=2)
    assert data.fingerprint(dataclasses.replace(on_host, train=mapped)) == data.fingerprint(on_host)


def test_the_fingerprint_is_a_sha256_of_types_shapes_and_bytes():
    given = splits()
    expected = hashlib.sha256()
    for dataset in (given.train, given.val):
        for array in (dataset.x, dataset.y):
            expected.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    assert data.fingerprint(given) == expected.hexdigest()


def test_the_fingerprint_knows_types():
    one = data.from_arrays((np.eye(2, dtype=np.uint8), [0, 1]), (np.ones((1, 2), np.uint8), [0]))
    train = dataclasses.replace(one.train, x=one.train.x.view(np.int8))
    assert data.fingerprint(dataclasses.replace(one, train=train)) != data.fingerprint(one)


def test_the_fingerprint_changes_with_anything_in_the_data():
    x, y = np.arange(6, dtype=np.uint8).reshape(2, 3), np.array([0, 1], np.int32)
    x_val = x + 100

    def of(train=(x, y), val=(x_val, y), test=None):
        return data.fingerprint(data.from_arrays(train, val, test))

    others = [
        of(),
        of((x[:, ::-1], y)),
        of((x, y[::-1])),
        of((x, y), (x_val + 1, y)),
        of((x.reshape(2, 3, 1), y), (x_val.reshape(2, 3, 1), y)),
        of((x.astype(np.float32), y), (x_val.astype(np.float32), y)),
        of((x_val, y), (x, y)),
        of((x, y), (x_val, y), (x_val, y)),
        of((x, y, np.array([1.0, 2.0]))),
    ]
    assert len(set(others)) == len(others)
