"""Losses on a few sampled words instead of all V, and every vocabulary loss by its name. Pure.

The sampled losses take features x [N, D], the layer W [D, V] and bias [V] or None, labels [N] in
0..V-1, and words [S] drawn from a proposal q, the same for all rows. They read and train only the
columns of labels and words, and return the mean over the rows, weighted by example_weights [N]
(None: ones). They raise ValueError for shapes that do not fit and for wrong labels, as
`linear_cross_entropy` does (under `jit`, wrong labels give NaN).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from softmax_jax import checks, losses, metrics, model, train
from softmax_jax.vocabulary.exact import (
    linear_cross_entropy,
    log_prob_and_rank,
    over_vocabulary,
    product,
    sharded_linear_cross_entropy,
    sum_dtype,
)


class Proposal(NamedTuple):
    """A distribution q over the words 0..V-1.

    draw(key, num_samples) -> words [S] int32, independent, with replacement.
    log_prob(words) -> log q of each.
    """

    draw: Callable
    log_prob: Callable


@functools.cache
def log_uniform(vocabulary_size: int) -> Proposal:
    """q(v) = log((v + 2) / (v + 1)) / log(V + 1): about 1 / v, Zipf's law.

    It is for words sorted by frequency, the most frequent first. A draw is ⌊(V + 1)^u⌋ - 1, with u
    uniform on [0, 1). Rounding to float32 makes single rare words up to 1 % more or less frequent
    than q for V = 10^5, and up to 10 % for 10^6; their neighbours balance it.

    Raises:
      ValueError: for a V outside 1..2^20.

    >>> print(jnp.exp(log_uniform(3).log_prob(jnp.arange(3))).round(4))
    [0.5    0.2925 0.2075]
    """
    checks.check_whole("vocabulary_size", vocabulary_size, 1, 2**20)
    span = math.log(vocabulary_size + 1)

    def draw(key, num_samples):
        # With u = 1 - w, float32 has its finest steps at small w, where q is small.
        w = jax.random.bits(key, (num_samples,), jnp.uint32).astype(jnp.float32) * 2.0**-32
        words = jnp.floor((vocabulary_size + 1) * jnp.exp(-span * w)).astype(jnp.int32) - 1
        return jnp.clip(words, 0, vocabulary_size - 1)

    return Proposal(draw, lambda words: jnp.log(jnp.log1p(1 / (words + 1.0)) / span))


@functools.cache
def uniform(vocabulary_size: int) -> Proposal:
    """q(v) = 1 / V.

    Raises:
      ValueError: for a V outside 1..2^31 - 1.
    """
    checks.check_whole("vocabulary_size", vocabulary_size, 1, 2**31 - 1)

    def draw(key, num_samples):
        return jax.random.randint(key, (num_samples,), 0, vocabulary_size)

    return Proposal(draw, lambda words: jnp.full(words.shape, -math.log(vocabulary_size)))


def sampled_softmax(
    x: ArrayLike,
    W: ArrayLike,
    labels: ArrayLike,
    words: ArrayLike,
    proposal: Proposal,
    *,
    bias: ArrayLike | None = None,
    example_weights: ArrayLike | None = None,
) -> Float[Array, ""]:
    """log(exp o[label] + Σ exp(o[w] - log(S q(w)))) - o[label], over the sampled w ≠ label.

    The sum is an unbiased estimate of the other terms of the normaliser: each word is divided by
    its expected count among the S. A draw that hits the label is left out, because the label has a
    term of its own.

    Bias: the estimate of Z is unbiased; its logarithm and the gradient are not. On average the loss
    is too small, and the gradient is off, both by O(1 / S); as S grows they tend to those of the
    exact loss. With every word once and `uniform`, this is the exact loss.

    Sources: Bengio and Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural
    Probabilistic Language Model" (2008); Jean et al., "On Using Very Large Target Vocabulary for
    Neural Machine Translation" (2015).
    """
    x, W, labels, words, bias = _checked(x, W, labels, words, bias, example_weights)
    own, others = _logits(x, W, labels, words, bias)
    others = others - _log_counts(proposal, words, words)
    others = jnp.where(words == labels[:, None], -jnp.inf, others)
    log_sum = jax.nn.logsumexp(jnp.concatenate([own[:, None], others], axis=1), axis=1)
    return _mean(log_sum - own, labels, example_weights)


def noise_contrastive(
    x: ArrayLike,
    W: ArrayLike,
    labels: ArrayLike,
    words: ArrayLike,
    proposal: Proposal,
    *,
    bias: ArrayLike | None = None,
    example_weights: ArrayLike | None = None,
) -> Float[Array, ""]:
    """softplus(-Δ[label]) + Σ softplus(Δ[w]) over the sampled w, with Δ[v] = o[v] - log(S q(v)).

    This is logistic regression that tells the label from S words of noise, which may include the
    label by chance.

    Bias: none at the optimum, if each row may have any logits: there o = log p(v | x), which is
    normalised, for any S and any q > 0. Elsewhere the gradient differs from that of the exact loss;
    where Z = 1 it tends to it as S grows. The value is not a cross-entropy.

    Sources: Gutmann and Hyvärinen, "Noise-contrastive estimation" (2010); Mnih and Teh, "A fast and
    simple algorithm for training neural probabilistic language models" (2012).
    """
    x, W, labels, words, bias = _checked(x, W, labels, words, bias, example_weights)
    own, others = _logits(x, W, labels, words, bias)
    own = own - _log_counts(proposal, labels, words)
    others = others - _log_counts(proposal, words, words)
    return _mean(_binary(own, others), labels, example_weights)


def negative_sampling(
    x: ArrayLike,
    W: ArrayLike,
    labels: ArrayLike,
    words: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    example_weights: ArrayLike | None = None,
) -> Float[Array, ""]:
    """softplus(-o[label]) + Σ softplus(o[w]) over the sampled w.

    Bias: its optimum is o = log p(v | x) - log(S q(v)), not log p: it learns how much more frequent
    a word is than under q, and ranks words accordingly. Adding log(S q) to the bias after training
    gives log p. Subtracting it from the logits during training makes this `noise_contrastive`.

    Source: Mikolov et al., "Distributed Representations of Words and Phrases and their
    Compositionality" (2013).
    """
    x, W, labels, words, bias = _checked(x, W, labels, words, bias, example_weights)
    own, others = _logits(x, W, labels, words, bias)
    return _mean(_binary(own, others), labels, example_weights)


def _checked(x, W, labels, words, bias, example_weights):
    x, W, words = checks.as_arrays(x, W, words)
    (bias,) = checks.as_optional_arrays(bias)
    checks.check_layer(x, W, bias)
    labels = checks.as_words(labels, len(x), W.shape[1])
    checks.check_weights(example_weights, len(x))
    if words.ndim != 1 or not words.size or not jnp.issubdtype(words.dtype, jnp.integer):
        raise ValueError(f"words must be integers [S]; they are {words.dtype} {list(words.shape)}.")
    return x, W, labels, checks.widened(words), bias


def _logits(x, W, labels, words, bias):
    """o of each row's label [N], and of the words [N, S]."""
    dtype = sum_dtype(x, W)
    own = (x.astype(dtype) * W[:, labels].T.astype(dtype)).sum(1)
    others = product(x, W[:, words])
    return (own, others) if bias is None else (own + bias[labels], others + bias[words])


