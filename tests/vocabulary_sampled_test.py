"""Losses on sampled words: what they estimate, their optima, proposals, and loss by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from softmax_jax.vocabulary import (
    OBJECTIVES,
    Proposal,
    linear_cross_entropy,
    log_uniform,
    negative_sampling,
    noise_contrastive,
    objective,
    sampled_softmax,
    uniform,
)

pytestmark = pytest.mark.numerical

NUM_WORDS = 12
# A proposal whose probabilities are multiples of 1/60, so that 60 words can hold each exactly as
# often as it is to be expected: an average over all draws in a single one.
COUNTS = np.array([17, 10, 8, 6, 5, 4, 3, 2, 2, 1, 1, 1])
EXPECTED_WORDS = jnp.asarray(np.repeat(np.arange(NUM_WORDS), COUNTS))
LOG_Q = jnp.log(jnp.asarray(COUNTS / COUNTS.sum(), jnp.float32))
PROPOSAL = Proposal(None, lambda words: LOG_Q[words])
LOSSES = pytest.mark.parametrize("loss", ["sampled_softmax", "noise_contrastive", "negative"])


def problem(num_rows=9, num_features=4):
    rng = np.random.default_rng(0)
    shapes = (num_rows, num_features), (num_features, NUM_WORDS), (NUM_WORDS,)
    x, W, bias = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    return x, W, bias, jnp.asarray(rng.integers(0, NUM_WORDS, num_rows))


def loss_of(name, x, W, labels, words, **more):
    if name == "negative":
        return negative_sampling(x, W, labels, words, **more)
    loss = {"sampled_softmax": sampled_softmax, "noise_contrastive": noise_contrastive}[name]
    return loss(x, W, labels, words, PROPOSAL, **more)


compiled_loss = jax.jit(loss_of, static_argnames="name")


def gradient_at(log_probabilities, loss):
    """The mean over all labels of a language of one context, at logits that are the bias."""
    labels, weights = jnp.arange(NUM_WORDS), jnp.asarray(TRUE)
    x, W = jnp.zeros((NUM_WORDS, 1)), jnp.zeros((1, NUM_WORDS))

    def of(bias):
        return loss(x, W, labels, EXPECTED_WORDS, bias=bias, example_weights=weights)

    return jax.jit(jax.grad(of))(jnp.asarray(log_probabilities, jnp.float32))


TRUE = special.softmax(np.random.default_rng(3).normal(size=NUM_WORDS)).astype(np.float32)


def test_sampled_softmax_of_every_word_is_the_exact_loss():
    x, W, bias, labels = problem()
    words = jax.random.permutation(jax.random.key(0), NUM_WORDS)

    def sampled(x, W, bias):
        return sampled_softmax(x, W, labels, words, uniform(NUM_WORDS), bias=bias)

    def exact(x, W, bias):
        return linear_cross_entropy(x, W, labels, bias=bias)

    found, expected = (
        jax.jit(jax.value_and_grad(f, (0, 1, 2)))(x, W, bias) for f in (sampled, exact)
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_sampled_softmax_estimates_the_normaliser_without_bias():
    """The average over every possible sample of one word, weighted by its probability."""
    x, W, bias, labels = problem(num_rows=1)
    proposal = log_uniform(NUM_WORDS)
    sample = jax.jit(lambda words: sampled_softmax(x, W, labels, words, proposal, bias=bias))
    each = [sample(jnp.array([word])) for word in range(NUM_WORDS)]
    logits = np.asarray((x @ W + bias)[0], float)
    normalisers = np.exp(np.array(each, float) + logits[labels[0]])
    q = np.exp(np.asarray(proposal.log_prob(jnp.arange(NUM_WORDS)), float))
    assert_allclose(q @ normalisers, np.exp(logits).sum(), rtol=1e-5)


def test_the_bias_of_sampled_softmax_falls_as_one_over_the_samples():
    """Averages over 20,000 samples of fixed keys; the loss too small, the gradient off."""
    x, W, bias, labels = problem()
    proposal = log_uniform(NUM_WORDS)
    exact_loss = jax.value_and_grad(lambda W: linear_cross_entropy(x, W, labels, bias=bias))
    exact = jax.jit(exact_loss)(W)

    def error(num_samples):
        def one(key):
            words = proposal.draw(key, num_samples)
            loss = lambda W: sampled_softmax(x, W, labels, words, proposal, bias=bias)  # noqa: E731
            return jax.value_and_grad(loss)(W)

        keys = jax.random.split(jax.random.key(0), 20_000)
        value, gradient = jax.jit(jax.vmap(one))(keys)
        return exact[0] - value.mean(), jnp.linalg.norm(exact[1] - gradient.mean(0))

    few, many = error(8), error(64)
    assert few[0] > 0.05 and few[0] / many[0] == pytest.approx(8, rel=0.25)
    assert few[1] / many[1] == pytest.approx(8, rel=0.35)


def test_sampled_softmax_leaves_out_draws_of_the_label():
    x, W, bias, _ = problem()
    labels = jnp.full(9, 5)
    with_hits = compiled_loss("sampled_softmax", x, W, labels, jnp.array([5, 2, 5, 7]), bias=bias)
    logits = np.asarray(x @ W + bias, float)
    corrected = logits[:, [2, 7]] - np.log(4) - np.asarray(LOG_Q, float)[[2, 7]]
    terms = np.concatenate([logits[:, [5]], corrected], 1)
    assert_allclose(with_hits, (special.logsumexp(terms, 1) - logits[:, 5]).mean(), rtol=1e-5)
    assert compiled_loss("sampled_softmax", x, W, labels, jnp.array([5, 5])) == 0


def test_noise_contrastive_optimum_is_the_true_log_probabilities():
    def loss(*arguments, **more):
        return noise_contrastive(*arguments, PROPOSAL, **more)

    assert_allclose(gradient_at(np.log(TRUE), loss), 0, atol=1e-6)
    assert abs(gradient_at(np.log(TRUE) + 1, loss)).max() > 0.01


def test_negative_sampling_optimum_is_log_p_minus_log_expected_count():
    log_counts = np.log(COUNTS)  # log(S q)
    assert_allclose(gradient_at(np.log(TRUE) - log_counts, negative_sampling), 0, atol=1e-6)
    assert abs(gradient_at(np.log(TRUE), negative_sampling)).max() > 0.01


def test_negative_sampling_less_log_expected_counts_is_noise_contrastive():
    x, W, bias, labels = problem()
    words = jnp.array([0, 3, 3, 11])
    shifted = bias - jnp.log(4) - LOG_Q
    found = compiled_loss("negative", x, W, labels, words, bias=shifted)
    expected = compiled_loss("noise_contrastive", x, W, labels, words, bias=bias)
    assert_allclose(found, expected, rtol=1e-5)


def test_noise_contrastive_gradient_tends_to_the_exact_one_where_z_is_one():
    x, W, bias, labels = problem(num_rows=1)
    bias = bias - jax.nn.logsumexp(x @ W + bias)
    exact = jax.jit(jax.grad(lambda W: linear_cross_entropy(x, W, labels, bias=bias)))(W)

    def error(times):
        words = jnp.tile(jnp.arange(NUM_WORDS), times)
        loss = lambda W: noise_contrastive(x, W, labels, words, uniform(NUM_WORDS), bias=bias)  # noqa: E731
        return np.linalg.norm(jax.jit(jax.grad(loss))(W) - exact) / np.linalg.norm(exact)

    assert error(1) > 0.1
    assert error(100) < 0.015


@LOSSES
def test_only_columns_of_labels_and_words_are_trained(loss):
    x, W, _, labels = problem(num_rows=3)
    words = jnp.array([1, 1, 8])
    gradient = jax.jit(jax.grad(loss_of, 2), static_argnums=0)(loss, x, W, labels, words)
    touched = np.flatnonzero(abs(np.asarray(gradient)).sum(0))
    assert_array_equal(touched, np.union1d(words, labels))


@LOSSES
def test_row_of_weight_k_counts_k_times(loss):
    x, W, bias, labels = problem()
    weights = jnp.asarray([2.0, 0, 1, 1, 0, 0, 0, 0, 0])
    words, rows = jnp.array([0, 4, 9]), jnp.array([0, 0, 2, 3])
    weighted = compiled_loss(loss, x, W, labels, words, bias=bias, example_weights=weights)
    repeated = compiled_loss(loss, x[rows], W, labels[rows], words, bias=bias)
    assert_allclose(weighted, repeated, rtol=1e-6)
    assert compiled_loss(loss, x, W, labels, words, bias=bias, example_weights=0 * weights) == 0


@LOSSES
def test_bfloat16_inputs_give_a_float32_loss(loss):
    x, W, bias, labels = problem()
    narrow = [leaf.astype(jnp.bfloat16) for leaf in (x, W, bias)]
    words = jnp.array([0, 4, 9])
    found = compiled_loss(loss, *narrow[:2], labels, words, bias=narrow[2])
    wide = [leaf.astype(jnp.float32) for leaf in narrow]
    expected = compiled_loss(loss, *wide[:2], labels, words, bias=wide[2])
    assert found.dtype == jnp.float32
    assert_allclose(found, expected, rtol=1e-5)


@LOSSES
def test_wrong_label_is_an_error_and_under_jit_nan(loss):
    x, W, _, labels = problem()
    wrong, words = labels.at[4].set(NUM_WORDS), jnp.array([0, 4])
    with pytest.raises(ValueError, match=r"\[4\]: 12"):
        loss_of(loss, x, W, wrong, words)
    assert np.isnan(compiled_loss(loss, x, W, wrong, words))


@LOSSES
@pytest.mark.parametrize("num_words, dtype", [(128, "i1"), (256, "u1"), (300, "u1"), (65536, "u2")])
def test_labels_and_words_of_narrow_types_do_not_wrap(loss, num_words, dtype):
    W = np.float32(np.random.default_rng(0).normal(size=(2, num_words)))
    labels, words = np.array([0, 100, min(num_words - 1, np.iinfo(dtype).max)]), np.array([5, 100])
    losses = {"sampled_softmax": sampled_softmax, "noise_contrastive": noise_contrastive}
    more = () if loss == "negative" else (uniform(num_words),)
    loss = losses.get(loss, negative_sampling)
    x = np.float32([[1, 0], [0, 1], [1, 1]])
    found = loss(x, W, labels.astype(dtype), words.astype(dtype), *more)
    assert np.isfinite(found)
    assert_array_equal(found, loss(x, W, labels, words, *more))


@LOSSES
@pytest.mark.parametrize("words", [jnp.zeros(0, int), jnp.zeros((9, 2), int), jnp.zeros(3)])
def test_invalid_words_are_refused(loss, words):
    x, W, _, labels = problem()
    with pytest.raises(ValueError, match=r"words must be integers \[S\]"):
        loss_of(loss, x, W, labels, words)


PROPOSALS = pytest.mark.parametrize("proposal", [log_uniform, uniform])


@PROPOSALS
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_proposal_sums_to_one(proposal, size):
    assert_allclose(np.exp(proposal(size).log_prob(np.arange(size))).sum(), 1, rtol=1e-5)


@PROPOSALS
def test_draws_have_the_frequencies_of_the_proposal(proposal):
    """A chi-squared test, of the draws of one key: it cannot fail by chance."""
    chosen = proposal(300)
    counts = np.bincount(chosen.draw(jax.random.key(0), 200_000), minlength=300)
    probabilities = np.exp(np.asarray(chosen.log_prob(np.arange(300)), float))
    assert len(counts) == 300
    assert stats.chisquare(counts, 200_000 * probabilities / probabilities.sum()).pvalue > 0.01


def test_rare_words_of_a_large_vocabulary_have_their_frequencies():
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
def test_draw_is_a_function_of_its_key(proposal):
    draws = [proposal(50).draw(jax.random.key(seed), 20) for seed in (0, 0, 1)]
    assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


@PROPOSALS
@pytest.mark.parametrize("size", [0, 2**31])
def test_invalid_vocabulary_size_is_refused(proposal, size):
    with pytest.raises(ValueError, match="vocabulary_size must be a whole number"):
        proposal(size)


LAYER = jnp.ones((3, 2)), jnp.arange(20.0).reshape(2, 10) / 10, jnp.array([0, 4, 9])
KEY = jax.random.key(0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_the_same_arguments(name):
    more = {"bias": jnp.ones(10), "example_weights": jnp.array([1.0, 0.0, 2.0])}
    samples = None if name == "cross_entropy" else 4
    value, gradient = jax.value_and_grad(objective(name, 10, samples), 2)(KEY, *LAYER, **more)
    assert value.shape == () and value > 0 and gradient.shape == LAYER[1].shape
    assert jnp.isfinite(gradient).all() and (gradient != 0).any()


def test_objectives_by_name_are_the_losses_on_log_uniform_draws():
    assert objective("cross_entropy", 10)(None, *LAYER) == linear_cross_entropy(*LAYER)
    proposal = log_uniform(10)
    expected = noise_contrastive(*LAYER, proposal.draw(KEY, 5), proposal)
    assert objective("noise_contrastive", 10, 5)(KEY, *LAYER) == expected


def test_objective_is_cached():
    assert objective("sampled_softmax", 10, 4) is objective("sampled_softmax", 10, 4)
    assert objective("sampled_softmax", 10, 4) is not objective("sampled_softmax", 10, 5)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("softmax", 10, 4), "no objective 'softmax'; there are"),
        (("sampled_softmax", 10), "num_samples must be a whole number of at least 1; it is None"),
        (("noise_contrastive", 10, 0), "num_samples"),
        (("cross_entropy", 10, 5), "num_samples must be None for 'cross_entropy', .* it is 5"),
    ],
)
def test_unknown_objective_or_number_of_samples_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        objective(*arguments)
