"""The losses to train on, behind one signature, by name. Pure."""

import functools
from collections.abc import Callable

from softmax_jax.vocabulary import checks
from softmax_jax.vocabulary.cross_entropy import linear_cross_entropy
from softmax_jax.vocabulary.proposals import log_uniform
from softmax_jax.vocabulary.sampled import negative_sampling, noise_contrastive, sampled_softmax
from softmax_jax.vocabulary.sharding import sharded_linear_cross_entropy

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

    Raises ValueError for another name, and for a number of samples that is none.
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


def _exact(sharding, _key, x, W, labels, **more):
    if sharding is None:
        return linear_cross_entropy(x, W, labels, **more)
    (axis,) = sharding.spec
    return sharded_linear_cross_entropy(sharding.mesh, x, W, labels, axis_name=axis, **more)
