"""What a layer with a huge vocabulary predicts: probabilities of labels, its best words. Pure."""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from softmax_jax import checks
from softmax_jax.checks import as_arrays, as_optional_arrays
from softmax_jax.vocabulary import exact
from softmax_jax.vocabulary.exact import (
    Options,
    first_word,
    num_partitions,
    row_losses,
    statistics,
    varying,
)


def log_prob(
    x: ArrayLike,
    W: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    row_block: int | None = None,
    vocabulary_block: int | None = None,
) -> Float[Array, " N"]:
    """log softmax(xW + b)[label] of each row: x [N, D], W [D, V], labels [N] -> [N].

    It never holds the [N, V] logits and can be differentiated: `linear_cross_entropy` averages its
    negative.

    Raises:
      ValueError: for shapes that do not fit, and for labels outside 0..V-1, which under `jit` give
        NaN.

    >>> print(log_prob(jnp.ones((1, 2)), jnp.zeros((2, 1024)), jnp.array([7])) / jnp.log(2))
    [-10.]
    """
    options, (x, W, labels, bias) = _checked(x, W, labels, bias, row_block, vocabulary_block)
    losses = row_losses(options, x, W, bias, labels)
    return jnp.where(labels == checks.WRONG, jnp.nan, -losses)


def log_prob_and_rank(
    x: ArrayLike,
    W: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    row_block: int | None = None,
    vocabulary_block: int | None = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, " N"], Int[Array, " N"]]:
    """`log_prob`, and the number of words that beat the label: int32, as `metrics.rank`.

    A word beats the label if its logit is larger, or equal with a smaller index: at rank 0 argmax
    picks the label, and at a rank below k the label is among the `top_k`. Makes two passes over the
    tiles of the logits. axis_name: inside `shard_map`, the axis over which V is divided.

    Raises:
      ValueError: as `log_prob` does; under `jit` a wrong label makes the log-probability NaN.

    >>> x, W, labels = jnp.ones((1, 1)), jnp.array([[3.0, 9.0, 5.0, 9.0]]), jnp.array([3])
    >>> int(log_prob_and_rank(x, W, labels)[1][0])
    1
    """
    blocks = row_block, vocabulary_block
    options, (x, W, labels, bias) = _checked(x, W, labels, bias, *blocks, axis_name)
    found = statistics(options, x, W, bias, labels)
    log_p = (found.picked - found.largest) - found.log_sum
    local = labels - first_word(axis_name, W)
    rows = [exact.in_rows(options.tiles, leaf) for leaf in (x, local, found.picked)]
    ranks = lax.map(lambda rows: _ranks_of_rows(options, rows, W, bias), rows)
    ranks = exact.out_of_rows(ranks, len(x))
    ranks = lax.psum(ranks, axis_name) if axis_name else ranks
    return jnp.where(labels == checks.WRONG, jnp.nan, log_p), ranks


def top_k(
    x: ArrayLike,
    W: ArrayLike,
    k: int,
    *,
    bias: ArrayLike | None = None,
    row_block: int | None = None,
    vocabulary_block: int | None = None,
) -> tuple[Float[Array, "N k"], Int[Array, "N k"]]:
    """The k largest logits of each row, and their words: x [N, D], W [D, V] -> [N, k] and [N, k].

    They are in descending order, the lower of two words with equal logits first, as from
    `jax.lax.top_k` on all logits. One tile of the logits exists at a time, of row_block rows and
    vocabulary_block or k columns, whichever is more. A difference of logits is a difference of
    log-probabilities: `log_prob` of the first word gives those of all k.

    Raises:
      ValueError: for shapes that do not fit, and for a k outside 1..V.

    >>> logits, words = top_k(jnp.ones((1, 1)), jnp.array([[3.0, 9.0, 5.0, 9.0]]), 3)
    >>> words.tolist()
    [[1, 3, 2]]
    """
    (x, W), (bias,) = as_arrays(x, W), as_optional_arrays(bias)
    checks.check_layer(x, W, bias)
    checks.check_whole("k", k, 1, W.shape[1])
    checks.check_blocks(row_block, vocabulary_block)
    grid = exact.cut(len(x), W.shape[1], row_block, vocabulary_block)
    columns = max(k, grid.columns)
    grid = grid._replace(columns=columns, num_columns=-(-W.shape[1] // columns))
    best = lax.map(lambda rows: _best_of_rows(grid, rows, W, bias, k), exact.in_rows(grid, x))
    scores, words = (exact.out_of_rows(leaf, len(x)) for leaf in best)
    return scores, words


def _checked(x, W, labels, bias, row_block, vocabulary_block, axis_name=None):
    (x, W), (bias,) = as_arrays(x, W), as_optional_arrays(bias)
    checks.check_layer(x, W, bias)
    num_words = W.shape[1] * num_partitions(axis_name)
    labels = checks.as_words(labels, len(x), num_words)
    checks.check_blocks(row_block, vocabulary_block)
    grid = exact.cut(len(x), W.shape[1], row_block, vocabulary_block)
    return Options(grid, num_words, axis_name=axis_name), (x, W, labels, bias)


def _ranks_of_rows(options, rows, W, bias):
    """The number of words on this device that beat the label, whose logit is `own` [rows]."""
    x, labels, own = rows

    def add(count, number):
        columns = exact.columns_of(options.tiles, W, bias, number)
        place = jnp.arange(options.tiles.columns)
        label, score = (labels - columns.start)[:, None], own[:, None]
        scores = jnp.where(place == label, score, exact.logits(x, columns))
        beats = jnp.where(place < label, ~(scores < score), ~(scores <= score))  # NaN beats
        return count + (beats & (place >= columns.seen)).sum(1, dtype=jnp.int32), None

    start = varying(options, jnp.zeros(len(x), jnp.int32))
    return lax.scan(add, start, jnp.arange(options.tiles.num_columns))[0]


def _best_of_rows(grid, x, W, bias, k):
    def best_of(number):
        columns = exact.columns_of(grid, W, bias, number)
        is_new = jnp.arange(grid.columns) >= columns.seen
        scores = jnp.where(is_new, exact.logits(x, columns), -jnp.inf)
        values, places = lax.top_k(scores, k)
        return values, places + columns.start

    def merge(best, number):
        values, words = (
            jnp.concatenate(pair, axis=1) for pair in zip(best, best_of(number), strict=True)
        )
        values, places = lax.top_k(values, k)
        return (values, jnp.take_along_axis(words, places, axis=1)), None

    return lax.scan(merge, best_of(0), jnp.arange(1, grid.num_columns))[0]
