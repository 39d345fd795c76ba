import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from softmax_jax.vocabulary import log_uniform, uniform

PROPOSALS = pytest.mark.parametrize("proposal", [log_uniform, uniform])


@PROPOSALS
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_probabilities_sum_to_one(proposal, size):
    assert_allclose(np.exp(proposal(size).log_prob(np.arange(size))).sum(), 1, rtol=1e-5)


@PROPOSALS
def test_draws_have_the_frequencies_that_the_proposal_says(proposal):
    """A chi-squared test, of the draws of one key: it cannot fail by chance."""
    chosen = proposal(300)
    counts = np.bincount(chosen.draw(jax.random.key(0), 200_000), minlength=300)
    probabilities = np.exp(np.asarray(chosen.log_prob(np.arange(300)), float))
    assert len(counts) == 300
    assert stats.chisquare(counts, 200_000 * probabilities / probabilities.sum()).pvalue > 0.01


def test_rare_words_of_a_large_vocabulary_are_drawn_as_often_as_they_should():
    """The last tenth of 100,000 words, in ranges of 100: no word is skipped by rounding."""
    chosen = log_uniform(100_000)
    words = np.asarray(chosen.draw(jax.random.key(0), 5_000_000))
    assert words.min() == 0 and words.max() == 99_999
    rare = np.bincount(words[words >= 90_000] - 90_000, minlength=10_000)
    log_prob = np.asarray(chosen.log_prob(np.arange(90_000, 100_000)), float)
    expected = 5_000_000 * np.exp(log_prob)
    each, of_each = rare.reshape(100, 100).sum(1), expected.reshape(100, 100).sum(1)
    assert stats.chisquare(each, of_each * each.sum() / of_each.sum()).pvalue > 0.01
    assert_allclose(each.sum(), of_each.sum(), rtol=0.02)
    assert (rare == 0).mean() < 2 * np.exp(-expected.min())


@PROPOSALS
def test_a_draw_is_a_function_of_its_key(proposal):
    draws = [proposal(50).draw(jax.random.key(seed), 20) for seed in (0, 0, 1)]
    assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


@PROPOSALS
@pytest.mark.parametrize("size", [0, 2**31, 10.0])
def test_a_vocabulary_that_cannot_be_is_refused(proposal, size):
    with pytest.raises(ValueError, match="vocabulary_size must be a whole number"):
        proposal(size)
