import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import losses, train

N, C = 6, 4
EACH_LOSS = pytest.mark.parametrize("name", losses.FROM_LOGITS)


def example():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N, C), scale=2).astype(np.float32)
    return jnp.asarray(logits), jnp.asarray(rng.integers(C, size=N), jnp.int32)


@EACH_LOSS
@pytest.mark.parametrize("amount", [0.0, 0.1, 0.9])
def test_smoothing_is_that_of_optax_in_value_and_gradient(name, amount):
    logits, labels = example()

    @jax.value_and_grad
    def ours(logits):
        return losses.smoothed(losses.FROM_LOGITS[name], amount)(logits, labels).sum()

    @jax.value_and_grad
    def by_optax(logits):
        targets = optax.smooth_labels(jax.nn.one_hot(labels, C), amount)
        return optax.softmax_cross_entropy(logits, targets).sum()

    (value, gradient), (expected, slope) = ours(logits), by_optax(logits)
    assert value == pytest.approx(float(expected), rel=1e-5)
    assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)


def test_the_classes_may_lie_first():
    logits, labels = example()
    smoothed = losses.smoothed(losses.cross_entropy, 0.3)
    assert_allclose(smoothed(logits.T, labels, axis=0), smoothed(logits, labels), rtol=1e-6)


def test_the_smoothed_loss_is_smallest_where_the_softmax_is_the_smoothed_label():
    """At probabilities 1 - s + s/C and s/C, and not where they are 1 and 0."""
    amount, label = 0.2, jnp.array([1])
    target = np.full((1, C), amount / C)
    target[0, 1] += 1 - amount
    slope = jax.grad(lambda o: losses.smoothed(losses.cross_entropy, amount)(o, label).sum())
    assert_allclose(slope(jnp.log(jnp.asarray(target))), np.zeros((1, C)), atol=1e-6)
    assert abs(slope(100 * jnp.asarray(target))).max() > 0.01


STEPS = 20


@functools.cache
def iterates():
    return np.random.default_rng(1).normal(size=(STEPS, 3)).astype(np.float32)


@jax.jit
def means(share):
    """The mean after every step, begun with something that must leave no trace."""

    def step(mean, now):
        number, params = now
        mean = train.tail_mean(mean, {"W": params}, number, STEPS, share)
        return mean, mean["W"]

    numbers = jnp.arange(1, STEPS + 1)
    return jax.lax.scan(step, {"W": jnp.full(3, 1e6)}, (numbers, jnp.asarray(iterates())))[1]


@pytest.mark.parametrize("share, averaged", [(1.0, 20), (0.5, 10), (0.1, 2), (0.05, 1), (0.0, 1)])
def test_the_mean_is_that_of_the_last_iterates(share, averaged):
    expected = iterates()[-averaged:].astype(np.float64).mean(0)
    assert_allclose(means(share)[-1], expected, rtol=1e-5, atol=1e-6)


def test_before_its_share_begins_the_mean_is_the_last_iterate():
    """Bit for bit, and the first one of the share too."""
    assert_array_equal(means(0.25)[:16], iterates()[:16])
    assert_array_equal(means(0.0), iterates())
    assert_allclose(means(0.25)[16], iterates()[15:17].mean(0), rtol=1e-6)


def test_what_is_held_stays_as_it_was():
    old = {"W": jnp.ones((2, 3)), "step": jnp.array([4, 4])}
    new = {"W": jnp.full((2, 3), jnp.nan), "step": jnp.array([5, 5])}
    kept = jax.vmap(train.freeze)(jnp.array([True, False]), old, new)
    assert_array_equal(kept["step"], [4, 5])
    assert_array_equal(kept["W"][0], np.ones(3))
    assert np.isnan(kept["W"][1]).all()
