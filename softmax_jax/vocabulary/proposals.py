"""Where sampled words come from: distributions over V words that are cheap to draw from. Pure."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from softmax_jax.vocabulary import checks


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

    For words sorted by their frequency, the most frequent first. A draw is ⌊(V + 1)^u⌋ - 1, with u
    uniform on [0, 1). Its float32 makes single rare words up to 1 % more or less frequent than q
    for V = 10^5, and up to 10 % for 10^6; their neighbours balance it. A V outside 1..2^20 raises
    ValueError.

    >>> print(jnp.exp(log_uniform(3).log_prob(jnp.arange(3))).round(4))
    [0.5    0.2925 0.2075]
    """
    checks.check_count("vocabulary_size", vocabulary_size, 2**20)
    span = math.log(vocabulary_size + 1)

    def draw(key, num_samples):
        # From the far end, u = 1 - w: there, where q is small, float32 has w in the finest steps.
        w = jax.random.bits(key, (num_samples,), jnp.uint32).astype(jnp.float32) * 2.0**-32
        words = jnp.floor((vocabulary_size + 1) * jnp.exp(-span * w)).astype(jnp.int32) - 1
        return jnp.clip(words, 0, vocabulary_size - 1)

    return Proposal(draw, lambda words: jnp.log(jnp.log1p(1 / (words + 1.0)) / span))


@functools.cache
def uniform(vocabulary_size: int) -> Proposal:
    """q(v) = 1 / V. V out of 1..2^31 - 1 raises ValueError."""
    checks.check_count("vocabulary_size", vocabulary_size, 2**31 - 1)

    def draw(key, num_samples):
        return jax.random.randint(key, (num_samples,), 0, vocabulary_size)

    return Proposal(draw, lambda words: jnp.full(words.shape, -math.log(vocabulary_size)))
