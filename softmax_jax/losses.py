"""Softmax and the forms of cross-entropy: pure functions, one value per example.

Every function takes the scores first, then the labels, and the axis along which the classes lie
(the last one unless told otherwise; the training step lays the classes first, because then the
compiler vectorises over the batch). Labels are integers [...] or, where a docstring says so, soft
labels [..., C]: one distribution per example.

Source: *Dive into Deep Learning*, sections "Softmax Regression" and "Concise Implementation of
Softmax Regression" (for the maximum that is subtracted, and LogSumExp).
"""

import jax
import jax.numpy as jnp


def naive_softmax(logits, axis=-1):
    """exp(o) / Σ exp(o), as the definition has it: [..., C] -> [..., C].

    In float32 an exponential overflows past 88.7, and every one is zero below -103 (on XLA's CPU,
    which flushes subnormal numbers, below -87; there the reciprocal of the sum is zero, too, once
    log Σ exp(o) passes 87.3). Before either gives NaN, the results are silently wrong, and their
    gradients are so at half the logit (43). Use `softmax`.

    >>> naive_softmax(jnp.array([0.0, jnp.log(3.0)])).round(2).tolist()
    [0.25, 0.75]
    """
    exponentials = jnp.exp(logits)
    return exponentials / exponentials.sum(axis, keepdims=True)


def softmax(logits, axis=-1):
    """exp(o - max o) / Σ exp(o - max o): [..., C] -> [..., C], for logits of any finite size.

    >>> softmax(jnp.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    return naive_softmax(logits - _constant_max(logits, axis), axis)


def log_softmax(logits, axis=-1):
    """log softmax(o) = o - m - log Σ exp(o - m), with m = max o (LogSumExp): [..., C] -> [..., C].

    Finite where `log(softmax(o))` is -inf.

    >>> log_softmax(jnp.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    shifted = logits - _constant_max(logits, axis)
    return shifted - jnp.log(jnp.exp(shifted).sum(axis, keepdims=True))


def cross_entropy_from_probabilities(probabilities, labels, axis=-1):
    """-log ŷ[label]: probabilities [..., C] and integer labels [...] -> [...].

    Indexing instead of the sum of the definition: the other C - 1 terms are zero.

    >>> p = jnp.array([[0.25, 0.75]])
    >>> print(cross_entropy_from_probabilities(p, jnp.array([1])).round(4))
    [0.2877]
    """
    return -jnp.log(_pick(probabilities, labels, axis))


def cross_entropy_by_definition(probabilities, labels, axis=-1):
    """-Σ y log ŷ, with 0 · log 0 = 0: probabilities [..., C] and labels -> [...].

    Labels are integers [...], which stand for their one-hot vectors, or soft labels [..., C].

    >>> p = jnp.array([[0.5, 0.5, 0.0]])
    >>> print(cross_entropy_by_definition(p, jnp.array([[0.5, 0.5, 0.0]])).round(4))
    [0.6931]
    """
    y = _distribution(labels, probabilities, axis)
    log_probabilities = jnp.log(jnp.where(y > 0, probabilities, 1))
    return -(y * log_probabilities).sum(axis)


def cross_entropy(logits, labels, axis=-1):
    """-Σ y log softmax(o), straight from the logits: logits [..., C] and labels -> [...].

    For an integer label this is LogSumExp(o) - o[label], with the gradient softmax(o) - y; the
    value and the gradient are finite for all finite logits. Labels are integers [...] in
    0..C-1, or soft labels [..., C].

    >>> print(cross_entropy(jnp.zeros((1, 10)), jnp.array([3])).round(4))  # log 10
    [2.3026]
    """
    if labels.ndim == logits.ndim:
        return -(labels * jnp.where(labels > 0, log_softmax(logits, axis), 0)).sum(axis)
    largest = _constant_max(logits, axis)
    log_sum = jnp.log(jnp.exp(logits - largest).sum(axis))
    # The small difference first: LogSumExp alone has the rounding error of the largest logit.
    return log_sum + (largest.squeeze(axis) - _pick(logits, labels, axis))


def _on_naive_softmax(loss):
    def loss_of_logits(logits, labels, axis=-1):
        return loss(naive_softmax(logits, axis), labels, axis)

    return loss_of_logits


# What `config.loss` may name. The two forms on probabilities stand on the naive softmax, as in the
# chapter that builds everything from scratch.
FROM_LOGITS = {
    "cross_entropy": cross_entropy,
    "cross_entropy_from_probabilities": _on_naive_softmax(cross_entropy_from_probabilities),
    "cross_entropy_by_definition": _on_naive_softmax(cross_entropy_by_definition),
}


def _constant_max(logits, axis):
    # Softmax does not change when a constant is added to all logits, so neither does its gradient:
    # the maximum need not be differentiated.
    return jax.lax.stop_gradient(logits.max(axis, keepdims=True))


def _pick(scores, labels, axis):
    index = jnp.expand_dims(labels, axis)
    return jnp.take_along_axis(scores, index, axis).squeeze(axis)


def _distribution(labels, scores, axis):
    if labels.ndim == scores.ndim:
        return labels
    return jax.nn.one_hot(labels, scores.shape[axis], axis=axis, dtype=scores.dtype)


def smoothed(loss, amount):
    """The cross-entropy `loss`, with labels that are smoothed by s, a number from 0 to below 1.

    A label becomes the distribution of 1 - s on itself and s/C on each class; with logits o the
    loss becomes (1 - s) · loss(label) + s/C · Σ loss(class) = loss(label) + s · (o[label] - mean o)
    for integer labels. Source: Szegedy et al., *Rethinking the Inception Architecture* (2016),
    section 7.

    >>> from softmax_jax.losses import cross_entropy
    >>> (loss,) = smoothed(cross_entropy, 0.5)(jnp.array([[2.0, 0.0]]), jnp.array([0]))
    >>> print(f"{loss:.4f}")
    0.6269
    """

    def smoothed_loss(logits, labels, axis=-1):
        classes = jax.lax.broadcasted_iota(labels.dtype, logits.shape, axis % logits.ndim)
        own = jnp.where(classes == jnp.expand_dims(labels, axis), logits, 0).sum(axis)
        return loss(logits, labels, axis) + amount * (own - logits.mean(axis))

    return smoothed_loss