def _log_counts(proposal, asked, words):
    """log(S q): the log of the expected count of a word among the S sampled ones."""
    return jnp.log(words.size) + proposal.log_prob(asked)


def _binary(own, others):
    return jax.nn.softplus(-own) + jax.nn.softplus(others).sum(1)


def _mean(values, labels, example_weights):
    values = jnp.where(labels == checks.WRONG, jnp.nan, values)
    if example_weights is None:
        return values.mean()
    total = jnp.sum(example_weights)
    return (example_weights * values).sum() / jnp.where(total == 0, 1, total)


EXACT = "cross_entropy"
_WITH_PROPOSAL = {"sampled_softmax": sampled_softmax, "noise_contrastive": noise_contrastive}
OBJECTIVES = (EXACT, *_WITH_PROPOSAL, "negative_sampling")


@functools.cache
def objective(
    name: str,
    vocabulary_size: int,
    num_samples: int | None = None,
    sharding: NamedSharding | None = None,
) -> Callable:
    """objective(key, x, W, labels, *, bias=None, example_weights=None) -> the mean loss, a scalar.

    It is cached: equal arguments give the same function, so that nothing is compiled twice.

    Args:
      name: 'cross_entropy' (exact; it ignores the key), or 'sampled_softmax', 'noise_contrastive'
        or 'negative_sampling', which draw words log-uniformly with the key, the same for all rows.
      vocabulary_size: V.
      num_samples: the number of words that are drawn; None for the exact loss.
      sharding: of V over devices, `NamedSharding(mesh, P(axis))`, or None; for the exact loss.

    Raises:
      ValueError: for another name, an invalid number of samples, and an option that the loss has no
        use for.
    """
    if name == EXACT:
        if num_samples is not None:
            raise ValueError(
                f"num_samples must be None for {EXACT!r}, which draws no words; it is "
                f"{num_samples!r}. The sampled losses are {', '.join(OBJECTIVES[1:])}."
            )
        return functools.partial(_exact, sharding)
    if name not in OBJECTIVES:
        raise ValueError(f"There is no objective {name!r}; there are {OBJECTIVES}.")
    checks.check_whole("num_samples", num_samples, 1)
    proposal = log_uniform(vocabulary_size)

    def sampled(key, x, W, labels, **more):
        words = proposal.draw(key, num_samples)
        if name in _WITH_PROPOSAL:
            return _WITH_PROPOSAL[name](x, W, labels, words, proposal, **more)
        return negative_sampling(x, W, labels, words, **more)

    return sampled


