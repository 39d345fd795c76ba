"""What a layer with a huge vocabulary predicts: best words, ranks, probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

from softmax_jax import metrics
from softmax_jax.vocabulary import log_prob, log_prob_and_rank, top_k


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


@pytest.mark.parametrize(
    "num_words, dtype",
    [(128, np.int8), (256, np.uint8), (300, np.uint8), (65536, np.uint16), (300, np.int16)],
)
def test_labels_of_narrow_types_do_not_wrap(num_words, dtype):
    W = np.float32(np.random.default_rng(0).normal(size=(2, num_words)))
    x, labels = np.float32([[1, 0], [0, 1], [1, 1]]), np.array([0, 100, 127])
    labels[2] = min(num_words - 1, np.iinfo(dtype).max)
    expected = special.log_softmax(np.float64(x @ W), axis=1)[np.arange(3), labels]
    for known in False, True:
        found = judged(x, W, labels.astype(dtype), known)
        assert_allclose(found[0], expected, rtol=1e-5)
        jax.tree.map(assert_array_equal, found, judged(x, W, labels, known))


def judged(x, W, labels, known):
    """What both functions say, in one program; the labels are known while tracing, or not."""

    def judge(x, W, labels=labels):
        return log_prob(x, W, labels), log_prob_and_rank(x, W, labels)

    return jax.jit(judge)(x, W) if known else jax.jit(judge)(x, W, labels)


@pytest.mark.parametrize("k", [0, 30])
def test_invalid_k_is_refused(k):
    x, W, _ = whole_numbers()
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 29"):
        top_k(x, W, k)
