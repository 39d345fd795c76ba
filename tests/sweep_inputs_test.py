"""The examples on their way to the device: folds, weights, moments, whole or by shards."""

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from softmax_jax import data, sweep
from softmax_jax.data.dataset import moments
from softmax_jax.sweep import inputs
from softmax_jax.sweep.inputs import bootstrap_counts, fold_counts
from tests.sweep_fixtures import DIGITS, fit

# Resamples.


def labels_of(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels).astype(np.int32)


@given(
    sizes=st.lists(st.integers(7, 60), min_size=1, max_size=5),
    folds=st.integers(2, 7),
    stratified=st.booleans(),
    seed=st.integers(0, 9),
)
def test_folds_hold_out_every_example_once_and_are_even(sizes, folds, stratified, seed):
    """Within one example; where they are stratified, of every class too."""
    labels = labels_of(sizes, seed)
    counts = fold_counts(labels, folds, stratified=stratified, seed=seed)
    assert counts.shape == (len(labels), folds) and counts.dtype == np.uint8
    assert set(counts.ravel()) == {0, 1}
    assert_array_equal((counts == 0).sum(1), np.ones(len(labels)))
    sets = [slice(None)] + [labels == label for label in range(len(sizes)) if stratified]
    for rows in sets:
        held_out = (counts[rows] == 0).sum(0)
        assert held_out.max() - held_out.min() <= 1


def test_folds_are_shuffled_by_their_seed_alone():
    labels = labels_of([30, 30])
    for stratified in True, False:
        one, again, other = (
            fold_counts(labels, 3, stratified=stratified, seed=seed) for seed in (1, 1, 2)
        )
        assert_array_equal(one, again)
        assert (one != other).any()
        assert len(set(one[:, 0][:12])) == 2  # not simply the first third


def test_groups_stay_together():
    groups = np.array([7, 7, -1, 3, 3, 3, -1])
    counts = fold_counts(np.zeros(7, int), groups)
    assert_array_equal(counts.T == 0, [groups == -1, groups == 3, groups == 7])


@pytest.mark.parametrize(
    "folds, message",
    [
        (1, "folds must be a whole number from 2 to the 14 examples; it is 1"),
        (15, "folds must be a whole number from 2 to the 14 examples; it is 15"),
        (2.7, "folds must be a whole number"),
        (True, "folds must be a whole number"),
        (np.zeros(14, int), "at least two folds"),
        (np.arange(13), "14 integers"),
        (np.linspace(0, 1, 14), "14 integers"),
    ],
)
def test_bad_folds_are_refused(folds, message):
    with pytest.raises(ValueError, match=message):
        fold_counts(labels_of([4, 10]), folds)


@settings(deadline=None, max_examples=30)
@given(
    rare=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    folds=st.integers(5, 8),
    seed=st.integers(0, 9),
)
def test_examples_of_rare_classes_are_in_as_many_folds_as_there_are(rare, folds, seed):
    labels = labels_of([30, *rare], seed)
    with pytest.warns(UserWarning, match=f"has {min(rare)} examples, fewer than folds = {folds}"):
        counts = fold_counts(labels, folds, seed=seed)
    assert_array_equal((counts == 0).sum(1), np.ones(len(labels)))
    for label, size in enumerate(rare, 1):
        assert sorted((counts[labels == label] == 0).sum(0))[-size:] == [1] * size


@settings(deadline=None, max_examples=50)
@given(
    groups=st.lists(st.integers(0, 14), min_size=60, max_size=60).map(np.array),
    folds=st.integers(2, 5),
    stratified=st.booleans(),
    seed=st.integers(0, 9),
)
def test_no_group_is_in_two_folds_and_folds_are_nearly_even(groups, folds, stratified, seed):
    labels = np.random.default_rng(seed).integers(2, size=60)
    if len(np.unique(groups)) < folds:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes in few groups
        how = {"stratified": stratified, "seed": seed, "together": groups}
        counts = fold_counts(labels, folds, **how)
    assert_array_equal((counts == 0).sum(1), np.ones(60))
    for group in np.unique(groups):
        assert len(np.unique(counts[groups == group], axis=0)) == 1
    held_out = (counts == 0).sum(0)
    assert held_out.min() > 0
    if not stratified:  # the largest come first: no fold is ahead by more than a group
        assert held_out.max() - held_out.min() <= np.bincount(groups).max()


def test_unstratified_folds_may_be_as_many_as_the_examples():
    labels = labels_of([4, 10])
    assert fold_counts(labels, 14, stratified=False).shape == (14, 14)
    with pytest.raises(ValueError, match="to the 14 examples; it is 15"):
        fold_counts(labels, 15, stratified=False)


