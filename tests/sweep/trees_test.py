"""A tree goes into a checkpoint and comes back with every type, shape and static part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softmax_jax import model, train
from softmax_jax.job import checkpoint
from softmax_jax.sweep import chunks


@pytest.fixture(scope="module")
def state():
    return train.create_state(jax.random.key(0), model.concise, train.Hyperparameters(), 3, 2)


def leaves(tree):
    return [
        (leaf.dtype, leaf.shape, np.asarray(leaf).tobytes())
        for leaf in map(np.asarray, jax.tree.leaves(tree))
    ]


def test_a_training_state_comes_back_to_the_bit_by_way_of_a_file(state, tmp_path):
    with open(tmp_path / "1.npz", "xb") as file:
        checkpoint.write_sealed(file, checkpoint.Checkpoint(1, "", chunks.flatten(state), {}))
    again = chunks.unflatten(state, checkpoint.read_sealed(tmp_path / "1.npz").arrays)
    assert leaves(again) == leaves(state) and len(leaves(state)) > 5
    assert (again.apply_fn, again.tx) == (state.apply_fn, state.tx)


def test_the_names_are_the_paths(state):
    names = set(chunks.flatten(state))
    assert {"step", "hyperparameters/l2", "opt_state/hyperparams/learning_rate"} <= names
    assert any(name.startswith("params/") for name in names)


def test_a_restored_state_needs_no_new_program(state):
    """One type, weak or strong, that is not the same as before would be a second trace."""
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return jax.tree.map(lambda leaf: leaf + 1, state)

    uninterrupted = step(step(state))
    restored = chunks.unflatten(state, chunks.flatten(step(state)))
    assert leaves(step(restored)) == leaves(uninterrupted) and len(traces) == 1


def test_shapes_without_values_are_enough(state):
    like = jax.eval_shape(lambda: state)
    assert leaves(chunks.unflatten(like, chunks.flatten(state))) == leaves(state)


def test_random_keys_and_low_precision_survive():
    tree = {"key": jax.random.split(jax.random.key(3), 2), "low": jnp.ones(3, jnp.bfloat16)}
    arrays = chunks.flatten(tree)
    assert arrays["key"].dtype == np.uint32 and arrays["low"].dtype == jnp.bfloat16
    again = chunks.unflatten(tree, arrays)
    np.testing.assert_array_equal(
        jax.random.normal(again["key"][1]), jax.random.normal(tree["key"][1])
    )
    assert again["key"].dtype == tree["key"].dtype


def test_whatever_does_not_fit_is_named_in_one_error():
    like = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.int32), "c": np.zeros(())}
    arrays = {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.int64), "d": np.zeros(1)}
    with pytest.raises(ValueError) as error:
        chunks.unflatten(like, arrays)
    for text in (
        "a is float32[3] and should be float32[2]",
        "b is int64[2] and should be int32[2]",
        "c is missing",
        "d has no place in it",
    ):
        assert text in str(error.value)


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        chunks.flatten({"a": {"b": np.zeros(1)}, "a/b": np.zeros(1)})
