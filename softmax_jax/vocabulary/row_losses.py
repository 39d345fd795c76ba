"""The cross-entropy of each row, differentiable, without the [N, V] logits. Pure."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax.vocabulary import tiles as tiling
from softmax_jax.vocabulary.statistics import Options, first_word, statistics, varying


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def row_losses(options: Options, x, W, bias, labels):
    """log Z - (1 - ε) o[label] - ε mean(o) + z (log Z)², with log Z = LogSumExp(o): [N].

    x [N, D], W [D, V], bias [V] or None, labels [N] in 0..V-1. On a mesh W and bias are this
    device's share, and labels count over all of V.

    The logits are made twice: for the loss, and in the backward pass, tile by tile, each tile
    being turned into its share of the gradients while a cache holds it. That is a fourth product
    where the full form has three, and nothing is written to memory and read back for it.
    """
    return _forward(options, x, W, bias, labels)[0]


def _forward(options, x, W, bias, labels):
    found = statistics(options, x, W, bias, labels)
    log_sum, smoothing = jnp.log(found.exponentials), options.label_smoothing
    # The small differences first: LogSumExp alone has the rounding error of the largest logit.
    losses = log_sum + (1 - smoothing) * (found.largest - found.picked)
    if smoothing:
        losses += smoothing * (found.largest - found.total / options.vocabulary_size)
    if options.z_loss:
        losses += options.z_loss * (found.largest + log_sum) ** 2
    return losses, (x, W, bias, labels, found.largest, found.exponentials)


class _Rows(NamedTuple):
    """A block of rows: the gradient of its tile of logits is scale · exp(o - largest) - slope · y,
    where y is the smoothed label.
    """

    x: jax.Array
    labels: jax.Array
    largest: jax.Array
    scale: jax.Array
    slope: jax.Array


def _backward(options, residuals, cotangents):
    x, W, bias, labels, largest, exponentials = residuals
    scale = cotangents / exponentials
    if options.z_loss:
        scale *= 1 + 2 * options.z_loss * (largest + jnp.log(exponentials))
    rows = _Rows(x, labels - first_word(options.axis_name, W), largest, scale, cotangents)
    rows = jax.tree.map(lambda leaf: tiling.in_rows(options.tiles, leaf), rows)

    def of_columns(carry, k):
        dx, layer = carry
        columns = tiling.columns_of(options.tiles, W, bias, k)
        dx, parts = _of_columns(options, columns, rows, dx)

        def put(whole, part):
            part = part.astype(whole.dtype)
            return lax.dynamic_update_slice_in_dim(whole, part, columns.start, axis=-1)

        return (dx, jax.tree.map(put, layer, parts)), None

    dx = jnp.zeros(rows.x.shape, tiling.sum_dtype(x, W))
    layer = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (W, bias))
    start = varying(options, (dx, layer))
    (dx, (dW, db)), _ = lax.scan(of_columns, start, jnp.arange(options.tiles.num_columns))
    if options.axis_name:
        dx = lax.psum(dx, options.axis_name)
    return tiling.out_of_rows(dx, len(x)).astype(x.dtype), dW, db, None


def _of_columns(options, columns, rows, dx):
    """A column of tiles: (dx with its share added, (dW [D, columns], db [columns] or None)).

    Columns that the tile before has, too, get the same gradients once more, and add nothing to dx.
    """
    new = jnp.arange(columns.W.shape[1]) >= columns.seen
    adding_W = jnp.where(new, columns.W, 0)

    def of_rows(sums, rows_dx):
        rows, dx = rows_dx
        gradient = _logit_gradient(options, columns, rows)
        dW, db = sums
        db = None if db is None else db + gradient.sum(0)
        gradient = gradient.astype(jnp.promote_types(rows.x.dtype, columns.W.dtype))
        dW = dW + tiling.product(rows.x.T, gradient)
        return (dW, db), dx + tiling.product(gradient, adding_W.T)

    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dx.dtype), (columns.W, columns.bias))
    parts, dx = lax.scan(of_rows, varying(options, sums), (rows, dx))
    return dx, parts


def _logit_gradient(options, columns, rows: _Rows):
    scores = tiling.logits(rows.x, columns, options.softcap)
    is_label = jnp.arange(scores.shape[1]) == (rows.labels - columns.start)[:, None]
    share = options.label_smoothing / options.vocabulary_size
    target = (1 - options.label_smoothing) * is_label + share
    gradient = rows.scale[:, None] * jnp.exp(scores - rows.largest[:, None])
    gradient = gradient - rows.slope[:, None] * target
    if options.softcap is not None:
        gradient *= 1 - (scores / options.softcap) ** 2
    return gradient


row_losses.defvjp(_forward, _backward)