@functools.cache
def criterion(
    name: str,
    num_classes: int,
    num_samples: int = 0,
    sharding: NamedSharding | None = None,
) -> train.Criterion:
    """An `objective` on an augmented model, which never holds a batch's logits.

    The train loss is on samples, as the one that is minimised, but not weighed by class; validation
    is exact: loss, accuracy and top5. num_samples: words drawn for each batch, the same for all
    trials; for the other arguments see `objective`.

    Raises:
      ValueError: as `objective`; its loss, where a label smoothing is not None.
    """
    minimised = objective(name, num_classes, num_samples or None, sharding)
    measure = functools.partial(_measure, axis_name=None)
    if sharding is not None:
        (axis,) = sharding.spec
        measure = functools.partial(_measure, axis_name=axis)
        measure = over_vocabulary(measure, sharding.mesh, axis)

    def loss(params, batch, label_smoothing, step):
        if label_smoothing is not None:
            raise ValueError(
                f"label_smoothing must be 0 with the loss {name!r}, which does not smooth labels. "
                "A loss of `softmax_jax.losses` does."
            )
        key = jax.random.fold_in(jax.random.key(0), step)
        x, W = model.augmented_layer(params, batch.x)

        def total(W, weights, bias=None):
            mean = minimised(key, x, W, batch.y, example_weights=weights, bias=bias)
            return mean * weights.sum()

        weights, own = batch.weights, None
        if batch.class_weight is not None:
            weights = weights * jnp.take(batch.class_weight, batch.y)
            bias = -losses.weight_offsets(batch.class_weight) if name == EXACT else None
            own = total(jax.lax.stop_gradient(W), batch.weights, bias)
        objective = total(W, weights)
        sums = {"sum": objective if own is None else own, "weight": batch.weights.sum()}
        divisor = sums["weight"] if batch.total is None else batch.total
        return metrics.ratio(objective, divisor), {"loss": sums}

    def evaluate(params, batch):
        x, W = model.augmented_layer(params, batch.x)
        w, found = batch.weights, measure(W, None, x, batch.y)
        if batch.class_weight is not None:
            bias = -losses.weight_offsets(batch.class_weight)
            found = found | {"loss": measure(W, bias, x, batch.y)["loss"]}
        return {name: {"sum": (w * f).sum(), "weight": w.sum()} for name, f in found.items()}

    def values(sums):
        return {name: metrics.mean_of(None).value(own) for name, own in sums.items()}

    return train.Criterion(loss, evaluate, values, model.augmented_norm, holds_logits=False)


def _measure(W, b, x, y, axis_name):
    """{name: metric [B]} of every example."""
    log_p, rank = log_prob_and_rank(x, W, y, bias=b, axis_name=axis_name)
    return {"loss": -log_p, "accuracy": rank == 0, "top5": rank < 5}


def _exact(sharding, _key, x, W, labels, **more):
    if sharding is None:
        return linear_cross_entropy(x, W, labels, **more)
    (axis,) = sharding.spec
    return sharded_linear_cross_entropy(sharding.mesh, x, W, labels, axis_name=axis, **more)
