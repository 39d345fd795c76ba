"""The model, twice: from scratch, and with Flax. Both compute logits = XW + b.

A `Model` is a few pure functions. `scratch` keeps a dictionary of W and b; `concise` is one
`flax.linen.Dense` layer. With equal weights their logits are equal bit for bit, because both
multiply matrices with `product`. A sweep trains either one in the form that `augment` gives it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

_Array = Array | np.ndarray
Params = dict[str, _Array]


class Model(NamedTuple):
    """Pure functions and no state.

    Attributes:
      init: (key, num_features, num_classes, init_scale) -> params: weights from
        N(0, init_scale²), biases zero.
      apply: (params, x) -> logits [B, C], for x [B, ...], which is flattened to [B, D].
      weights: params -> (W [D, C], b [C]).
      of_weights: (W, b) -> params, the inverse of `weights`, for any D.
      squared_norm: params -> ‖W‖², without the bias.
    """

    init: Callable
    apply: Callable
    weights: Callable
    of_weights: Callable
    squared_norm: Callable


def product(x: Float[_Array, "B D"], W: Float[_Array, "D C"]) -> Float[Array, "B C"]:
    """XW: [B, D] and [D, C] -> [B, C], computed as (Wᵀ Xᵀ)ᵀ.

    The transposes fix the memory layout: the product itself is [C, B], classes first, and every
    reduction over the classes that follows (maximum, sum of exponentials) is vectorised along the
    batch, which is long, instead of along the classes, which are few. float32 means float32 on
    every backend: accelerators may not round the inputs.
    """
    return jnp.matmul(W.T, x.T, precision=lax.Precision.HIGHEST).T


def product_tensorfloat32(x: Float[_Array, "B D"], W: Float[_Array, "D C"]) -> Float[Array, "B C"]:
    """XW for which accelerators may round the inputs to 11 bits: TF32, or three bfloat16 products.

    The derivative's products have the same precision. A CPU has no such products: there it is
    `product`.
    """
    return jnp.matmul(W.T, x.T, precision=lax.Precision.HIGH).T


@jax.custom_vjp
def product_bfloat16(x: Float[_Array, "B D"], W: Float[_Array, "D C"]) -> Float[Array, "B C"]:
    """XW with the inputs rounded to bfloat16 and float32 sums, forward and backward.

    It has a custom derivative, because the default one leaves the gradient's product in float32.
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


def make_scratch(product: Callable = product, dtype: DTypeLike = jnp.float32) -> Model:
    """A dictionary of W [D, C] and b [C]; logits = XW + b."""

    def init(key, num_features, num_classes, init_scale=0.01):
        W = init_scale * jax.random.normal(key, (num_features, num_classes), dtype)
        return {"W": W, "b": jnp.zeros(num_classes, dtype)}

    def apply(params, x):
        return product(_flatten(x), params["W"]) + params["b"]

    return _of_dictionaries("W", "b", init, apply)


def make_concise(product: Callable = product, dtype: DTypeLike = jnp.float32) -> Model:
    """One `flax.linen.Dense` layer whose kernel is drawn from a normal distribution."""

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
PRECISIONS = ("float32", "tensorfloat32", "bfloat16", "float64")
_PRODUCTS: dict[str, Callable] = {
    "tensorfloat32": product_tensorfloat32,
    "bfloat16": product_bfloat16,
}


@functools.cache
def by_name(name: str, precision: str = "float32") -> Model:
    """The model of that name with its matrix products in that precision.

    In float64 the parameters are float64 too; it needs `jax_enable_x64`. tensorfloat32 is for
    accelerators: on a CPU it is float32.

    Cached, as is `augment`: compiled programs are keyed by the functions of a model, and new
    functions would be compiled again.

    Args:
      name: one of `MODELS`.
      precision: one of `PRECISIONS`.
    """
    if precision == "float32":
        return MODELS[name]
    make = {"concise": make_concise, "scratch": make_scratch}[name]
    return make(dtype=jnp.float64) if precision == "float64" else make(_PRODUCTS[precision])


@functools.cache
def augment(model: Model) -> Model:
    """The same model with one parameter, {'augmented': [W | b]}, a matrix [C, D + 1].

    The bias is the weight of a last feature that is always 1. A sweep trains its models in this
    form: with the trials stacked as [T, C, D + 1], the forward product, the gradient and the update
    all read and write the weights in memory order (which saves 10 to 15 % of a sweep of 64 on a
    CPU), and one product gives the gradients of W and b (another 3 %). With bfloat16 products, b is
    rounded too.
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


def augmented_layer(
    params: Params, x: Float[_Array, "B ..."]
) -> tuple[Float[Array, "B features"], Float[_Array, "features C"]]:
    """The matrices [B, D + 1] and [D + 1, C] whose product is an augmented model's logits.

    The first holds the features x [B, ...], flattened, and a last one that is 1.
    """
    features = jnp.pad(_flatten(x), [(0, 0), (0, 1)], constant_values=1)
    return features, params["augmented"].T


def augmented_norm(params: Params) -> Float[Array, ""]:
    """‖W‖² of an augmented model, without the bias."""
    # Zeros in place of b, not a slice without it: the gradient of a slice has to be padded.
    matrix = params["augmented"]
    is_weight = jnp.arange(matrix.shape[1]) < matrix.shape[1] - 1
    return jnp.square(jnp.where(is_weight, matrix, 0)).sum()


def _flatten(x):
    return x.reshape(x.shape[0], -1)
