"""The exact loss and the predictions of a linear layer with a huge vocabulary. Pure.

Its [N, V] logits are never held: they are computed tile by tile, twice. The forward pass leaves
four numbers per row, and the backward pass turns each tile into its contribution to the gradients
while a cache holds it. Then the vocabulary is divided over the devices of a mesh; and the last part
is what such a layer predicts: probabilities of labels, its best words.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Num

from softmax_jax import checks
from softmax_jax.checks import as_arrays, as_optional_arrays

# A tile of 2048 × 1024 float32 logits is 8 MB. Measured on 2 CPU cores: tiles of a quarter or four
# times this size slow the loss by less than 10 %.
_ROWS, _COLUMNS, _LOGITS = 2048, 1024, 2**20


class Tiles(NamedTuple):
    """A grid of `num_rows` × `num_columns` tiles, each of `rows` × `columns` logits.

    Rows beyond N are padding. The last tile of columns starts early enough to end at V.
    """

    rows: int
    num_rows: int
    columns: int
    num_columns: int


class Columns(NamedTuple):
    """The columns of one tile: W [D, columns], bias [columns] or None, and the first one's word.

    seen: how many of them belong to the previous tile, too.
    """

    W: Float[Array, "D columns"]
    bias: Num[Array, " columns"] | None
    start: Int[Array, ""]
    seen: Int[Array, ""]


def cut(
    num_rows: int,
    num_columns: int,
    row_block: int | None = None,
    vocabulary_block: int | None = None,
) -> Tiles:
    """Tiles of at most row_block × vocabulary_block logits, as even as possible.

    >>> cut(5, 10, row_block=4, vocabulary_block=4)
    Tiles(rows=3, num_rows=2, columns=4, num_columns=3)
    """
    rows, row_count = _even(num_rows, row_block or _ROWS)
    columns, column_count = _even(num_columns, vocabulary_block or max(_COLUMNS, _LOGITS // rows))
    return Tiles(rows, row_count, columns, column_count)


def _even(length, largest):
    count = -(-length // largest)
    return -(-length // count), count


def in_rows(tiles: Tiles, leaf: Num[Array, "N ..."]) -> Num[Array, "num_rows rows ..."]:
    """Cuts the rows into tiles, padded with zeros."""
    missing = tiles.rows * tiles.num_rows - leaf.shape[0]
    padded = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
    return padded.reshape(tiles.num_rows, tiles.rows, *leaf.shape[1:])


def out_of_rows(leaf: Num[Array, "num_rows rows ..."], num_rows: int) -> Num[Array, "N ..."]:
    """The inverse of `in_rows`: the first `num_rows` rows without the padding."""
    return leaf.reshape(-1, *leaf.shape[2:])[:num_rows]


def columns_of(
    tiles: Tiles,
    W: Float[Array, "D V"],
    bias: Num[Array, " V"] | None,
    k: Int[Array, ""] | int,
) -> Columns:
    """The columns of the k-th tile."""
    wanted = k * tiles.columns
    start = jnp.minimum(wanted, W.shape[1] - tiles.columns)

    def in_tile(leaf):
        return lax.dynamic_slice_in_dim(leaf, start, tiles.columns, axis=-1)

    return Columns(in_tile(W), None if bias is None else in_tile(bias), start, wanted - start)


def logits(
    x: Float[Array, "rows D"], columns: Columns, softcap: float | int | None = None
) -> Float[Array, "rows columns"]:
    """o = xW + b, or softcap · tanh(o / softcap)."""
    scores = product(x, columns.W)
    if columns.bias is not None:
        scores = scores + columns.bias
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def product(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """The matrix product ab, summed in float32 or wider, in full precision on every backend."""
    dtype = sum_dtype(a, b)
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=dtype)


def sum_dtype(x: Float[Array, "..."], W: Float[Array, "..."]) -> DTypeLike:
    """The type of logits and sums: float32, or wider if the inputs are."""
    return jnp.promote_types(jnp.promote_types(x.dtype, W.dtype), jnp.float32)


class Options(NamedTuple):
    """What is known when the program is compiled.

    tiles: of one device's part of the vocabulary · vocabulary_size: V, over all devices ·
    axis_name: the mesh axis that divides V.
    """

    tiles: Tiles
    vocabulary_size: int
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    axis_name: str | None = None


class Statistics(NamedTuple):
    """Of each row [N] of logits o: m = max o, Σ exp(o - m), o[label], and Σ o where it is used.

    The sum, `others`, is that without the label's term: beside exp(0) = 1 it may be far below
    rounding, and be all that the loss consists of.
    """

    largest: Float[Array, " N"]
    others: Float[Array, " N"]
    picked: Float[Array, " N"]
    total: Float[Array, " N"]

    @property
    def log_sum(self) -> Float[Array, " N"]:
        """log Σ exp(o - m), over all words."""
        return jnp.log1p(self.others + jnp.expm1(self.picked - self.largest))


def statistics(
    options: Options,
    x: Float[Array, "N D"],
    W: Float[Array, "D V"],
    bias: Float[Array, " V"] | None,
    labels: Int[Array, " N"],
) -> Statistics:
    """The statistics of every row of logits."""
    local = labels - first_word(options.axis_name, W)
    rows = in_rows(options.tiles, x), in_rows(options.tiles, local)
    found = lax.map(lambda rows: _row_statistics(options, rows, W, bias), rows)
    found = jax.tree.map(lambda leaf: out_of_rows(leaf, len(x)), found)
    return _over_axis(options, found) if options.axis_name else found


def num_partitions(axis_name: str | None) -> int:
    """The number of parts into which the mesh axis divides V; without an axis, one."""
    return lax.axis_size(axis_name) if axis_name else 1


def first_word(axis_name: str | None, W: Float[Array, "D V"]) -> Int[Array, ""] | int:
    """The word of the first column that this device holds."""
    return lax.axis_index(axis_name) * W.shape[1] if axis_name else 0


def varying(options: Options, tree: Any) -> Any:
    """The same arrays, marked as varying over the devices of the axis."""
    if not options.axis_name:
        return tree
    return jax.tree.map(lambda leaf: lax.pcast(leaf, options.axis_name, to="varying"), tree)


def _row_statistics(options, rows, W, bias):
    x, labels = rows

    def add(found, k):
        columns = columns_of(options.tiles, W, bias, k)
        scores = logits(x, columns, options.softcap)
        return _add_tile(options, found, scores, labels - columns.start, columns.seen), None

    dtype = sum_dtype(x, W)
    zeros = jnp.zeros(len(x), dtype)
    # Not -inf: after a tile that is -inf throughout, -inf - -inf would be NaN.
    start = Statistics(jnp.full(len(x), jnp.finfo(dtype).min), zeros, zeros, zeros)
    return lax.scan(add, varying(options, start), jnp.arange(options.tiles.num_columns))[0]


def _add_tile(options, found, scores, index, seen):
    """The statistics with those of one more tile; index [rows]: the label's column in it."""
    columns = scores.shape[1]
    picked = jnp.take_along_axis(scores, index[:, None], 1, mode="clip").squeeze(1)
    is_here = (index >= 0) & (index < columns)
    place = jnp.arange(columns)
    is_new = place >= seen
    total = jnp.where(is_new, scores, 0).sum(1) if options.label_smoothing else 0
    others = jnp.where(is_new & (place != index[:, None]), scores, -jnp.inf)
    largest = jnp.maximum(others.max(1), jnp.where(is_here, picked, -jnp.inf))
    largest = jnp.maximum(found.largest, largest)
    terms = jnp.exp(others - largest[:, None]).sum(1)
    return Statistics(
        largest,
        found.others * jnp.exp(found.largest - largest) + terms,
        jnp.where(is_here, picked, found.picked),
        found.total + total,
    )


