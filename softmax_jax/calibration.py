"""Whether probabilities are what they say, and a temperature that mends them.

A model is calibrated if of all examples to which it gives probability p, a share p has that label.

Sources: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks" (2017); Kull
et al., "Beyond temperature scaling" (2019), for the classwise error; G. W. Brier (1950).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from softmax_jax import losses

TEMPERATURES = 0.01, 100.0  # the range within which `temperature` looks
BINNINGS = "width", "mass"
_HALVINGS = 30  # of log 10⁴: to 1e-8, below what float32 resolves

_compiled = functools.partial(jax.jit, static_argnames=("num_bins", "binning"))


class Reliability(NamedTuple):
    """A reliability diagram, K bins: how many examples each has, and there the means of what was
    predicted and of what happened (0 in an empty bin). All [K]."""

    count: jax.Array
    predicted: jax.Array
    observed: jax.Array


@_compiled
def reliability(predicted, happened, num_bins=15, binning="width"):
    """What was predicted against what happened: probabilities [N], 0 or 1 [N] -> `Reliability`.

    For the confidence: `predicted` is the largest probability, and `happened` whether argmax is
    right. binning: 'width', the K bins (k/K, (k + 1)/K] of equal width (0 is in the first); or
    'mass', between the quantiles k/K of `predicted`, so that each has as many examples, to within
    ties, which stay together.
    """
    if binning not in BINNINGS:
        raise ValueError(f"binning must be one of {BINNINGS}; it is {binning!r}.")
    inner = jnp.arange(1, num_bins) / num_bins
    edges = inner if binning == "width" else jnp.quantile(predicted, inner)
    member = (predicted[:, None] > edges).sum(1)
    values = jnp.stack([jnp.ones_like(predicted), predicted, happened.astype(predicted.dtype)], 1)
    count, *sums = jax.ops.segment_sum(values, member, num_bins).T
    return Reliability(count, *(total / jnp.maximum(count, 1) for total in sums))


def calibration_error(predicted, happened, num_bins=15, binning="width"):
    """Σ_k n_k / N · |observed_k - predicted_k|, over the bins of `reliability`: a number."""
    bins = reliability(predicted, happened, num_bins, binning)
    return (bins.count * jnp.abs(bins.observed - bins.predicted)).sum() / bins.count.sum()


@_compiled
def expected_calibration_error(probabilities, labels, num_bins=15, binning="width"):
    """The expected calibration error (ECE) of the most probable class: [N, C], [N] -> a number.

    With few examples in a bin it is above zero for a calibrated model, too: compare models by it
    only at equal N and equal bins.
    """
    right = probabilities.argmax(-1) == labels
    return calibration_error(probabilities.max(-1), right, num_bins, binning)


@_compiled
def classwise_calibration_error(probabilities, labels, num_bins=15, binning="width"):
    """The mean over the classes c of the calibration error of p(c): [N, C], [N] -> a number.

    It sees what the confidence hides: probabilities wrong for one class, or below the largest.
    """
    happened = labels[:, None] == jnp.arange(probabilities.shape[-1])

    def of_class(predicted, happened):
        return calibration_error(predicted, happened, num_bins, binning)

    return jax.vmap(of_class, in_axes=1)(probabilities, happened).mean()


def brier_score(probabilities, labels):
    """Σ_c (p(c) - [c = label])², mean over the examples: [N, C], [N] -> a number in 0..2.

    For two classes it is twice the mean of (p(1) - label)², which is also called so.

    >>> brier_score(jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([1, 0])).item()
    0.25
    """
    happened = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=probabilities.dtype)
    return jnp.square(probabilities - happened).sum(1).mean()


@jax.jit
def temperature(logits, labels):
    """The T > 0 for which softmax(logits / T) has the least cross-entropy: [N, C], [N] -> number.

    Fit it on examples that the model was not trained on. The order of the classes, and so the
    accuracy, stays; T > 1 takes back confidence. The loss is convex in 1/T, and the sign of its
    slope, mean(Σ_c p(c) · (o(c) - o(label))), says in which half of the range of log T to go on.

    On these examples the result is never worse than T = 1, which is returned where nothing is
    better. Within `TEMPERATURES`: where every label has the largest logit, the loss falls all the
    way to T = 0, and the least T is returned; where the logits are worse than none, the largest.

    >>> logits = jnp.log(jnp.array([[0.9, 0.1]] * 4))
    >>> T = temperature(logits, jnp.array([0, 0, 0, 1]))  # 75 % of what was given 90 %
    >>> losses.softmax(logits / T)[0].round(4).tolist()
    [0.75, 0.25]
    """
    ahead = logits - jnp.take_along_axis(logits, labels[:, None], -1)

    def slope(T):
        return (losses.softmax(logits / T) * ahead).sum(-1).mean()

    def halve(_, bracket):
        low, high = bracket
        middle = jnp.sqrt(low * high)
        cooler = slope(middle) <= 0  # the loss falls with 1/T
        return jnp.where(cooler, low, middle), jnp.where(cooler, middle, high)

    def loss(T):
        return losses.cross_entropy(logits / T, labels).mean()

    ends = tuple(jnp.asarray(end, logits.dtype) for end in TEMPERATURES)
    T = jnp.sqrt(jnp.prod(jnp.stack(jax.lax.fori_loop(0, _HALVINGS, halve, ends))))
    return jnp.where(loss(T) < loss(1.0), T, 1.0)
