"""What a sweep leaves: tables, best epochs, the chosen model, divergence, short texts."""

import dataclasses

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from softmax_jax import data, sweep
from softmax_jax.data.dataset import html_table
from softmax_jax.train import Hyperparameters
from tests.sweep_fixtures import DIGITS, THREE, distance, epochs, fit, train_by_hand


def loss_in_numpy(classifier, dataset):
    x = np.asarray(dataset.x, np.float64).reshape(len(dataset.y), -1)
    logits = ((x - classifier.mean) / classifier.scale) @ classifier.W + classifier.b
    return logsumexp(logits, -1) - logits[np.arange(len(dataset.y)), dataset.y]


@pytest.fixture(scope="module")
def rough():
    """Rates at which the validation loss jumps about, so that best epochs are not the last."""
    return fit(sweep.grid(learning_rate=(2.0, 5.0, 10.0), momentum=0.9), num_epochs=6)


@pytest.fixture(scope="module")
def result():
    return fit(THREE)


@pytest.fixture(scope="module")
def seeded():
    return fit(THREE, seeds=(0, 1))


@pytest.fixture(scope="module")
def two_seeds():
    rates = sweep.grid(learning_rate=(0.05, 0.1))
    return fit(rates, seeds=(4, 7), batch_size=(50, 100))


def test_table_has_a_row_per_trial_with_last_and_best_metrics(two_seeds):
    rows = two_seeds.table()
    assert [row["trial"] for row in rows] == list(range(8))
    assert [row["batch_size"] for row in rows] == [50] * 4 + [100] * 4
    assert [row["seed"] for row in rows] == [4, 4, 7, 7] * 2
    assert [row["learning_rate"] for row in rows] == [0.05, 0.1] * 4
    for trial, row in enumerate(rows):
        assert row["diverged"] is False
        assert row["best_epoch"] == 1 + two_seeds.metrics["val_loss"][trial].argmin()
        for name, values in two_seeds.curves().items():
            assert np.float32(row[name]) == values[trial, -1]
            assert np.float32(row[f"best_{name}"]) == values[trial, row["best_epoch"] - 1]


def test_by_setting_has_mean_and_standard_deviation_over_seeds(two_seeds):
    rows = two_seeds.by_setting()
    sizes = [(row["batch_size"], row["learning_rate"]) for row in rows]
    assert sizes == [(50, 0.05), (50, 0.1), (100, 0.05), (100, 0.1)]
    for row, trials in zip(rows, ((0, 2), (1, 3), (4, 6), (5, 7)), strict=True):
        values = two_seeds.metrics["val_accuracy"][list(trials), -1].astype(float)
        assert row["trials"] == 2 and row["diverged"] == 0
        assert row["val_accuracy_mean"] == pytest.approx(values.mean(), abs=1e-6)
        assert row["val_accuracy_sd"] == pytest.approx(values.std(ddof=1), abs=1e-6)


def texts_of(number):
    """An epoch, the result and the choice of a sweep of so many settings, one epoch long."""
    settings = sweep.grid(learning_rate=np.geomspace(1e-3, 0.1, number))
    (epoch,) = epochs(settings, num_epochs=1, batch_size=500)
    result = sweep.collect([epoch])
    return epoch, result, result.best()


def test_repr_of_a_thousand_trials_fits_ten_lines():
    epoch, result, selected = texts_of(1000)
    for thing in (epoch, result, selected):
        lines = repr(thing).splitlines()
        assert len(lines) <= 10 and max(map(len, lines)) <= 120, type(thing)
    assert "1,000 trials of 1,000 settings, 0 diverged" in repr(result)
    assert f"val_loss {result.values('val_loss').min():.4g} to" in repr(result)
    assert f"trial {selected.trial}, epoch 1" in repr(selected)
    assert "Epoch 1 of 1: 1,000 trials" in repr(epoch)


def test_notebook_shows_the_best_settings_as_a_table():
    _, result, selected = texts_of(12)
    for shown, num_rows in (result, 10), (selected, 1):
        html = shown._repr_html_()
        assert html.count("<table") == html.count("</table>") == 1
        assert html.count("<tr") == 1 + num_rows  # the head
    best = sorted(result.by_setting(), key=lambda row: row["val_loss_mean"])[:10]
    assert result._repr_html_() == html_table(best)


def test_best_epoch_is_that_of_the_smallest_validation_loss(rough):
    assert_array_equal(rough.best_epoch, 1 + rough.metrics["val_loss"].argmin(1))
    assert (rough.best_epoch < 6).any()


@pytest.mark.parametrize("epoch", ["last", "best"])
def test_parameters_are_those_of_the_named_epoch(rough, epoch):
    """The validation loss, recomputed in NumPy from the weights, is the one in the table."""
    for trial, row in enumerate(rough.table()):
        expected = row["val_loss" if epoch == "last" else "best_val_loss"]
        classifier = rough.classifier(trial, epoch)
        assert loss_in_numpy(classifier, DIGITS.val).mean() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("epoch", ["last", "best"])
