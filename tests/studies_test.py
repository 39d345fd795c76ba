"""Learning curves and label audits: subsets, power laws, out-of-sample probabilities, suspects."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special
from scipy.optimize import curve_fit
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from softmax_jax import optimum, plots, studies, sweep

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=50)
# Classes of very different sizes, in a random order.
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [1000, 500, 100]))


def scikit_learn(x, y, l2):
    """Its penalty is on the sum of the losses."""
    return LogisticRegression(C=1 / (l2 * len(y)), tol=1e-5, max_iter=2000).fit(x, y)


# Subsets.


@given(
    st.lists(st.integers(3, len(LABELS)), min_size=1, max_size=5),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
)
@PROPERTY
def test_subsets_are_nested_and_stratified(sizes, seeds):
    """One for each seed and size; each class in its fraction, up to one example."""
    subsets = studies.nested_subsets(LABELS, sizes, seeds)
    assert subsets.counts.dtype == np.uint8 and subsets.counts.max() == 1
    assert_array_equal(subsets.size, sizes * len(seeds))
    assert_array_equal(subsets.seed, np.repeat(seeds, len(sizes)))
    assert_array_equal(subsets.counts.sum(0), subsets.size)
    for label in range(3):
        members = subsets.counts[LABELS == label].sum(0, dtype=int)
        assert (abs(members - subsets.size * np.mean(LABELS == label)) <= 1).all()
    for seed in seeds:
        own = subsets.seed == seed
        by_size = subsets.counts[:, own][:, np.argsort(subsets.size[own], kind="stable")]
        assert (np.diff(by_size.astype(int), axis=1) >= 0).all()


def test_every_example_is_equally_likely_to_be_in_a_subset():
    counts = studies.nested_subsets(LABELS, (160,), range(300)).counts
    times = counts.sum(1)
    assert_allclose(times.mean(), 30)
    assert times.min() > 5 and times.max() < 60  # binomial: 30 ± 5.2
    # As a binomial count, whose variance is 300 · 0.1 · 0.9.
    assert times.var() == pytest.approx(27, rel=0.15)


@pytest.mark.parametrize("sizes", [(), (2, 10), (10, 1601)])
def test_subset_sizes_out_of_range_are_refused(sizes):
    message = "Sizes must be from 3, the number of classes, to all 1600"
    with pytest.raises(ValueError, match=message):
        studies.nested_subsets(LABELS, sizes)


def test_a_column_of_counts_trains_as_its_subset_alone():
    """With the penalty of the same prior: the sum of the losses is then penalised equally."""
    x, y = (values[:400] for values in load_digits(return_X_y=True))
    x = x / 16
    subsets = studies.nested_subsets(y, (100, 400))
    l2 = studies.same_prior(1e-2, len(y), subsets.size)
    assert_allclose(l2 * subsets.size, 4)
    problem = optimum.Problem(x, y, resamples=subsets.counts)
    optima = optimum.minimise(problem, l2, columns=np.arange(2), tolerance=1e-6)
    rows = np.flatnonzero(subsets.counts[:, 0])
    expected = scikit_learn(x[rows], y[rows], 4 / 100).predict_log_proba(x)
    logits = x @ optima.W[0] + optima.b[0]
    assert_allclose(special.log_softmax(logits, 1), expected, atol=1e-2)
    assert optima.objective[1] < optima.objective[0]


# The power law.


@given(st.floats(0, 0.3), st.floats(0.5, 30), st.floats(0.15, 1.5))
@PROPERTY
def test_an_exact_power_law_is_recovered(a, b, c):
    sizes = np.array([100, 300, 1000, 3000, 10_000, 60_000])
    law = studies.PowerLaw(a, b, c)
    fitted = studies.fit_power_law(sizes, law(sizes))
    assert_allclose(fitted, law, rtol=1e-3, atol=1e-5)
    assert_allclose(fitted(sizes), law(sizes), rtol=1e-5)


def test_a_noisy_power_law_is_fitted_as_by_scipy():
    """By the same least squares in all three parameters at once, started near the truth."""
    rng, sizes = np.random.default_rng(0), np.tile([100, 300, 1000, 3000, 10_000], 3)
    errors = (0.14 + 0.9 * sizes**-0.4) * (1 + 0.01 * rng.normal(size=len(sizes)))

    def law(n, a, b, c):
        return a + b * n**-c

    expected, _ = curve_fit(law, sizes.astype(float), errors, (0.14, 0.9, 0.4), sigma=errors)
    assert_allclose(studies.fit_power_law(sizes, errors), expected, rtol=1e-3)


def test_the_floor_of_a_power_law_is_never_negative():
    sizes = np.array([100, 1000, 10_000])
    fitted = studies.fit_power_law(sizes, 0.5 - 0.05 * np.log(sizes))
    assert fitted.a == 0 and fitted.b > 0 and fitted.c > 0


def test_an_error_of_weight_zero_does_not_count():
    sizes = np.array([100, 300, 1000, 3000, 10_000])
    errors = studies.PowerLaw(0.1, 2.0, 0.5)(sizes)
    errors[0] = 5.0
    fitted = studies.fit_power_law(sizes, errors, np.array([0.0, 1, 1, 1, 1]))
    assert_allclose(fitted, (0.1, 2.0, 0.5), rtol=1e-4)


@pytest.mark.parametrize("sizes, errors", [([1, 2, 2], [1, 1, 1]), ([1, 2, 3], [0.1, 0.1, 0])])
def test_too_few_sizes_and_zero_errors_are_refused(sizes, errors):
    with pytest.raises(ValueError, match="at least three different sizes, and positive errors"):
        studies.fit_power_law(sizes, errors)


# Out-of-sample probabilities and suspects.

FOLDS, PENALTY = 4, 1e-2


@pytest.fixture(scope="module")
def audited():
    """(x, y with labels that were changed at random, their rows, fold counts, probabilities)."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    planted = rng.choice(len(y), 90, replace=False)
    noisy = y.copy()
    noisy[planted] = (y[planted] + rng.integers(1, 10, len(planted))) % 10
    counts = sweep.fold_counts(noisy, FOLDS)
    return x / 16, noisy, planted, counts, out_of_sample(x / 16, noisy, counts)