def _over_axis(options, found):
    """Combines the statistics of all devices: all that the forward pass communicates."""
    largest = lax.pmax(found.largest, options.axis_name)
    others = found.others * jnp.exp(found.largest - largest)
    sums = others, found.picked, found.total
    return Statistics(largest, *lax.psum(sums, options.axis_name))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def row_losses(
    options: Options,
    x: Float[Array, "N D"],
    W: Float[Array, "D V"],
    bias: Float[Array, " V"] | None,
    labels: Int[Array, " N"],
) -> Float[Array, " N"]:
    """log Z - (1 - ε) o[label] - ε mean(o) + z (log Z)², with log Z = LogSumExp(o), of each row.

    Labels are in 0..V-1. On a mesh, W and bias are this device's part, and labels count over all of
    V.

    The logits are computed twice: for the loss, and again in the backward pass, where each tile is
    turned into its contribution to the gradients while a cache holds it. That makes four matrix
    products where the full form has three, but no logits are written to memory and read back.
    """
    return _forward(options, x, W, bias, labels)[0]


def _forward(options, x, W, bias, labels):
    found = statistics(options, x, W, bias, labels)
    log_sum, smoothing = found.log_sum, options.label_smoothing
    # Subtract the largest logit first: LogSumExp alone has the rounding error of that logit.
    losses = log_sum + (1 - smoothing) * (found.largest - found.picked)
    if smoothing:
        losses += smoothing * (found.largest - found.total / options.vocabulary_size)
    if options.z_loss:
        losses += options.z_loss * (found.largest + log_sum) ** 2
    return losses, (x, W, bias, labels, found.largest, log_sum)


