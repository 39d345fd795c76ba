"""What a layer with a huge vocabulary predicts: best words, ranks, probabilities, divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

from softmax_jax import metrics
from softmax_jax.vocabulary import Layer, kl_divergence, log_prob, log_prob_and_rank, top_k


def whole_numbers(num_rows=6, num_words=29):
    """x, W, bias with whole numbers as logits: equal ones among them, none rounded."""
    rng = np.random.default_rng(0)
    x, W = rng.integers(-2, 3, (num_rows, 4)), rng.integers(-2, 3, (4, num_words))
    return [jnp.asarray(leaf, jnp.float32) for leaf in (x, W, rng.integers(-1, 2, num_words))]


@pytest.mark.parametrize("k, blocks", [(1, (4, 7)), (5, (3, 5)), (9, (6, 4)), (29, (1, 1))])
def test_top_k_matches_that_of_all_logits(k, blocks):
    """Its order among equal logits, too; with a block that is smaller than k, or than V / 2."""
    x, W, bias = whole_numbers()
    logits, words = top_k(x, W, k, bias=bias, row_block=blocks[0], vocabulary_block=blocks[1])
    expected, expected_words = jax.lax.top_k(x @ W + bias, k)
    assert_array_equal(logits, expected)
    assert_array_equal(words, expected_words)


def test_top_k_holds_a_tile_of_the_logits():
    shapes = (4096, 64), (64, 131072)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(top_k, static_argnums=2).lower(*arguments, 10).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4096 * 131072 * 4 / 50


def test_log_prob_is_the_log_softmax_at_the_label():
    x, W, bias = whole_numbers()
    labels = np.random.default_rng(1).integers(0, 29, 6)
    found = log_prob(x, W, labels, bias=bias, row_block=4, vocabulary_block=6)
    expected = special.log_softmax(np.asarray(x @ W + bias, float), axis=1)
    assert_allclose(found, expected[np.arange(6), labels], rtol=1e-6)


@pytest.mark.parametrize("blocks", [(None, None), (4, 6), (1, 1)])
def test_ranks_match_those_of_all_logits(blocks):
    """Equal logits and NaN among them."""
    x, W, bias = whole_numbers(num_rows=40)
    labels = np.random.default_rng(1).integers(0, 29, 40)
    bias = bias.at[3].set(jnp.nan)
    blocks = dict(zip(("row_block", "vocabulary_block"), blocks, strict=True))
    found = log_prob_and_rank(x, W, labels, bias=bias, **blocks)
    expected = metrics.rank(x @ W + bias, labels)
    assert_array_equal(found[1], expected)
    assert len(set(expected.tolist())) > 10 and 29 in expected
    found = log_prob_and_rank(x, W, labels, **blocks)
    assert_allclose(found[0], log_prob(x, W, labels, **blocks), rtol=1e-6)


def test_log_probs_of_the_best_words_follow_from_one():
    x, W, bias = whole_numbers()
    logits, words = top_k(x, W, 3, bias=bias)
    first = log_prob(x, W, words[:, 0], bias=bias)
    expected = log_prob(x, W, words[:, 2], bias=bias)
    assert_allclose(first + logits[:, 2] - logits[:, 0], expected, rtol=1e-6)


def test_wrong_label_is_an_error_and_under_jit_nan():
    x, W, _ = whole_numbers()
    labels = jnp.array([0, 28, 29, -1, 3, 3])
    found = jax.jit(log_prob)(x, W, labels)
    assert np.isnan(found).tolist() == [False, False, True, True, False, False]
    assert_array_equal(np.isnan(jax.jit(log_prob_and_rank)(x, W, labels)[0]), np.isnan(found))
    with pytest.raises(ValueError, match=r"\[2\]: 29"):
        log_prob(x, W, labels)


@pytest.mark.parametrize("k", [0, 30])
def test_invalid_k_is_refused(k):
    x, W, _ = whole_numbers()
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 29"):
        top_k(x, W, k)


def random_layer(seed, num_features, num_rows=7, num_words=23):
    rng = np.random.default_rng(seed)
    shapes = (num_rows, num_features), (num_features, num_words), (num_words,)
    return Layer(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def probabilities(layer):
    return special.softmax(layer.x.astype(float) @ layer.W + layer.bias, axis=1)


@pytest.mark.parametrize("row_block", [None, 1, 3, 100])
def test_divergence_is_the_sum_of_p_log_p_over_q(row_block):
    true, model = random_layer(0, 3), random_layer(1, 5)
    expected = special.rel_entr(probabilities(true), probabilities(model)).sum(1)
    assert_allclose(kl_divergence(true, model, row_block=row_block), expected, rtol=1e-5)


def test_divergence_from_the_layer_itself_is_zero():
    true = random_layer(0, 3)
    assert_allclose(kl_divergence(true, true._replace(bias=true.bias + 5)), 0, atol=1e-6)


def test_divergence_holds_blocks_of_the_logits():
    x, W = jax.ShapeDtypeStruct((1000, 32), "f4"), jax.ShapeDtypeStruct((32, 100_000), "f4")
    bias = jax.ShapeDtypeStruct((100_000,), "f4")
    compiled = jax.jit(kl_divergence).lower(Layer(x, W, bias), Layer(x, W, bias)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1000 * 100_000 * 4 / 5


@pytest.mark.parametrize(
    "model",
    [
        random_layer(1, 3, num_words=22),
        random_layer(1, 3, num_rows=8),
        random_layer(1, 3)._replace(bias=2.0),
    ],
)
def test_divergence_of_layers_that_do_not_fit_is_refused(model):
    with pytest.raises(ValueError, match="must"):
        kl_divergence(random_layer(0, 3), model)
    assert jnp.isfinite(kl_divergence(random_layer(0, 3), random_layer(1, 3))).all()