def out_of_sample(x, y, counts):
    problem = optimum.Problem(x, y, resamples=counts)
    return studies.out_of_sample_probabilities(problem, PENALTY, tolerance=1e-5)


def test_out_of_sample_probabilities_match_scikit_learn_trained_without_the_fold(audited):
    x, y, _, counts, probabilities = audited
    for fold in 0, FOLDS - 1:
        inside = counts[:, fold] == 1
        expected = scikit_learn(x[inside], y[inside], PENALTY).predict_proba(x[~inside])
        assert_allclose(probabilities[~inside], expected, atol=2e-3)
    assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_planted_label_noise_is_found(audited):
    """Of 1,797 labels 90 are wrong: nine in ten of as many suspects are among them."""
    _, y, planted, _, probabilities = audited
    found = studies.suspects(probabilities, y, 90)
    assert np.isin(found.row, planted).mean() > 0.85
    assert np.isin(found.row[:40], planted).all()


def test_probabilities_do_not_depend_on_the_labels_of_their_fold(audited):
    x, y, _, counts, probabilities = audited
    left_out = counts[:, 0] == 0
    again = out_of_sample(x, np.where(left_out, (y + 1) % 10, y), counts)
    assert_allclose(again[left_out], probabilities[left_out], atol=1e-3)
    assert abs(again[~left_out] - probabilities[~left_out]).max() > 0.1


def test_suspects_are_ordered_by_the_probability_of_their_label():
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.05, 0.05, 0.9], [0.5, 0.4, 0.1]])
    found = studies.suspects(p, np.array([0, 1, 1, 2]))
    assert_array_equal(found.row, [2, 3, 1, 0])
    assert_array_equal(found.given, [1, 2, 1, 0])
    assert_array_equal(found.predicted, [2, 0, 1, 0])
    assert_allclose(found.probability, [0.05, 0.1, 0.4, 0.7])
    assert len(studies.suspects(p, [0, 1, 1, 2], most=2).row) == 2
    first = {"row": 2, "given": "b", "predicted": "c", "probability": 0.05}
    assert found.table(("a", "b", "c"))[0] == first


@pytest.mark.parametrize(
    "p, labels, most, message",
    [
        (np.eye(3), [0, -1, 2], None, r"labels must lie in 0\.\.2; .*\[1\]: -1"),  # the last class
        (np.eye(3), [0, 3, 2], None, r"labels must lie in 0\.\.2; .*\[1\]: 3"),
        (np.eye(3), [0.0, np.nan, 2.0], None, "integers; .*nan"),
        (np.eye(3), [0, 1], None, r"\[N\] = \[3\]"),
        (5 * np.eye(3), [0, 1, 2], None, r"0\.\.1.*losses.softmax"),
        (np.full((3, 3), np.nan), [0, 1, 2], None, r"0\.\.1.*nan"),
        (np.eye(3), [0, 1, 2], -1, "most must be a whole number of at least 0"),
    ],
)
def test_what_cannot_be_suspected_is_refused(p, labels, most, message):
    with pytest.raises(ValueError, match=message):
        studies.suspects(p, np.array(labels), most)