def test_bootstrap_draws_have_the_counts_that_theory_says():
    """N draws with replacement: Poisson(1) counts, of which e^-1 are zero and 1/2 e^-1 two."""
    N = 2000
    counts = bootstrap_counts(N, 50, seed=0)
    assert counts.shape == (N, 50) and counts.dtype == np.uint8
    assert_array_equal(counts.sum(0, dtype=int), np.full(50, N))
    for count, share in (0, np.exp(-1)), (1, np.exp(-1)), (2, np.exp(-1) / 2):
        assert abs((counts == count).mean() - share) < 0.005
    assert_array_equal(counts, bootstrap_counts(N, 50, seed=0))
    assert len(np.unique(counts, axis=1).T) == 50
    with pytest.raises(ValueError, match="at least 2; it is 1"):
        bootstrap_counts(N, 1)
    with pytest.raises(ValueError, match="resamples of .* need .* GiB"):
        bootstrap_counts(10**9, 10**4)


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
def test_impossible_counts_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        inputs.check_resamples(inputs.Resamples.of(counts), 8)


def dataset(counts, weights=None):
    y = labels_of(counts)
    splits = data.from_arrays((np.ones((len(y), 2)), y), (np.zeros((len(y), 2)), y))
    return dataclasses.replace(splits.train, weights=weights)


def test_unweighted_examples_need_no_weights():
    assert inputs.class_weights(dataset([3, 5])) is None
    assert inputs.objective_weights(dataset([3, 5]), None) is None


def test_balanced_weights_are_those_of_scikit_learn():
    unbalanced = dataset([5, 30, 11])
    y = unbalanced.y
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert_allclose(inputs.class_weights(unbalanced, "balanced"), expected)


def test_balanced_weights_count_an_example_as_often_as_its_weight_says():
    own = np.random.default_rng(0).integers(1, 9, 16)
    weighted = dataset([5, 11], own)
    y = np.repeat(weighted.y, own)
    expected = compute_class_weight("balanced", classes=np.arange(2), y=y)
    found = inputs.class_weights(weighted, "balanced")
    assert_allclose(found, expected)
    each = inputs.objective_weights(weighted, found)
    assert_allclose([each[weighted.y == label].sum() for label in range(2)], own.sum() / 2)


@pytest.mark.parametrize("unit", [1.0, 1e-300, 1e300])
def test_weights_on_the_device_have_a_mean_of_one_in_any_unit(unit):
    own = np.random.default_rng(0).uniform(0.1, 9, 16)
    weighted, v = dataset([5, 11], unit * own), np.array([3.0, 0.5])
    counts = np.random.default_rng(1).integers(0, 3, (16, 2))
    resamples = inputs.Resamples.of(counts)
    made = inputs.make_inputs(weighted, None, class_weight=v, resamples=resamples)[0]
    on_device, each = made.train.resident, own / own.mean()
    assert_allclose(on_device.weights, each, rtol=1e-6)
    means = [np.average(each * v[weighted.y], weights=column) for column in counts.T]
    assert_allclose(on_device.mean_weight, means, rtol=1e-6)


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
        inputs.class_weights(dataset([3, 5]), class_weight)


# Whole, or by shards.


def in_shards(dataset, size):
    return dataclasses.replace(dataset, shard_size=size)


def test_shards_hold_every_example_once():
    made = inputs.make_inputs(in_shards(DIGITS.train, 120), None)[0].train
    for epoch in (None, 1):
        labels = np.concatenate([np.asarray(data.y) for _, data in made.shards(epoch, 50)])
        assert sorted(labels) == sorted(DIGITS.train.y)
    assert made.resident is None and len(list(made.shards(1, 50))) > 1


def test_weights_and_counts_go_with_their_rows():
    weighted = dataclasses.replace(DIGITS.train, weights=np.arange(1, 501, dtype=np.float32))
    counts = fold_counts(weighted.y, 2)
    resamples = inputs.Resamples.of(counts)
    made = inputs.make_inputs(in_shards(weighted, 120), None, resamples=resamples)[0]
    for _, shard in made.train.shards(1, 50):
        rows = np.round(np.asarray(shard.weights) * weighted.weights.mean()).astype(int) - 1
        assert_array_equal(shard.y, weighted.y[rows])
        assert_array_equal(shard.resamples, counts[rows])
    held_out = next(made.held_out.shards())[1]
    assert_array_equal(held_out.resamples, counts[: len(held_out.y)] == 0)
    assert_allclose(held_out.weights, np.arange(1, len(held_out.y) + 1) / 250.5, rtol=1e-6)


def test_training_by_shards_comes_as_far():
    """Another order of the data, so another path; but every example counts once an epoch."""
    options = {"num_epochs": 6, "batch_size": 50}
    train, val = in_shards(DIGITS.train, 120), in_shards(DIGITS.val, 90)
    whole, shards = fit(**options), sweep.fit(train, val, **options)
    for name, margin in {"val_loss": {"rel": 0.05}, "val_accuracy": {"abs": 0.04}}.items():
        assert shards.values(name)[0] == pytest.approx(whole.values(name)[0], **margin)


def test_evaluation_by_shards_gives_the_same_metrics():
    whole, shards = fit(), fit(val=in_shards(DIGITS.val, 70))
    for name in ("val_loss", "val_accuracy", "val_balanced_accuracy", "val_top5"):
        assert_allclose(shards.metrics[name], whole.metrics[name], rtol=1e-5)


# Moments.


def in_blocks(x, size=37):
    return [(start, x[start : start + size]) for start in range(0, len(x), size)]


