"""Chunks of trials: planned, cut, packed, and resumed at any step with the same results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import model, sweep, train
from softmax_jax.job import checkpoint
from softmax_jax.sweep import chunks, inputs
from softmax_jax.sweep.result import Collection
from softmax_jax.sweep.settings import trial_table
from tests.sweep_fixtures import DIGITS, chunks_of, epochs, first, fit

PATHS = settings(max_examples=60, deadline=None)


def table(num_settings=1, num_seeds=1, batch_sizes=(256,), num_resamples=0):
    rates = sweep.grid(learning_rate=np.arange(1, num_settings + 1) / 100)
    sizes = {"batch_sizes": batch_sizes, "num_resamples": num_resamples}
    return trial_table(rates, seeds=range(num_seeds), **sizes)


TABLES = st.builds(
    table,
    num_settings=st.integers(1, 13),
    num_seeds=st.integers(1, 6),
    batch_sizes=st.sampled_from([(8,), (64, 8)]),
    num_resamples=st.sampled_from([0, 0, 5]),
)


@PATHS
@given(t=TABLES, limit=st.integers(0, 80), multiple=st.sampled_from([1, 1, 2, 8]))
def test_plan_runs_every_trial_once_within_the_limit(t, limit, multiple):
    """Rows of one seed, the same columns in each, one shape for each batch size."""
    planned = chunks.plan(t, limit, multiple=multiple)
    run = np.concatenate([chunk.trials[:, : chunk.num_real].ravel() for chunk in planned])
    assert_array_equal(np.sort(run), np.arange(len(t.setting)))
    shapes = {}
    for chunk in planned:
        rows, columns = chunk.trials.shape
        assert limit == 0 or rows * chunk.num_real <= limit
        assert rows % multiple == 0 or columns % multiple == 0
        (size,) = set(t.batch_size[chunk.trials].ravel())
        assert (t.seed[chunk.trials] == t.seed[chunk.trials[:, :1]]).all()
        rates, folds = t.hyperparameters.learning_rate[chunk.trials], t.fold[chunk.trials]
        assert (rates == rates[0]).all() and (folds == folds[0]).all()
        last_real = chunk.trials[:, chunk.num_real - 1 : chunk.num_real]
        assert (chunk.trials[:, chunk.num_real :] == last_real).all()
        shapes.setdefault(size, set()).add(chunk.trials.shape)
    assert all(len(of_size) == 1 for of_size in shapes.values())


@PATHS
@given(t=TABLES, limit=st.integers(0, 20))
def test_plan_by_fold_puts_no_two_folds_into_one_chunk(t, limit):
    planned = chunks.plan(t, limit, by_fold=True)
    assert all(len(set(t.fold[chunk.trials].ravel())) == 1 for chunk in planned)


def test_plan_without_a_limit_has_one_chunk_per_batch_size():
    planned = chunks.plan(table(num_settings=5, num_seeds=3, batch_sizes=(64, 8)))
    assert [chunk.trials.shape for chunk in planned] == [(3, 5), (3, 5)]


def test_chunks_are_as_even_as_can_be():
    """Seven settings in chunks of six are four and three, and not six and one."""
    planned = chunks.plan(table(num_settings=7), 6)
    assert [(c.trials.shape, c.num_real) for c in planned] == [((1, 4), 4), ((1, 4), 3)]


@PATHS
@given(
    t=TABLES,
    limits=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    multiple=st.sampled_from([1, 2, 4]),
)
def test_recut_and_packed_work_keeps_the_state_of_every_trial(t, limits, multiple):
    planned = chunks.plan(t, limits[0])
    pending = [
        chunks.Pending(chunk, 3, number, {"W": chunk.trials[:, : chunk.num_real] * 1.5})
        for number, chunk in enumerate(planned)
    ]
    pending[-1] = chunks.Pending(planned[-1])  # fresh: nothing is saved
    again = chunks.unpack(*chunks.pack(chunks.recut(pending, limits[1], multiple)))
    real = np.concatenate([item.chunk.trials.ravel() for item in again])
    assert_array_equal(np.sort(real), np.arange(len(t.setting)))
    for item in again:
        assert limits[1] == 0 or item.chunk.trials.size <= limits[1]
        (source,) = (old for old in pending if item.chunk.trials[0, 0] in old.chunk.trials)
        assert (item.epoch, item.segment) == (source.epoch, source.segment)
        if source.saved is None:
            assert item.saved is None
        else:
            assert_array_equal(item.saved["W"], item.chunk.trials * 1.5)


# Chunks of a sweep.


@pytest.mark.parametrize("size", [1, 3, 4])
def test_chunked_sweep_puts_every_trial_in_its_row(size):
    rates = sweep.grid(learning_rate=(0.02, 0.05, 0.1))
    whole, chunked = (fit(rates, seeds=(0, 1), devices=chunks_of(n)) for n in (0, size))
    for name, values in whole.metrics.items():
        assert_allclose(chunked.metrics[name], values, rtol=1e-5, atol=1e-6)
    assert_array_equal(chunked.best_epoch, whole.best_epoch)
    for trial in range(6):
        W = chunked.classifier(trial, "best").W
        assert_allclose(W, whole.classifier(trial, "best").W, rtol=1e-4, atol=1e-6)


def test_iterator_that_passes_the_epochs_on_changes_nothing():
    seen = []

    def passed_on():
        for epoch in epochs():
            seen.append(epoch.metrics["val_loss"][0])
            yield epoch

    result = sweep.collect(passed_on())
    assert_array_equal(result.metrics["val_loss"][0], np.float32(seen))
    assert_array_equal(result.classifier(0).W, fit().classifier(0).W)


# Resuming.

RATES = sweep.grid(learning_rate=(0.05, 0.1), l2=(0.0, 1e-2))


def interrupted(epochs, after):
    """(arrays, pending) after so many steps of the iterator, through their packed form."""
    collection = Collection(epochs.run)
    for epoch in first(after, epochs):
        collection.add(epoch)
        pending = chunks.pending_after(epoch)
    return collection.arrays(), chunks.unpack(*chunks.pack(pending))


def finished(epochs, arrays=None):
    collection = Collection.restored(epochs.run, arrays) if arrays else Collection(epochs.run)
    for epoch in epochs:
        collection.add(epoch)
    return collection


def assert_same(one, other, check=assert_array_equal):
    ours, theirs = one.arrays(), other.arrays()
    assert ours.keys() == theirs.keys()
    for name in sorted(ours.keys() - {"log"}):
        check(ours[name], theirs[name])


KINDS = {
    "plain": {"num_epochs": 4, "seeds": (0, 1)},
    "chunks": {"seeds": (0, 1), "devices": chunks_of(2), "batch_size": (64, 32)},
    "segments": {"num_epochs": 2, "devices": sweep.Devices(steps_per_call=3)},
    "patience": {"num_epochs": 6, "settings": sweep.grid(learning_rate=0.3, patience=(0, 1))},
    "averaging": {"settings": sweep.grid(averaging=(0.0, 0.9), momentum=0.5)},
    "adam": {
        "settings": sweep.grid(learning_rate=0.003, beta1=(0.5, 0.9), weight_decay=0.1),
        "solver": sweep.SGD(optimizer="adamw"),
        "devices": sweep.Devices(steps_per_call=5),
        "seeds": (0, 1),
    },
    "microchunks": {
        "num_epochs": 2,
        "devices": sweep.Devices(steps_per_call=1),
        "batch_size": 250,
        "settings": sweep.grid(learning_rate=np.geomspace(1e-3, 1e-2, 600)),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_sweep_matches_uninterrupted(kind):
    """Bit for bit, wherever it was interrupted."""
    options = {"settings": RATES} | KINDS[kind]
    whole, steps = finished(epochs(**options)), sum(1 for _ in epochs(**options))

    @settings(max_examples=3, deadline=None, database=None, derandomize=True)
    @given(after=st.integers(1, steps))
    def at_any_step(after):
        arrays, pending = interrupted(epochs(**options), after)
        again = finished(epochs(**options, pending=pending), arrays)
        assert_same(again, whole)
        assert list(again.lines()) == list(whole.lines())

    at_any_step()


@pytest.mark.slow
def test_resumed_optimum_matches_uninterrupted():
    counts = inputs.fold_counts(DIGITS.train.y, 2)
    options = {
        "settings": sweep.grid(l2=(1e-5, 1e-3)),
        "val": counts,
        "num_epochs": 200,
        "solver": sweep.LBFGS(),
        "objective": sweep.Objective(standardize=True),
    }
    whole, steps = finished(epochs(**options)), sum(1 for _ in epochs(**options))
    for after in (1, steps // 2, steps - 1):
        arrays, pending = interrupted(epochs(**options), after)
        assert_same(finished(epochs(**options, pending=pending), arrays), whole)


def test_resumed_sweep_may_have_smaller_chunks():
    arrays, pending = interrupted(epochs(RATES, seeds=(0, 1)), 1)
    again = finished(epochs(RATES, seeds=(0, 1), pending=pending, devices=chunks_of(3)), arrays)

    def close(ours, theirs):
        assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    assert_same(again, finished(epochs(RATES, seeds=(0, 1))), close)


def test_nothing_is_pending_at_the_end():
    (epoch,) = epochs(RATES, num_epochs=1)
    assert chunks.pending_after(epoch) == []


def test_saved_state_of_another_type_is_refused():
    arrays, pending = interrupted(epochs(RATES, num_epochs=2), 1)
    pending[0].saved["states/step"] = pending[0].saved["states/step"].astype(np.int64)
    with pytest.raises(ValueError, match="states/step is int64"):
        finished(epochs(RATES, num_epochs=2, pending=pending), arrays)


# A tree as arrays by name.


@pytest.fixture(scope="module")
def state():
    return train.create_state(jax.random.key(0), model.concise, train.Hyperparameters(), 3, 2)


def leaves(tree):
    arrays = map(np.asarray, jax.tree.leaves(tree))
    return [(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in arrays]


def test_training_state_survives_a_file_to_the_bit(state, tmp_path):
    with open(tmp_path / "1.npz", "xb") as file:
        checkpoint.write_sealed(file, checkpoint.Checkpoint(1, "", chunks.flatten(state), {}))
    again = chunks.unflatten(state, checkpoint.read_sealed(tmp_path / "1.npz").arrays)
    assert leaves(again) == leaves(state) and len(leaves(state)) > 5
    assert (again.apply_fn, again.tx) == (state.apply_fn, state.tx)
    # Shapes without values are enough.
    like = jax.eval_shape(lambda: state)
    assert leaves(chunks.unflatten(like, chunks.flatten(state))) == leaves(state)


def test_names_of_leaves_are_their_paths(state):
    names = set(chunks.flatten(state))
    assert {"step", "hyperparameters/l2", "opt_state/hyperparams/learning_rate"} <= names
    assert any(name.startswith("params/") for name in names)


def test_restored_state_needs_no_new_program(state):
    """One type, weak or strong, that is not the same as before would be a second trace."""
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return jax.tree.map(lambda leaf: leaf + 1, state)

    uninterrupted = step(step(state))
    restored = chunks.unflatten(state, chunks.flatten(step(state)))
    assert leaves(step(restored)) == leaves(uninterrupted) and len(traces) == 1


def test_random_keys_and_low_precision_survive():
    tree = {"key": jax.random.split(jax.random.key(3), 2), "low": jnp.ones(3, jnp.bfloat16)}
    arrays = chunks.flatten(tree)
    assert arrays["key"].dtype == np.uint32 and arrays["low"].dtype == jnp.bfloat16
    again = chunks.unflatten(tree, arrays)
    assert_array_equal(jax.random.normal(again["key"][1]), jax.random.normal(tree["key"][1]))
    assert again["key"].dtype == tree["key"].dtype


def test_every_misfit_of_saved_arrays_is_in_one_error():
    like = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.int32), "c": np.zeros(())}
    arrays = {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.int64), "d": np.zeros(1)}
    with pytest.raises(ValueError) as error:
        chunks.unflatten(like, arrays)
    for text in (
        "a is float32[3] and should be float32[2]",
        "b is int64[2] and should be int32[2]",
        "c is missing",
        "d is not part of it",
    ):
        assert text in str(error.value)


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        chunks.flatten({"a": {"b": np.zeros(1)}, "a/b": np.zeros(1)})
