import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from softmax_jax import data


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
    ],
)
def test_properties(shape, num_features, is_image):
    x = np.zeros(shape, np.uint8)
    dataset = data.Dataset(x, np.zeros(3, np.int32), 255.0, ("ant", "bee"), "toy")
    assert (dataset.num_examples, dataset.num_features) == (3, num_features)
    assert (dataset.num_classes, dataset.is_image) == (2, is_image)


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