class _Rows(NamedTuple):
    """A tile of rows: the gradient in its logits is scale · exp(o - largest) - slope · y.

    y is the smoothed label.
    """

    x: jax.Array
    labels: jax.Array
    largest: jax.Array
    scale: jax.Array
    slope: jax.Array


def _backward(options, residuals, cotangents):
    x, W, bias, labels, largest, log_sum = residuals
    scale = cotangents * jnp.exp(-log_sum)
    if options.z_loss:
        scale *= 1 + 2 * options.z_loss * (largest + log_sum)
    rows = _Rows(x, labels - first_word(options.axis_name, W), largest, scale, cotangents)
    rows = jax.tree.map(lambda leaf: in_rows(options.tiles, leaf), rows)

    def of_columns(carry, k):
        dx, layer = carry
        columns = columns_of(options.tiles, W, bias, k)
        dx, parts = _column_gradients(options, columns, rows, dx)

        def put(whole, part):
            part = part.astype(whole.dtype)
            return lax.dynamic_update_slice_in_dim(whole, part, columns.start, axis=-1)

        return (dx, jax.tree.map(put, layer, parts)), None

    dx = jnp.zeros(rows.x.shape, sum_dtype(x, W))
    layer = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (W, bias))
    start = varying(options, (dx, layer))
    (dx, (dW, db)), _ = lax.scan(of_columns, start, jnp.arange(options.tiles.num_columns))
    if options.axis_name:
        dx = lax.psum(dx, options.axis_name)
    return out_of_rows(dx, len(x)).astype(x.dtype), dW, db, None


def _column_gradients(options, columns, rows, dx):
    """A column of tiles: (dx plus its contribution, (dW [D, columns], db [columns] or None)).

    Columns that the previous tile has, too, get the same gradients again, and add nothing to dx.
    """
    new = jnp.arange(columns.W.shape[1]) >= columns.seen
    adding_W = jnp.where(new, columns.W, 0)

    def of_rows(sums, rows_dx):
        rows, dx = rows_dx
        gradient = _logit_gradient(options, columns, rows)
        dW, db = sums
        db = None if db is None else db + gradient.sum(0)
        gradient = gradient.astype(jnp.promote_types(rows.x.dtype, columns.W.dtype))
        dW = dW + product(rows.x.T, gradient)
        return (dW, db), dx + product(gradient, adding_W.T)

    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dx.dtype), (columns.W, columns.bias))
    parts, dx = lax.scan(of_rows, varying(options, sums), (rows, dx))
    return dx, parts


