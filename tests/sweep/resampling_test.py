import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils.class_weight import compute_class_weight

from softmax_jax import data
from softmax_jax.sweep import inputs


def labels_of(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels).astype(np.int32)


@pytest.mark.parametrize("folds", [2, 5, 7])
@pytest.mark.parametrize("stratified", [True, False])
def test_every_example_is_held_out_exactly_once(folds, stratified):
    counts = inputs.fold_counts(labels_of([10, 33, 20]), folds, stratified=stratified)
    assert counts.shape == (63, folds) and counts.dtype == np.uint8
    assert set(counts.ravel()) == {0, 1}
    assert_array_equal((counts == 0).sum(1), np.ones(63))
    sizes = (counts == 0).sum(0)
    assert sizes.max() - sizes.min() <= 1


def test_stratified_folds_share_every_class_within_one():
    labels = labels_of([7, 50, 23, 11])
    held_out = inputs.fold_counts(labels, 5) == 0
    for label in range(4):
        shares = held_out[labels == label].sum(0)
        assert shares.max() - shares.min() <= 1


def test_folds_are_shuffled_by_their_seed_alone():
    labels = labels_of([30, 30])
    for stratified in True, False:
        one, again, other = (
            inputs.fold_counts(labels, 3, stratified=stratified, seed=seed) for seed in (1, 1, 2)
        )
        assert_array_equal(one, again)
        assert (one != other).any()
        assert len(set(one[:, 0][:12])) == 2  # not simply the first third


def test_groups_stay_together():
    groups = np.array([7, 7, -1, 3, 3, 3, -1])
    counts = inputs.fold_counts(np.zeros(7, int), groups)
    assert_array_equal(counts.T == 0, [groups == -1, groups == 3, groups == 7])


@pytest.mark.parametrize(
    "folds, message",
    [
        (1, "folds must be from 2 to the 4 examples of the rarest class; it got 1"),
        (5, "folds must be from 2 to the 4 examples of the rarest class; it got 5"),
        (np.zeros(14, int), "at least two folds"),
        (np.arange(13), "14 integers"),
        (np.linspace(0, 1, 14), "14 integers"),
    ],
)
def test_bad_folds_are_refused(folds, message):
    with pytest.raises(ValueError, match=message):
        inputs.fold_counts(labels_of([4, 10]), folds)


def test_without_strata_there_may_be_as_many_folds_as_examples():
    labels = labels_of([4, 10])
    assert inputs.fold_counts(labels, 14, stratified=False).shape == (14, 14)
    with pytest.raises(ValueError, match="to the 14 examples; it got 15"):
        inputs.fold_counts(labels, 15, stratified=False)


def test_bootstrap_draws_have_the_counts_that_theory_says():
    """N draws with replacement: Poisson(1) counts, of which e^-1 are zero and 1/2 e^-1 two."""
    N = 2000
    counts = inputs.bootstrap_counts(N, 50, seed=0)
    assert counts.shape == (N, 50) and counts.dtype == np.uint8
    assert_array_equal(counts.sum(0, dtype=int), np.full(50, N))
    for count, share in (0, np.exp(-1)), (1, np.exp(-1)), (2, np.exp(-1) / 2):
        assert abs((counts == count).mean() - share) < 0.005
    assert_array_equal(counts, inputs.bootstrap_counts(N, 50, seed=0))
    assert len(np.unique(counts, axis=1).T) == 50
    with pytest.raises(ValueError, match="at least 2 draws; it got 1"):
        inputs.bootstrap_counts(N, 1)
    with pytest.raises(ValueError, match="resamples of .* need .* GiB"):
        inputs.bootstrap_counts(10**9, 10**4)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones((7, 2)), "a row for each of the 8"),
        (np.full((8, 1), 256), "from 0 to 255"),
        (np.full((8, 1), 0.5), "whole numbers"),
        (np.ones((8, 1)), "Column 0 .* none to evaluate on"),
        (np.stack([np.eye(8)[0], np.zeros(8)], 1), "Column 1 .* no example to train on"),
    ],
)
def test_counts_that_no_resample_can_have_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        inputs.check_resamples(counts, 8)


def dataset(counts, weights=None):
    y = labels_of(counts)
    splits = data.from_arrays((np.ones((len(y), 2)), y), (np.zeros((len(y), 2)), y))
    return dataclasses.replace(splits.train, weights=weights)


def test_unweighted_examples_need_no_weights():
    assert inputs.example_importance(dataset([3, 5])) is None


def test_balanced_weights_are_those_of_scikit_learn():
    unbalanced = dataset([5, 30, 11])
    y = unbalanced.y
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)[y]
    weights = inputs.example_importance(unbalanced, "balanced")
    assert weights.dtype == np.float32
    assert_allclose(weights, expected / expected.mean(), rtol=1e-6)
    assert_allclose([weights[y == label].sum() for label in range(3)], [46 / 3] * 3, rtol=1e-6)


def test_weights_have_a_mean_of_one_and_the_ratios_they_were_given():
    own = np.random.default_rng(0).uniform(0, 9, 16).astype(np.float32)
    weighted = dataset([5, 11], own)
    weights = inputs.example_importance(weighted, (3.0, 0.5))
    assert weights.mean() == pytest.approx(1, rel=1e-6)
    expected = own * np.array([3, 0.5])[weighted.y]
    assert_allclose(weights / weights[0], expected / expected[0], rtol=1e-5)


@pytest.mark.parametrize(
    "class_weight, message",
    [
        ("even", "'balanced' or 2 numbers; it got 'even'"),
        ((1.0,), r"2 finite numbers .* got \(1.0,\)"),
        ((1.0, -1.0), "0 or greater"),
        ((1.0, np.nan), "finite"),
        ((0.0, 0.0), "all zero"),
    ],
)
def test_bad_class_weights_are_refused(class_weight, message):
    with pytest.raises(ValueError, match=message):
        inputs.example_importance(dataset([3, 5]), class_weight)
