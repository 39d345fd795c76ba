"""Which devices a mesh takes, and which axis of a piece they share.

The meshes of eight are abstract: this process has one device. `tests/devices_test.py` runs them.
"""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from softmax_jax import sweep
from softmax_jax.sweep import chunks, loop, settings
from softmax_jax.sweep.mesh import AXES, ONE, Placement, padded, place
from softmax_jax.sweep.settings import trial_table
from tests import flat


def mesh(*sizes):
    sizes = (*sizes, 1)[:3]
    return Placement(AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3))


@pytest.mark.parametrize("sizes", [(1, 1), (-1, 1), (1, -1), (1, 1, -1)])
def test_one_device_needs_no_mesh(sizes):
    assert place(*sizes) is ONE
    assert ONE.size("trials") == ONE.size("batch") == 1
    assert ONE.sharding("trials") is None and ONE.by_examples is None


@pytest.mark.parametrize("sizes", [(2, 1, 1), (1, 2, 1), (-1, 2, 1), (2, -1, 1), (-1, 1, 3)])
def test_a_mesh_that_does_not_take_the_devices_there_are_is_refused(sizes):
    words = "mesh.classes is {} × {} × {}; .* the number of devices, 1 ".format(*sizes)
    with pytest.raises(ValueError, match=words):
        place(*sizes)


@pytest.mark.parametrize("sizes", [(-1, -1), (0, 1), (1, 0), (-2, 1), (1, 1, 0), (-1, 1, -1)])
def test_sizes_that_no_mesh_has_are_refused(sizes):
    with pytest.raises(ValueError, match="whole numbers from 1, or one of them -1; got"):
        place(*sizes)


def test_a_sweep_says_so_before_it_begins(digits):
    with pytest.raises(ValueError, match="is 3 × 1 × 1; the product"):
        flat.epochs(digits.train, digits.val, num_epochs=1, mesh=(3, 1))


def test_on_one_device_everything_lies_as_jax_puts_it():
    tree = {"a": np.arange(6).reshape(2, 3), "b": np.ones(2, np.float32)}
    plain = jax.device_put(tree)
    for put in (ONE.rows, ONE.examples, ONE.everywhere):
        assert jax.tree.all(
            jax.tree.map(lambda a, b: a.sharding == b.sharding and (a == b).all(), put(tree), plain)
        )
    np.testing.assert_array_equal(ONE.fetch(plain)["a"], tree["a"])


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 16), (None, "trials")),
        ((16, 16), (None, "trials")),  # the trials of a seed share their minibatches
        ((16, 3), ("trials", None)),
        ((1, 8), (None, "trials")),
    ],
)
def test_devices_share_the_settings_or_else_the_seeds(shape, axes):
    eight = mesh(8, 1)
    assert eight.axes(shape) == axes
    assert eight.sharding(*axes).spec == P(*axes)
    assert eight.sharding(*axes).shard_shape(shape) == (
        (shape[0], shape[1] // 8) if axes[1] else (shape[0] // 8, shape[1])
    )


def test_examples_are_shared_where_the_batch_axis_is_longer_than_one():
    assert mesh(8, 1).by_examples is None
    assert mesh(4, 2).by_examples.shard_shape((10, 3)) == (5, 3)
    assert mesh(1, 8).size("batch") == 8


def test_classes_are_shared_by_what_has_any():
    divided = mesh(2, 1, 4)
    assert divided.axes((1, 6)) == (None, "trials")
    assert divided.axes((1, 6, 12, 5)) == (None, "trials", "classes")
    assert divided.sharding(*divided.axes((1, 6, 12, 5))).shard_shape((1, 6, 12, 5)) == (1, 3, 3, 5)
    assert divided.by_classes.shard_shape((12, 5)) == (3, 5)
    assert mesh(8, 1).by_classes is None and ONE.by_classes is None


@pytest.mark.parametrize(
    "full, num_classes, words",
    [(False, 10, "must divide the number of classes; it is 4, of 10"), (True, 8, "SGD")],
)
def test_classes_that_the_devices_cannot_share_are_refused(full, num_classes, words):
    with pytest.raises(ValueError, match=words):
        loop._check_classes(mesh(2, 1, 4), full, num_classes)
    loop._check_classes(mesh(2, 4), full, num_classes)


@pytest.mark.parametrize("seeds, settings", [(1, 1), (1, 9), (3, 5), (8, 3), (16, 1), (8, 8)])
def test_pieces_are_filled_up_only_where_the_devices_divide_neither_axis(seeds, settings):
    table = trial_table(sweep.grid(l2=range(settings)), seeds=range(seeds))
    (piece,) = chunks.plan(table, multiple=8)
    height, width = piece.trials.shape
    assert (height, piece.num_real) == (seeds, settings)
    assert width == (settings if seeds % 8 == 0 else -(-settings // 8) * 8)
    assert mesh(8, 1).sharding(*mesh(8, 1).axes((height, width))).shard_shape((height, width))
    real = piece.trials[:, :settings]
    assert sorted(real.ravel()) == list(range(seeds * settings))
    assert (piece.trials[:, settings:] == real[:, -1:]).all()


def test_what_is_left_is_cut_for_the_devices_that_are_there_now():
    table = settings.trial_table(sweep.grid(l2=range(5)), seeds=(0, 1))
    (piece,) = chunks.plan(table)
    saved = {"W": np.arange(10.0).reshape(2, 5)}
    for chunk, multiple, width in ((0, 4, 8), (4, 2, 4), (0, 1, 5)):
        work = chunks.recut([chunks.Pending(piece, 3, 0, saved)], chunk, multiple)
        assert {task.chunk.trials.shape[1] for task in work} == {width}
        values = {
            number: value
            for task in work
            for number, value in zip(
                task.chunk.trials[:, : task.chunk.num_real].ravel(),
                task.saved["W"].ravel(),
                strict=True,
            )
        }
        assert values == {number: number for number in range(10)}


@pytest.mark.parametrize("length, axis", [(5, 0), (8, 1), (1, -1)])
def test_padding_is_at_the_end_and_divisible(length, axis):
    array = np.ones((length, length))
    longer = padded(array, axis, 4, -1)
    assert longer.shape[axis] % 4 == 0 and longer.shape[axis] - length < 4
    np.testing.assert_array_equal(longer[:length, :length], array)
    assert (longer == -1).sum() == longer.size - array.size
