import jax
import jax.numpy as jnp
import pytest

from softmax_jax.vocabulary import (
    OBJECTIVES,
    linear_cross_entropy,
    log_uniform,
    noise_contrastive,
    objective,
)

X, W, LABELS = jnp.ones((3, 2)), jnp.arange(20.0).reshape(2, 10) / 10, jnp.array([0, 4, 9])
KEY = jax.random.key(0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_the_same_arguments(name):
    more = {"bias": jnp.ones(10), "example_weights": jnp.array([1.0, 0.0, 2.0])}
    value, gradient = jax.value_and_grad(objective(name, 10, 4), 2)(KEY, X, W, LABELS, **more)
    assert value.shape == () and value > 0 and gradient.shape == W.shape
    assert jnp.isfinite(gradient).all() and (gradient != 0).any()


def test_exact_is_the_exact_loss_and_sampled_ones_draw_log_uniformly():
    assert objective("cross_entropy", 10)(None, X, W, LABELS) == linear_cross_entropy(X, W, LABELS)
    proposal = log_uniform(10)
    expected = noise_contrastive(X, W, LABELS, proposal.draw(KEY, 5), proposal)
    assert objective("noise_contrastive", 10, 5)(KEY, X, W, LABELS) == expected


def test_equal_arguments_give_the_same_function():
    assert objective("sampled_softmax", 10, 4) is objective("sampled_softmax", 10, 4)
    assert objective("sampled_softmax", 10, 4) is not objective("sampled_softmax", 10, 5)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("softmax", 10, 4), "no objective 'softmax'; there are"),
        (("sampled_softmax", 10), "num_samples must be a whole number of at least 1; it is None"),
        (("noise_contrastive", 10, 0), "num_samples"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        objective(*arguments)
