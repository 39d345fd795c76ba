"""A language made on the spot: the next word after one of a few contexts, of a huge vocabulary.

    from softmax_jax.configs import bigram
    splits = data.load("bigram:1000")

Importing this module registers the dataset 'bigram', of 100,000 words, and 'bigram:V', of V words.
configs/large_vocabulary.py trains on it. Since the language is known, so is the distance of a model
from it, which summary.json of a job holds.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from softmax_jax import data, host
from softmax_jax.data import DataError, Dataset, Source, Splits

BIGRAM = "bigram"
_NUM_FEATURES = 32
_MOST_DIGITS = 12  # of a number of words
_CONTEXTS_AT_ONCE = 50  # of which next words are drawn: 40 MB of probabilities for V = 100,000
_ROWS_AT_ONCE = 20  # of which the divergence is computed: 8 MB of logits for V = 100,000


@dataclasses.dataclass(frozen=True, eq=False)
class Bigrams:
    """A bigram language of V words, of which the first K are the contexts, and examples of it.

    p(word | context) = softmax(features[context] @ W + bias)[word], so that a linear layer on the
    same features can represent the language exactly.

    Attributes:
      features: [K, D] float32: the fixed vector of each context, of length 1.
      frequencies: [K] float64: the probability of each context.
      W, bias: [D, V] and [V] float32: the true layer; the bias is the logarithm of Zipf's law.
      train, val: pairs (contexts, words), int32 [N] each: a context, and the word that follows it.
    """

    features: np.ndarray
    frequencies: np.ndarray
    W: np.ndarray
    bias: np.ndarray
    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray]

    def log_probabilities(self, contexts):
        """log p(word | context) of all V words after each of the contexts: float64 [N, V]."""
        return _log_probabilities(self.features[contexts], self.W, self.bias)

    @property
    def layer(self) -> "Layer":
        """The true layer on the vectors of all contexts."""
        return Layer(self.features, self.W, self.bias)

    def entropy(self) -> float:
        """The smallest mean cross-entropy that a model can reach, in nats per word."""
        contexts = np.arange(len(self.features))
        blocks = (self.log_probabilities(block) for block in _blocks(contexts))
        each = np.concatenate([-(np.exp(block) * block).sum(1) for block in blocks])
        return float(self.frequencies @ each)

    @functools.cached_property
    def splits(self) -> Splits:
        """The examples as datasets: x is the vector of the context, y the word."""
        names = tuple(map(str, range(len(self.bias))))
        train, val = (
            Dataset(self.features[contexts], words, 1.0, names, BIGRAM)
            for contexts, words in (self.train, self.val)
        )
        return Splits(train, val, None, BIGRAM, names, False)


def bigrams(
    seed: int = 0,
    *,
    vocabulary_size: int = 100_000,
    num_contexts: int = 1000,
    num_features: int = _NUM_FEATURES,
    num_train: int = 200_000,
    num_val: int = 10_000,
    strength: float = 2.0,
) -> Bigrams:
    """Makes a language and draws examples of it: equal arguments give equal languages.

    Without a context, word v has probability ∝ 1 / (v + 1), Zipf's law. The contexts are the first
    K words, with frequencies in the same proportions. A context shifts the logit of every word by a
    draw from N(0, strength²), namely features @ W; so over all contexts, the frequencies of the
    words follow the law only roughly.

    Args:
      seed: determines the language and its examples.
      vocabulary_size: V.
      num_contexts: K ≤ V.
      num_features: D.
      num_train: examples in train, drawn independently.
      num_val: examples in val, drawn independently.
      strength: how much the next word depends on the context; 0: not at all.

    Raises:
      DataError: a size below 1, more contexts than words, or a strength below 0.
    """
    sizes = (vocabulary_size, num_contexts, num_features, num_train, num_val)
    if min(sizes) < 1 or num_contexts > vocabulary_size or not strength >= 0:
        raise DataError(
            "A bigram language needs sizes of at least 1, no more contexts than words, and a "
            f"strength of 0 or more; got {vocabulary_size} words, {num_contexts} contexts, "
            f"{num_features} features, {num_train} + {num_val} examples, strength {strength}."
        )
    # The float64 draws of W, W itself in float32, the names of the words, and the probabilities of
    # a block of contexts.
    each = 12 * num_features + 16 * min(_CONTEXTS_AT_ONCE, num_contexts) + 64
    needed = vocabulary_size * each + 8 * num_contexts * num_features + 40 * (num_train + num_val)
    host.require_memory(needed, f"A language of {vocabulary_size:,} words", "Ask for less.")
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_contexts, num_features))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    W = rng.normal(0, strength, (num_features, vocabulary_size)).astype(np.float32)
    bias = special.log_softmax(-np.log(np.arange(1, vocabulary_size + 1))).astype(np.float32)
    frequencies = special.softmax(bias[:num_contexts].astype(float))
    parts = [_draw(rng, number, features, W, bias, frequencies) for number in (num_train, num_val)]
    return Bigrams(features, frequencies, W, bias, *parts)


def _draw(rng, number, features, W, bias, frequencies):
    contexts = rng.choice(len(features), number, p=frequencies).astype(np.int32)
    points = rng.random(number)
    words = np.empty(number, np.int32)
    by_context = np.argsort(contexts, kind="stable")
    ends = np.searchsorted(contexts[by_context], np.arange(len(features) + 1))
    for block in _blocks(np.arange(len(features))):
        sums = np.exp(_log_probabilities(features[block], W, bias)).cumsum(1)
        for context, cumulative in zip(block, sums, strict=True):
            rows = by_context[ends[context] : ends[context + 1]]
            words[rows] = np.searchsorted(cumulative[:-1], points[rows] * cumulative[-1], "right")
    return contexts, words


def _blocks(contexts):
    return np.array_split(contexts, -(-len(contexts) // _CONTEXTS_AT_ONCE))


def _log_probabilities(features, W, bias):
    # The product is in float32, as in a model; the sums over V are in float64.
    return special.log_softmax((features @ W + bias).astype(float), axis=1)


@functools.lru_cache(maxsize=1)
def language(name: str) -> Bigrams:
    """The language called 'bigram', of 100,000 words, or 'bigram:V', of V words.

    Raises:
      DataError: V is not a number of at least 2, or the language does not fit into memory.
    """
    _, _, size = name.partition(":")
    if size and not (size.isdecimal() and len(size) <= _MOST_DIGITS and int(size) >= 2):
        raise DataError(
            f"{host.brief(name)} must be 'bigram' or 'bigram:V', with V words from 2, of at most "
            f"{_MOST_DIGITS} digits."
        )
    words = int(size or 100_000)
    return bigrams(vocabulary_size=words, num_contexts=min(1000, words))


def source(name: str) -> Source:
    """Examples of a `language`: the splits `train` (200,000) and `test` (10,000)."""
    spoken = language(name)
    parts = {"train": spoken.train, "test": spoken.val}
    names = tuple(map(str, range(len(spoken.bias))))
    lengths = {split: (len(words),) for split, (_, words) in parts.items()}

    def read(split):
        contexts, words = parts[split]
        return spoken.features[contexts], words

    return Source(name, names, 1.0, lengths, read, functools.partial(distance, spoken))


def distance(true: Bigrams, classifier) -> dict[str, dict[str, float]]:
    """How far a `softmax_jax.classifier.Classifier` is from the language that it was trained on.

    Returns:
      Under 'language', the Kullback-Leibler divergence 'kl' of the model from the language, and the
      'entropy' of the language, both in nats per word, averaged over the contexts: their sum is the
      expected cross-entropy on new text.
    """
    x = ((true.features - classifier.mean) / classifier.scale).astype(np.float32)
    each = kl_divergence(true.layer, Layer(x, classifier.W, classifier.b))
    kl = float(true.frequencies @ np.asarray(each))
    return {"language": {"kl": kl, "entropy": true.entropy()}}


class Layer(NamedTuple):
    """A linear layer and its inputs: logits = xW + b, with x [N, D], W [D, V], bias [V]."""

    x: np.ndarray
    W: np.ndarray
    bias: np.ndarray


@jax.jit
def kl_divergence(true: Layer, model: Layer):
    """KL(p ‖ q) = Σ p (log p - log q) of each row, in nats: [N].

    p is the softmax of the true layer and q that of the model's; their D may differ. The logits of
    a few rows exist at a time.

    >>> one = Layer(jnp.ones((1, 1)), jnp.array([[50.0, 0.0]]), jnp.zeros(2))
    >>> coin = Layer(jnp.ones((1, 1)), jnp.zeros((1, 2)), jnp.zeros(2))
    >>> print(kl_divergence(one, coin) / jnp.log(2))  # a bit
    [1.]
    """

    def of_row(x):
        log_p, log_q = (
            jax.nn.log_softmax(row @ layer.W + layer.bias)
            for row, layer in zip(x, (true, model), strict=True)
        )
        return (jnp.exp(log_p) * (log_p - log_q)).sum()

    return jax.lax.map(of_row, (true.x, model.x), batch_size=_ROWS_AT_ONCE)


data.register(BIGRAM, source)
