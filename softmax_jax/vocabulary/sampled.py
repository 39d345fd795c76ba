"""Losses on a few sampled words instead of all V, each with its bias. Pure.

All take features x [N, D], the layer W [D, V] and bias [V] or None, labels [N] in 0..V-1, and
words [S] drawn from a proposal q, the same for all rows. They read and train the columns of labels
and words alone, and return the mean over the rows, weighted by example_weights [N] (None: ones).
Raise ValueError for shapes that do not fit and for wrong labels, as `linear_cross_entropy` does
(under `jit`, wrong labels give NaN).
"""

import jax
import jax.numpy as jnp

from softmax_jax.vocabulary import checks
from softmax_jax.vocabulary.proposals import Proposal
from softmax_jax.vocabulary.tiles import product, sum_dtype


def sampled_softmax(x, W, labels, words, proposal: Proposal, *, bias=None, example_weights=None):
    """log(exp o[label] + Σ exp(o[w] - log(S q(w)))) - o[label], over the sampled w ≠ label.

    The sum estimates the rest of the normaliser without bias: each word is divided by how often it
    was to be expected among the S. A draw that hits the label is left out, for the label's own term
    is there already.

    Bias: the estimate of Z is unbiased, its logarithm and the gradient are not. The loss is too
    small on average, and the mean gradient is off, both by O(1 / S); as S grows they tend to those
    of the exact loss. With every word once and `uniform`, this is the exact loss.

    Sources: Bengio and Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural
    Probabilistic Language Model" (2008); Jean et al., "On Using Very Large Target Vocabulary for
    Neural Machine Translation" (2015).
    """
    x, W, labels, words, bias = _checked(x, W, labels, words, bias, example_weights)
    own, others = _logits(x, W, labels, words, bias)
    others = others - _log_counts(proposal, words, words)
    others = jnp.where(words == labels[:, None], -jnp.inf, others)
    log_sum = jax.nn.logsumexp(jnp.concatenate([own[:, None], others], axis=1), axis=1)
    return _mean(log_sum - own, labels, W, example_weights)


def noise_contrastive(x, W, labels, words, proposal: Proposal, *, bias=None, example_weights=None):
    """softplus(-Δ[label]) + Σ softplus(Δ[w]) over the sampled w, with Δ[v] = o[v] - log(S q(v)).

    Logistic regression that tells the label from S words of noise (which may hit it by chance).

    Bias: none at the optimum, where every row may have any logits: there o = log p(v | x), sums to
    one without a normaliser, for any S and any q > 0. Elsewhere the gradient is not that of the
    exact loss; where Z = 1 it tends to it as S grows. The value is no cross-entropy.

    Sources: Gutmann and Hyvärinen, "Noise-contrastive estimation" (2010); Mnih and Teh, "A fast and
    simple algorithm for training neural probabilistic language models" (2012).
    """
    x, W, labels, words, bias = _checked(x, W, labels, words, bias, example_weights)
    own, others = _logits(x, W, labels, words, bias)
    own = own - _log_counts(proposal, labels, words)
    others = others - _log_counts(proposal, words, words)
    return _mean(_binary(own, others), labels, W, example_weights)


def negative_sampling(x, W, labels, words, *, bias=None, example_weights=None):
    """softplus(-o[label]) + Σ softplus(o[w]) over the sampled w.

    Bias: its optimum is o = log p(v | x) - log(S q(v)), not a softmax of p: it learns by how much a
    word is more frequent than in q, and ranks words accordingly. Adding log(S q) to the bias
    afterwards gives log p; adding it before makes this `noise_contrastive`.

    Source: Mikolov et al., "Distributed Representations of Words and Phrases and their
    Compositionality" (2013).
    """
    x, W, labels, words, bias = _checked(x, W, labels, words, bias, example_weights)
    own, others = _logits(x, W, labels, words, bias)
    return _mean(_binary(own, others), labels, W, example_weights)


def _checked(x, W, labels, words, bias, example_weights):
    x, W, labels, words, bias = checks.as_arrays(x, W, labels, words, bias)
    checks.check_layer(x, W, bias)
    checks.check_labels(labels, len(x), W.shape[1])
    checks.check_weights(example_weights, len(x))
    if words.ndim != 1 or not words.size or not jnp.issubdtype(words.dtype, jnp.integer):
        raise ValueError(f"words must be integers [S]; they are {words.dtype} {list(words.shape)}.")
    return x, W, labels, words, bias


def _logits(x, W, labels, words, bias):
    """o of each row's label [N], and of the words [N, S]."""
    dtype = sum_dtype(x, W)
    own = (x.astype(dtype) * W[:, labels].T.astype(dtype)).sum(1)
    others = product(x, W[:, words])
    return (own, others) if bias is None else (own + bias[labels], others + bias[words])


def _log_counts(proposal, asked, words):
    """log(S q): how often a word is to be expected among the S sampled ones."""
    return jnp.log(words.size) + proposal.log_prob(asked)


def _binary(own, others):
    return jax.nn.softplus(-own) + jax.nn.softplus(others).sum(1)


def _mean(losses, labels, W, example_weights):
    losses = jnp.where((labels >= 0) & (labels < W.shape[1]), losses, jnp.nan)
    if example_weights is None:
        return losses.mean()
    total = jnp.sum(example_weights)
    return (example_weights * losses).sum() / jnp.where(total == 0, 1, total)
