"""A synthetic bigram language: the next word after one of a few contexts, of a huge vocabulary."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32
from scipy import special

from softmax_jax.data.dataset import Dataset, Splits
from softmax_jax.data.sources import Source
from softmax_jax.host import DataError

BIGRAM = "bigram"
_CONTEXTS_AT_ONCE = 50  # of which next words are drawn: 40 MB of probabilities for V = 100,000


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

    features: Float32[np.ndarray, "K D"]
    frequencies: Float64[np.ndarray, " K"]
    W: Float32[np.ndarray, "D V"]
    bias: Float32[np.ndarray, " V"]
    train: tuple[Int32[np.ndarray, " N"], Int32[np.ndarray, " N"]]
    val: tuple[Int32[np.ndarray, " M"], Int32[np.ndarray, " M"]]

    def log_probabilities(self, contexts: Int[np.ndarray, " N"]) -> Float64[np.ndarray, "N V"]:
        """log p(word | context) of all V words after each of the contexts: float64 [N, V]."""
        return _log_probabilities(self.features[contexts], self.W, self.bias)

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
    num_features: int = 32,
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
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_contexts, num_features))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    W = rng.normal(0, strength, (num_features, vocabulary_size)).astype(np.float32)
    bias = special.log_softmax(-np.log(np.arange(1, vocabulary_size + 1))).astype(np.float32)
    frequencies = special.softmax(bias[:num_contexts].astype(float))
    parts = [_draw(rng, number, features, W, bias, frequencies) for number in (num_train, num_val)]
    return Bigrams(features, frequencies, W, bias, *parts)


def _draw(
    rng: np.random.Generator,
    number: int,
    features: Float32[np.ndarray, "K D"],
    W: Float32[np.ndarray, "D V"],
    bias: Float32[np.ndarray, " V"],
    frequencies: Float64[np.ndarray, " K"],
) -> tuple[Int32[np.ndarray, " N"], Int32[np.ndarray, " N"]]:
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


def _blocks(contexts: Int[np.ndarray, " K"]) -> list[np.ndarray]:
    return np.array_split(contexts, -(-len(contexts) // _CONTEXTS_AT_ONCE))


def _log_probabilities(
    features: Float[np.ndarray, "N D"], W: Float[np.ndarray, "D V"], bias: Float[np.ndarray, " V"]
) -> Float64[np.ndarray, "N V"]:
    # The product is in float32, as in a model; the sums over V are in float64.
    return special.log_softmax((features @ W + bias).astype(float), axis=1)


@functools.lru_cache(maxsize=1)
def language(name: str) -> Bigrams:
    """The language called 'bigram', of 100,000 words, or 'bigram:V', of V words.

    Raises:
      DataError: V is not a number of at least 2.
    """
    _, _, size = name.partition(":")
    if size and not (size.isdecimal() and int(size) >= 2):
        raise DataError(f"{name!r} must be 'bigram' or 'bigram:V', with V words from 2.")
    words = int(size or 100_000)
    return bigrams(vocabulary_size=words, num_contexts=min(1000, words))


def bigram_source(name: str) -> Source:
    """Examples of a `language`: the splits `train` (200,000) and `test` (10,000)."""
    spoken = language(name)
    parts = {"train": spoken.train, "test": spoken.val}
    names = tuple(map(str, range(len(spoken.bias))))
    lengths = {split: (len(words),) for split, (_, words) in parts.items()}

    def read(split: str) -> tuple[Float32[np.ndarray, "N D"], Int32[np.ndarray, " N"]]:
        contexts, words = parts[split]
        return spoken.features[contexts], words

    return Source(name, names, 1.0, lengths, read)


def distance(splits: Splits, classifier: Any) -> dict[str, float] | None:
    """How far a model is from the language that it was trained on.

    Args:
      splits: of any dataset.
      classifier: a `softmax_jax.classifier.Classifier` trained on them.

    Returns:
      The Kullback-Leibler divergence 'kl' of the model from the language, and the 'entropy' of the
      language, both in nats per word, averaged over the contexts: their sum is the expected
      cross-entropy on new text. None if the dataset is not a language.
    """
    if splits.name.partition(":")[0] != BIGRAM:
        return None
    from softmax_jax import vocabulary  # JAX, which reading data does without

    true = language(splits.name)
    x = ((true.features - classifier.mean) / classifier.scale).astype(np.float32)
    each = vocabulary.kl_divergence(
        vocabulary.Layer(true.features, true.W, true.bias),
        vocabulary.Layer(x, classifier.W, classifier.b),
    )
    return {"kl": float(true.frequencies @ np.asarray(each)), "entropy": true.entropy()}
