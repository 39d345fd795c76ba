"""The exact loss of a linear layer with a huge vocabulary, without its logits. Pure."""

import jax.numpy as jnp

from softmax_jax.vocabulary import checks
from softmax_jax.vocabulary.row_losses import row_losses
from softmax_jax.vocabulary.statistics import Options, num_shares
from softmax_jax.vocabulary.tiles import cut, sum_dtype


def linear_cross_entropy(
    x,
    W,
    labels,
    *,
    bias=None,
    example_weights=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    logit_softcap=None,
    row_block=None,
    vocabulary_block=None,
    axis_name=None,
):
    """Σ w · loss / Σ w, the mean cross-entropy of logits xW + b that never exist as [N, V].

    With o = xW + b, or c · tanh((xW + b) / c) for a softcap c, and log Z = log Σ exp o,

        loss = log Z - (1 - ε) o[label] - ε mean(o) + z (log Z)².

    Value and gradients are those of the full form; at any time there is one tile of the logits,
    row_block × vocabulary_block (in the backward pass, two). Asked for the value alone, it makes
    no gradients. Logits, sums and the result are float32 (float64 for such inputs); the gradients
    have the types of their arguments. Works under `jit`, `vmap` and `grad`; second derivatives are
    not supported.

    Args:
      x: features [N, D], float32 or bfloat16 (then the gradient of a logit is rounded to it).
      W, bias: weights [D, V]; biases [V] or None. A layer kept as [V, D] is passed as `W.T`.
      labels: integers [N] in 0..V-1.
      example_weights: w [N], None: ones. Where all are 0, the loss and all gradients are 0.
      ignore_index: the label of rows that do not count. What such a row holds, or one of weight 0,
        does not matter, NaN included; it gets no gradient, and neither does its weight.
      label_smoothing: ε, from 0 to below 1: the share of the label that all V words divide.
      z_loss: z, of 0 or more: keeps log Z near 0.
      logit_softcap: c above 0, or None.
      row_block, vocabulary_block: the most rows and columns of a tile. None: what suits the caches
        of a CPU, at most 8 MB of logits.
      axis_name: inside `shard_map`, the axis over which W and bias are divided by their V, while x,
        labels and weights are whole; see `sharded_linear_cross_entropy`.

    Raises:
      ValueError: shapes that do not fit, no rows, a type or an option out of its range, or a label
        outside 0..V-1 that is not the ignore index. Under `jit` labels are not known: there such a
        label makes loss and gradients NaN. `check_labels` checks them before.

    >>> x, W = jnp.ones((4, 2)), jnp.zeros((2, 1024))
    >>> print(linear_cross_entropy(x, W, jnp.array([1, 2, 3, 1023])) / jnp.log(2))  # log₂ 1024
    10.0

    Sources: LogSumExp over blocks: Milakov and Gimelshein, "Online normalizer calculation for
    softmax" (2018). No logits in memory: Wijmans et al., "Cut Your Losses in Large-Vocabulary
    Language Models" (2024). z-loss: Chowdhery et al., "PaLM" (2022). Softcap: "Gemma 2" (2024).
    """
    x, W, labels, bias, example_weights = checks.as_arrays(x, W, labels, bias, example_weights)
    checks.check_layer(x, W, bias)
    num_words = W.shape[1] * num_shares(axis_name)
    checks.check_labels(labels, len(x), num_words, ignore_index)
    checks.check_weights(example_weights, len(x))
    checks.check_blocks(row_block, vocabulary_block)
    _check_options(label_smoothing, z_loss, logit_softcap)

    weights = _weights(labels, example_weights, ignore_index, num_words, sum_dtype(x, W))
    tiles = cut(*x.shape[:1], *W.shape[1:], row_block, vocabulary_block)
    options = Options(tiles, num_words, label_smoothing, z_loss, logit_softcap, axis_name)
    counts = weights != 0  # NaN counts
    x, labels, weights = (
        jnp.where(jnp.expand_dims(counts, range(1, array.ndim)), array, 0)
        for array in (x, labels, weights)
    )
    losses = row_losses(options, x, W, bias, labels)
    total = weights.sum()
    return (weights * losses).sum() / jnp.where(total == 0, 1, total)


def _weights(labels, example_weights, ignore_index, num_words, dtype):
    """The weights of the rows that count, 0 of those to be ignored, NaN for labels not in 0..V-1.

    NaN, because a wrong label that went unnoticed would still be trained on.
    """
    weights = jnp.ones(labels.shape, dtype)
    if example_weights is not None:
        weights = example_weights.astype(dtype)
    weights = jnp.where((labels >= 0) & (labels < num_words), weights, jnp.nan)
    return weights if ignore_index is None else jnp.where(labels == ignore_index, 0, weights)


def _check_options(label_smoothing, z_loss, logit_softcap):
    checks.check_number("label_smoothing", label_smoothing, 0, 1)
    checks.check_number("z_loss", z_loss, 0)
    if logit_softcap is not None:
        checks.check_number("logit_softcap", logit_softcap, 0, low_allowed=False)
