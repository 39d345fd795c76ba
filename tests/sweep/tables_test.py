"""The tables hold the figures of the result, trial by trial and setting by setting."""

import numpy as np
import pytest

from softmax_jax import sweep


@pytest.fixture(scope="module")
def two_seeds(fit):
    return fit(sweep.grid(learning_rate=(0.05, 0.1)), seeds=(4, 7), batch_size=(50, 100))


def test_a_row_per_trial_with_its_settings_and_its_last_and_best_figures(two_seeds):
    rows = two_seeds.table()
    assert [row["trial"] for row in rows] == list(range(8))
    assert [row["batch_size"] for row in rows] == [50] * 4 + [100] * 4
    assert [row["seed"] for row in rows] == [4, 4, 7, 7] * 2
    assert [row["learning_rate"] for row in rows] == [0.05, 0.1] * 4
    for row in rows:
        values = two_seeds.metrics["val_loss"][row["trial"]]
        assert np.float32(row["val_loss"]) == values[-1]
        assert np.float32(row["best_val_loss"]) == values.min() == values[row["best_epoch"] - 1]
        assert row["diverged"] is False


def test_a_row_per_setting_with_mean_and_standard_deviation_over_its_seeds(two_seeds):
    rows = two_seeds.by_setting()
    assert [(row["batch_size"], row["learning_rate"]) for row in rows] == [
        (50, 0.05),
        (50, 0.1),
        (100, 0.05),
        (100, 0.1),
    ]
    for row, trials in zip(rows, ((0, 2), (1, 3), (4, 6), (5, 7)), strict=True):
        values = two_seeds.metrics["val_accuracy"][list(trials), -1].astype(float)
        assert row["trials"] == 2 and row["diverged"] == 0
        assert row["val_accuracy_mean"] == pytest.approx(values.mean(), abs=1e-6)
        assert row["val_accuracy_sd"] == pytest.approx(values.std(ddof=1), abs=1e-6)
