"""Whether probabilities are what they say, a temperature that corrects them, and class weights.

A model is calibrated if of all examples to which it gives probability p, a share p has that label.

Probabilities and labels are arrays of NumPy or JAX. Out of range, NaN, or logits where
probabilities are asked for: ValueError. `classes` says what labels that are not numbers of columns
are called, in the order of the columns (`classes_` of an estimator). `weights` [N] says how often
each example counts: 0 is absent, whatever it holds, k is k copies. What is known is summed on the
host in float64; under `jit` and `vmap` it is float32, and values are not checked.

Sources: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks" (2017); Kull
et al., "Beyond temperature scaling" (2019), for the classwise error; G. W. Brier (1950).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from softmax_jax import checks, losses

TEMPERATURES = 0.01, 100.0  # the range within which `temperature` looks
BINNINGS = "width", "mass"
_HALVINGS = 30  # of log 10⁴: to 1e-8, below what float32 resolves
_BLOCK = 1024  # examples that float32 adds up one after the other


class Reliability(NamedTuple):
    """A reliability diagram, K bins: how many examples each has, and there the means of what was
    predicted and of what happened (0 in an empty bin). All [K]; the counts are integers, or with
    weights their sums."""

    count: np.ndarray  # type: ignore[assignment]  # hides tuple.count
    predicted: np.ndarray
    observed: np.ndarray


class _Bins(NamedTuple):
    """[K] each: examples, those of them where it happened, and Σ (predicted - happened)."""

    count: np.ndarray  # type: ignore[assignment]  # hides tuple.count
    happened: np.ndarray
    excess: np.ndarray


def reliability(
    predicted: checks.Given,
    happened: checks.Given,
    num_bins: int = 15,
    binning: str = "width",
    weights: checks.Given | None = None,
) -> Reliability:
    """What was predicted against what happened: probabilities [N], 0 or 1 [N] -> `Reliability`.

    For the confidence: `predicted` is the largest probability, and `happened` whether argmax is
    right. binning: 'width', the K bins (k/K, (k + 1)/K] of equal width (0 is in the first); or
    'mass', between the quantiles k/K of `predicted`, so that each has as many examples, to within
    ties, which stay together.

    >>> reliability([0.25, 0.75, 0.75], [0, 1, 0], num_bins=2).observed.tolist()
    [0.0, 0.5]

    Raises:
      ValueError: another shape, no example, a probability outside 0..1, `happened` other than 0
        and 1, a number of bins below 1, or an unknown binning.
    """
    bins = _bins(_checked(predicted, happened, num_bins, binning, weights), num_bins, binning)
    filled = checks.namespace(bins.count).where(bins.count > 0, bins.count, 1)
    # From the sum of the differences, as in the error: predicted = observed where that is zero.
    return Reliability(bins.count, (bins.happened + bins.excess) / filled, bins.happened / filled)


def calibration_error(
    predicted: checks.Given,
    happened: checks.Given,
    num_bins: int = 15,
    binning: str = "width",
    weights: checks.Given | None = None,
) -> checks.Values:
    """Σ_k n_k / N · |observed_k - predicted_k|, over the bins of `reliability`: a number.

    >>> calibration_error([0.75] * 4, [1, 1, 1, 0]).item()
    0.0

    Raises:
      ValueError: as `reliability`.
    """
    bins = _bins(_checked(predicted, happened, num_bins, binning, weights), num_bins, binning)
    return abs(bins.excess).sum() / bins.count.sum()


def expected_calibration_error(
    probabilities: checks.Given,
    labels: checks.Given,
    num_bins: int = 15,
    binning: str = "width",
    classes: checks.Given | None = None,
    weights: checks.Given | None = None,
) -> checks.Values:
    """The expected calibration error (ECE) of the most probable class: [N, C], [N] -> a number.

    With few examples in a bin it is above zero for a calibrated model, too: compare models by it
    only at equal N and equal bins.

    Raises:
      ValueError: probabilities, labels or bins that do not fit, see the module.
    """
    p, labels, weights = _examples(probabilities, labels, classes, weights)
    right = p.argmax(-1) == labels
    return calibration_error(p.max(-1), right, num_bins, binning, weights)


def classwise_calibration_error(
    probabilities: checks.Given,
    labels: checks.Given,
    num_bins: int = 15,
    binning: str = "width",
    classes: checks.Given | None = None,
    weights: checks.Given | None = None,
) -> checks.Values:
    """The mean over the classes c of the calibration error of p(c): [N, C], [N] -> a number.

    It sees what the confidence hides: probabilities wrong for one class, or below the largest.

    Raises:
      ValueError: probabilities, labels or bins that do not fit, see the module.
    """
    p, labels, weights = _examples(probabilities, labels, classes, weights)
    errors = [
        calibration_error(p[:, number], labels == number, num_bins, binning, weights)
        for number in range(p.shape[1])
    ]
    return checks.namespace(*errors).stack(errors).mean()


def brier_score(
    probabilities: checks.Given,
    labels: checks.Given,
    classes: checks.Given | None = None,
    weights: checks.Given | None = None,
) -> checks.Values:
    """Σ_c (p(c) - [c = label])², mean over the examples: [N, C], [N] -> a number in 0..2.

    For two classes it is twice the mean of (p(1) - label)², which is also called so.

    >>> brier_score(jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([1, 0])).item()
    0.25

    Raises:
      ValueError: probabilities or labels that do not fit, see the module.
    """
    p, labels, weights = _examples(probabilities, labels, classes, weights)
    if checks.known(p, labels, weights):
        p, labels = np.array(p, np.float64), np.asarray(labels)
        p[np.arange(len(p)), labels] -= 1
        return np.average(np.square(p).sum(1), weights=weights)
    happened = jax.nn.one_hot(labels, p.shape[-1], dtype=p.dtype)
    inside = (labels >= 0) & (labels < p.shape[-1])
    each = jnp.where(inside, jnp.square(p - happened).sum(1), jnp.nan)
    return each.mean() if weights is None else _weighted_sum(weights, each) / weights.sum()


def temperature(
    logits: checks.Given,
    labels: checks.Given,
    classes: checks.Given | None = None,
    weights: checks.Given | None = None,
) -> Float[Array, ""]:
    """The T > 0 for which softmax(logits / T) has the least cross-entropy: [N, C], [N] -> number.

    Fit it on examples that the model was not trained on. The order of the classes, and so the
    accuracy, stays; T > 1 takes back confidence. The loss is convex in 1/T, and the sign of its
    slope, mean(Σ_c p(c) · (o(c) - o(label))), says in which half of the range of log T to go on.

    On these examples the result is never worse than T = 1, which is returned where nothing is
    better. Within `TEMPERATURES`: where every label has the largest logit, the loss falls all the
    way to T = 0, and the least T is returned; where the logits are worse than none, the largest.

    A logit of -inf is a probability of 0 at any T, and has no say; that of a label makes the loss
    infinite at any T: an error, and where it is traced, NaN.

    >>> logits = jnp.log(jnp.array([[0.9, 0.1]] * 4))
    >>> T = temperature(logits, jnp.array([0, 0, 0, 1]))  # 75 % of what was given 90 %
    >>> losses.softmax(logits / T)[0].round(4).tolist()
    [0.75, 0.25]

    Raises:
      ValueError: another shape, no example, labels that do not fit (see the module), logits that
        are NaN or +inf, or -inf for the label.
    """
    logits = checks.as_floats("logits", logits)
    if logits.ndim != 2 or not all(logits.shape):
        raise ValueError(
            f"logits must be [N, C], with at least one example; they are {checks.shape_of(logits)}."
        )
    logits, labels, weights = checks.counted(weights, logits, checks.as_array(labels))
    labels = checks.as_labels(labels, len(logits), logits.shape[1], classes)
    if checks.known(logits, labels):
        _check_logits(np.asarray(logits), np.asarray(labels))
    logits = jnp.asarray(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if weights is not None:
        weights = jnp.asarray(weights / weights.sum(), logits.dtype)
    return _temperature(logits, labels, weights)


def unweighted(probabilities: checks.Given, class_weight: checks.Given) -> checks.Values:
    """What a model trained with class weights says of data as they are: p ∝ p' / v.

    A model whose loss weighs the examples of class c by v(c) learns the probabilities of data in
    which class c is v(c) times as frequent: p'(c | x) ∝ v(c) · p(c | x). Whoever needs
    probabilities that mean what they say (expected costs, calibration, thresholds) divides by the
    weights again; with logits, subtract log v. [..., C], [C] -> [..., C].

    A class of weight 0 was not learned, and p' says nothing of how frequent it is: its probability
    is 0, and the others are those among the remaining classes.

    >>> unweighted([0.5, 0.5], [1.0, 19.0]).round(4).tolist()  # 5 % were weighted to a half
    [0.95, 0.05]

    Source: C. Elkan, "The foundations of cost-sensitive learning" (2001), theorem 2.

    Raises:
      ValueError: weights that are not C finite numbers of at least 0, one of them above; or an
        example all of whose probability is on classes of weight 0.
    """
    p, v = checks.as_probabilities(probabilities), checks.as_floats("class_weight", class_weight)
    if v.shape != p.shape[-1:]:
        raise ValueError(
            f"class_weight must be [C] = [{p.shape[-1]}], a number for each column; it is "
            f"{checks.shape_of(v)}."
        )
    checks.check_number("class_weight", v, 0, remedy="Of 0, a class is left out of the fit.")
    xp = np if checks.known(p, v) else jnp
    wide = xp.asarray(p, np.float64) if xp is np else p
    learned = v > 0
    # The least weight over each: no more than 1, however small the weights are.
    least = xp.where(learned, v, np.inf).min()
    corrected = wide * xp.where(learned, least / xp.where(learned, v, 1), 0)
    total = corrected.sum(-1, keepdims=True)
    if xp is np and not (total > 0).all():
        raise ValueError(
            "class_weight must be above 0 for a class of each example with a probability above 0; "
            f"it is {np.asarray(v).tolist()}."
        )
    xp = checks.namespace(p, total)
    return xp.asarray(corrected / total, p.dtype)


def _examples(probabilities, labels, classes, weights):
    """Probabilities, labels and weights (or None) of the examples that count."""
    given = checks.as_array(probabilities), checks.as_array(labels)
    probabilities, labels, weights = checks.counted(weights, *given)
    p = checks.as_probabilities(probabilities, ndim=2)
    if not len(p):
        raise ValueError("probabilities must have at least one row, of an example; they have none.")
    return p, checks.as_labels(labels, len(p), p.shape[1], classes), weights


def _weighted_sum(weights, values):
    return jnp.where(weights > 0, weights * values, 0).sum()  # 0 · NaN is NaN


def _checked(predicted, happened, num_bins, binning, weights):
    """The two and the weights (or None) as arrays [N]: of NumPy if they are known, else of JAX."""
    checks.check_whole("num_bins", num_bins, 1)
    if binning not in BINNINGS:
        raise ValueError(f"binning must be one of {BINNINGS}; it is {binning!r}.")
    predicted, happened = checks.as_floats("predicted", predicted), checks.as_array(happened)
    if predicted.ndim != 1 or predicted.shape != happened.shape or not len(predicted):
        raise ValueError(
            "predicted and happened must be [N] both, with at least one example; they are "
            f"{checks.shape_of(predicted)} and {checks.shape_of(happened)}."
        )
    predicted, happened, weights = checks.counted(weights, predicted, happened)
    remedy = "Of logits take losses.softmax first."
    checks.check_number("predicted", predicted, -1e-6, 1.001, remedy=remedy)
    if not checks.known(predicted, happened, weights):
        weights = None if weights is None else jnp.asarray(weights)
        return jnp.asarray(predicted), jnp.asarray(happened) != 0, weights
    predicted, happened = np.asarray(predicted), np.asarray(happened)
    if not np.isin(happened, (0, 1)).all():
        wrong = happened[~np.isin(happened, (0, 1))][0]
        raise ValueError(f"happened must be 0 or 1; one is {wrong}. Compare labels with a class.")
    return predicted, happened != 0, weights


def _bins(examples, num_bins, binning):
    predicted, happened, weights = examples
    # Edges of equal width in the type of the probabilities: 0.2 in float32 is at the edge 0.2.
    edges = (np.arange(1, num_bins) / num_bins).astype(predicted.dtype)
    if binning == "mass":
        edges = _quantiles(predicted, weights, num_bins)
    if not checks.known(predicted, happened, weights):
        member = (predicted[:, None] > edges).sum(1)
        return _traced_bins(predicted, happened, weights, member, num_bins)
    member, excess = np.searchsorted(edges, predicted), predicted.astype(np.float64) - happened
    if weights is None:  # whole numbers: exact
        count = np.bincount(member, minlength=num_bins)
        happening = np.bincount(member[happened], minlength=num_bins)
    else:
        count = np.bincount(member, weights, num_bins)
        happening, excess = np.bincount(member, weights * happened, num_bins), weights * excess
    return _Bins(count, happening, np.bincount(member, excess, num_bins))


def _quantiles(values, weights, num):
    """What is at (N - 1) · k / num, 0 < k < num, in ascending order, or just below it.

    With weights N is their sum, and one example 1, or less where a weight is less.
    """
    xp = checks.namespace(values, weights)
    ascending, k = xp.argsort(values), np.arange(1, num)
    if weights is None:
        return values[ascending][(len(values) - 1) * k // num]
    reached = xp.cumsum(weights[ascending])
    one = xp.where(weights > 0, weights, 1).min().clip(max=1)
    place = (reached[-1] - one) / num * k * (1 + 8 * jnp.finfo(reached.dtype).eps)
    number = xp.searchsorted(reached, place, side="right")
    return values[ascending][number.clip(max=len(values) - 1)]


def _traced_bins(predicted, happened, weights, member, num_bins):
    """Blocks are added up by themselves, then their sums: float32 loses little."""
    padding = -len(predicted) % _BLOCK
    each = jnp.ones(len(predicted), int) if weights is None else weights
    values = each, each * happened, jnp.where(each > 0, each * (predicted - happened), 0)
    values = [jnp.pad(value, (0, padding)) for value in values]
    member = jnp.pad(member, (0, padding)).reshape(-1, _BLOCK)

    def of_block(value, member):
        return jax.ops.segment_sum(value, member, num_bins)

    return _Bins(*(jax.vmap(of_block)(v.reshape(-1, _BLOCK), member).sum(0) for v in values))


def _check_logits(logits, labels):
    if not (logits < np.inf).all():
        row = int((~(logits < np.inf)).any(1).argmax())
        raise ValueError(f"logits must be below infinity and not NaN; row {row} is {logits[row]}.")
    impossible = logits[np.arange(len(labels)), labels] == -np.inf
    if impossible.any():
        raise ValueError(
            "logits must be above -inf for the label, which else has probability 0 at any "
            f"temperature; in row {int(impossible.argmax())} it is -inf. Raise it to the logarithm "
            "of the least probability that you believe in."
        )


@jax.jit
def _temperature(logits, labels, weights):
    def mean(values):
        return values.mean() if weights is None else _weighted_sum(weights, values)

    ahead = logits - jnp.take_along_axis(logits, labels[:, None], -1, mode="clip")

    def slope(T):
        p = losses.softmax(logits / T)
        return mean(jnp.where(p > 0, p * ahead, 0).sum(-1))  # a class of logit -inf has no say

    def halve(_, bracket):
        low, high = bracket
        middle = jnp.sqrt(low * high)
        cooler = slope(middle) <= 0  # the loss falls with 1/T
        return jnp.where(cooler, low, middle), jnp.where(cooler, middle, high)

    def loss(T):
        return mean(losses.cross_entropy(logits / T, labels))

    ends = tuple(jnp.asarray(end, logits.dtype) for end in TEMPERATURES)
    T = jnp.sqrt(jnp.prod(jnp.stack(jax.lax.fori_loop(0, _HALVINGS, halve, ends))))
    best = jnp.where(loss(T) < loss(1.0), T, 1.0)
    return jnp.where(jnp.isfinite(loss(1.0)), best, jnp.nan)
