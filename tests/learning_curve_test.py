import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special
from scipy.optimize import curve_fit
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from softmax_jax import optimum, studies

SIZES = (30, 100, 400, 1600)


@pytest.fixture(scope="module")
def labels():
    """Classes of very different sizes, in a random order."""
    return np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [1000, 500, 100]))


@pytest.fixture(scope="module")
def subsets(labels):
    return studies.nested_subsets(labels, SIZES, seeds=(0, 1))


def test_every_seed_has_a_subset_of_every_size(subsets):
    assert subsets.counts.dtype == np.uint8 and subsets.counts.max() == 1
    assert_array_equal(subsets.size, [*SIZES, *SIZES])
    assert_array_equal(subsets.seed, [0] * 4 + [1] * 4)
    assert_array_equal(subsets.counts.sum(0), subsets.size)


def test_smaller_subsets_lie_within_larger_ones_of_their_seed(subsets):
    counts = subsets.counts.astype(int).reshape(-1, 2, 4)
    assert (np.diff(counts, axis=2) >= 0).all()
    assert (counts[:, 0, 0] != counts[:, 1, 0]).any()


def test_every_class_has_its_share_of_every_subset(labels, subsets):
    for label in range(3):
        members = subsets.counts[labels == label].sum(0)
        assert (abs(members - subsets.size * np.mean(labels == label)) <= 1).all()


def test_every_example_is_as_likely_as_any_other_to_be_in_a_subset(labels):
    counts = studies.nested_subsets(labels, (160,), range(300)).counts
    times = counts.sum(1)
    assert_allclose(times.mean(), 30)
    assert times.min() > 5 and times.max() < 60  # binomial: 30 ± 5.2
    # As a binomial count, whose variance is 300 · 0.1 · 0.9.
    assert times.var() == pytest.approx(27, rel=0.15)


@pytest.mark.parametrize("sizes", [(), (2, 10), (10, 1601)])
def test_sizes_out_of_range_are_refused(labels, sizes):
    with pytest.raises(
        ValueError, match="Sizes must be from 3, the number of classes, to all 1600"
    ):
        studies.nested_subsets(labels, sizes)


def test_a_column_trains_as_the_subset_alone_would():
    """With the penalty that is the same prior: the sum of losses is then penalised alike."""
    x, y = (values[:400] for values in load_digits(return_X_y=True))
    x = x / 16
    subsets = studies.nested_subsets(y, (100, 400))
    l2 = studies.same_prior(1e-2, len(y), subsets.size)
    assert_allclose(l2 * subsets.size, 4)
    problem = optimum.Problem(x, y, resamples=subsets.counts)
    optima = optimum.minimise(problem, l2, columns=np.arange(2), tolerance=1e-6)
    rows = np.flatnonzero(subsets.counts[:, 0])
    # Its penalty is on the sum of the losses: the same prior, whatever the number of examples.
    model = LogisticRegression(C=1 / 4, tol=1e-6, max_iter=1000).fit(x[rows], y[rows])
    expected = model.predict_log_proba(x)
    logits = x @ optima.W[0] + optima.b[0]
    assert_allclose(special.log_softmax(logits, 1), expected, atol=1e-2)
    assert optima.objective[1] < optima.objective[0]


@pytest.mark.parametrize("law", [(0.1, 2.0, 0.5), (0.0, 0.7, 0.21), (0.143, 30.0, 1.3)])
def test_a_power_law_is_found_again(law):
    sizes = np.array([100, 300, 1000, 3000, 10_000, 60_000])
    fitted = studies.fit_power_law(sizes, studies.PowerLaw(*law)(sizes))
    assert_allclose(fitted, law, rtol=1e-4, atol=1e-5)


def test_a_noisy_power_law_is_fitted_as_scipy_does():
    """By the same least squares in all three parameters at once, started near the truth."""
    rng, sizes = np.random.default_rng(0), np.tile([100, 300, 1000, 3000, 10_000], 3)
    errors = (0.14 + 0.9 * sizes**-0.4) * (1 + 0.01 * rng.normal(size=len(sizes)))
    fitted = studies.fit_power_law(sizes, errors)

    def law(n, a, b, c):
        return a + b * n**-c

    expected, _ = curve_fit(law, sizes.astype(float), errors, (0.14, 0.9, 0.4), sigma=errors)
    assert_allclose(fitted, expected, rtol=1e-3)


def test_the_floor_of_a_power_law_is_never_negative():
    sizes = np.array([100, 1000, 10_000])
    fitted = studies.fit_power_law(sizes, 0.5 - 0.05 * np.log(sizes))
    assert fitted.a == 0 and fitted.b > 0 and fitted.c > 0


def test_weights_say_which_errors_count():
    sizes = np.array([100, 300, 1000, 3000, 10_000])
    errors = studies.PowerLaw(0.1, 2.0, 0.5)(sizes)
    errors[0] = 5.0
    weights = np.array([0.0, 1, 1, 1, 1])
    fitted = studies.fit_power_law(sizes, errors, weights)
    assert_allclose(fitted, (0.1, 2.0, 0.5), rtol=1e-4)


@pytest.mark.parametrize("sizes, errors", [([1, 2, 2], [1, 1, 1]), ([1, 2, 3], [0.1, 0.1, 0])])
def test_too_few_sizes_and_zero_errors_are_refused(sizes, errors):
    with pytest.raises(ValueError, match="at least three different sizes, and positive errors"):
        studies.fit_power_law(sizes, errors)
