"""How far one softmax over a huge vocabulary is from another, exactly. Pure."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax.vocabulary import checks, tiles


class Layer(NamedTuple):
    """A linear layer and its inputs: logits = xW + b, with x [N, D], W [D, V], bias [V] or None."""

    x: Any
    W: Any
    bias: Any = None


def kl_divergence(true: Layer, model: Layer, *, row_block=None):
    """KL(p ‖ q) = Σ p (log p - log q) of each row, in nats: [N].

    p is the softmax of the true layer and q that of the model's; their D may differ. Holds
    [row_block, V] logits of each at a time (None: about 8 MB of them), makes each product once.

    Raises ValueError for shapes that do not fit.

    >>> one = Layer(jnp.ones((1, 1)), jnp.array([[50.0, 0.0]]))
    >>> coin = Layer(jnp.ones((1, 1)), jnp.zeros((1, 2)))
    >>> print(kl_divergence(one, coin) / jnp.log(2))  # a bit
    [1.]
    """
    true, model = (Layer(*checks.as_arrays(*layer)) for layer in (true, model))
    for layer in (true, model):
        checks.check_layer(*layer)
    sizes = [(len(layer.x), layer.W.shape[1]) for layer in (true, model)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"Both layers must have the same N and V; they have {sizes}.")
    checks.check_blocks(row_block, None)
    grid = tiles.cut(*sizes[0], row_block or max(1, 2**21 // sizes[0][1]), sizes[0][1])

    def of_rows(x):
        true_log, model_log = (
            jax.nn.log_softmax(tiles.logits(rows, tiles.columns_of(grid, layer.W, layer.bias, 0)))
            for rows, layer in zip(x, (true, model), strict=True)
        )
        return (jnp.exp(true_log) * (true_log - model_log)).sum(1)

    rows = [tiles.in_rows(grid, layer.x) for layer in (true, model)]
    return tiles.out_of_rows(lax.map(of_rows, rows), len(true.x))