def test_selected_trial_epoch_and_classifier_belong_together(rough, epoch):
    selected = rough.best("val_loss", epoch=epoch)
    measured = rough.metrics["val_loss"]
    measured = measured[:, -1] if epoch == "last" else measured.min(1)
    assert selected.trial == measured.argmin()
    assert selected.epoch == (6 if epoch == "last" else rough.best_epoch[selected.trial])
    assert selected.metrics["val_loss"] == pytest.approx(measured.min(), rel=1e-6)
    expected = loss_in_numpy(selected.classifier, DIGITS.val).mean()
    assert selected.metrics["val_loss"] == pytest.approx(expected, rel=1e-4)
    assert selected.hyperparameters == rough.run.trials.row(selected.trial)


def test_best_epoch_may_be_judged_by_accuracy():
    settings = sweep.grid(learning_rate=(2.0, 5.0, 10.0), momentum=0.9)
    result = fit(settings, num_epochs=6, solver=sweep.SGD(best_by="val_accuracy"))
    assert_array_equal(result.best_epoch, 1 + result.metrics["val_accuracy"].argmax(1))
    for trial, row in enumerate(result.table()):
        right = result.classifier(trial, "best").predict(DIGITS.val.x) == DIGITS.val.y
        assert row["best_val_accuracy"] == pytest.approx(right.mean())


def test_settings_are_compared_over_their_seeds(seeded):
    means = seeded.metrics["val_loss"][:, -1].reshape(2, 3).mean(0)
    selected = seeded.best()
    assert selected.trial == means.argmin()
    assert selected.hyperparameters["learning_rate"] == [0.02, 0.05, 0.1][means.argmin()]
    assert f"smallest val_loss at the last epoch of 3 settings: {means.min():.4f} ±" in selected.why
    assert seeded.best(rule="one_se").trial in range(3)


def test_selection_hints_where_the_grid_ends(result):
    """The largest rate and the largest l2 of the three win here."""
    assert result.best().hints == [
        f"The winner is at the edge of the grid: {hint}."
        for hint in (
            "learning_rate = 0.1 is the largest tried: extend learning_rate upwards",
            "l2 = 0.01 is the largest tried: extend l2 upwards",
        )
    ]


def test_predictions_and_test_metrics_are_those_of_the_selected_model(result):
    best = result.best()
    assert_array_equal(result.predict(DIGITS.test.x), best.classifier.predict(DIGITS.test.x))
    assert_allclose(result.predict_proba(DIGITS.test.x).sum(1), np.ones(300), rtol=1e-6)
    measured = result.test(DIGITS.test)
    assert measured["loss"] == pytest.approx(loss_in_numpy(best.classifier, DIGITS.test).mean())
    refitted = dataclasses.replace(result, refit=best._replace(classifier=result.classifier(0)))
    assert_array_equal(refitted.predict(DIGITS.test.x), result.classifier(0).predict(DIGITS.test.x))


def test_without_validation_the_best_epoch_is_the_last():
    """There is nothing to judge epochs by: not the initial weights, which no epoch had."""
    blind = fit(THREE, val=None)
    assert sorted(blind.metrics) == ["train_accuracy", "train_loss"]
    selected = blind.best("train_loss", epoch="best")
    assert selected.epoch == 3
    assert_array_equal(selected.classifier.W, blind.classifier(selected.trial, "last").W)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"metric": "val_los"}, "'val_los'; there are: train_loss"),
        ({"epoch": "first"}, "'last' or 'best'; it is 'first'"),
        ({"rule": "mean"}, "one of .*; it is 'mean'"),
        ({"rule": "one_se", "metric": "val_top5"}, "val_top5 is not a mean over"),
    ],
)
def test_bad_selection_is_named(result, options, message):
    with pytest.raises(ValueError, match=message):
        result.best(**options)


def test_classifier_is_of_the_last_or_the_best_epoch(result):
    with pytest.raises(ValueError, match="'last' or 'best'; it is 'first'"):
        result.classifier(0, "first")


# Divergence. Steps on the whole data, so that an epoch is one step and NumPy can say which.


@pytest.fixture(scope="module")
def divergent():
    settings = Hyperparameters(learning_rate=np.float32([0.1, 100, 1e38]), l2=np.float32([0, 1, 0]))
    return settings, fit(settings, num_epochs=21, batch_size=500)


