"""From probabilities to actions: what to do is not always what is most probable.

Every function takes the classes on the last axis and any axes before it, so that one rule serves
one example, N of them, or those of T trials; `jax.vmap` goes over what else differs, such as a
threshold. A decision is right as far as the probabilities are: see `calibration`.

Arrays of NumPy are worked on by NumPy, in their own type, and those of JAX by JAX. Arguments that
cannot be right raise ValueError: probabilities outside 0..1 or not of sum 1 (such as logits), NaN,
costs that are not finite, thresholds and shares out of range. Under `jit` and `vmap` only shapes
and types are known, and checked.

Source: Duda, Hart and Stork, *Pattern Classification* (2001), chapter 2.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Num

from softmax_jax import checks

_Cost: TypeAlias = float | int | np.floating | Num[Array | np.ndarray, "..."]

_MOST_ROUNDING = 0.125  # of a product that is taken for the whole number beside it


def expected_cost(probabilities: checks.Given, cost: checks.Given) -> checks.Values:
    """Σ_c p(c) · cost[c, a], of every action a: [..., C] and [C, A] -> [..., A].

    cost[c, a] is what action a costs where the class is c. Actions need not be classes.

    >>> operate_or_wait = jnp.array([[1.0, 10.0], [2.0, 0.0]])  # ill or well, by rows
    >>> expected_cost(jnp.array([0.25, 0.75]), operate_or_wait).tolist()
    [1.75, 2.5]

    Raises:
      ValueError: probabilities that are none; costs that are not finite, or not a row per class.
    """
    p, cost = checks.as_probabilities(probabilities), _as_cost(cost)
    if len(cost) != p.shape[-1]:
        raise ValueError(
            f"cost must be [C, A], a row for each of the {p.shape[-1]} classes; it is "
            f"{checks.shape_of(cost)}."
        )
    if checks.namespace(p, cost) is np:
        return p @ cost
    return jnp.matmul(p, jnp.asarray(cost), precision=jax.lax.Precision.HIGHEST)


def bayes_action(probabilities: checks.Given, cost: checks.Given) -> checks.Values:
    """The action of least expected cost: [..., C] and [C, A] -> integers [...].

    No other rule costs less on average where the probabilities are right. Of equal costs the
    first counts. With cost 0 for the right class and 1 for any other it is argmax.

    >>> bayes_action(jnp.array([0.25, 0.75]), jnp.array([[1.0, 10.0], [2.0, 0.0]])).item()
    0

    Raises:
      ValueError: as `expected_cost`.
    """
    return expected_cost(probabilities, cost).argmin(-1)


def with_reject(cost: checks.Given, price: checks.Given) -> checks.Values:
    """A cost matrix [C, A] and one action more, which costs `price` whatever the class: [C, A + 1].

    Its Bayes action is Chow's rule: decide where that is expected to be cheaper, else hand the
    example on (to a second test, a person, a larger model).

    >>> with_reject([[0, 1], [1, 0]], 0.25).tolist()
    [[0.0, 1.0, 0.25], [1.0, 0.0, 0.25]]

    Source: C. K. Chow, "On optimum recognition error and reject tradeoff" (1970).

    Raises:
      ValueError: costs or a price that are not finite numbers.
    """
    cost = _as_cost(cost)
    checks.check_number("price", price)
    xp = checks.namespace(cost, price)
    return xp.concatenate([cost, xp.full((len(cost), 1), price, cost.dtype)], -1)


def chow_threshold(wrong: ArrayLike, reject: ArrayLike, right: ArrayLike = 0.0) -> ArrayLike:
    """The probability from which on deciding is no dearer than rejecting.

    (wrong - reject) / (wrong - right): deciding for a class of probability p costs
    p · right + (1 - p) · wrong, whichever the class.

    >>> chow_threshold(wrong=10.0, reject=1.0)
    0.9

    Raises:
      ValueError: unless right ≤ reject ≤ wrong and right < wrong, all finite: rejecting at a higher
        price never pays, and at a lower one always does.
    """
    costs = {"wrong": wrong, "reject": reject, "right": right}
    for name, cost in costs.items():
        checks.check_number(name, cost)
    if checks.known(*costs.values()):
        wrong_, reject_, right_ = map(np.asarray, costs.values())
        if not ((right_ <= reject_) & (reject_ <= wrong_) & (right_ < wrong_)).all():
            raise ValueError(
                "the costs must be right ≤ reject ≤ wrong, and right < wrong; they are "
                f"right {right}, reject {reject}, wrong {wrong}. Where rejecting costs more than "
                "a mistake, decide always; where it costs less than a right answer, never."
            )
    most: Any = wrong  # a number or an array
    return (most - reject) / (most - right)


def decide_or_reject(probabilities: checks.Given, threshold: checks.Given) -> checks.Values:
    """Chow's rule: the most probable class where it has `threshold` or more, else C ("reject").

    [..., C] and a number or [...] -> integers [...] in 0..C.

    >>> decide_or_reject(jnp.array([[0.95, 0.05], [0.4, 0.6]]), 0.9).tolist()
    [0, 2]

    Raises:
      ValueError: probabilities that are none; a threshold outside 0..1.
    """
    p = checks.as_probabilities(probabilities)
    _check_threshold(threshold)
    decided = at_least(p.max(-1), threshold)
    return checks.namespace(p, decided).where(decided, p.argmax(-1), p.shape[-1])


def top_k(probabilities: checks.Given, k: int | np.integer) -> Int[Array | np.ndarray, "... k"]:
    """The k most probable classes, the most probable first: [..., C] -> integers [..., k].

    Of equally probable ones those with the smaller number.

    >>> top_k(jnp.array([0.2, 0.5, 0.3]), 2).tolist()
    [1, 2]

    Raises:
      ValueError: probabilities that are none; k that is not a whole number from 1 to C.
    """
    p = checks.as_probabilities(probabilities)
    checks.check_whole("k", k, 1, p.shape[-1])
    if checks.namespace(p) is np:
        return np.argsort(-p, -1, kind="stable")[..., :k]
    return jax.lax.top_k(p, int(k))[1]


def sensitivity_threshold(
    probabilities: checks.Given,
    labels: checks.Given,
    positive: Any,
    sensitivity: ArrayLike,
    classes: checks.Given | None = None,
    weights: checks.Given | None = None,
) -> checks.Values:
    """The largest threshold at which the wanted share of the positives is found.

    That is the k-th largest p(positive) among the P examples of the class `positive`, with the
    smallest k for which k / P ≥ sensitivity (a number in (0, 1]): any larger threshold, which
    would spare false alarms, finds fewer. Choose it on examples that the model was not trained
    on, and measure what it attains on others again: there it finds k / (P + 1) on average.

    Probabilities [N, C], labels [N] -> a number of their type; -inf where there is no positive.
    classes: what the labels, and `positive`, are called, in the order of the columns.
    weights: [N], how often each example counts: 0 is absent, k is k copies.

    >>> p = jnp.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> round(sensitivity_threshold(p, jnp.array([0, 1, 1, 1]), 1, 2 / 3).item(), 2)
    0.7

    Raises:
      ValueError: probabilities that are none; labels of another length or type, or not among the
        classes; a `positive` that is no class; a sensitivity not above 0 and at most 1.
    """
    remedy = "Of 9 in 10 that are to be found, it is 0.9."
    checks.check_number("sensitivity", sensitivity, 0, 1, ends=(False, True), remedy=remedy)
    given = checks.as_array(probabilities), checks.as_array(labels)
    probabilities, labels, weights = checks.counted(weights, *given)
    p = checks.as_probabilities(probabilities, ndim=2)
    if not len(p):
        return p.dtype.type(-np.inf)
    labels = checks.as_labels(labels, len(p), p.shape[1], classes)
    if classes is not None:
        positive = int(checks.as_labels(np.asarray([positive]), 1, p.shape[1], classes)[0])
    _check_class(positive, p.shape[1])
    among = (
        checks.equal(labels, positive) if checks.known(positive) else jnp.equal(labels, positive)
    )
    xp = checks.namespace(p, positive, among, weights)
    p, counts = xp.asarray(p), among if weights is None else among * weights
    # 0.15 of 100 is 15, though in floating point the product may be a little more.
    wanted: Any = times_share(counts.sum(), sensitivity)
    own = xp.where(counts > 0, p[:, positive], xp.asarray(-np.inf, p.dtype))
    descending = xp.argsort(-own)
    xp = checks.namespace(own, wanted)
    reached = xp.cumsum(xp.asarray(counts)[descending])
    if weights is not None:  # sums of which rounding may leave a little less
        wanted = wanted * (1 - 8 * jnp.finfo(reached.dtype).eps)
    short = (reached < wanted).sum()
    # No positive: nothing is short, and the first is -inf.
    return own[descending][short]


def decide_by_threshold(
    probabilities: checks.Given, positive: ArrayLike, threshold: checks.Given
) -> checks.Values:
    """`positive` where its probability is `threshold` or more, else the likeliest other class.

    [..., C], a class and a number or [...] -> integers [...].

    >>> decide_by_threshold(jnp.array([[0.1, 0.9], [0.02, 0.98]]), 0, 0.09).tolist()
    [0, 1]

    Raises:
      ValueError: probabilities that are none; a `positive` that is no class; a threshold outside
        0..1, except the -inf of `sensitivity_threshold`.
    """
    p = checks.as_probabilities(probabilities)
    _check_class(positive, p.shape[-1])
    if not (checks.known(threshold) and np.all(np.asarray(threshold) == -np.inf)):
        _check_threshold(threshold)
    p = checks.namespace(p, positive).asarray(p)
    called = at_least(p[..., positive], threshold)
    xp = checks.namespace(p, called)
    others = xp.where(xp.arange(p.shape[-1]) == positive, xp.asarray(-np.inf, p.dtype), p)
    return xp.where(called, positive, others.argmax(-1))


def at_least(probabilities: checks.Given, threshold: checks.Given) -> checks.Values:
    """p ≥ threshold, compared in the narrower of their types: an array and a number or array.

    Rounding keeps the order, so nothing that reaches the threshold falls short for its type: 0.6
    reaches the float32 next to it, .60000002. A plain number has the type that holds it exactly,
    float32 or else float64.

    >>> at_least(np.array([0.6, 0.5]), np.float32(0.6).item()).tolist()
    [True, False]
    """
    xp = checks.namespace(probabilities, threshold)
    values, least = xp.asarray(probabilities), threshold
    if not hasattr(threshold, "dtype"):
        exact = np.asarray(threshold, np.float64)
        narrow = exact.astype(np.float32)
        least = narrow if (narrow == exact).all() else exact
    least = xp.asarray(least)
    if not jnp.issubdtype(least.dtype, jnp.floating):
        least = least.astype(values.dtype)
    narrower = max(values.dtype, least.dtype, key=lambda dtype: jnp.finfo(dtype).eps)
    return values.astype(narrower) >= least.astype(narrower)


def times_share(count: ArrayLike, share: ArrayLike) -> checks.Values:
    """count · share, or the whole number that it differs from by no more than rounding.

    `floor` and `ceil` of it are then those of the exact product: in floating point 0.15 · 100 may
    be a little more than 15. A float32 share is taken for the shortest decimal that it stands for.

    >>> times_share(100, np.float32(0.15)).item()
    15.0
    """
    if checks.known(count, share):
        share = checks.as_array(share)
        eps = float(jnp.finfo(checks.as_floats("share", share).dtype).eps)
        decimals = [float(str(one)) for one in np.asarray(share).ravel()]
        product = np.asarray(count) * np.reshape(decimals, share.shape)
    else:
        product = jnp.multiply(count, share)
        eps = jnp.finfo(product.dtype).eps
    xp = checks.namespace(product)
    whole = xp.round(product)
    near = abs(product - whole) <= xp.minimum(4 * eps * product, _MOST_ROUNDING)
    return xp.where(near, whole, product)


def _as_cost(cost):
    cost = checks.as_floats("cost", cost)
    if cost.ndim != 2 or not cost.size:
        raise ValueError(
            "cost must be [C, A], a row for each class and a column for each action; it is "
            f"{checks.shape_of(cost)}."
        )
    checks.check_number("cost", cost, remedy="Give each action a price.")
    return cost


def _check_threshold(threshold):
    remedy = "It is a probability."
    checks.check_number("threshold", threshold, 0, 1.001, remedy=remedy)


def _check_class(positive, num_classes):
    checks.check_whole("positive", positive, 0, num_classes - 1)
