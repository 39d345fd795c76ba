"""Softmax and the forms of cross-entropy: pure functions, one value per example.

Every function takes the scores first, then the labels, and the axis along which the classes lie
(the last one unless told otherwise; the training step lays the classes first, because then the
compiler vectorises over the batch). Labels are integers [...] in 0..C-1, of any integer type, or,
where a docstring says so, soft labels [..., C]: one distribution per example, as floats.

Two options, which all forms of the cross-entropy share, say what does not count:

- `where`: booleans [...], the examples that count (or [..., C], the classes that the softmax is
  taken over, as in optax: the others have probability 0). The loss of an example that does not
  count is 0, and so is its gradient, whatever its scores and label are, NaN included.
- `ignore_index`: the integer label of examples that do not count, as in PyTorch.

All forms refuse the same labels. Those whose shape or type is wrong raise ValueError, also while
a program is traced. A label outside 0..C-1 raises ValueError where its value is known; where it is
traced, the loss of the example and its gradient are NaN.

Source: *Dive into Deep Learning*, sections "Softmax Regression" and "Concise Implementation of
Softmax Regression" (for the maximum that is subtracted, and LogSumExp).
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from softmax_jax import checks

_Logits: TypeAlias = Num[Array | np.ndarray, "..."]


def naive_softmax(logits: _Logits, axis: int = -1) -> Float[Array, "..."]:
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


def softmax(logits: _Logits, axis: int = -1) -> Float[Array, "..."]:
    """exp(o - max o) / Σ exp(o - max o): [..., C] -> [..., C], for logits of any finite size.

    >>> softmax(jnp.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    return naive_softmax(logits - _constant_max(logits, axis), axis)


def log_softmax(logits: checks.Given, axis: int = -1) -> Float[Array, "..."]:
    """log softmax(o) = o - m - log Σ exp(o - m), with m = max o (LogSumExp): [..., C] -> [..., C].

    Finite where `log(softmax(o))` is -inf, and not 0 where `softmax(o)` is rounded to 1: the
    largest term of the sum is exp(0) = 1, so its logarithm is log1p of the others. (Not in a
    program that lays the classes first, as the training step does: it takes the log of one sum.)

    >>> log_softmax(jnp.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    >>> print(log_softmax(jnp.array([0.0, -40.0])))
    [-4.248354e-18 -4.000000e+01]
    """
    logits = jnp.asarray(logits)
    form = _fast_log_softmax if _in_one_sum(logits, axis) else _log_softmax
    return form(logits, axis)


def cross_entropy_from_probabilities(
    probabilities: checks.Given,
    labels: checks.Given,
    axis: int = -1,
    *,
    where: checks.Given | None = None,
    ignore_index: int | np.integer | None = None,
) -> Float[Array, "..."]:
    """-log ŷ[label]: probabilities [..., C] and integer labels [...] -> [...].

    Indexing instead of the sum of the definition: the other C - 1 terms are zero. It takes no soft
    labels: `cross_entropy_by_definition` does.

    >>> p = jnp.array([[0.25, 0.75]])
    >>> print(cross_entropy_from_probabilities(p, jnp.array([1])).round(4))
    [0.2877]

    Raises:
      ValueError: labels that do not fit, see the module.
    """
    form, options = _from_probabilities, (where, ignore_index)
    return _each(form, probabilities, labels, axis, *options, excluded=0, soft=False)


def cross_entropy_by_definition(
    probabilities: checks.Given,
    labels: checks.Given,
    axis: int = -1,
    *,
    where: checks.Given | None = None,
    ignore_index: int | np.integer | None = None,
) -> Float[Array, "..."]:
    """-Σ y log ŷ, with 0 · log 0 = 0: probabilities [..., C] and labels -> [...].

    Labels are integers [...], which stand for their one-hot vectors, or soft labels [..., C].

    >>> p = jnp.array([[0.5, 0.5, 0.0]])
    >>> print(cross_entropy_by_definition(p, jnp.array([[0.5, 0.5, 0.0]])).round(4))
    [0.6931]

    Raises:
      ValueError: labels that do not fit, see the module.
    """
    return _each(_by_definition, probabilities, labels, axis, where, ignore_index, excluded=0)


def cross_entropy(
    logits: checks.Given,
    labels: checks.Given,
    axis: int = -1,
    *,
    where: checks.Given | None = None,
    ignore_index: int | np.integer | None = None,
) -> Float[Array, "..."]:
    """-Σ y log softmax(o), straight from the logits: logits [..., C] and labels -> [...].

    For an integer label this is LogSumExp(o) - o[label], with the gradient softmax(o) - y; the
    value and the gradient are finite for all finite logits. The gradient with respect to a soft
    label is -log softmax(o), also where the label is 0. Labels are integers [...], or soft labels
    [..., C].

    >>> print(cross_entropy(jnp.zeros((1, 10)), jnp.array([3])).round(4))  # log 10
    [2.3026]
    >>> print(cross_entropy(jnp.array([0.0, -40.0]), 0))  # what `softmax` rounds to 1 is not lost
    4.248354e-18
    >>> logits = jnp.array([[0.0, 0.0], [jnp.nan, 0.0]])
    >>> print(cross_entropy(logits, jnp.array([1, -100]), ignore_index=-100).round(4))
    [0.6931 0.    ]

    Raises:
      ValueError: labels that do not fit, see the module.
    """
    return _each(_from_logits, logits, labels, axis, where, ignore_index, excluded=-np.inf)


def smoothed(loss: Callable, amount: ArrayLike) -> Callable:
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
        checks.check_integers(labels := checks.as_array(labels))
        classes = jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis % logits.ndim)
        own = jnp.where(classes == jnp.expand_dims(labels, axis), logits, 0).sum(axis)
        return loss(logits, labels, axis) + amount * (own - logits.mean(axis))

    return smoothed_loss


