"""Successive halving: which settings go on, that nothing else changes for them, and resuming."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import plots, sweep
from softmax_jax.sweep import chunks, halving, inputs
from softmax_jax.sweep.result import Collection, hopeless_loss
from tests.sweep_fixtures import DIGITS, assert_same_bits, chunks_of, epochs, fit

PROPERTY = property_settings(deadline=None, database=None, derandomize=True, max_examples=100)
# Twelve settings that are told apart after an epoch, each with a schedule over all epochs.
TWELVE = sweep.grid(
    learning_rate=(0.001, 0.003, 0.01, 0.03, 0.05, 0.1), l2=(0.0, 0.1), final_rate=0.1
)
COSINE = sweep.SGD(schedule="cosine")
FOLDS = inputs.fold_counts(DIGITS.train.y, 2)

KINDS = {
    "plain": {},
    "seeds": {"seeds": (0, 1)},
    "folds": {"val": FOLDS, "seeds": (0, 1)},
    "batch sizes": {"batch_size": (32, 64, 500)},
    "chunks": {"seeds": (0, 1), "devices": chunks_of(5)},
    "accuracy": {"solver": COSINE._replace(best_by="val_accuracy")},
    "folds with moments": {"val": FOLDS, "objective": sweep.Objective(standardize=True)},
}


def options_of(kind):
    return {"settings": TWELVE, "num_epochs": 5, "solver": COSINE} | KINDS[kind]


# The numbers.


@given(st.integers(2, 5), st.integers(1, 4), st.integers(2, 30), st.integers(1, 400))
@PROPERTY
def test_each_rung_keeps_its_part_until_one_is_left(factor, first, num_epochs, num_settings):
    stops = halving.rungs((factor, first), num_epochs)
    assert stops == [first * factor**k for k in range(9) if first * factor**k < num_epochs]
    lengths = np.array(halving.lengths(num_settings, (factor, first), num_epochs))
    assert len(lengths) == num_settings and (np.diff(lengths) <= 0).all()
    assert set(lengths) <= {*stops, num_epochs} and lengths[0] == num_epochs
    for k, rung in enumerate(stops):
        assert (lengths > rung).sum() == max(1, num_settings // factor ** (k + 1))


@given(st.integers(1, 600), st.integers(0, 600), st.integers(2, 5))
@PROPERTY
def test_chunks_have_few_sizes_and_little_padding(num, more, factor):
    most = num + more
    size = halving.size_of(num, most, factor)
    assert num <= size <= most
    assert size <= num * factor**0.25 + 8 or size <= 64
    assert size <= factor * num + 16
    sizes = {halving.size_of(n, most, factor) for n in range(1, most + 1)}
    assert len(sizes) <= 4 * np.log(most) / np.log(factor) + 20
    assert halving.size_of(size, most, factor) == size


# What halving does to a sweep.


@pytest.fixture(scope="module", params=KINDS)
def both(request):
    """A sweep with halving after 1 and 3 of 5 epochs, and the same without."""
    options = options_of(request.param)
    return fit(**options, halving=(3, 1)), fit(**options)


def by_the_book(full, factor, stops):
    """The epoch at which each trial stops (0: none), from the curves of the full sweep."""
    trials, by = full.run.trials, full.run.best_by
    setting, cost = trials.setting, full.metrics[by] * (1 if by.endswith("loss") else -1)
    alive, stopped = list(np.unique(setting)), np.zeros(len(setting), int)

    def key(number, epoch):
        own = np.flatnonzero(setting == number)
        mean, row = cost[own, epoch - 1].mean(dtype=np.float64), trials.row(own[0])
        return round(mean, 7), -row["l2"], row["learning_rate"]

    for rung in stops:
        alive = sorted(alive, key=lambda number, at=rung: key(number, at))
        alive = alive[: max(1, len(alive) // factor)]
        stopped[~np.isin(setting, alive) & (stopped == 0)] = rung
    return stopped


def test_the_better_settings_go_on_with_all_their_seeds_and_folds(both):
    halved, full = both
    assert_array_equal(halved.halved, by_the_book(full, 3, [1, 3]))
    groups = len(np.unique(full.run.trials.setting))
    survivors = np.unique(full.run.trials.setting[halved.halved == 0])
    assert len(survivors) == groups // 9


def test_what_goes_on_ends_as_in_the_full_sweep_and_what_stopped_as_it_was_then(both):
    """To rounding: the products have other shapes."""
    halved, full = both
    ends = np.where(halved.halved, halved.halved, 5)
    assert_array_equal(halved.reached[:, -1], ends)
    for name, values in halved.metrics.items():
        for trial, end in enumerate(ends):
            own, whole = values[trial, :end], full.metrics[name][trial, :end]
            tolerance = 1e-4 if name.endswith("loss") else 0.0051  # an example of 200
            assert_allclose(own, whole, rtol=1e-4, atol=tolerance)
    going = np.flatnonzero(halved.halved == 0)
    for trial in going:
        assert_allclose(halved.classifier(trial).W, full.classifier(trial).W, rtol=1e-3, atol=1e-5)


def test_only_a_setting_that_was_trained_to_the_end_is_selected(both):
    halved, _ = both
    by = halved.run.best_by
    chosen = halved.best(by)
    assert halved.halved[chosen.trial] == 0 and chosen.epoch == 5
    assert "halving stopped" in chosen.why and chosen.selected_on
    assert {row["stopped_epoch"] for row in halved.by_setting()} == {0, 1, 3}
    survivors = len(np.unique(halved.run.trials.setting[halved.halved == 0]))
    assert len(halved.leaders(by)) == survivors


def test_without_halving_nothing_says_so(both):
    _, full = both
    assert not full.halved.any() and "halving" not in full.best(full.run.best_by).why
    assert "stopped_epoch" not in full.table()[0] and "stopped_epoch" not in full.by_setting()[0]


def test_a_stopped_model_is_the_one_that_it_was_at_the_rung():
    """Also for a rule that looks at its classifier: it is there, and no other's."""
    halved = fit(**options_of("plain"), halving=(3, 1))
    trial = int(np.flatnonzero(halved.halved == 1)[0])
    measured = halved.classifier(trial).test(DIGITS.val)
    assert halved.metrics["val_loss"][trial, -1] == pytest.approx(measured["loss"], rel=1e-5)


