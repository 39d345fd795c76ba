"""How the [N, V] logits of a linear layer are cut into tiles that caches hold. Pure."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

# A tile of 2048 × 1024 float32 logits is 8 MB. Measured on 2 CPU cores: a quarter or four times as
# many make the loss slower by less than 10 %.
_ROWS, _COLUMNS, _LOGITS = 2048, 1024, 2**20


class Tiles(NamedTuple):
    """A grid of `num_rows` × `num_columns` tiles, each of `rows` × `columns` logits.

    Rows beyond N are padding. The last tile of a row of tiles begins so early that it ends at V.
    """

    rows: int
    num_rows: int
    columns: int
    num_columns: int


class Columns(NamedTuple):
    """A few columns of the layer: W [D, columns], bias [columns] or None, and the first one's word.

    seen: how many of them belong to the tile before, too.
    """

    W: Any
    bias: Any
    start: Any
    seen: Any


def cut(num_rows, num_columns, row_block=None, vocabulary_block=None) -> Tiles:
    """Tiles of at most row_block × vocabulary_block logits, as even as can be.

    >>> cut(5, 10, row_block=4, vocabulary_block=4)
    Tiles(rows=3, num_rows=2, columns=4, num_columns=3)
    """
    rows, row_count = _even(num_rows, row_block or _ROWS)
    columns, column_count = _even(num_columns, vocabulary_block or max(_COLUMNS, _LOGITS // rows))
    return Tiles(rows, row_count, columns, column_count)


def _even(length, largest):
    count = -(-length // largest)
    return -(-length // count), count


def in_rows(tiles: Tiles, leaf):
    """[N, ...] -> [num_rows, rows, ...], padded with zeros."""
    missing = tiles.rows * tiles.num_rows - leaf.shape[0]
    padded = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
    return padded.reshape(tiles.num_rows, tiles.rows, *leaf.shape[1:])


def out_of_rows(leaf, num_rows):
    """`in_rows` undone: [num_rows, rows, ...] -> [N, ...]."""
    return leaf.reshape(-1, *leaf.shape[2:])[:num_rows]


def columns_of(tiles: Tiles, W, bias, k) -> Columns:
    """The columns of the k-th tile of a row of tiles."""
    wanted = k * tiles.columns
    start = jnp.minimum(wanted, W.shape[1] - tiles.columns)

    def part(leaf):
        return lax.dynamic_slice_in_dim(leaf, start, tiles.columns, axis=-1)

    return Columns(part(W), None if bias is None else part(bias), start, wanted - start)


def logits(x, columns: Columns, softcap=None):
    """o = xW + b, or softcap · tanh(o / softcap): [rows, columns]."""
    scores = product(x, columns.W)
    if columns.bias is not None:
        scores = scores + columns.bias
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def product(a, b):
    """ab with sums of float32, or wider; float32 means float32 on every backend."""
    dtype = sum_dtype(a, b)
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=dtype)


def sum_dtype(x, W):
    """What logits and sums are kept in: float32, or wider if the inputs are."""
    return jnp.promote_types(jnp.promote_types(x.dtype, W.dtype), jnp.float32)
