"""A tree goes into a checkpoint and comes back with every type, shape and static part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softmax_jax import models, train
from softmax_jax.job import sealed
from softmax_jax.sweep import trees


@pytest.fixture(scope="module")
def state():
    return train.create_state(jax.random.key(0), models.concise, train.Hyperparameters(), 3, 2)


def leaves(tree):
    return [
        (leaf.dtype, leaf.shape, np.asarray(leaf).tobytes())
        for leaf in map(np.asarray, jax.tree.leaves(tree))
    ]


def test_a_training_state_comes_back_to_the_bit_by_way_of_a_file(state, tmp_path):
    with open(tmp_path / "1.npz", "xb") as file:
        sealed.write(file, sealed.Checkpoint(1, "", trees.flatten(state), {}))
    again = trees.unflatten(state, sealed.read(tmp_path / "1.npz").arrays)
    assert leaves(again) == leaves(state) and len(leaves(state)) > 5
    assert (again.apply_fn, again.tx, again.objective) == (
        state.apply_fn,
        state.tx,
        state.objective,
    )


def test_the_names_are_the_paths(state):
    names = set(trees.flatten(state))
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
    restored = trees.unflatten(state, trees.flatten(step(state)))
    assert leaves(step(restored)) == leaves(uninterrupted) and len(traces) == 1


def test_shapes_without_values_are_enough(state):
    like = jax.eval_shape(lambda: state)
    assert leaves(trees.unflatten(like, trees.flatten(state))) == leaves(state)


def test_random_keys_and_low_precision_survive():
    tree = {"key": jax.random.split(jax.random.key(3), 2), "low": jnp.ones(3, jnp.bfloat16)}
    arrays = trees.flatten(tree)
    assert arrays["key"].dtype == np.uint32 and arrays["low"].dtype == jnp.bfloat16
    again = trees.unflatten(tree, arrays)
    np.testing.assert_array_equal(
        jax.random.normal(again["key"][1]), jax.random.normal(tree["key"][1])
    )
    assert again["key"].dtype == tree["key"].dtype


def test_whatever_does_not_fit_is_named_in_one_error():
    like = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.int32), "c": np.zeros(())}
    arrays = {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.int64), "d": np.zeros(1)}
    with pytest.raises(ValueError) as error:
        trees.unflatten(like, arrays)
    for text in (
        "a is float32[3] and should be float32[2]",
        "b is int64[2] and should be int32[2]",
        "c is missing",
        "d has no place in it",
    ):
        assert text in str(error.value)


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        trees.flatten({"a": {"b": np.zeros(1)}, "a/b": np.zeros(1)})