def weight_offsets(class_weight: Num[Array | np.ndarray, " C"]) -> Float[Array | np.ndarray, " C"]:
    """log v: what a fit whose loss weighs the classes by v adds to the logits, [C] -> [C].

    It learns p' ∝ v · p. Logits less these offsets are those of p, of data as they are; see
    `calibration.unweighted`. A class of weight 0 was not learned: it is taken for the heaviest, so
    that it stays as improbable as the fit left it.

    >>> weight_offsets(np.array([1.0, 0.0, 1.0])).tolist()
    [0.0, 0.0, 0.0]
    """
    xp = checks.namespace(class_weight)
    return xp.log(xp.where(class_weight > 0, class_weight, class_weight.max()))


def _on_naive_softmax(form, soft=True):
    def of_logits(logits, labels, axis):
        return form(naive_softmax(logits, axis), labels, axis)

    def loss_of_logits(logits, labels, axis=-1, *, where=None, ignore_index=None):
        options = {"excluded": -np.inf, "soft": soft}
        return _each(of_logits, logits, labels, axis, where, ignore_index, **options)

    return loss_of_logits


def _from_probabilities(probabilities, labels, axis):
    return -jnp.log(_pick(probabilities, labels, axis))


def _by_definition(probabilities, labels, axis):
    if labels.ndim == probabilities.ndim:
        return -_times_log(labels, probabilities).sum(axis)
    y = jax.nn.one_hot(labels, probabilities.shape[axis], axis=axis, dtype=probabilities.dtype)
    return -(y * jnp.log(jnp.where(y > 0, probabilities, 1))).sum(axis)


def _from_logits(logits, labels, axis):
    if labels.ndim == logits.ndim:
        return -_times(labels, log_softmax(logits, axis)).sum(axis)
    form = _fast_of_integers if _in_one_sum(logits, axis) else _of_integers
    return form(logits, labels, axis)


def _in_one_sum(logits, axis):
    """Whether log Σ exp(o - m) is computed as it stands, and what is far below 1 in Σ is lost.

    log1p of the others takes another pass over the classes, which the training step, the line
    search and the evaluation would pay for in each of their programs. These lay the classes first.
    """
    return axis % logits.ndim == 0 and logits.ndim > 1 and not checks.known(logits)


