"""From probabilities to actions: what to do is not always what is most probable.

Every function takes the classes on the last axis and any axes before it, so that one rule serves
one example, N of them, or those of T trials; `jax.vmap` goes over what else differs, such as a
threshold. A decision is right as far as the probabilities are: see `calibration`.

Source: Duda, Hart and Stork, *Pattern Classification* (2001), chapter 2.
"""

import jax
import jax.numpy as jnp

_ROUNDING = 4 * jnp.finfo(jnp.float32).eps  # of a product of two numbers


def expected_cost(probabilities, cost):
    """Σ_c p(c) · cost[c, a], of every action a: [..., C] and [C, A] -> [..., A].

    cost[c, a] is what action a costs where the class is c. Actions need not be classes.

    >>> operate_or_wait = jnp.array([[1.0, 10.0], [2.0, 0.0]])  # ill or well, by rows
    >>> expected_cost(jnp.array([0.25, 0.75]), operate_or_wait).tolist()
    [1.75, 2.5]
    """
    return jnp.matmul(probabilities, jnp.asarray(cost), precision=jax.lax.Precision.HIGHEST)


def bayes_action(probabilities, cost):
    """The action of least expected cost: [..., C] and [C, A] -> integers [...].

    No other rule costs less on average where the probabilities are right. Of equal costs the
    first counts. With cost 0 for the right class and 1 for any other it is argmax.

    >>> bayes_action(jnp.array([0.25, 0.75]), jnp.array([[1.0, 10.0], [2.0, 0.0]])).item()
    0
    """
    return expected_cost(probabilities, cost).argmin(-1)


def with_reject(cost, price):
    """A cost matrix [C, A] and one action more, which costs `price` whatever the class: [C, A + 1].

    Its Bayes action is Chow's rule: decide where that is expected to be cheaper, else hand the
    example on (to a second test, a person, a larger model).

    Source: C. K. Chow, "On optimum recognition error and reject tradeoff" (1970).
    """
    cost = jnp.asarray(cost)
    rejecting = jnp.full((*cost.shape[:-1], 1), price, cost.dtype)
    return jnp.concatenate([cost, rejecting], -1)


def chow_threshold(wrong, reject, right=0.0):
    """The probability from which on deciding is no dearer than rejecting.

    (wrong - reject) / (wrong - right): deciding for a class of probability p costs
    p · right + (1 - p) · wrong, whichever the class. Needs right ≤ reject ≤ wrong, right < wrong.

    >>> chow_threshold(wrong=10.0, reject=1.0)
    0.9
    """
    return (wrong - reject) / (wrong - right)


def decide_or_reject(probabilities, threshold):
    """Chow's rule: the most probable class where it has `threshold` or more, else C ("reject").

    [..., C] and a number or [...] -> integers [...] in 0..C.

    >>> decide_or_reject(jnp.array([[0.95, 0.05], [0.4, 0.6]]), 0.9).tolist()
    [0, 2]
    """
    reject = probabilities.shape[-1]
    return jnp.where(probabilities.max(-1) >= threshold, probabilities.argmax(-1), reject)


def top_k(probabilities, k):
    """The k most probable classes, the most probable first: [..., C] -> integers [..., k].

    Of equally probable ones those with the smaller number.

    >>> top_k(jnp.array([0.2, 0.5, 0.3]), 2).tolist()
    [1, 2]
    """
    return jax.lax.top_k(probabilities, k)[1]


def sensitivity_threshold(probabilities, labels, positive, sensitivity):
    """The largest threshold at which the wanted share of the positives is found.

    That is the k-th largest p(positive) among the P examples of the class `positive`, with the
    smallest k for which k / P ≥ sensitivity (a number in (0, 1]): any larger threshold, which
    would spare false alarms, finds fewer. Choose it on examples that the model was not trained
    on, and measure what it attains on others again: there it finds k / (P + 1) on average.

    Probabilities [N, C], labels [N] -> a number; -inf where there is no positive.

    >>> p = jnp.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> round(sensitivity_threshold(p, jnp.array([0, 1, 1, 1]), 1, 2 / 3).item(), 2)
    0.7
    """
    among = labels == positive
    descending = jnp.sort(jnp.where(among, probabilities[:, positive], -jnp.inf), descending=True)
    # 0.15 of 100 is 15, though in float32 the product is a little more.
    k = jnp.ceil(among.sum() * sensitivity * (1 - _ROUNDING)).astype(int)
    return descending[k - 1]


def decide_by_threshold(probabilities, positive, threshold):
    """`positive` where its probability is `threshold` or more, else the likeliest other class.

    [..., C], a class and a number or [...] -> integers [...].

    >>> decide_by_threshold(jnp.array([[0.1, 0.9], [0.02, 0.98]]), 0, 0.09).tolist()
    [0, 1]
    """
    classes = jnp.arange(probabilities.shape[-1])
    others = jnp.where(classes == positive, -jnp.inf, probabilities)
    return jnp.where(probabilities[..., positive] >= threshold, positive, others.argmax(-1))
