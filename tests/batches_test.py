import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import train

N, R = 10, 2
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(256, size=(N, 2, 3)).astype(np.uint8)
LABELS = np.arange(N, dtype=np.int32) % 4
WEIGHTS = RNG.uniform(0.5, 2, N).astype(np.float32)
COUNTS = RNG.integers(3, size=(N, R)).astype(np.uint8)


def data_of(**fields):
    arrays = (jnp.asarray(array) for array in (PIXELS, LABELS, WEIGHTS))
    return train.Data(*arrays, mean=None, scale=np.float32(255))._replace(**fields)


def test_rows_are_gathered_flat_and_normalised_and_padding_weighs_nothing():
    batch = train.gather_batch(data_of(), jnp.array([7, -1, 2]), 0)
    assert batch.x.shape == (3, 6) and batch.x.dtype == jnp.float32
    assert_allclose(batch.x[0], PIXELS[7].ravel() / 255, rtol=1e-6)
    assert_array_equal(batch.y[jnp.array([0, 2])], LABELS[[7, 2]])
    assert_allclose(batch.weights, [WEIGHTS[7], 0, WEIGHTS[2]])


def test_mean_and_scale_are_those_of_each_feature():
    mean, scale = np.float32(np.arange(6) * 10), np.float32(np.arange(6) + 1)
    batch = train.gather_batch(data_of(mean=mean, scale=scale), jnp.array([4]), 0)
    assert_allclose(batch.x[0], (PIXELS[4].ravel() - mean) / scale, rtol=1e-6)


def test_counts_of_the_resample_multiply_the_weights():
    data, rows = data_of(resamples=jnp.asarray(COUNTS)), np.array([3, 1, 8])
    for column in range(R):
        taken = train.gather_batch(data, jnp.asarray(rows), column)
        assert_allclose(taken.weights, WEIGHTS[rows] * COUNTS[rows, column])
        block = train.slice_batch(data, 3, 4, column)
        assert_allclose(block.weights, WEIGHTS[3:7] * COUNTS[3:7, column])


def test_blocks_cover_every_example_exactly_once():
    for size in range(1, N + 1):
        total = sum(
            np.asarray(train.slice_batch(data_of(), start, size, 0).weights).sum()
            for start in range(0, N, size)
        )
        assert_allclose(total, WEIGHTS.sum(), rtol=1e-6)
