"""The two models, their augmented form, and the precision of their products."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import train
from softmax_jax.model import (
    MODELS,
    augment,
    by_name,
    concise,
    product,
    product_tensorfloat32,
    scratch,
)

pytestmark = pytest.mark.numerical

EACH_MODEL = pytest.mark.parametrize("name", MODELS)


def weights(trials=(), seed=0, D=12, C=5):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(*trials, D, C)).astype(np.float32)
    return W, rng.normal(size=(*trials, C)).astype(np.float32)


def inputs(B=7, D=12):
    return np.random.default_rng(1).uniform(size=(B, D)).astype(np.float32)


@EACH_MODEL
def test_logits_are_xw_plus_b(name):
    model, x, (W, b) = MODELS[name], inputs(), weights()
    params = {"scratch": {"W": W, "b": b}, "concise": {"kernel": W, "bias": b}}[name]
    logits = model.apply(params, x)
    assert logits.dtype == jnp.float32
    assert_allclose(logits, x.astype(np.float64) @ W + b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transform", ["eager", "jitted", "over trials"])
def test_equal_weights_give_equal_logits_bit_for_bit(transform):
    over_trials = transform == "over trials"
    x, (W, b) = inputs(), weights(trials=(3,) if over_trials else ())

    def logits(model):
        apply = jax.vmap(model.apply, (0, None)) if over_trials else model.apply
        return (apply if transform == "eager" else jax.jit(apply))(model.of_weights(W, b), x)

    assert_array_equal(logits(scratch), logits(concise))


@EACH_MODEL
def test_initial_weights_are_normal_and_biases_zero(name):
    """20,000 draws from N(0, 0.3²): mean and deviation to five standard errors, and the tails."""
    model = MODELS[name]
    W, b = model.weights(model.init(jax.random.key(0), 2000, 10, 0.3))
    assert W.shape == (2000, 10) and W.dtype == b.dtype == jnp.float32
    assert_array_equal(b, np.zeros(10))
    assert abs(W.mean()) < 5 * 0.3 / np.sqrt(W.size)
    assert abs(W.std() - 0.3) < 5 * 0.3 / np.sqrt(2 * W.size)
    assert 0.02 < (abs(W) > 2 * 0.3).mean() < 0.07 and abs(W).max() > 3 * 0.3  # not truncated


@EACH_MODEL
def test_init_scale_is_0_01_by_default_and_may_be_traced(name):
    model, key = MODELS[name], jax.random.key(0)
    default = model.weights(model.init(key, 12, 5))[0]
    traced = jax.jit(lambda scale: model.weights(model.init(key, 12, 5, scale))[0])
    assert_allclose(traced(0.01), default, rtol=1e-6)
    assert_array_equal(traced(0.0), np.zeros((12, 5)))


@EACH_MODEL
def test_initial_weights_depend_on_the_key_alone(name):
    def W(seed):
        model = MODELS[name]
        return model.weights(model.init(jax.random.key(seed), 12, 5))[0]

    assert_array_equal(W(1), W(1))
    assert (W(1) != W(2)).all()


@EACH_MODEL
def test_images_are_flattened_row_by_row(name):
    model, x = MODELS[name], inputs()
    params = model.init(jax.random.key(0), 12, 5, 1.0)
    assert_array_equal(model.apply(params, x.reshape(7, 3, 4)), model.apply(params, x))


@EACH_MODEL
def test_of_weights_inverts_weights(name):
    for model in (MODELS[name], augment(MODELS[name])):
        W, b = weights()
        for actual, expected in zip(model.weights(model.of_weights(W, b)), (W, b), strict=True):
            assert_array_equal(actual, expected)


@EACH_MODEL
def test_augmented_model_has_the_same_logits_and_initial_weights_in_one_matrix(name):
    model, x, (W, b), key = MODELS[name], inputs(), weights(), jax.random.key(0)
    augmented = augment(model)
    params, own = augmented.of_weights(W, b), model.of_weights(W, b)
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(5, 13)]
    assert_allclose(augmented.apply(params, x), model.apply(own, x), rtol=1e-5, atol=1e-5)
    initial = augmented.weights(augmented.init(key, 12, 5, 1.0))
    for actual, expected in zip(initial, model.weights(model.init(key, 12, 5, 1.0)), strict=True):
        assert_array_equal(actual, expected)


@EACH_MODEL
def test_squared_norm_leaves_out_the_bias_in_value_and_gradient(name):
    W, b = weights()
    for model in (MODELS[name], augment(MODELS[name])):
        value, gradient = jax.value_and_grad(model.squared_norm)(model.of_weights(W, b))
        assert_allclose(value, np.square(W).sum(), rtol=1e-6)
        for actual, expected in zip(model.weights(gradient), (2 * W, 0 * b), strict=True):
            assert_array_equal(actual, expected)


def rounded(array):
    """What bfloat16 leaves of it, in float64."""
    return np.asarray(jnp.asarray(array, jnp.bfloat16), np.float64)


@EACH_MODEL
@pytest.mark.parametrize("form", [lambda model: model, augment], ids=["plain", "augmented"])
def test_bfloat16_rounds_the_inputs_of_products_and_nothing_else(name, form):
    """Value and gradient are the exact products of rounded matrices; sums stay in float32.

    In the augmented form the bias is an input of the product, and rounded too.
    """
    model, x, (W, b) = form(by_name(name, "bfloat16")), inputs(), weights()
    of_bias = (lambda b: b) if "augmented" not in model.of_weights(W, b) else rounded
    logits, pull = jax.vjp(lambda params: model.apply(params, x), model.of_weights(W, b))
    assert logits.dtype == jnp.float32
    assert_allclose(logits, rounded(x) @ rounded(W) + of_bias(b), rtol=1e-5, atol=1e-5)
    upstream = np.random.default_rng(2).normal(size=(7, 5)).astype(np.float32)
    gradient_W, gradient_b = model.weights(pull(jnp.asarray(upstream))[0])
    assert gradient_W.dtype == gradient_b.dtype == jnp.float32
    assert_allclose(gradient_W, rounded(x).T @ rounded(upstream), rtol=1e-5, atol=1e-5)
    assert_allclose(gradient_b, of_bias(upstream).sum(0), rtol=1e-5, atol=1e-5)


@EACH_MODEL
@pytest.mark.parametrize("precision, word", [("tensorfloat32", "HIGH"), ("float32", "HIGHEST")])
def test_every_product_of_a_step_is_lowered_in_its_precision(name, precision, word):
    """For a CPU and a GPU, forward and backward, and of the evaluation; nothing is run."""
    own = augment(by_name(name, precision))
    criterion = train.criterion_of_logits(own)
    h = train.Hyperparameters(learning_rate=0.1)
    state = train.create_state(jax.random.key(0), own, h, 6, 3)
    x, y = np.ones((4, 6), np.float32), np.zeros(4, np.int32)
    batch = train.Batch(x, y, np.ones(4, np.float32))

    def both(state, batch):
        after, _ = train.train_step(state, batch, criterion)
        return after.params, criterion.evaluate(after.averaged, batch)

    for platform in ("cpu", "cuda"):
        text = jax.jit(both).trace(state, batch).lower(lowering_platforms=(platform,)).as_text()
        lines = [line for line in text.splitlines() if "dot_general" in line]
        products = [line for line in lines if re.search(r"-> tensor<\d+x\d+xf32>", line)]
        assert len(products) == 3  # of matrices; a metric's sum by class is one with a vector
        assert all(f"precision = [{word}, {word}]" in line for line in products)


def test_tensorfloat32_is_float32_on_a_cpu_to_the_bit():
    rng = np.random.default_rng(0)
    x, W = (rng.normal(size=shape).astype(np.float32) for shape in ((64, 50), (50, 10)))
    if jax.default_backend() == "cpu":
        assert_array_equal(product_tensorfloat32(x, W), product(x, W))
    assert_allclose(product_tensorfloat32(x, W), x @ W, atol=0.05)


@EACH_MODEL
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "tensorfloat32"])
def test_initial_weights_are_float32_in_either_precision(name, precision):
    model = by_name(name, precision)
    assert {leaf.dtype.name for leaf in model.weights(model.init(jax.random.key(0), 12, 5))} == {
        "float32"
    }


@EACH_MODEL
def test_augmented_float64_model_computes_in_float64(name):
    with jax.enable_x64(True):
        model, (W, b) = augment(by_name(name, "float64")), weights()
        params = model.of_weights(*map(jnp.float64, (W, b)))
        logits = model.apply(params, jnp.float64(inputs()))
        assert logits.dtype == jnp.float64
        assert_allclose(logits, inputs().astype(np.float64) @ W.astype(np.float64) + b, rtol=1e-12)


@EACH_MODEL
def test_a_model_is_one_object_by_name_and_precision(name):
    """New functions would be a program to compile for every run."""
    assert by_name(name) is MODELS[name]
    assert by_name(name, "bfloat16") is by_name(name, "bfloat16") is not by_name(name)
    assert augment(MODELS[name]) is augment(MODELS[name])
