"""Which devices a mesh takes, what they share, and how many trials fit into their memory.

The meshes of eight are abstract: this process has one device. `tests/devices_test.py` runs them.
"""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from softmax_jax import host, sweep
from softmax_jax.data import Dataset
from softmax_jax.sweep import chunks, loop
from softmax_jax.sweep import mesh as meshes
from softmax_jax.sweep.mesh import AXES, ONE, Placement, padded, place
from softmax_jax.sweep.settings import trial_table
from tests.sweep_fixtures import epochs


def mesh(*sizes):
    sizes = (*sizes, 1)[:3]
    return Placement(AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3))


@pytest.mark.parametrize("sizes", [(1, 1), (-1, 1), (1, -1), (1, 1, -1)])
def test_one_device_needs_no_mesh(sizes):
    assert place(*sizes) is ONE
    assert ONE.size("trials") == ONE.size("batch") == 1
    assert ONE.sharding("trials") is None and ONE.by_examples is None


@pytest.mark.parametrize("sizes", [(2, 1, 1), (1, 2, 1), (-1, 2, 1), (2, -1, 1), (-1, 1, 3)])
def test_mesh_that_does_not_match_the_devices_is_refused(sizes):
    words = "mesh.classes is {} × {} × {}; .* the number of devices, 1 ".format(*sizes)
    with pytest.raises(ValueError, match=words):
        place(*sizes)


@pytest.mark.parametrize("sizes", [(-1, -1), (0, 1), (1, 0), (-2, 1), (1, 1, 0), (-1, 1, -1)])
def test_impossible_mesh_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="whole numbers from 1, or one of them -1; got"):
        place(*sizes)


def test_sweep_refuses_a_mesh_at_the_call():
    with pytest.raises(ValueError, match="is 3 × 1 × 1; the product"):
        epochs(devices=sweep.Devices(mesh=(3, 1)))


def test_one_device_places_arrays_as_jax_does():
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


def test_leaves_with_classes_are_shared_by_class():
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
def test_chunks_are_padded_only_where_the_devices_divide_neither_axis(seeds, settings):
    table = trial_table(sweep.grid(l2=range(settings)), seeds=range(seeds))
    (chunk,) = chunks.plan(table, multiple=8)
    height, width = chunk.trials.shape
    assert (height, chunk.num_real) == (seeds, settings)
    assert width == (settings if seeds % 8 == 0 else -(-settings // 8) * 8)
    assert mesh(8, 1).sharding(*mesh(8, 1).axes((height, width))).shard_shape((height, width))
    real = chunk.trials[:, :settings]
    assert sorted(real.ravel()) == list(range(seeds * settings))
    assert (chunk.trials[:, settings:] == real[:, -1:]).all()


@given(length=st.integers(1, 20), axis=st.sampled_from([0, 1, -1]), multiple=st.integers(1, 9))
def test_padding_is_at_the_end_and_divisible(length, axis, multiple):
    array = np.ones((length, length))
    longer = padded(array, axis, multiple, -1)
    assert longer.shape[axis] % multiple == 0 and longer.shape[axis] - length < multiple
    np.testing.assert_array_equal(longer[:length, :length], array)
    assert (longer == -1).sum() == longer.size - array.size


# Memory.


def wide(num_features, num_classes):
    """A dataset of any width in one byte of memory."""
    x = np.broadcast_to(np.uint8(0), (10, num_features))
    names = ("",) * num_classes
    return Dataset(x, np.zeros(10, np.int32), 255.0, names, "wide")


def test_stated_chunk_is_kept():
    assert meshes.fitting_chunk(4, 784, 10, 1000, chunk_size=3) == 3


def fitting(num_features, num_classes, batch_size):
    each = meshes.sgd_trial_bytes(num_features, num_classes, batch_size)
    return meshes.fitting_chunk(1, num_features, num_classes, each), each


def test_chosen_chunk_fills_the_budget_and_no_more():
    (chunk, each), budget = fitting(784, 10, 256), 0.6 * meshes.device_bytes()
    assert chunk * each <= budget < (chunk + 1) * each


def test_every_trial_takes_its_parameters_and_scores_in_each_copy():
    """By hand, in float32: six copies of the parameters, and six of the logits of a batch."""
    parameters, scores = (784 + 1) * 10, 2000 * 10
    assert meshes.sgd_trial_bytes(784, 10, 2000) == 4 * 6 * (parameters + scores)
    assert meshes.sgd_trial_bytes(784, 10, 8) == 4 * 6 * (parameters + 1000 * 10)
    assert meshes.vocabulary_trial_bytes(784, 10, 2000) == 4 * 7 * parameters
    assert meshes.lbfgs_trial_bytes(784, 10, 2000) == 4 * (50 * parameters + 8 * scores)


def test_larger_models_and_batches_make_smaller_chunks():
    base, _ = fitting(784, 10, 256)
    for larger in ((7840, 10, 256), (784, 100, 256), (784, 10, 60_000)):
        assert fitting(*larger)[0] < base


def test_too_large_sweep_is_refused_with_its_bytes():
    """A model of terabytes, a chunk of terabytes, results of terabytes; nothing is allocated."""
    with pytest.raises(ValueError, match=r"1 trials of 1000000000 × 1000 .* GiB, more than the .*"):
        meshes.fitting_chunk(1, 10**9, 1000, 10**13)
    with pytest.raises(ValueError, match=r"GiB that may be used: take fewer .* smaller chunk"):
        meshes.fitting_chunk(10**6, 784, 10, 10**6, chunk_size=10**6)
    with pytest.raises(ValueError, match=r"90,000 trials .* GiB that may be used: take fewer"):
        meshes.fitting_chunk(90_000, 10**6, 10, 256)


def test_sweep_that_does_not_fit_is_refused_before_it_compiles(compilations):
    with pytest.raises(ValueError, match="GiB"):
        sweep.epochs(wide(10**9, 1000), None, num_epochs=1, batch_size=1)
    assert not compilations


def test_memory_of_a_cpu_is_that_of_its_machine_or_control_group():
    if jax.default_backend() != "cpu":
        pytest.skip("an accelerator has its own")
    assert meshes.device_bytes() == host.available_memory()
