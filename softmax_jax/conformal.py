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
and Bates, "A gentle introduction to conformal prediction" (2021).
"""

import jax.numpy as jnp

_ROUNDING = 4 * jnp.finfo(jnp.float32).eps  # of a product of two numbers


def threshold(probabilities, labels, alpha):
    """The least probability of a class in the sets: [n, C], [n] and 0 < alpha < 1 -> a number.

    The k-th smallest score of the n labels, k = ceil((n + 1)(1 - alpha)) (their quantile k / n), is
    one minus the k-th largest probability, and that is returned: without the rounding of 1 - p. It
    is 0 where k > n: of fewer than 1/alpha - 1 examples follows nothing but the set of all classes.

    >>> p = jnp.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> round(threshold(p, jnp.array([0, 1, 1, 1]), alpha=0.2).item(), 2)  # k = 4
    0.4
    """
    n = len(labels)
    ascending = jnp.sort(jnp.take_along_axis(probabilities, labels[:, None], -1)[:, 0])
    # n + 1 - k: 0.53 of 100 is 53, though in float32 the product is a little less.
    beyond = jnp.floor((n + 1) * alpha * (1 + _ROUNDING)).astype(int)
    return jnp.where(beyond > 0, ascending[beyond - 1], 0)


def prediction_sets(probabilities, threshold):
    """Which classes are in the set: [..., C] and a number -> booleans [..., C].

    >>> prediction_sets(jnp.array([0.5, 0.375, 0.125]), 0.25).tolist()
    [True, True, False]
    """
    return probabilities >= threshold