def _fast_log_softmax(logits, axis):
    shifted = logits - _constant_max(logits, axis)
    return shifted - jnp.log(jnp.exp(shifted).sum(axis, keepdims=True))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_softmax(logits, axis):
    shifted = logits - _constant_max(logits, axis)
    largest = shifted == 0
    others = jnp.where(largest, 0, jnp.exp(shifted)).sum(axis, keepdims=True)
    ties = largest.astype(shifted.dtype).sum(axis, keepdims=True) - 1
    return shifted - jnp.log1p(others + ties)


@_log_softmax.defjvp
def _log_softmax_jvp(axis, primals, tangents):
    return jax.jvp(functools.partial(_fast_log_softmax, axis=axis), primals, tangents)


def _fast_of_integers(logits, labels, axis):
    largest = _constant_max(logits, axis)
    log_sum = jnp.log(jnp.exp(logits - largest).sum(axis))
    # The small difference first: LogSumExp alone has the rounding error of the largest logit.
    return log_sum + (largest.squeeze(axis) - _pick(logits, labels, axis))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _of_integers(logits, labels, axis):
    """LogSumExp(o) - o[label] = log1p(Σ' + expm1(d)) - d, with d = o[label] - max o.

    Σ' is the sum of exp(o - max o) without the label's term. Where the label has the largest logit,
    d is 0 and log1p(Σ') keeps what 1 + Σ' would round away; and only one sum is taken.
    """
    largest = _constant_max(logits, axis)
    classes = jax.lax.broadcasted_iota(labels.dtype, logits.shape, axis)
    own_term = classes == jnp.expand_dims(labels, axis)
    others = jnp.where(own_term, 0, jnp.exp(logits - largest)).sum(axis)
    own = _pick(logits, labels, axis) - largest.squeeze(axis)
    return jnp.log1p(others + jnp.expm1(own)) - own


@_of_integers.defjvp
def _of_integers_jvp(axis, primals, tangents):
    (logits, labels), (change, _) = primals, tangents

    def fast(logits):
        return _fast_of_integers(logits, labels, axis)

    return jax.jvp(fast, (logits,), (change,))


# What `config.loss` may name. The two forms on probabilities stand on the naive softmax, as in the
# chapter that builds everything from scratch.
FROM_LOGITS = {
    "cross_entropy": cross_entropy,
    "cross_entropy_from_probabilities": _on_naive_softmax(_from_probabilities, soft=False),
    "cross_entropy_by_definition": _on_naive_softmax(_by_definition),
}


def _each(form, scores, labels, axis, where, ignore_index, *, excluded, soft=True):
    """The loss of each example by a form(scores, labels, axis), which sees only labels in 0..C-1.

    excluded: the score of a class that `where` leaves out.
    """
    scores, labels = jnp.asarray(checks.as_floats("scores", scores)), checks.as_array(labels)
    axis = range(scores.ndim)[axis]
    _check_form(scores, labels, axis, soft)
    there = None
    if where is not None:
        scores, there = _only(scores, where, axis, excluded)
    factor = None
    if labels.ndim < scores.ndim:
        labels, factor, there = _class_numbers(labels, scores.shape[axis], ignore_index, there)
    elif ignore_index is not None:
        raise ValueError("ignore_index is for integer labels; for soft labels use where.")
    if there is None:
        each = form(scores, jnp.asarray(labels), axis)
        return each if factor is None else factor * each
    scores = jnp.where(jnp.expand_dims(there, axis), scores, 1)
    labels = jnp.where(
        there if labels.ndim < scores.ndim else jnp.expand_dims(there, axis), labels, 0
    )
    each = form(scores, labels, axis)
    return jnp.where(there, each if factor is None else factor * each, 0)


