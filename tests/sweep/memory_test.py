import jax
import numpy as np
import pytest

from softmax_jax import host, sweep, train
from softmax_jax.data import Dataset
from softmax_jax.model import augment, concise
from softmax_jax.sweep import inputs, mesh, program
from tests import flat


def wide(num_features, num_classes):
    """A dataset of any width in one byte of memory."""
    x = np.broadcast_to(np.uint8(0), (10, num_features))
    names = ("",) * num_classes
    return Dataset(x, np.zeros(10, np.int32), 255.0, names, "wide")


def test_a_stated_chunk_is_kept():
    assert mesh.fitting_chunk(4, 784, 10, 1000, chunk_size=3) == 3


def fitting(num_features, num_classes, batch_size):
    each = mesh.sgd_trial_bytes(num_features, num_classes, batch_size)
    return mesh.fitting_chunk(1, num_features, num_classes, each), each


def test_the_chosen_chunk_fills_the_budget_and_no_more():
    (chunk, each), budget = fitting(784, 10, 256), 0.6 * mesh.device_bytes()
    assert chunk * each <= budget < (chunk + 1) * each


def test_larger_models_and_batches_make_smaller_chunks():
    base, _ = fitting(784, 10, 256)
    for larger in ((7840, 10, 256), (784, 100, 256), (784, 10, 60_000)):
        assert fitting(*larger)[0] < base


def test_what_cannot_be_had_is_said_with_its_bytes():
    """A model of terabytes, a chunk of terabytes, results of terabytes; nothing is allocated."""
    with pytest.raises(ValueError, match=r"1 trials of 1000000000 × 1000 .* GiB, more than the .*"):
        mesh.fitting_chunk(1, 10**9, 1000, 10**13)
    with pytest.raises(ValueError, match=r"GiB that may be used: take fewer .* smaller chunk"):
        mesh.fitting_chunk(10**6, 784, 10, 10**6, chunk_size=10**6)
    with pytest.raises(ValueError, match=r"90,000 trials .* GiB that may be used: take fewer"):
        mesh.fitting_chunk(90_000, 10**6, 10, 256)


def test_a_grid_of_a_billion_is_refused_before_it_is_made():
    axis = tuple(np.linspace(0.001, 0.9, 178).tolist())
    with pytest.raises(ValueError, match=r"A table of 1,003,875,856 trials needs .* GiB"):
        sweep.grid(learning_rate=axis, momentum=axis, l2=axis, init_scale=axis)


def test_an_epoch_loop_refuses_before_it_compiles(compilations):
    with pytest.raises(ValueError, match="GiB"):
        flat.epochs(wide(10**9, 1000), None, num_epochs=1, batch_size=1)
    assert not compilations


def test_the_memory_of_a_cpu_is_that_of_its_machine_or_control_group():
    if jax.default_backend() != "cpu":
        pytest.skip("an accelerator has its own")
    assert mesh.device_bytes() == host.available_memory()


def test_the_bytes_per_trial_are_enough_for_what_the_compiler_takes(digits):
    """Arguments, results and temporaries of an epoch, by what three more trials add to them."""

    def bytes_of(K):
        h = sweep.grid(learning_rate=np.linspace(0.01, 0.1, K))
        fixed = {"num_features": 64, "num_classes": 10}
        model = augment(concise)
        states = program.create(np.uint32([0]), h, np.zeros(K, np.int32), model=model, **fixed)
        orders, criterion = np.zeros((1, 1, 500), np.int32), train.criterion_of_logits(model)
        data = inputs.device_data(digits.train)
        used = (
            program.train_epoch.lower(states, data, orders, criterion).compile().memory_analysis()
        )
        return (
            used.argument_size_in_bytes
            + used.output_size_in_bytes
            - used.alias_size_in_bytes
            + used.temp_size_in_bytes
        )

    assert (bytes_of(4) - bytes_of(1)) / 3 <= mesh.sgd_trial_bytes(64, 10, 500)
