"""The bigram language of configs/bigram.py, and datasets that are registered by a name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from softmax_jax import data, host
from softmax_jax.classifier import Classifier
from softmax_jax.configs import bigram

SMALL = {"vocabulary_size": 60, "num_contexts": 7, "num_features": 4, "num_val": 500}


@pytest.fixture(scope="module")
def language():
    return bigram.bigrams(0, num_train=100_000, **SMALL)


def test_words_follow_their_contexts_with_the_true_probabilities(language):
    contexts, words = language.train
    truth = np.exp(language.log_probabilities(np.arange(7)))
    for context in range(7):
        counts = np.bincount(words[contexts == context], minlength=60)
        assert stats.chisquare(counts, truth[context] * counts.sum()).pvalue > 0.001
    counts = np.bincount(contexts)
    assert stats.chisquare(counts, language.frequencies * counts.sum()).pvalue > 0.001


def test_a_linear_layer_on_the_features_is_the_language_itself(language):
    logits = language.features.astype(float) @ language.W + language.bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert_allclose(np.exp(language.log_probabilities(np.arange(7))), probabilities, rtol=1e-5)
    assert_allclose(probabilities.sum(1), 1)
    assert_allclose(np.linalg.norm(language.features, axis=1), 1, rtol=1e-6)


def test_without_contexts_the_language_is_zipfs_law():
    language = bigram.bigrams(0, num_train=10, strength=0.0, **SMALL)
    law = 1 / np.arange(1, 61)
    truth = np.exp(language.log_probabilities(np.arange(7)))
    assert_allclose(truth, np.tile(law / law.sum(), (7, 1)), rtol=1e-6)
    assert_allclose(language.frequencies, law[:7] / law[:7].sum(), rtol=1e-6)


def test_strength_is_the_deviation_of_the_logits():
    sizes = {"vocabulary_size": 5000, "num_contexts": 50}
    language = bigram.bigrams(0, num_train=10, strength=3.0, **sizes)
    assert_allclose((language.features @ language.W).std(), 3, rtol=0.02)


def test_no_model_is_better_than_the_entropy(language):
    contexts, words = language.train
    losses = -language.log_probabilities(contexts)[np.arange(len(words)), words]
    assert_allclose(losses.mean(), language.entropy(), atol=4 * losses.std() / len(words) ** 0.5)


def test_splits_of_a_language_are_features_of_contexts_and_next_words(language):
    splits = language.splits
    assert splits.name == "bigram" and splits.test is None and not splits.val_is_test
    assert len(splits.label_names) == splits.train.num_classes == 60
    for part, (contexts, words) in ((splits.train, language.train), (splits.val, language.val)):
        assert part.x.dtype == np.float32 and part.y.dtype == np.int32
        assert_array_equal(part.x, language.features[contexts])
        assert_array_equal(part.y, words)
    assert (splits.train.num_examples, splits.val.num_examples) == (100_000, 500)


def test_the_seed_decides_everything(language):
    again, other = (bigram.bigrams(seed, num_train=100_000, **SMALL) for seed in (0, 1))
    assert_array_equal(again.train, language.train)
    assert_array_equal(again.W, language.W)
    assert (other.W != language.W).any() and (other.train[1] != language.train[1]).any()
    assert (language.train[1][:500] != language.val[1]).any()


@pytest.mark.parametrize(
    "change",
    [{"vocabulary_size": 6}, {"num_contexts": 0}, {"num_val": 0}, {"strength": -1.0}],
)
def test_an_impossible_language_is_refused(change):
    with pytest.raises(data.DataError, match="no more contexts than words"):
        bigram.bigrams(0, **(SMALL | {"num_train": 10} | change))


@pytest.mark.slow
def test_by_default_the_vocabulary_is_large_and_the_contexts_are_few():
    language = bigram.bigrams()
    assert len(language.bias) >= 100_000 and len(language.features) <= 1000
    assert language.train[1].max() > 90_000
    assert language.entropy() == pytest.approx(6.67, abs=0.01)


def test_a_language_is_a_dataset_by_its_name():
    splits = data.load("bigram:30", train="train[:1000]", val="test")
    assert (splits.name, len(splits.label_names)) == ("bigram:30", 30)
    true = bigram.language("bigram:30")
    assert_array_equal(splits.val.y, true.val[1])
    assert_array_equal(splits.train.x, true.features[true.train[0][:1000]])
    for wrong in ("bigram:1", "bigram:x", "bigram:-5"):
        with pytest.raises(data.DataError, match="words from 2"):
            data.load(wrong)


# The distance of a model from the language.


def classifier(W, b):
    return Classifier(W.astype(np.float32), b.astype(np.float32), 0.0, 1.0, ())


def measured(W, b):
    return data.load("bigram:60", val="test").measure(classifier(W, b))["language"]


def test_distance_of_the_language_to_itself_is_zero():
    true = bigram.language("bigram:60")
    assert measured(true.W, true.bias)["kl"] == pytest.approx(0, abs=1e-5)


def test_distance_of_another_model_matches_the_definition():
    true, rng = bigram.language("bigram:60"), np.random.default_rng(0)
    W, b = rng.normal(size=true.W.shape), rng.normal(size=60)
    found = measured(W, b)
    p = special.softmax(true.features @ true.W.astype(float) + true.bias, axis=1)
    log_q = special.log_softmax(true.features @ W + b, axis=1)
    expected = true.frequencies @ (p * (np.log(p) - log_q)).sum(1)
    assert found["kl"] == pytest.approx(expected, rel=1e-4)
    cross_entropy = -(true.frequencies @ (p * log_q).sum(1))
    assert found["kl"] + found["entropy"] == pytest.approx(cross_entropy, rel=1e-4)


def random_layer(seed, num_features, num_rows=47, num_words=23):
    rng = np.random.default_rng(seed)
    shapes = (num_rows, num_features), (num_features, num_words), (num_words,)
    return bigram.Layer(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def probabilities(layer):
    return special.softmax(layer.x.astype(float) @ layer.W + layer.bias, axis=1)


def test_divergence_is_the_sum_of_p_log_p_over_q():
    true, model = random_layer(0, 3), random_layer(1, 5)
    expected = special.rel_entr(probabilities(true), probabilities(model)).sum(1)
    assert_allclose(bigram.kl_divergence(true, model), expected, rtol=1e-5)


def test_divergence_does_not_depend_on_a_shift_of_the_logits():
    true = random_layer(0, 3)
    assert_allclose(bigram.kl_divergence(true, true._replace(bias=true.bias + 5)), 0, atol=1e-6)


def test_divergence_holds_a_few_rows_of_the_logits():
    shapes = (1000, 32), (32, 100_000), (100_000,)
    layer = bigram.Layer(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    compiled = bigram.kl_divergence.lower(layer, layer).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1000 * 100_000 * 4 / 5


# Datasets by a registered name.


def test_a_language_beyond_the_memory_is_refused_before_it_is_made(monkeypatch):
    for name, memory in (("bigram:2000000000", None), ("bigram:5000000", 10**9)):
        if memory:
            monkeypatch.setattr(host, "available_memory", lambda memory=memory: memory)
        with pytest.raises(data.DataError, match="GiB of memory"):
            data.load(name, val="test")


def test_a_registered_dataset_is_loaded_by_its_name_and_options(monkeypatch):
    monkeypatch.setattr("softmax_jax.data.sources._REGISTERED", {})
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1] * 3, np.int32)

    def find(name):
        return data.Source(name, ("a", "b"), 1.0, {"train": (6,), "test": (6,)}, lambda _: (x, y))

    data.register("points", find)
    splits = data.load("points:far")
    assert_array_equal(splits.train.x, x)
    assert (splits.name, splits.label_names, splits.measure) == ("points:far", ("a", "b"), None)
    with pytest.raises(data.DatasetNotFoundError, match="no dataset 'bigram'"):
        data.load("bigram")


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "a/b", "x.npz", "", "a:b"])
def test_names_that_cannot_be_registered_are_refused(name):
    with pytest.raises(ValueError, match="cannot be registered"):
        data.register(name, lambda _: None)
