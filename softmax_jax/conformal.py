"""Split conformal prediction: sets of classes that hold the true one with a stated probability.

The sets are as promised however wrong the model is, if only the n examples that the threshold was
set on and the new ones are drawn alike, and the model was trained on neither:

    1 - alpha  ≤  P(label ∈ set)  ≤  1 - alpha + 1 / (n + 1)

(the right half where no two scores are equal). The probability is over the n examples and the new
one: it holds on average, not for each class or each kind of input. Given the n examples, the
coverage is distributed as Beta(k, n + 1 - k), with the k of `threshold`.

The score of a class is 1 - p(class), which gives the smallest sets on average; where the model is
in doubt a set may be empty.

Sources: Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers" (2019); Angelopoulos
and Bates, "A gentle introduction to conformal prediction" (2021); Tibshirani et al., "Conformal
prediction under covariate shift" (2019), for the weights.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from softmax_jax import checks, decisions


def threshold(
    probabilities: checks.Given,
    labels: checks.Given,
    alpha: ArrayLike,
    classes: checks.Given | None = None,
    weights: checks.Given | None = None,
) -> checks.Values:
    """The least probability of a class in the sets: [n, C], [n] and 0 < alpha < 1 -> a number.

    The k-th smallest score of the n labels, k = ceil((n + 1)(1 - alpha)) (their quantile k / n), is
    one minus the k-th largest probability, and that is returned: without the rounding of 1 - p. It
    is 0 where k > n: of fewer than 1/alpha - 1 examples follows nothing but the set of all classes.

    classes: what the labels are called, in the order of the columns, if they are not their numbers.
    weights: [n], how often each example counts, beside a new one that counts once: 0 is absent, k
    is k copies, and n their sum. The threshold is one of the probabilities and has their type.

    >>> p = jnp.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> round(threshold(p, jnp.array([0, 1, 1, 1]), alpha=0.2).item(), 2)  # k = 4
    0.4

    Raises:
      ValueError: alpha not between 0 and 1; probabilities outside 0..1 or not of sum 1 (such as
        logits); labels of another length or type, or not among the classes. Where they are traced,
        the values are not checked, and a label out of range gives NaN.
    """
    remedy = "Of sets that hold the label with probability 0.9, alpha is 0.1."
    checks.check_number("alpha", alpha, 0, 1, ends=(False, False), remedy=remedy)
    given = checks.as_array(probabilities), checks.as_array(labels)
    probabilities, labels, weights = checks.counted(weights, *given)
    p = checks.as_probabilities(probabilities, ndim=2)
    labels = checks.as_labels(labels, len(p), p.shape[1], classes)
    known = checks.known(p, labels, weights)
    if known:
        own = np.asarray(p)[np.arange(len(p)), np.asarray(labels)]
    else:
        own = jnp.take_along_axis(p, labels[:, None], -1, mode="clip")[:, 0]
        own = jnp.where(((labels >= 0) & (labels < p.shape[1])).all(), own, jnp.nan)
    xp = np if known else jnp
    order = xp.argsort(own)
    total = len(p) if weights is None else weights.sum()
    # n + 1 - k: 0.53 of 100 is 53, though in floating point the product may be a little less.
    beyond: Any = decisions.times_share(total + 1, alpha)
    xp = checks.namespace(own, beyond)
    if weights is None:
        count = xp.floor(beyond).astype(int)
    else:  # those before which no more than beyond - 1 comes
        reached = xp.cumsum(weights[order])
        rounded = beyond * (1 + 8 * jnp.finfo(reached.dtype).eps)
        count = (reached - weights[order] + 1 <= rounded).sum()
    return xp.concatenate([xp.zeros(1, own.dtype), own[order]])[count]


def prediction_sets(probabilities: checks.Given, threshold: checks.Given) -> checks.Values:
    """Which classes are in the set: [..., C] and a number, or an array that fits -> booleans.

    Compared in the narrower of the two types, in which rounding keeps the order: a class of exactly
    the threshold is in the set, whether the threshold is in float32, in float64, or a number that
    was one of them (`threshold(...).item()`).

    >>> prediction_sets(jnp.array([0.5, 0.375, 0.125]), 0.25).tolist()
    [True, True, False]

    Raises:
      ValueError: probabilities outside 0..1 or not of sum 1; a threshold outside 0..1.
    """
    remedy = "It is a probability, from `threshold`."
    checks.check_number("threshold", threshold, 0, 1.001, remedy=remedy)
    return decisions.at_least(checks.as_probabilities(probabilities), threshold)
