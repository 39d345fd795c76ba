"""One pass over the logits of a linear layer that leaves four numbers per row. Pure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax.vocabulary import tiles as tiling
from softmax_jax.vocabulary.tiles import Tiles


class Options(NamedTuple):
    """What is known when the program is compiled. axis_name: the mesh axis that divides V.

    vocabulary_size: V, over all devices; tiles: of one device's share.
    """

    tiles: Tiles
    vocabulary_size: int
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    axis_name: str | None = None


class Statistics(NamedTuple):
    """Of each row [N] of logits o: m = max o, Σ exp(o - m), o[label], and Σ o where it is used."""

    largest: jax.Array
    exponentials: jax.Array
    picked: jax.Array
    total: jax.Array


def statistics(options: Options, x, W, bias, labels) -> Statistics:
    """The statistics of the logits of x [N, D], W [D, V] and bias [V] or None, labels [N]."""
    local = labels - first_word(options.axis_name, W)
    rows = tiling.in_rows(options.tiles, x), tiling.in_rows(options.tiles, local)
    found = lax.map(lambda rows: _of_rows(options, *rows, W, bias), rows)
    found = jax.tree.map(lambda leaf: tiling.out_of_rows(leaf, len(x)), found)
    return _over_axis(options, found) if options.axis_name else found


def num_shares(axis_name):
    """Into how many shares the mesh axis divides V; None: one."""
    return lax.axis_size(axis_name) if axis_name else 1


def first_word(axis_name, W):
    """The word of the first column that this device holds."""
    return lax.axis_index(axis_name) * W.shape[1] if axis_name else 0


def varying(options, tree):
    """The same arrays, free to become different on the devices of the axis."""
    if not options.axis_name:
        return tree
    return jax.tree.map(lambda leaf: lax.pcast(leaf, options.axis_name, to="varying"), tree)


def _of_rows(options, x, labels, W, bias):
    def add(found, k):
        columns = tiling.columns_of(options.tiles, W, bias, k)
        scores = tiling.logits(x, columns, options.softcap)
        return _add(options, found, scores, labels - columns.start, columns.seen), None

    dtype = tiling.sum_dtype(x, W)
    zeros = jnp.zeros(len(x), dtype)
    # Not -inf: after a tile that is -inf throughout, -inf - -inf would be NaN.
    start = Statistics(jnp.full(len(x), jnp.finfo(dtype).min), zeros, zeros, zeros)
    return lax.scan(add, varying(options, start), jnp.arange(options.tiles.num_columns))[0]


def _add(options, found, scores, index, seen):
    """The statistics with those of one more tile; index [rows]: the label's column in it."""
    columns = scores.shape[1]
    picked = jnp.take_along_axis(scores, index[:, None], 1, mode="clip").squeeze(1)
    is_here = (index >= 0) & (index < columns)
    is_new = jnp.arange(columns) >= seen
    total = jnp.where(is_new, scores, 0).sum(1) if options.label_smoothing else 0
    scores = jnp.where(is_new, scores, -jnp.inf)
    largest = jnp.maximum(found.largest, scores.max(1))
    terms = jnp.exp(scores - largest[:, None]).sum(1)
    return Statistics(
        largest,
        found.exponentials * jnp.exp(found.largest - largest) + terms,
        jnp.where(is_here, picked, found.picked),
        found.total + total,
    )


def _over_axis(options, found):
    """One statistic per row out of the devices' own: the only words that they exchange."""
    largest = lax.pmax(found.largest, options.axis_name)
    exponentials = found.exponentials * jnp.exp(found.largest - largest)
    sums = exponentials, found.picked, found.total
    return Statistics(largest, *lax.psum(sums, options.axis_name))
