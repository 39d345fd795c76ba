import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.preprocessing import StandardScaler

from softmax_jax.sweep.inputs import bootstrap_counts, fold_counts, moments

pytestmark = pytest.mark.numerical


def in_blocks(x, size=37):
    return [(start, x[start : start + size]) for start in range(0, len(x), size)]


@pytest.fixture(scope="module")
def x():
    """Features [200, 6] of all sizes, one with a mean far larger than its deviation."""
    rng = np.random.default_rng(0)
    return rng.normal([0, 1e6, -3, 1e-3, 1e20, 50], [1, 1e-2, 10, 1e-9, 1e19, 7], (200, 6))


@pytest.mark.parametrize("size", [1, 37, 200, 1000])
def test_all_examples_have_the_moments_that_scikit_learn_finds(x, size):
    mean, scale = moments(in_blocks(x, size))
    expected = StandardScaler().fit(x)
    assert mean.shape == scale.shape == (1, 6) and scale.dtype == np.float64
    assert_allclose(mean[0], expected.mean_, rtol=1e-13)
    assert_allclose(scale[0], expected.scale_, rtol=1e-8)


@pytest.mark.parametrize("make", [fold_counts, bootstrap_counts])
def test_every_resample_has_the_moments_of_its_own_examples(x, make):
    counts = make(np.arange(200) % 4, 5) if make is fold_counts else make(200, 7)
    mean, scale = moments(in_blocks(x), counts)
    for r, count in enumerate(counts.T):
        own = np.repeat(x, count, axis=0)
        assert_allclose(mean[r], own.mean(0), rtol=1e-12, atol=1e-12)
        assert_allclose(scale[r], own.std(0), rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_any_type_is_summed_in_float64(dtype):
    x = np.random.default_rng(1).integers(0, 256, (500, 3, 4)).astype(dtype)
    mean, scale = moments(in_blocks(x, 64))
    flat = x.reshape(500, 12).astype(np.float64)
    assert_allclose(mean[0], flat.mean(0), rtol=1e-14)
    assert_allclose(scale[0], flat.std(0), rtol=1e-13)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3, -1e-30, 3e38])
def test_a_constant_feature_survives(value):
    """Exactly its value, and the scale that it had: 1, or that of the pixels."""
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    x[:, 1] = value
    counts = bootstrap_counts(300, 4)
    for constant in (1.0, np.array([2.0, 255.0, 3.0])):
        mean, scale = moments(in_blocks(x), counts, constant)
        assert (mean[:, 1] == np.float32(value)).all()
        assert (scale[:, 1] == np.broadcast_to(constant, 3)[1]).all()
        assert (np.abs(scale[:, [0, 2]] - 1) < 0.2).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678])
@pytest.mark.parametrize("rare", [1.0, -7e3, 1e-3])
def test_a_feature_that_varies_in_another_fold_alone_is_constant(value, rare):
    """As words of few documents are: a scale out of rounding would blow them up where they occur.

    (In their own fold's test part, by 1e8.)
    """
    counts = fold_counts(np.zeros(300, int), 3)
    x = np.random.default_rng(0).normal(size=(300, 4))
    x[:, 2] = value
    x[np.flatnonzero(counts[:, 1] == 0)[::9], 2] += rare
    mean, scale = moments(in_blocks(x), counts, constant=4.0)
    assert scale[1, 2] == 4 and mean[1, 2] == value
    for r in (0, 2):
        own = x[counts[:, r] > 0, 2]
        assert_allclose((mean[r, 2], scale[r, 2]), (own.mean(), own.std()), rtol=1e-9)


def test_an_outlier_outside_of_a_resample_costs_it_no_digits():
    x = np.random.default_rng(0).normal(size=(100, 2))
    x[7] = 1e9
    counts = np.ones((100, 2), np.uint8)
    counts[7, 0] = 0
    own = np.delete(x, 7, axis=0)
    mean, scale = moments([(0, x)], counts)
    assert_allclose(scale[0], own.std(0), rtol=1e-6)
    assert_allclose(mean[0], own.mean(0), rtol=1e-6)
    assert_allclose(scale[1], x.std(0), rtol=1e-12)


def test_a_scale_has_a_reciprocal_in_float32():
    x = np.array([[0.0, 1.0], [1e-42, 1.0], [3e-42, 2.0]])
    _, scale = moments([(0, x)], constant=5.0)
    assert scale[0, 0] == 5 and np.isfinite(1 / np.float32(scale)).all()