def _logit_gradient(options, columns, rows: _Rows):
    scores = logits(rows.x, columns, options.softcap)
    is_label = jnp.arange(scores.shape[1]) == (rows.labels - columns.start)[:, None]
    smoothing = options.label_smoothing
    target = (1 - smoothing) * is_label + smoothing / options.vocabulary_size
    gradient = rows.scale[:, None] * jnp.exp(scores - rows.largest[:, None])
    gradient = gradient - rows.slope[:, None] * target
    if options.softcap is not None:
        gradient *= 1 - (scores / options.softcap) ** 2
    return gradient


row_losses.defvjp(_forward, _backward)


def linear_cross_entropy(
    x: ArrayLike,
    W: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    example_weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float | int = 0.0,
    z_loss: float | int = 0.0,
    logit_softcap: float | int | None = None,
    row_block: int | None = None,
    vocabulary_block: int | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Σ w · loss / Σ w, the mean cross-entropy of logits xW + b that never exist as [N, V].

    With o = xW + b, or c · tanh((xW + b) / c) for a softcap c, and log Z = log Σ exp o,

        loss = log Z - (1 - ε) o[label] - ε mean(o) + z (log Z)².

    Value and gradients are those of the full form; at any time one tile of the logits exists,
    row_block × vocabulary_block (in the backward pass, two). No gradients are computed where only
    the value is asked for. Logits, sums and the result are float32 (float64 for float64 inputs);
    the gradients have the types of their arguments. Works under `jit`, `vmap` and `grad`; second
    derivatives are not supported.

    Args:
      x: features [N, D], float32 or bfloat16 (then the gradient of a logit is rounded to it).
      W, bias: weights [D, V]; biases [V] or None. A layer kept as [V, D] is passed as `W.T`.
      labels: integers [N] in 0..V-1.
      example_weights: w [N], None: ones. Where all are 0, the loss and all gradients are 0.
      ignore_index: the label of rows that do not count. The contents of such a row, or of one of
        weight 0, do not matter, even NaN; neither the row nor its weight gets a gradient.
      label_smoothing: ε, at least 0 and below 1: the fraction of the label's probability that is
        divided among all V words.
      z_loss: z, of 0 or more: keeps log Z near 0.
      logit_softcap: c above 0, or None.
      row_block, vocabulary_block: the most rows and columns of a tile. None: sizes that suit the
        caches of a CPU, at most 8 MB of logits.
      axis_name: inside `shard_map`, the axis over which W and bias are divided by their V, while x,
        labels and weights are whole; see `sharded_linear_cross_entropy`.

    Raises:
      ValueError: for shapes that do not fit, no rows, a wrong type, an option out of its range, or
        a label outside 0..V-1 that is not the ignore index. Under `jit` the labels are not known:
        there such a label makes loss and gradients NaN. Check them before with `check_labels`.

    >>> x, W = jnp.ones((4, 2)), jnp.zeros((2, 1024))
    >>> print(linear_cross_entropy(x, W, jnp.array([1, 2, 3, 1023])) / jnp.log(2))  # log₂ 1024
    10.0

    Sources: LogSumExp over blocks: Milakov and Gimelshein, "Online normalizer calculation for
    softmax" (2018). No logits in memory: Wijmans et al., "Cut Your Losses in Large-Vocabulary
    Language Models" (2024). z-loss: Chowdhery et al., "PaLM" (2022). Softcap: "Gemma 2" (2024).
    """
    x, W = checks.as_arrays(x, W)
    bias, example_weights = checks.as_optional_arrays(bias, example_weights)
    checks.check_layer(x, W, bias)
    num_words = W.shape[1] * num_partitions(axis_name)
    labels = checks.as_words(labels, len(x), num_words, ignore_index)
    checks.check_weights(example_weights, len(x))
    checks.check_blocks(row_block, vocabulary_block)
    _check_options(label_smoothing, z_loss, logit_softcap)

    weights = _row_weights(labels, example_weights, sum_dtype(x, W))
    tiles = cut(len(x), W.shape[1], row_block, vocabulary_block)
    options = Options(tiles, num_words, label_smoothing, z_loss, logit_softcap, axis_name)
    counts = weights != 0  # NaN counts
    x, labels, weights = (
        jnp.where(jnp.expand_dims(counts, range(1, array.ndim)), array, 0)
        for array in (x, labels, weights)
    )
    losses = row_losses(options, x, W, bias, labels)
    total = weights.sum()
    return (weights * losses).sum() / jnp.where(total == 0, 1, total)


def _row_weights(labels, example_weights, dtype):
    """The weight of each row: 0 where it is ignored, NaN where its label is not in 0..V-1.

    NaN, because a wrong label that went unnoticed would still be trained on.
    """
    weights = jnp.ones(labels.shape, dtype)
    if example_weights is not None:
        weights = example_weights.astype(dtype)
    weights = jnp.where(labels == checks.WRONG, jnp.nan, weights)
    return jnp.where(labels == checks.IGNORED, 0, weights)


def _check_options(label_smoothing, z_loss, logit_softcap):
    checks.check_number("label_smoothing", label_smoothing, 0, 1, ends=(True, False))
    checks.check_number("z_loss", z_loss, 0)
    if logit_softcap is not None:
        checks.check_number("logit_softcap", logit_softcap, 0, ends=(False, True))


def sharded_linear_cross_entropy(
    mesh: Mesh | AbstractMesh,
    x: ArrayLike,
    W: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    example_weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    axis_name: str | None = None,
    **options: Any,
) -> Float[Array, ""]:
    """`linear_cross_entropy` with W [D, V] and bias [V] divided along V over an axis of a mesh.

    Each device computes the tiles of its own part of V. For the value the devices exchange a
    maximum and three sums per row; for the gradients, the sum of dx [N, D]. dW and the gradient of
    the bias stay divided as W is. x, labels and weights are whole on every device.

        mesh = jax.make_mesh((8,), ("vocabulary",), axis_types=(AxisType.Auto,))
        W = jax.device_put(W, NamedSharding(mesh, PartitionSpec(None, "vocabulary")))
        loss = functools.partial(sharded_linear_cross_entropy, mesh)
        jax.jit(jax.value_and_grad(loss, (0, 1)))(x, W, labels)

    Args:
      mesh: the devices.
      x, W, labels, bias, example_weights, ignore_index, options: as in `linear_cross_entropy`.
      axis_name: the axis that divides V; None: the only one. Over the other axes the compiler
        divides the computation.

    Raises:
      ValueError: as `linear_cross_entropy` does, for an axis that the mesh does not have, and for a
        V that is not a multiple of the number of devices: pad W with zeros and the bias with -inf
        (not with label smoothing).
    """
    if axis_name is None and len(mesh.axis_names) == 1:
        (axis_name,) = mesh.axis_names
    if axis_name is None or axis_name not in mesh.axis_names:
        raise ValueError(f"axis_name must be one of {mesh.axis_names}; it is {axis_name!r}.")
    x, W = checks.as_arrays(x, W)
    bias, example_weights = checks.as_optional_arrays(bias, example_weights)
    checks.check_layer(x, W, None)
    devices = mesh.shape[axis_name]
    if W.shape[1] % devices:
        raise ValueError(f"V must be a multiple of the {devices} devices; it is {W.shape[1]}.")
    labels = checks.as_words(labels, len(x), W.shape[1], ignore_index)
    options |= {"ignore_index": checks.IGNORED, "axis_name": axis_name}

    def on_device(W, bias, x, labels, weights):
        return linear_cross_entropy(x, W, labels, bias=bias, example_weights=weights, **options)

    divided = over_vocabulary(on_device, mesh, axis_name)
    return divided(W, bias, x, labels, example_weights)


def over_vocabulary(function: Callable, mesh: Mesh | AbstractMesh, axis_name: str) -> Callable:
    """function(W, bias, *arrays) with W [D, V] and bias [V] or None divided over an axis of a mesh.

    The function gets a device's part of W and bias and whole arrays, and must return whole arrays.
    """
    whole, last = PartitionSpec(), PartitionSpec(axis_name)

    def on_devices(W, bias, *arrays):
        layer = PartitionSpec(None, axis_name), last
        run = jax.shard_map(
            function,
            mesh=mesh,
            axis_names={axis_name},
            in_specs=(*layer, *[whole] * len(arrays)),
            out_specs=whole,
        )
        return run(W, bias, *arrays)

    return on_devices


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
    rows = [in_rows(options.tiles, leaf) for leaf in (x, local, found.picked)]
    ranks = lax.map(lambda rows: _ranks_of_rows(options, rows, W, bias), rows)
    ranks = out_of_rows(ranks, len(x))
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
    grid = cut(len(x), W.shape[1], row_block, vocabulary_block)
    columns = max(k, grid.columns)
    grid = grid._replace(columns=columns, num_columns=-(-W.shape[1] // columns))
    best = lax.map(lambda rows: _best_of_rows(grid, rows, W, bias, k), in_rows(grid, x))
    scores, words = (out_of_rows(leaf, len(x)) for leaf in best)
    return scores, words


def _checked(x, W, labels, bias, row_block, vocabulary_block, axis_name=None):
    (x, W), (bias,) = as_arrays(x, W), as_optional_arrays(bias)
    checks.check_layer(x, W, bias)
    num_words = W.shape[1] * num_partitions(axis_name)
    labels = checks.as_words(labels, len(x), num_words)
    checks.check_blocks(row_block, vocabulary_block)
    grid = cut(len(x), W.shape[1], row_block, vocabulary_block)
    return Options(grid, num_words, axis_name=axis_name), (x, W, labels, bias)


def _ranks_of_rows(options, rows, W, bias):
    """The number of words on this device that beat the label, whose logit is `own` [rows]."""
    x, labels, own = rows

    def add(count, number):
        columns = columns_of(options.tiles, W, bias, number)
        place = jnp.arange(options.tiles.columns)
        label, score = (labels - columns.start)[:, None], own[:, None]
        scores = jnp.where(place == label, score, logits(x, columns))
        beats = jnp.where(place < label, ~(scores < score), ~(scores <= score))  # NaN beats
        return count + (beats & (place >= columns.seen)).sum(1, dtype=jnp.int32), None

    start = varying(options, jnp.zeros(len(x), jnp.int32))
    return lax.scan(add, start, jnp.arange(options.tiles.num_columns))[0]


def _best_of_rows(grid, x, W, bias, k):
    def best_of(number):
        columns = columns_of(grid, W, bias, number)
        is_new = jnp.arange(grid.columns) >= columns.seen
        scores = jnp.where(is_new, logits(x, columns), -jnp.inf)
        values, places = lax.top_k(scores, k)
        return values, places + columns.start

    def merge(best, number):
        values, words = (
            jnp.concatenate(pair, axis=1) for pair in zip(best, best_of(number), strict=True)
        )
        values, places = lax.top_k(values, k)
        return (values, jnp.take_along_axis(words, places, axis=1)), None

    return lax.scan(merge, best_of(0), jnp.arange(1, grid.num_columns))[0]
