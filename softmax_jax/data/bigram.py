"""A language made on the spot: the next word after one of a few, out of a huge vocabulary."""

import dataclasses
import functools

import numpy as np
from scipy import special

from softmax_jax.data.dataset import Dataset, Splits
from softmax_jax.data.sources import Source
from softmax_jax.host import DataError

BIGRAM = "bigram"
_CONTEXTS_AT_ONCE = (
    50  # contexts whose next words are drawn at a time: 40 MB of probabilities for V = 100,000
)


@dataclasses.dataclass(frozen=True, eq=False)
class Bigrams:
    """A bigram language of V words, of which the first K are the contexts, and examples of it.

    p(word | context) = softmax(features[context] @ W + bias)[word], so that a linear layer on the
    same features can be the language itself.

    Attributes:
      features: [K, D] float32: the fixed vector of each context, of length 1.
      frequencies: [K] float64: how often each context occurs; they sum to 1.
      W, bias: [D, V] and [V] float32: the true layer; the bias is the logarithm of Zipf's law.
      train, val: pairs (contexts, words), int32 [N] each: words, and what followed them.
    """

    features: np.ndarray
    frequencies: np.ndarray
    W: np.ndarray
    bias: np.ndarray
    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray]

    def log_probabilities(self, contexts) -> np.ndarray:
        """log p(word | context) of all V words after each of the contexts: float64 [N, V]."""
        return _log_probabilities(self.features[contexts], self.W, self.bias)

    def entropy(self) -> float:
        """The smallest mean cross-entropy that a model can reach, in nats."""
        contexts = np.arange(len(self.features))
        blocks = (self.log_probabilities(block) for block in _blocks(contexts))
        each = np.concatenate([-(np.exp(block) * block).sum(1) for block in blocks])
        return float(self.frequencies @ each)

    @functools.cached_property
    def splits(self) -> Splits:
        """The examples as every dataset has them: x is the vector of the context, y the word."""
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
    """Makes a language and draws examples of it; the same for the same arguments.

    Words are numbered by their frequency. Without a context, word v has probability ∝ 1 / (v + 1),
    Zipf's law; the contexts are the first words, as frequent among each other as by that law. A
    context shifts the logit of every word by a draw from N(0, strength²): features @ W, so that
    the words' frequency over all contexts follows the law only roughly.

    Args:
      seed: of everything.
      vocabulary_size, num_contexts, num_features: V, K ≤ V and D.
      num_train, num_val: examples, drawn independently.
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
    # One product in float32, as a model makes it; the sums over V in float64.
    return special.log_softmax((features @ W + bias).astype(float), axis=1)


@functools.lru_cache(maxsize=1)
def language(name: str) -> Bigrams:
    """The language called 'bigram', of 100,000 words, or 'bigram:V', of V words.

    Raises DataError for a V that is no number from 2.
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

    def read(split):
        contexts, words = parts[split]
        return spoken.features[contexts], words

    return Source(name, names, 1.0, lengths, read)


def distance(splits, classifier) -> dict | None:
    """{'kl', 'entropy'} in nats a word, averaged over the contexts; None for other data.

    The mean cross-entropy on endless new text would be their sum.
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
