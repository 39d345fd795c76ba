import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from softmax_jax.vocabulary import exact


@pytest.mark.parametrize("sizes", [(5, 10, 4, 4), (1, 1, 9, 9), (7, 13, 7, 1), (12, 12, 5, 13)])
def test_tiles_cover_every_logit_once(sizes):
    num_rows, num_words, row_block, vocabulary_block = sizes
    grid = exact.cut(*sizes)
    assert grid.rows <= row_block and grid.columns <= vocabulary_block
    W, bias = jnp.arange(2.0 * num_words).reshape(2, num_words), jnp.arange(num_words)
    covered = np.zeros(num_words, int)
    for k in range(grid.num_columns):
        part = exact.columns_of(grid, W, bias, k)
        words = np.arange(int(part.start), int(part.start) + grid.columns)
        assert_array_equal(part.W, W[:, words])
        assert_array_equal(part.bias, words)
        covered[words[int(part.seen) :]] += 1
    assert_array_equal(covered, 1)
    rows = np.arange(2 * num_rows).reshape(num_rows, 2)
    cut = exact.in_rows(grid, rows)
    assert cut.shape == (grid.num_rows, grid.rows, 2)
    assert_array_equal(exact.out_of_rows(cut, num_rows), rows)


@pytest.mark.parametrize("num_rows", [1, 256, 8192, 10**6])
def test_default_tiles_are_small_and_hold_whole_runs_of_words(num_rows):
    grid = exact.cut(num_rows, 131072)
    assert 4 * grid.rows * grid.columns <= 8 * 2**20
    assert grid.columns >= 1024


def test_products_of_bfloat16_are_summed_in_float32():
    ones = jnp.ones((1, 4096), jnp.bfloat16)
    assert exact.product(ones, ones.T).dtype == jnp.float32
    assert float(exact.product(ones, 1.0078125 * ones.T).squeeze()) == 4096 * 1.0078125
