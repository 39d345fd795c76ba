"""The data on their way to the device: whole or in parts, normalised per fold, weighted."""

import dataclasses

import numpy as np
import pytest

from softmax_jax.sweep import inputs
from tests import flat

OPTIONS = {"num_epochs": 2, "batch_size": 50}


def in_parts(dataset, size):
    return dataclasses.replace(dataset, shard_size=size)


def test_what_is_read_in_parts_is_all_of_it_once(digits):
    feed = inputs.make_inputs(in_parts(digits.train, 120), None)[0].train
    for epoch in (None, 1):
        labels = np.concatenate([np.asarray(data.y) for _, data in feed.shards(epoch, 50)])
        assert sorted(labels) == sorted(digits.train.y)
    assert feed.resident is None and len(list(feed.shards(1, 50))) > 1


def test_weights_and_counts_go_with_their_rows(digits):
    weighted = dataclasses.replace(digits.train, weights=np.arange(1, 501, dtype=np.float32))
    counts = inputs.fold_counts(weighted.y, 2)
    made = inputs.make_inputs(in_parts(weighted, 120), None, resamples=counts)[0]
    for _, data in made.train.shards(1, 50):
        rows = np.round(np.asarray(data.importance) * weighted.weights.mean()).astype(int) - 1
        np.testing.assert_array_equal(data.y, weighted.y[rows])
        np.testing.assert_array_equal(data.resamples, counts[rows])
    held_out = next(made.held_out.shards())[1]
    np.testing.assert_array_equal(held_out.resamples, counts[: len(held_out.y)] == 0)
    assert held_out.importance is None


def test_training_in_parts_comes_as_far(digits):
    """Another order of the data, so another path; but every example counts once an epoch."""
    options = OPTIONS | {"num_epochs": 6}
    whole = flat.fit(digits.train, digits.val, **options)
    parts = flat.fit(in_parts(digits.train, 120), in_parts(digits.val, 90), **options)
    assert parts.values("val_loss")[0] == pytest.approx(whole.values("val_loss")[0], rel=0.05)
    assert parts.values("val_accuracy")[0] == pytest.approx(
        whole.values("val_accuracy")[0], abs=0.04
    )


def test_evaluation_in_parts_is_the_same(digits):
    whole = flat.fit(digits.train, digits.val, **OPTIONS)
    parts = flat.fit(digits.train, in_parts(digits.val, 70), **OPTIONS)
    for name in ("val_loss", "val_accuracy", "val_balanced_accuracy", "val_top5"):
        np.testing.assert_allclose(parts.metrics[name], whole.metrics[name], rtol=1e-5)


def test_the_optimum_needs_all_of_it_in_memory(digits):
    with pytest.raises(ValueError, match="read by shards"):
        flat.fit(in_parts(digits.train, 120), digits.val, num_epochs=9, optimizer="lbfgs")