def _check_form(scores, labels, axis, soft):
    """Raises ValueError unless the labels are integers [...] or, if allowed, floats [..., C]."""
    rows = (*scores.shape[:axis], *scores.shape[axis + 1 :])
    if jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == rows:
        return
    found = f"they are {labels.dtype} {checks.shape_of(labels)}"
    if jnp.issubdtype(labels.dtype, jnp.floating):
        if soft and labels.shape == scores.shape:
            return
        if labels.shape == rows:
            checks.check_integers(labels)
        if labels.shape == scores.shape:
            raise ValueError(
                f"labels must be integers {list(rows)}; {found}. "
                "Of soft labels use cross_entropy_by_definition, or cross_entropy of the logits."
            )
    remedy = ""
    if labels.shape == scores.shape:
        remedy = " If they are one-hot vectors, convert them to floats."
    elif labels.shape == rows:
        remedy = " Convert them: labels.astype(int)."
    elif labels.size == np.prod(rows):
        remedy = f" Remove the axis of size 1: labels.reshape({rows})."
    raise ValueError(
        f"labels beside scores {checks.shape_of(scores)} must be integers {list(rows)}"
        f"{f' or floats {checks.shape_of(scores)}' if soft else ''}; {found}.{remedy}"
    )


def _only(scores, where, axis, excluded):
    """The scores with the classes that are left out, and which examples count."""
    where = checks.as_array(where)
    form = scores.shape if where.ndim == scores.ndim else np.delete(scores.shape, axis)
    if where.dtype != bool or not _broadcasts(where.shape, tuple(form)):
        rows = [int(n) for n in np.delete(scores.shape, axis)]
        raise ValueError(
            f"where must be booleans {rows}, or {checks.shape_of(scores)} for single classes; "
            f"they are {where.dtype} {checks.shape_of(where)}."
        )
    where = jnp.broadcast_to(where, form)
    if where.ndim < scores.ndim:
        return scores, where
    return jnp.where(where, scores, excluded), where.any(axis)


def _broadcasts(shape, other):
    return len(shape) == len(other) and all(n in (1, m) for n, m in zip(shape, other, strict=True))


def _class_numbers(labels, num_classes, ignore_index, there):
    """Integer labels of a type that does not wrap, NaN for those out of range, and who counts.

    The factor [...] is None where the labels are known: then they have been checked.
    """
    if ignore_index is not None:
        checks.check_whole("ignore_index", ignore_index, -(2**63))
        wanted = ~checks.equal(labels, int(ignore_index))
        there = wanted if there is None else there & wanted
    remedy = "Correct them, or mask them by where or ignore_index."
    if checks.known(labels, there):
        absent = None if there is None else ~np.asarray(there)
        checks.check_range(labels, num_classes, absent, remedy)
        return labels.astype(jnp.int32), None, there
    labels = checks.widened(labels)
    inside = (labels >= 0) & (labels < num_classes)
    return jnp.where(inside, labels, 0).astype(jnp.int32), jnp.where(inside, 1, jnp.nan), there


def _constant_max(logits, axis):
    # Softmax does not change when a constant is added to all logits, so neither does its gradient:
    # the maximum need not be differentiated.
    return jax.lax.stop_gradient(logits.max(axis, keepdims=True))


def _pick(scores, labels, axis):
    index = jnp.expand_dims(labels, axis)
    return jnp.take_along_axis(scores, index, axis, mode="clip").squeeze(axis)


@jax.custom_jvp
def _times(y, log_p):
    """y · log p with 0 · -inf = 0; its derivative in y is log p everywhere, also at y = 0."""
    return jnp.where(y == 0, 0, y * log_p)


@functools.partial(_times.defjvp, symbolic_zeros=True)
def _times_jvp(primals, tangents):
    (y, log_p), (change_y, change_log_p) = primals, tangents
    return _times(y, log_p), _sum((change_y, log_p), (change_log_p, y))


@jax.custom_jvp
def _times_log(y, p):
    """y · log p with 0 · log 0 = 0; its derivatives are log p in y, and y / p (or 0) in p."""
    return y * jnp.log(jnp.where(y == 0, 1, p))


@functools.partial(_times_log.defjvp, symbolic_zeros=True)
def _times_log_jvp(primals, tangents):
    (y, p), (change_y, change_p) = primals, tangents
    ratio = y / jnp.where(y == 0, 1, p)
    return _times_log(y, p), _sum((change_y, jnp.log(p)), (change_p, ratio))


def _sum(*products):
    """Σ change · factor, without those that do not change: 0 · -inf is NaN."""
    terms = [
        change * factor
        for change, factor in products
        if not isinstance(change, jax.custom_derivatives.SymbolicZero)
    ]
    return sum(terms[1:], terms[0])