@pytest.fixture(scope="module")
def x():
    """Features [200, 6] of all sizes, one with a mean far larger than its deviation."""
    rng = np.random.default_rng(0)
    return rng.normal([0, 1e6, -3, 1e-3, 1e20, 50], [1, 1e-2, 10, 1e-9, 1e19, 7], (200, 6))


@pytest.mark.numerical
@pytest.mark.parametrize("size", [1, 37, 200, 1000])
def test_moments_agree_with_scikit_learn(x, size):
    mean, scale = moments(in_blocks(x, size))
    expected = StandardScaler().fit(x)
    assert mean.shape == scale.shape == (1, 6) and scale.dtype == np.float64
    assert_allclose(mean[0], expected.mean_, rtol=1e-13)
    assert_allclose(scale[0], expected.scale_, rtol=1e-8)


@pytest.mark.numerical
@pytest.mark.parametrize("make", [fold_counts, bootstrap_counts])
def test_resample_has_the_moments_of_its_own_examples(x, make):
    counts = make(np.arange(200) % 4, 5) if make is fold_counts else make(200, 7)
    mean, scale = moments(in_blocks(x), counts)
    for r, count in enumerate(counts.T):
        own = np.repeat(x, count, axis=0)
        assert_allclose(mean[r], own.mean(0), rtol=1e-12, atol=1e-12)
        assert_allclose(scale[r], own.std(0), rtol=1e-8)


@pytest.mark.numerical
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_moments_of_any_type_are_summed_in_float64(dtype):
    x = np.random.default_rng(1).integers(0, 256, (500, 3, 4)).astype(dtype)
    mean, scale = moments(in_blocks(x, 64))
    flat = x.reshape(500, 12).astype(np.float64)
    assert_allclose(mean[0], flat.mean(0), rtol=1e-14)
    assert_allclose(scale[0], flat.std(0), rtol=1e-13)


@pytest.mark.numerical
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3, -1e-30, 3e38])
def test_constant_feature_keeps_its_value_and_scale(value):
    """Exactly its value, and the scale that it had: 1, or that of the pixels."""
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    x[:, 1] = value
    counts = bootstrap_counts(300, 4)
    for constant in (1.0, np.array([2.0, 255.0, 3.0])):
        mean, scale = moments(in_blocks(x), counts, constant)
        assert (mean[:, 1] == np.float32(value)).all()
        assert (scale[:, 1] == np.broadcast_to(constant, 3)[1]).all()
        assert (np.abs(scale[:, [0, 2]] - 1) < 0.2).all()


@pytest.mark.numerical
@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678])
@pytest.mark.parametrize("rare", [1.0, -7e3, 1e-3])
def test_feature_that_varies_in_another_fold_alone_is_constant(value, rare):
    """A rare word, say. A scale made of rounding would blow it up by 1e8 where it occurs."""
    counts = fold_counts(np.zeros(300, int), 3)
    x = np.random.default_rng(0).normal(size=(300, 4))
    x[:, 2] = value
    x[np.flatnonzero(counts[:, 1] == 0)[::9], 2] += rare
    mean, scale = moments(in_blocks(x), counts, constant=4.0)
    assert scale[1, 2] == 4 and mean[1, 2] == value
    for r in (0, 2):
        own = x[counts[:, r] > 0, 2]
        assert_allclose((mean[r, 2], scale[r, 2]), (own.mean(), own.std()), rtol=1e-9)


@pytest.mark.numerical
def test_outlier_outside_of_a_resample_costs_no_precision():
    x = np.random.default_rng(0).normal(size=(100, 2))
    x[7] = 1e9
    counts = np.ones((100, 2), np.uint8)
    counts[7, 0] = 0
    own = np.delete(x, 7, axis=0)
    mean, scale = moments([(0, x)], counts)
    assert_allclose(scale[0], own.std(0), rtol=1e-6)
    assert_allclose(mean[0], own.mean(0), rtol=1e-6)
    assert_allclose(scale[1], x.std(0), rtol=1e-12)


@pytest.mark.numerical
def test_scale_has_a_reciprocal_in_float32():
    x = np.array([[0.0, 1.0], [1e-42, 1.0], [3e-42, 2.0]])
    _, scale = moments([(0, x)], constant=5.0)
    assert scale[0, 0] == 5 and np.isfinite(1 / np.float32(scale)).all()


def test_losses_without_features_are_those_of_the_class_frequencies():
    x, y = np.zeros((6, 1), np.float32), np.array([0, 0, 0, 1, 1, 2])
    split = data.from_arrays(train=(x, y), val=(x[:3].copy(), np.array([0, 1, 1])))
    own = -(np.log(3 / 6) * 3 + np.log(2 / 6) * 2 + np.log(1 / 6)) / 6
    other = -(np.log(3 / 6) + 2 * np.log(2 / 6)) / 3
    found = inputs.frequency_losses(split.train, split.val)
    assert found == pytest.approx({"train_loss": own, "val_loss": other})
    assert inputs.frequency_losses(split.train, None)["val_loss"] == pytest.approx(own)