def test_divergence_is_dated(divergent):
    """With l2 = 1 and a rate of 100 each step multiplies W by -99, until float32 ends."""
    _, result = divergent
    assert result.diverged[0] == 0 and result.diverged[2] == 1
    when, largest = result.diverged[1], np.finfo(np.float32).max
    for epoch in when - 1, when:
        h = Hyperparameters(learning_rate=100.0, l2=1.0)
        W, b = train_by_hand(DIGITS.train, h, num_epochs=epoch, batch_size=500)
        classifier = result.classifier(0)._replace(W=W, b=b)
        assert (loss_in_numpy(classifier, DIGITS.val).sum() > largest) == (epoch == when)


def test_diverged_trial_is_marked_and_never_wins(divergent):
    settings, result = divergent
    assert [row["diverged"] for row in result.table()] == [False, True, True]
    for metric in "val_loss", "val_accuracy", "train_loss":
        assert result.best(metric).trial == 0
    assert result.best("val_loss", "best").trial == 0
    with pytest.raises(ValueError, match="best epochs were kept by val_loss"):
        result.best("val_accuracy", "best")
    assert result.has_winner
    assert np.isfinite(result.classifier(1, "best").W).all()
    bad = jax.tree.map(lambda column: np.broadcast_to(column, 3)[[1, 2, 2]], settings)
    hopeless = fit(bad, num_epochs=21, batch_size=500)
    assert not hopeless.has_winner
    with pytest.raises(ValueError, match="Every setting has a diverged trial"):
        hopeless.best()


@pytest.mark.parametrize("rate", [1e6, 1e12, 1e30])
def test_a_loss_of_many_times_guessing_is_divergence(rate):
    """Whether it overflows or not; what comes back from such a loss has not diverged."""
    result = fit(sweep.grid(learning_rate=(0.1, rate)), num_epochs=3, batch_size=50)
    assert (result.diverged > 0).tolist() == [False, True]
    only = fit(sweep.grid(learning_rate=rate), num_epochs=2, batch_size=50)
    assert not only.has_winner
    metrics = {name: values.copy() for name, values in result.metrics.items()}
    metrics["val_loss"][0] = [1e4, 500.0, 200.0]
    back = dataclasses.replace(result, metrics=metrics)
    assert back.diverged[0] == 0  # 87 times ln 10
    metrics["val_loss"][0, 2] = 250.0
    assert back.diverged[0] == 1


def test_setting_with_one_diverged_seed_does_not_win():
    result = fit(sweep.grid(learning_rate=(0.1, 0.2)), seeds=(0, 1))
    metrics = {name: values.copy() for name, values in result.metrics.items()}
    metrics["val_loss"][1, 0] = np.inf  # setting 1 under seed 0
    assert dataclasses.replace(result, metrics=metrics).best().hyperparameters["seed"] == 0
    assert dataclasses.replace(result, metrics=metrics).best().trial == 0
    metrics["val_loss"][2, 0] = np.inf  # setting 0 under seed 1
    assert not dataclasses.replace(result, metrics=metrics).has_winner


def test_smallest_batch_size_tried_is_an_edge_unless_it_is_one():
    result = fit(sweep.grid(), batch_size=(4, 500))
    assert "batch_size = 4 is the smallest tried" in result.best().hints[0]
    result = fit(sweep.grid(), batch_size=(1, 500), num_epochs=1)
    assert result.best().hints == []


def test_trial_beside_a_diverged_one_is_untouched(divergent):
    _, result = divergent
    alone = fit(sweep.grid(learning_rate=(0.1, 0.2, 0.3)), num_epochs=21, batch_size=500)
    assert distance(result.classifier(0), alone.classifier(0)) <= 1e-6


# Honesty.


def labels_at_random(seed):
    rng = np.random.default_rng(seed)
    return data.from_arrays(
        *((rng.normal(size=(n, 20)), rng.integers(2, size=n)) for n in (60, 60, 2000))
    )


def test_best_of_a_thousand_settings_is_not_flattered():
    """On random labels the test accuracy is chance; the one it was chosen by is better.

    Ten data sets: each interval of 95 % may miss 1/2; three of ten are improbable.
    """
    covered = []
    for seed in range(10):
        splits = labels_at_random(seed)
        settings = sweep.random(
            1000,
            seed,
            learning_rate=sweep.log_uniform(1e-3, 3),
            momentum=sweep.uniform(0, 0.95),
            l2=sweep.log_uniform(1e-4, 10),
            init_scale=sweep.log_uniform(1e-3, 3),
        )
        options = {"num_epochs": 4, "batch_size": 20, "solver": sweep.SGD(best_by="val_accuracy")}
        result = sweep.fit(splits.train, splits.val, settings, **options)
        chosen = result.best("val_accuracy", epoch="best")
        low, high = chosen.classifier.test(splits.test)["accuracy_interval"]
        covered.append(low <= 0.5 <= high)
        assert chosen.metrics["val_accuracy"] > high
    assert sum(covered) >= 8
