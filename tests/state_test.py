import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from softmax_jax import model
from softmax_jax.train import Hyperparameters, create_state

D, C = 5, 3
CURES = {"warmup": 0.1, "final_rate": 0.1, "averaging": 0.5, "patience": 2, "label_smoothing": 0.1}


def fresh(num_steps=10, **hyperparameters):
    h = Hyperparameters(**hyperparameters)
    return create_state(jax.random.key(0), model.scratch, h, D, C, num_steps=num_steps)


def test_weights_are_normal_of_the_initial_scale_and_biases_zero():
    h = Hyperparameters(init_scale=0.3)
    state = create_state(jax.random.key(1), model.scratch, h, 2000, 10)
    assert np.std(state.params["W"]) == pytest.approx(0.3, rel=0.02)
    assert abs(np.mean(state.params["W"])) < 0.01
    assert_array_equal(state.params["b"], np.zeros(10))


def test_what_no_hyperparameter_needs_is_not_there():
    """So that without cures nothing more is kept, read and written than weights and momentum."""
    plain = fresh(num_steps=None)
    assert plain.num_steps is plain.average is plain.stopped is None
    assert [getattr(plain.hyperparameters, name) for name in CURES] == [None] * 5
    assert fresh(averaging=0.5).average is not None and fresh(averaging=0.5).stopped is None
    assert fresh(patience=3).stopped is not None and fresh(patience=3).num_steps is None


def test_the_parameters_that_count_are_the_average_where_there_is_one():
    assert_array_equal(fresh().averaged["W"], fresh().params["W"])
    state = fresh(averaging=0.5)
    assert_array_equal(state.averaged["W"], state.params["W"])
    moved = state.replace(average=jax.tree.map(jnp.zeros_like, state.average))
    assert_array_equal(moved.averaged["W"], np.zeros((D, C)))


def test_a_state_with_every_cure_has_strong_types():
    state = jax.jit(lambda: fresh(**CURES))()
    assert state.num_steps == 10 and state.num_steps.dtype == jnp.float32
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", ["warmup", "final_rate", "averaging"])
def test_what_goes_by_the_length_of_training_needs_it(name):
    with pytest.raises(ValueError, match="shares of num_steps"):
        fresh(num_steps=None, **{name: 0.5})
