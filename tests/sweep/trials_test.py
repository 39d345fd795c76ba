import numpy as np
import pytest
from numpy.testing import assert_array_equal

from softmax_jax import sweep
from softmax_jax.sweep import chunks, settings


def table(num_settings=1, num_seeds=1, batch_sizes=(256,), num_resamples=0):
    rates = sweep.grid(learning_rate=np.arange(1, num_settings + 1) / 100)
    seeds = tuple(range(num_seeds))
    return settings.trial_table(
        rates, seeds=seeds, batch_sizes=batch_sizes, num_resamples=num_resamples
    )


def test_the_table_has_every_combination_once_with_the_folds_fastest():
    t = table(num_settings=2, num_seeds=2, batch_sizes=(64, 8), num_resamples=3)
    rates = t.hyperparameters.learning_rate
    rows = list(zip(t.batch_size, t.seed, rates, t.fold, strict=True))
    assert len(rows) == len(set(rows)) == 24
    assert_array_equal(t.fold[:6], [0, 1, 2, 0, 1, 2])
    assert_array_equal(rates[:7], np.float32([0.01] * 3 + [0.02] * 3 + [0.01]))
    assert_array_equal(t.seed[:13], [0] * 6 + [1] * 6 + [0])
    assert_array_equal(t.batch_size, [64] * 12 + [8] * 12)


def test_trials_of_a_group_differ_in_seed_and_fold_alone():
    t = table(num_settings=2, num_seeds=2, batch_sizes=(64, 8), num_resamples=3)
    pairs = list(zip(t.batch_size, t.hyperparameters.learning_rate, strict=True))
    groups = dict(zip(t.setting, pairs, strict=True))
    assert sorted(groups) == [0, 1, 2, 3] and len(set(groups.values())) == 4
    assert [groups[group] for group in t.setting] == pairs


def test_without_resamples_the_fold_is_minus_one():
    assert_array_equal(table(num_settings=3).fold, [-1, -1, -1])


def test_a_row_has_the_numbers_as_they_were_written():
    """0.1, and not 0.10000000149011612."""
    t = settings.trial_table(sweep.grid(learning_rate=0.1, l2=1e-4, momentum=0.95), seeds=(7,))
    assert t.row(0) == {
        "learning_rate": 0.1,
        "momentum": 0.95,
        "l2": 1e-4,
        "init_scale": 0.01,
        "label_smoothing": 0.0,
        "warmup": 0.0,
        "final_rate": 1.0,
        "averaging": 0.0,
        "patience": 0.0,
        "seed": 7,
        "fold": -1,
        "batch_size": 256,
    }
    assert {type(value) for value in t.row(0).values()} == {float, int}


@pytest.mark.parametrize("num_settings", [1, 2, 7, 12])
@pytest.mark.parametrize("num_seeds", [1, 3, 4])
@pytest.mark.parametrize("batch_sizes, num_resamples", [((8,), 0), ((64, 8), 0), ((8,), 5)])
@pytest.mark.parametrize("chunk", [0, 1, 2, 3, 5, 8, 1000])
def test_a_plan_runs_every_trial_exactly_once(
    num_settings, num_seeds, batch_sizes, num_resamples, chunk
):
    """In pieces within the chunk: rows of one seed, one shape for each batch size."""
    t = table(num_settings, num_seeds, batch_sizes, num_resamples)
    pieces = chunks.plan(t, chunk)
    run = np.concatenate([p.trials[:, : p.num_real].ravel() for p in pieces])
    assert_array_equal(np.sort(run), np.arange(len(t.setting)))
    shapes = {}
    for piece in pieces:
        assert chunk == 0 or piece.trials.size <= chunk
        (size,) = set(t.batch_size[piece.trials].ravel())
        assert (t.seed[piece.trials] == t.seed[piece.trials[:, :1]]).all()
        settings, folds = t.hyperparameters.learning_rate[piece.trials], t.fold[piece.trials]
        assert (settings == settings[0]).all() and (folds == folds[0]).all()
        last_real = piece.trials[:, piece.num_real - 1 : piece.num_real]
        assert (piece.trials[:, piece.num_real :] == last_real).all()
        shapes.setdefault(size, set()).add(piece.trials.shape)
    assert all(len(of_size) == 1 for of_size in shapes.values())


def test_without_a_limit_each_batch_size_is_one_piece():
    pieces = chunks.plan(table(num_settings=5, num_seeds=3, batch_sizes=(64, 8)))
    assert [piece.trials.shape for piece in pieces] == [(3, 5), (3, 5)]


def test_pieces_are_as_even_as_can_be():
    """Seven settings in chunks of six are four and three, and not six and one."""
    pieces = chunks.plan(table(num_settings=7), chunk=6)
    assert [(piece.trials.shape, piece.num_real) for piece in pieces] == [((1, 4), 4), ((1, 4), 3)]
