"""A sweep that is broken off, packed up, and gone on with, ends as if nothing had happened."""

import itertools

import numpy as np
import pytest

from softmax_jax import sweep
from softmax_jax.sweep import chunks, inputs
from softmax_jax.sweep.result import Collection
from tests import flat

SETTINGS = sweep.grid(learning_rate=(0.05, 0.1), l2=(0.0, 1e-2))


def broken_off(epochs, after):
    """(arrays, tasks) after so many steps of the generator, through their packed form."""
    collection = Collection(epochs.run)
    for epoch in itertools.islice(epochs, after):
        collection.add(epoch)
        left = chunks.pending_after(epoch)
    return collection.arrays(), chunks.unpack(*chunks.pack(left))


def finished(epochs, arrays=None):
    collection = Collection.restored(epochs.run, arrays) if arrays else Collection(epochs.run)
    for epoch in epochs:
        collection.add(epoch)
    return collection


def assert_same(one, other, exact=True):
    check = np.testing.assert_array_equal if exact else _almost
    ours, theirs = one.arrays(), other.arrays()
    assert ours.keys() == theirs.keys()
    for name in sorted(ours):
        if name != "log":
            check(ours[name], theirs[name])


def _almost(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


KINDS = {
    "plain": {"num_epochs": 4, "seeds": (0, 1)},
    "several pieces": {"num_epochs": 3, "seeds": (0, 1), "chunk": 2, "batch_size": (64, 32)},
    "parts of epochs": {"num_epochs": 2, "steps_per_call": 3},
    "early stopping": {"num_epochs": 6, "settings": sweep.grid(learning_rate=0.3, patience=(0, 1))},
    "averaging": {"num_epochs": 3, "settings": sweep.grid(averaging=(0.0, 0.9), momentum=0.5)},
    "portions of the trials": {
        "num_epochs": 2,
        "steps_per_call": 1,
        "batch_size": 250,
        "settings": sweep.grid(learning_rate=np.geomspace(1e-3, 1e-2, 600)),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_gone_on_with_ends_as_what_was_never_broken_off(digits, kind):
    options = {"settings": SETTINGS, "batch_size": 64} | KINDS[kind]

    def start(**more):
        return flat.epochs(digits.train, digits.val, **options, **more)

    whole, steps = finished(start()), sum(1 for _ in start())
    for after in (1, steps // 2, steps):
        arrays, work = broken_off(start(), after)
        again = finished(start(pending=work), arrays)
        assert_same(again, whole)
        assert list(again.lines()) == list(whole.lines())


@pytest.mark.slow
def test_so_does_the_way_to_the_optimum(digits):
    counts = inputs.fold_counts(digits.train.y, 2)
    options = {"optimizer": "lbfgs", "num_epochs": 200, "resamples": counts, "standardize": True}

    def start(**more):
        return flat.epochs(digits.train, None, sweep.grid(l2=(1e-5, 1e-3)), **options, **more)

    whole, steps = finished(start()), sum(1 for _ in start())
    for after in (1, steps // 2, steps - 1):
        arrays, work = broken_off(start(), after)
        assert_same(finished(start(pending=work), arrays), whole)


def test_smaller_pieces_go_on_as_well(digits):
    options = {"num_epochs": 3, "batch_size": 64, "seeds": (0, 1)}

    def start(**more):
        return flat.epochs(digits.train, digits.val, SETTINGS, **options, **more)

    arrays, work = broken_off(start(), 1)
    again = finished(start(pending=work, chunk=3), arrays)
    assert_same(again, finished(start()), exact=False)


def test_nothing_is_left_at_the_end(digits):
    options = {"num_epochs": 1, "batch_size": 64}
    (epoch,) = flat.epochs(digits.train, digits.val, SETTINGS, **options)
    assert chunks.pending_after(epoch) == []


def test_a_state_of_another_shape_is_refused(digits):
    options = {"num_epochs": 2, "batch_size": 64}
    arrays, work = broken_off(flat.epochs(digits.train, digits.val, SETTINGS, **options), 1)
    work[0].saved["states/step"] = work[0].saved["states/step"].astype(np.int64)
    epochs = flat.epochs(digits.train, digits.val, SETTINGS, **options, pending=work)
    with pytest.raises(ValueError, match="states/step is int64"):
        finished(epochs, arrays)
