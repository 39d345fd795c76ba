import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from softmax_jax import data
from softmax_jax.data import DataError, bigram
from softmax_jax.data.bigram import bigrams

SMALL = {"vocabulary_size": 60, "num_contexts": 7, "num_features": 4, "num_val": 500}


@pytest.fixture(scope="module")
def language():
    return bigrams(0, num_train=100_000, **SMALL)


def test_words_follow_their_contexts_as_the_true_probabilities_say(language):
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


def test_without_contexts_it_is_zipfs_law():
    language = bigrams(0, num_train=10, strength=0.0, **SMALL)
    law = 1 / np.arange(1, 61)
    truth = np.exp(language.log_probabilities(np.arange(7)))
    assert_allclose(truth, np.tile(law / law.sum(), (7, 1)), rtol=1e-6)
    assert_allclose(language.frequencies, law[:7] / law[:7].sum(), rtol=1e-6)


def test_strength_is_the_deviation_of_the_logits():
    language = bigrams(0, num_train=10, strength=3.0, vocabulary_size=5000, num_contexts=50)
    assert_allclose((language.features @ language.W).std(), 3, rtol=0.02)


def test_no_model_is_better_than_the_entropy(language):
    contexts, words = language.train
    losses = -language.log_probabilities(contexts)[np.arange(len(words)), words]
    assert_allclose(losses.mean(), language.entropy(), atol=4 * losses.std() / len(words) ** 0.5)


def test_splits_are_made_of_the_contexts_features_and_the_next_words(language):
    splits = language.splits
    assert splits.name == "bigram" and splits.test is None and not splits.val_is_test
    assert len(splits.label_names) == splits.train.num_classes == 60
    for part, (contexts, words) in ((splits.train, language.train), (splits.val, language.val)):
        assert part.x.dtype == np.float32 and part.y.dtype == np.int32
        assert_array_equal(part.x, language.features[contexts])
        assert_array_equal(part.y, words)
    assert (splits.train.num_examples, splits.val.num_examples) == (100_000, 500)


def test_the_seed_decides_everything(language):
    again, other = bigrams(0, num_train=100_000, **SMALL), bigrams(1, num_train=100_000, **SMALL)
    assert_array_equal(again.train, language.train)
    assert_array_equal(again.W, language.W)
    assert (other.W != language.W).any() and (other.train[1] != language.train[1]).any()
    assert (language.train[1][:500] != language.val[1]).any()


@pytest.mark.parametrize(
    "change",
    [{"vocabulary_size": 6}, {"num_contexts": 0}, {"num_val": 0}, {"strength": -1.0}],
)
def test_a_language_that_cannot_be_is_refused(change):
    with pytest.raises(DataError, match="no more contexts than words"):
        bigrams(0, **(SMALL | {"num_train": 10} | change))


@pytest.mark.slow
def test_by_default_the_vocabulary_is_large_and_the_contexts_are_few():
    language = bigrams()
    assert len(language.bias) >= 100_000 and len(language.features) <= 1000
    assert language.train[1].max() > 90_000
    assert language.entropy() == pytest.approx(6.67, abs=0.01)


def test_a_language_is_a_dataset_by_its_name():
    splits = data.load("bigram:30", train="train[:1000]", val="test")
    assert (splits.name, len(splits.label_names)) == ("bigram:30", 30)
    true = bigram.language("bigram:30")
    np.testing.assert_array_equal(splits.val.y, true.val[1])
    np.testing.assert_array_equal(splits.train.x, true.features[true.train[0][:1000]])
    for wrong in ("bigram:1", "bigram:x", "bigram:-5"):
        with pytest.raises(data.DataError, match="words from 2"):
            data.load(wrong)