@pytest.mark.parametrize(
    "counts", [None, np.ones((4, 2)), np.array([[0, 0], [0, 1], [1, 0], [1, 0]])]
)
def test_folds_that_do_not_leave_each_example_out_once_are_refused(counts):
    problem = optimum.Problem(np.eye(4), np.array([0, 1, 0, 1]), resamples=counts)
    with pytest.raises(ValueError, match="leave out every example exactly once"):
        studies.out_of_sample_probabilities(problem, 0.1)


# Both studies of a dataset, and their pictures.

SIZES, SEEDS, L2 = (50, 200, 1437), 2, 1e-3


@pytest.fixture(scope="module")
def curve(splits, result):
    return studies.learning_curve(splits, result.best().classifier, L2, SIZES, SEEDS)


def test_learning_curve_has_a_row_per_seed_and_size_and_falls(curve):
    rows, law = curve
    assert [(row["seed"], row["size"]) for row in rows] == [(s, n) for s in (0, 1) for n in SIZES]
    assert all(row["converged"] for row in rows)
    assert_allclose([row["l2"] * row["size"] for row in rows], L2 * 1437)
    losses = np.reshape([row["val_loss"] for row in rows], (SEEDS, -1))
    assert (np.diff(losses, axis=1) < 0).all()
    assert losses[0, -1] == pytest.approx(losses[1, -1], rel=1e-2)  # the whole split in both
    assert losses[0, 0] != losses[1, 0]
    assert rows[2]["val_accuracy"] > 0.93
    sizes = [row["size"] for row in rows]
    assert law == studies.fit_power_law(sizes, [1 - row["val_accuracy"] for row in rows])


def test_learning_curve_is_drawn_with_its_law(curve):
    rows, law = curve
    errors, losses = plots.learning_curve(rows, law, "digits").axes
    drawn = {line.get_label(): line for line in (*errors.get_lines(), *losses.get_lines())}
    means = [np.mean([1 - r["val_accuracy"] for r in rows if r["size"] == n]) for n in SIZES]
    assert_allclose(drawn["val error"].get_ydata(), means)
    assert drawn["train loss"].get_xdata().tolist() == list(SIZES)
    assert any(label.startswith(f"{law.a:.3f} + ") for label in drawn)


def test_two_sizes_have_no_power_law(curve):
    rows = [row for row in curve[0] if row["size"] < 1437]
    assert studies._law(rows, 360) is None
    errors, _ = plots.learning_curve(rows, None, "digits").axes
    assert len(errors.get_lines()) == 1


@pytest.mark.slow
def test_floor_has_an_interval_that_covers_it():
    """Of errors by a known law, measured with the noise of seeds and of one set of examples."""
    rng, sizes = np.random.default_rng(0), np.repeat((100, 300, 1000, 3000, 10_000, 30_000), 4)
    covered = []
    for _ in range(30):
        error = 0.1 + 0.8 * sizes**-0.4
        error *= 1 + 0.02 * rng.normal(size=len(sizes)) + 0.02 * rng.normal()
        rows = [{"size": n, "val_accuracy": 1 - e} for n, e in zip(sizes, error, strict=True)]
        low, high = studies.floor_interval(rows, 20_000, draws=60)
        assert low < high
        covered.append(low <= 0.1 <= high)
    assert np.mean(covered) > 0.7
    assert studies.floor_interval(rows[:8], 20_000) is None


def test_label_audit_lists_changed_labels_first_and_draws_them(splits, result):
    train = splits.train
    y = np.array(train.y)
    y[:20] = (y[:20] + 1) % 10
    noisy = dataclasses.replace(train, y=y)
    found = studies.label_audit(noisy, result.best().classifier, 1e-2, folds=3)
    assert len(found.row) == studies.MOST_SUSPECTS
    assert np.isin(np.arange(20), found.row[:30]).mean() > 0.9
    picture = plots.suspects(noisy, found, "digits")
    first = found.table(train.label_names)[0]
    assert picture.axes[0].get_title() == f"{first['given']}?\n{first['predicted']}"
    assert len(picture.axes) == 36