@pytest.mark.parametrize("by", ["val_loss", "val_accuracy"])
def test_diverged_settings_come_last(by):
    """Also by accuracy, which a model without any finite loss has."""
    settings = sweep.grid(learning_rate=(1e30, 1e4, 1e-6, 0.05, 1e31, 1e-5))
    solver = sweep.SGD(best_by=by)
    result = fit(settings, num_epochs=3, solver=solver, halving=(2, 1))
    assert {0, 1, 4}.isdisjoint(np.flatnonzero(result.halved != 1))
    assert result.best(by).trial == 3


def test_where_all_that_go_on_diverge_nothing_is_selected():
    result = fit(sweep.grid(learning_rate=(1e30, 1e31)), num_epochs=3, halving=(2, 1))
    assert not result.has_winner
    with pytest.raises(ValueError, match="Every setting that halving left has a diverged trial"):
        result.best()


def test_a_score_is_infinite_for_what_diverged():
    metrics = {
        "train_loss": np.float32([[1.0, np.nan, 1.0, 1.0]]),
        "val_loss": np.float32([[1.0, 1.0, np.inf, 1e4]]),
        "val_accuracy": np.float32([[0.9, 0.9, 0.9, 0.9]]),
    }
    (limit,) = hopeless_loss(np.array([0]), 10).tolist()
    for by, best in (("val_loss", 1.0), ("val_accuracy", -0.9)):
        found = np.asarray(halving.score(metrics, by, limit))
        assert_allclose(found, [[best, np.inf, np.inf, np.inf]], rtol=1e-6)


def test_ties_go_to_the_simpler_setting():
    run = epochs(TWELVE, solver=COSINE).run._replace(halving=(4, 1))
    keep = halving.best_settings(run, np.arange(12), np.zeros(12))
    rows = [run.trials.row(i) for i in np.flatnonzero(keep)]
    assert [(row["l2"], row["learning_rate"]) for row in rows] == [
        (0.1, 0.001),
        (0.1, 0.003),
        (0.1, 0.01),
    ]


def test_the_programs_shrink_to_what_goes_on():
    widths = {
        e.epoch: e.states.step.shape[1] for e in epochs(**options_of("plain"), halving=(3, 1))
    }
    assert widths == {1: 12, 2: 4, 3: 4, 4: 1, 5: 1}


def test_a_second_search_compiles_nothing(compilations):
    fit(**options_of("plain"), halving=(3, 1))
    compilations.clear()
    again = {**options_of("plain"), "settings": TWELVE._replace(l2=TWELVE.l2 + np.float32(1e-3))}
    fit(**again, halving=(3, 1))
    assert compilations == []


# Resuming.


