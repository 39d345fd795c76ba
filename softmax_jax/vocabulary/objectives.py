"""The losses over a vocabulary to train on, by name: alone, and as a `train.Criterion`. Pure."""

import functools
from collections.abc import Callable

import jax

from softmax_jax import checks, metrics, model, train
from softmax_jax.vocabulary.exact import (
    linear_cross_entropy,
    over_vocabulary,
    sharded_linear_cross_entropy,
)
from softmax_jax.vocabulary.inference import log_prob_and_rank
from softmax_jax.vocabulary.sampled import (
    log_uniform,
    negative_sampling,
    noise_contrastive,
    sampled_softmax,
)

EXACT = "cross_entropy"
_WITH_PROPOSAL = {"sampled_softmax": sampled_softmax, "noise_contrastive": noise_contrastive}
OBJECTIVES = (EXACT, *_WITH_PROPOSAL, "negative_sampling")


@functools.cache
def objective(
    name: str, vocabulary_size: int, num_samples: int | None = None, sharding=None
) -> Callable:
    """objective(key, x, W, labels, *, bias=None, example_weights=None) -> the mean loss, a scalar.

    name: 'cross_entropy' (exact, without samples; the key plays no part), 'sampled_softmax',
    'noise_contrastive' or 'negative_sampling', which draw num_samples words with the key,
    log-uniformly, for all rows. sharding: that of V over devices, `NamedSharding(mesh, P(axis))`,
    or None; the exact loss needs to know it. Cached: for equal arguments it is the same function,
    so that nothing is compiled twice.

    Raises ValueError for another name, and for an invalid number of samples.
    """
    if name == EXACT:
        return functools.partial(_exact, sharding)
    if name not in OBJECTIVES:
        raise ValueError(f"There is no objective {name!r}; there are {OBJECTIVES}.")
    checks.check_count("num_samples", num_samples)
    proposal = log_uniform(vocabulary_size)

    def sampled(key, x, W, labels, **more):
        words = proposal.draw(key, num_samples)
        if name in _WITH_PROPOSAL:
            return _WITH_PROPOSAL[name](x, W, labels, words, proposal, **more)
        return negative_sampling(x, W, labels, words, **more)

    return sampled


@functools.cache
def criterion(name, num_classes, num_samples=0, sharding=None) -> train.Criterion:
    """An `objective` on an augmented model: it never holds a batch's logits.

    num_samples: words drawn for each batch, the same for all trials. The train loss is the one that
    is minimised, on samples; validation is exact: loss, accuracy and top5. sharding: see
    `objective`.
    """
    minimised = objective(name, num_classes, num_samples or None, sharding)
    measure = functools.partial(_measure, axis_name=None)
    if sharding is not None:
        (axis,) = sharding.spec
        measure = functools.partial(_measure, axis_name=axis)
        measure = over_vocabulary(measure, sharding.mesh, axis)

    def loss(params, batch, _label_smoothing, step):
        key = jax.random.fold_in(jax.random.key(0), step)
        weights = count = batch.weights
        if batch.importance is not None:
            weights = weights * batch.importance
        x, W = model.augmented_layer(params, batch.x)
        value = minimised(key, x, W, batch.y, example_weights=weights)
        sums = {"sum": value * weights.sum(), "weight": count.sum()}
        return metrics.mean_of(None).value(sums), {"loss": sums}

    def evaluate(params, batch):
        x, W = model.augmented_layer(params, batch.x)
        w, found = batch.weights, measure(W, None, x, batch.y)
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
