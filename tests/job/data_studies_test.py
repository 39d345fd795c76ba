"""The studies of the data, on digits: rows, power law, suspects, and their pictures."""

import dataclasses

import numpy as np
import pytest

from softmax_jax import plots, studies

SIZES, SEEDS, L2 = (50, 200, 1437), 2, 1e-3


@pytest.fixture(scope="module")
def curve(splits, result):
    return studies.learning_curve(splits, result.best().classifier, L2, SIZES, SEEDS)


def test_a_row_for_each_seed_and_size(curve):
    rows, _ = curve
    assert [(row["seed"], row["size"]) for row in rows] == [(s, n) for s in (0, 1) for n in SIZES]
    assert all(row["converged"] for row in rows)
    np.testing.assert_allclose([row["l2"] * row["size"] for row in rows], L2 * 1437)


def test_more_examples_are_better_and_the_whole_split_is_the_same_for_every_seed(curve):
    rows, law = curve
    losses = np.reshape([row["val_loss"] for row in rows], (SEEDS, -1))
    assert (np.diff(losses, axis=1) < 0).all()
    assert losses[0, -1] == pytest.approx(losses[1, -1], rel=1e-2)
    assert losses[0, 0] != losses[1, 0]
    assert rows[2]["val_accuracy"] > 0.93
    sizes = [row["size"] for row in rows]
    assert law == studies.fit_power_law(sizes, [1 - row["val_accuracy"] for row in rows])


def test_the_curve_shows_the_rows_and_the_law(curve):
    rows, law = curve
    errors, losses = plots.learning_curve(rows, law, "digits").axes
    drawn = {line.get_label(): line for line in (*errors.get_lines(), *losses.get_lines())}
    means = [np.mean([1 - r["val_accuracy"] for r in rows if r["size"] == n]) for n in SIZES]
    np.testing.assert_allclose(drawn["val error"].get_ydata(), means)
    assert drawn["train loss"].get_xdata().tolist() == list(SIZES)
    assert any(label.startswith(f"{law.a:.3f} + ") for label in drawn)


def test_two_sizes_make_no_law(curve):
    rows = [row for row in curve[0] if row["size"] < 1437]
    assert studies._law(rows, 360) is None
    errors, _ = plots.learning_curve(rows, None, "digits").axes
    assert len(errors.get_lines()) == 1


def test_changed_labels_come_first_among_the_suspects_and_are_drawn(splits, result):
    train = splits.train
    y = np.array(train.y)
    y[:20] = (y[:20] + 1) % 10
    noisy = dataclasses.replace(train, y=y)
    found = studies.label_audit(noisy, result.best().classifier, 1e-2, folds=3)
    assert len(found.row) == studies.MOST_SUSPECTS
    assert np.isin(np.arange(20), found.row[:30]).mean() > 0.9
    figure = plots.suspects(noisy, found, "digits")
    first = found.table(train.label_names)[0]
    assert figure.axes[0].get_title() == f"{first['given']}?\n{first['predicted']}"
    assert len(figure.axes) == 36