def finished(run_epochs, arrays=None):
    collection = (
        Collection.restored(run_epochs.run, arrays) if arrays else Collection(run_epochs.run)
    )
    for epoch in run_epochs:
        collection.add(epoch)
    return collection


RESUMED = {
    "plain": {},
    "segments": {"devices": sweep.Devices(steps_per_call=3), "num_epochs": 4},
    "batch sizes and folds": {"batch_size": (64, 250), "val": FOLDS, "seeds": (0, 1)},
    "chunks": {"devices": chunks_of(5)},
    "adam": {"solver": sweep.SGD(schedule="cosine", optimizer="adam")},
}


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("kind", RESUMED)
def test_a_search_that_is_killed_anywhere_ends_with_the_same_bits(kind, factor):
    """After every epoch and segment, with what a checkpoint keeps."""
    options = options_of("plain") | RESUMED[kind] | {"halving": (factor, 1)}
    whole = finished(epochs(**options))
    steps = sum(1 for _ in epochs(**options))
    for after in range(1, steps):
        iterator = epochs(**options)
        collection = Collection(iterator.run)
        for number, epoch in enumerate(iterator, 1):
            collection.add(epoch)
            if number == after:
                pending = chunks.pending_after(epoch)
                break
        kept = {name: array.copy() for name, array in collection.arrays().items()}
        pending = chunks.unpack(*chunks.pack(pending))
        again = finished(epochs(**options, pending=pending), kept)
        ours, theirs = again.arrays(), whole.arrays()
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"log"}:
            assert_array_equal(ours[name], theirs[name], err_msg=f"{name}, killed after {after}")
        assert_same_bits(again.result(), whole.result())


# What cannot be.


@pytest.mark.parametrize(
    "pair, options, text",
    [
        ((1, 1), {}, r"a factor from 2, min_epochs from 1\); it is \(1, 1\)"),
        ((3, 0), {}, "min_epochs from 1"),
        (3, {}, "or None; it is 3"),
        ((3, 1.5), {}, "or None; it is"),
        ((3, 1, 1), {}, "or None; it is"),
        ((3, 5), {}, "after 5 epochs, and there are 5: its min_epochs must be below"),
        ((3, 1), {"val": None}, "halving needs a validation metric"),
        ((3, 1), {"settings": sweep.grid()}, "there is only one"),
        ((3, 1), {"settings": sweep.grid(l2=(0, 1), patience=2)}, "halving and patience exclude"),
        ((3, 1), {"val": "nested"}, "halving and outer folds exclude each other"),
        ((3, 1), {"solver": sweep.LBFGS(), "settings": sweep.grid(l2=(0, 1))}, "is for SGD"),
        ((3, 9), {"val": None, "settings": sweep.grid()}, "must be below.*only one.*validation"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_a_halving_that_cannot_be_is_refused_before_anything_is_compiled(
    pair, options, text, compilations
):
    options = {"settings": sweep.grid(l2=(0, 1)), "num_epochs": 5} | options
    if options.get("val") == "nested":
        options["val"] = sweep.nested_folds(DIGITS.train.y, 2, 2)
    with pytest.raises(ValueError, match=text):
        epochs(**options, halving=pair)
    assert compilations == []


def test_cross_validation_and_bootstrap_halve_and_refit_the_winner():
    options = {"num_epochs": 4, "batch_size": 64, "halving": (3, 1), "solver": COSINE}
    result = sweep.cross_validate(DIGITS.train, TWELVE, folds=2, **options)
    assert result.refit.epoch == 4 and result.halved[result.refit.trial] == 0
    result = sweep.bootstrap(DIGITS.train, TWELVE, draws=2, **options)
    assert result.refit.epoch == 4 and result.halved[result.refit.trial] == 0


# Pictures.


def test_pictures_mark_what_stopped():
    result = fit(**options_of("plain"), halving=(3, 1))
    chosen = result.best()
    grid = plots.lay_out(result, chosen, "val_loss", "last")
    assert_array_equal(np.unique(grid.stopped), [0, 1, 3])
    panel, *_, heat, _bar = plots.sweep(grid, "digits").axes
    crosses = [line for line in panel.lines if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in crosses) == 11
    assert sum("stopped at" in text.get_text() for text in heat.texts) == 11
    (loss, _) = plots.curves(result, chosen, "digits").axes
    ends = [line for line in loss.lines if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in ends) == 2 * 11  # train and val
    texts = [text.get_text() for text in loss.get_legend().get_texts()]
    assert "stopped by halving" in texts
