import numpy as np
import pytest

from softmax_jax import metrics


@pytest.mark.parametrize("n", [400, 2000, 10_000])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.84, 0.98])
def test_wilson_covers_the_true_proportion(p, n):
    """Two thousand test sets drawn. Of fifty examples it would be .922 at p = .98: few values."""
    drawn, times = np.unique(np.random.default_rng(0).binomial(n, p, 2000), return_counts=True)
    bounds = np.array([metrics.wilson_interval(successes, n) for successes in drawn])
    inside = (bounds[:, 0] <= p) & (p <= bounds[:, 1])
    assert 0.93 <= times[inside].sum() / 2000 <= 0.985


def test_wilson_is_the_formula():
    z, n, p = 1.959964, 40, 0.9
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = np.array([centre - half, centre + half]) / (1 + z**2 / n)
    assert metrics.wilson_interval(36, 40) == pytest.approx(expected.tolist(), rel=1e-6)


def test_wilson_stays_within_zero_and_one():
    assert metrics.wilson_interval(0, 20)[0] == 0 and metrics.wilson_interval(20, 20)[1] == 1
    assert metrics.wilson_interval(0, 20)[1] > 0.1 and metrics.wilson_interval(20, 20)[0] < 0.9


@pytest.mark.parametrize("n", [100, 1000])
def test_normal_covers_the_true_mean_of_a_skewed_figure(n):
    """Losses are skewed; here they are exponential, of mean 1."""
    drawn = np.random.default_rng(0).exponential(size=(2000, n))
    bounds = np.array([metrics.normal_interval(row.mean(), row.std(ddof=1), n) for row in drawn])
    inside = (bounds[:, 0] <= 1) & (bounds[:, 1] >= 1)
    assert 0.93 <= inside.mean() <= 0.97


@pytest.mark.parametrize(
    "interval",
    [
        lambda c: metrics.wilson_interval(30, 40, c),
        lambda c: metrics.normal_interval(0.0, 1.0, 40, c),
    ],
)
def test_more_confidence_is_a_wider_interval(interval):
    (narrow_low, narrow_high), (wide_low, wide_high) = interval(0.8), interval(0.99)
    assert wide_low < narrow_low < narrow_high < wide_high
