"""The model, twice: from scratch, and with Flax. Both compute logits = XW + b.

A `Model` is a few pure functions. `scratch` keeps a dictionary of W and b, `concise` is one
`flax.linen.Dense` layer; with equal weights their logits are equal bit for bit, because both make
their matrix product with `product`. A sweep trains either in the form that `augment` gives it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


class Model(NamedTuple):
    """Pure functions and no state.

    init(key, num_features, num_classes, init_scale) -> params: weights from
        N(0, init_scale²), biases zero.
    apply(params, x) -> logits [B, C], for x [B, ...], which is flattened to [B, D].
    weights(params) -> (W [D, C], b [C]), and of_weights(W, b) -> params, its inverse, for any D.
    squared_norm(params) -> ‖W‖²; the bias does not count.
    """

    init: Callable
    apply: Callable
    weights: Callable
    of_weights: Callable
    squared_norm: Callable


def product(x, W):
    """XW: [B, D] and [D, C] -> [B, C], computed as (Wᵀ Xᵀ)ᵀ.

    The detour fixes the memory layout: the product itself is [C, B], classes first, and all that
    follows (maximum, sum, exponentials over the classes) runs along the batch, which is long,
    instead of along the classes, which are few. float32 means float32 on every backend: an
    accelerator is not left to round the inputs.
    """
    return jnp.matmul(W.T, x.T, precision=lax.Precision.HIGHEST).T


@jax.custom_vjp
def product_bfloat16(x, W):
    """XW with the inputs rounded to bfloat16 and float32 sums, forward and backward.

    A derivative of its own, because the default one would leave the gradient's product in float32.
    """
    return _rounded_matmul(W.T, x.T).T


def _rounded_matmul(a, b):
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _forward(x, W):
    return product_bfloat16(x, W), (x, W)


def _backward(inputs, gradient):
    x, W = inputs
    return _rounded_matmul(gradient, W.T), _rounded_matmul(gradient.T, x).T


product_bfloat16.defvjp(_forward, _backward)


def make_scratch(product=product, dtype=jnp.float32) -> Model:
    """A dictionary of W [D, C] and b [C]; logits = XW + b."""

    def init(key, num_features, num_classes, init_scale=0.01):
        W = init_scale * jax.random.normal(key, (num_features, num_classes), dtype)
        return {"W": W, "b": jnp.zeros(num_classes, dtype)}

    def apply(params, x):
        return product(_flatten(x), params["W"]) + params["b"]

    return _of_dictionaries("W", "b", init, apply)


def make_concise(product=product, dtype=jnp.float32) -> Model:
    """`flax.linen.Dense` with a normal kernel."""

    def dense(num_classes, init_scale=0.01):
        return nn.Dense(
            num_classes,
            param_dtype=dtype,
            kernel_init=nn.initializers.normal(init_scale),
            dot_general=lambda x, kernel, *_, **__: product(x, kernel),
        )

    def init(key, num_features, num_classes, init_scale=0.01):
        return dense(num_classes, init_scale).init(key, jnp.zeros((1, num_features), dtype))[
            "params"
        ]

    def apply(params, x):
        num_classes = params["bias"].shape[-1]
        return dense(num_classes).apply({"params": params}, _flatten(x))

    return _of_dictionaries("kernel", "bias", init, apply)


def _of_dictionaries(W, b, init, apply):
    """The model whose parameters are a dictionary with these two names."""

    def weights(params):
        return params[W], params[b]

    def of_weights(*values):
        return dict(zip((W, b), values, strict=True))

    def squared_norm(params):
        return jnp.square(params[W]).sum()

    return Model(init, apply, weights, of_weights, squared_norm)


scratch = make_scratch()
concise = make_concise()

# What `config.model` and `config.precision` may name.
MODELS = {"concise": concise, "scratch": scratch}
PRECISIONS = ("float32", "bfloat16", "float64")


@functools.cache
def by_name(name, precision="float32") -> Model:
    """The model of that name with its matrix products in that precision.

    float64 is that of its parameters too, and needs `jax_enable_x64`.

    Cached, as is `augmented`: the functions of a model are part of what a compiled program is
    keyed by, and new ones would compile anew.
    """
    if precision == "float32":
        return MODELS[name]
    make = {"concise": make_concise, "scratch": make_scratch}[name]
    return make(product_bfloat16) if precision == "bfloat16" else make(dtype=jnp.float64)


@functools.cache
def augment(model):
    """The same model with one parameter, {'augmented': [W | b]}, a matrix [C, D + 1].

    The bias is the weight of a last feature that is always 1. A sweep trains its models in this
    form: with the trials stacked as [T, C, D + 1], the forward product, the gradient and the update
    all read and write the weights in the order in which they lie in memory (measured on a CPU: 10
    to 15 % of a sweep of 64), and the product that makes the gradient of W makes that of b (another
    3 %). In bfloat16 products this rounds b, too.
    """

    def init(key, num_features, num_classes, init_scale=0.01):
        return of_weights(*model.weights(model.init(key, num_features, num_classes, init_scale)))

    def apply(params, x):
        x, W = augmented_layer(params, x)
        return model.apply(model.of_weights(W, jnp.zeros(W.shape[1], W.dtype)), x)

    def weights(params):
        matrix = params["augmented"]
        return matrix[:, :-1].T, matrix[:, -1]

    def of_weights(W, b):
        return {"augmented": jnp.concatenate([W.T, b[:, None]], axis=1)}

    return Model(init, apply, weights, of_weights, augmented_norm)


def augmented_layer(params, x):
    """(features [B, D + 1], weights [D + 1, C]) whose product are the logits of an augmented model.

    The features are x [B, ...], flattened, and a last one that is 1.
    """
    features = jnp.pad(_flatten(x), [(0, 0), (0, 1)], constant_values=1)
    return features, params["augmented"].T


def augmented_norm(params):
    """‖W‖² of an augmented model; the bias does not count."""
    # Zeros in place of b, not a slice without it: the gradient of a slice has to be padded.
    matrix = params["augmented"]
    is_weight = jnp.arange(matrix.shape[1]) < matrix.shape[1] - 1
    return jnp.square(jnp.where(is_weight, matrix, 0)).sum()


def _flatten(x):
    return x.reshape(x.shape[0], -1)
