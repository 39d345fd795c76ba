import dataclasses

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from softmax_jax import data, sweep
from softmax_jax.train import Hyperparameters
from tests import flat


def loss_in_numpy(classifier, dataset):
    x = np.asarray(dataset.x, np.float64).reshape(len(dataset.y), -1)
    logits = ((x - classifier.mean) / classifier.scale) @ classifier.W + classifier.b
    return logsumexp(logits, -1) - logits[np.arange(len(dataset.y)), dataset.y]


@pytest.fixture(scope="module")
def rough(fit):
    """Rates at which the validation loss jumps about, so that best epochs are not the last."""
    return fit(sweep.grid(learning_rate=(2.0, 5.0, 10.0), momentum=0.9), num_epochs=6)


@pytest.fixture(scope="module")
def seeded(fit, settings):
    return fit(settings, seeds=(0, 1))


def test_the_table_has_a_row_per_trial(seeded):
    table = seeded.table()
    assert [row["trial"] for row in table] == list(range(6))
    assert [row["seed"] for row in table] == [0, 0, 0, 1, 1, 1]
    assert [row["learning_rate"] for row in table] == [0.02, 0.05, 0.1] * 2
    assert {row["batch_size"] for row in table} == {64}
    assert not any(row["diverged"] for row in table)
    for trial, row in enumerate(table):
        for name, values in seeded.curves().items():
            assert row[name] == pytest.approx(values[trial, -1], rel=1e-6)
            best = values[trial, row["best_epoch"] - 1]
            assert row[f"best_{name}"] == pytest.approx(best, rel=1e-6)


def test_the_best_epoch_is_that_of_the_smallest_validation_loss(rough):
    assert_array_equal(rough.best_epoch, 1 + rough.metrics["val_loss"].argmin(1))
    assert (rough.best_epoch < 6).any()


@pytest.mark.parametrize("epoch", ["last", "best"])
def test_the_parameters_are_those_of_the_epoch_that_is_named(rough, digits, epoch):
    """The validation loss, recomputed in NumPy from the weights, is the one in the table."""
    for trial, row in enumerate(rough.table()):
        expected = row["val_loss" if epoch == "last" else "best_val_loss"]
        classifier = rough.classifier(trial, epoch)
        assert loss_in_numpy(classifier, digits.val).mean() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("epoch", ["last", "best"])
def test_what_is_selected_belongs_together(rough, digits, epoch):
    selected = rough.best("val_loss", epoch=epoch)
    figures = rough.metrics["val_loss"]
    figures = figures[:, -1] if epoch == "last" else figures.min(1)
    assert selected.trial == figures.argmin()
    assert selected.epoch == (6 if epoch == "last" else rough.best_epoch[selected.trial])
    assert selected.metrics["val_loss"] == pytest.approx(figures.min(), rel=1e-6)
    expected = loss_in_numpy(selected.classifier, digits.val).mean()
    assert selected.metrics["val_loss"] == pytest.approx(expected, rel=1e-4)
    assert selected.hyperparameters == rough.run.trials.row(selected.trial)


def test_the_best_epoch_may_be_judged_by_accuracy(fit, digits):
    settings = sweep.grid(learning_rate=(2.0, 5.0, 10.0), momentum=0.9)
    result = fit(settings, num_epochs=6, best_by="val_accuracy")
    assert_array_equal(result.best_epoch, 1 + result.metrics["val_accuracy"].argmax(1))
    for trial, row in enumerate(result.table()):
        right = result.classifier(trial, "best").predict(digits.val.x) == digits.val.y
        assert row["best_val_accuracy"] == pytest.approx(right.mean())


def test_settings_are_compared_over_their_seeds(seeded):
    means = seeded.metrics["val_loss"][:, -1].reshape(2, 3).mean(0)
    selected = seeded.best()
    assert selected.trial == means.argmin()
    assert selected.hyperparameters["learning_rate"] == [0.02, 0.05, 0.1][means.argmin()]
    assert f"smallest val_loss at the last epoch of 3 settings: {means.min():.4f} ±" in selected.why
    assert seeded.best(rule="one_se").trial in range(3)


def test_selection_says_where_the_grid_ends(result):
    """The largest rate and the largest l2 of the three win here."""
    assert result.best().hints == [
        f"The winner lies at the edge of the grid: {hint}."
        for hint in (
            "learning_rate = 0.1 is the largest tried: extend learning_rate upwards",
            "l2 = 0.01 is the largest tried: extend l2 upwards",
        )
    ]


def test_predictions_and_test_figures_are_those_of_the_selected_model(result, digits):
    best = result.best()
    assert_array_equal(result.predict(digits.test.x), best.classifier.predict(digits.test.x))
    assert_allclose(result.predict_proba(digits.test.x).sum(1), np.ones(300), rtol=1e-6)
    figures = result.test(digits.test)
    assert figures["loss"] == pytest.approx(loss_in_numpy(best.classifier, digits.test).mean())
    refitted = dataclasses.replace(result, refit=best._replace(classifier=result.classifier(0)))
    assert_array_equal(refitted.predict(digits.test.x), result.classifier(0).predict(digits.test.x))


def test_without_validation_every_epoch_named_best_is_the_last(fit, settings):
    """There is nothing to judge epochs by: not the initial weights, which no epoch had."""
    blind = fit(settings, val=None)
    assert sorted(blind.metrics) == ["train_accuracy", "train_loss"]
    selected = blind.best("train_loss", epoch="best")
    assert selected.epoch == 3
    assert_array_equal(selected.classifier.W, blind.classifier(selected.trial, "last").W)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"metric": "val_los"}, "'val_los'; there are: train_loss"),
        ({"epoch": "first"}, "'last' or 'best'; it got 'first'"),
        ({"rule": "mean"}, "one of .*; it is 'mean'"),
        ({"rule": "one_se"}, "two or more seeds or folds"),
    ],
)
def test_a_bad_question_is_named(result, options, message):
    with pytest.raises(ValueError, match=message):
        result.best(**options)


def test_a_classifier_is_of_the_last_or_the_best_epoch(result):
    with pytest.raises(ValueError, match="'last' or 'best'; it got 'first'"):
        result.classifier(0, "first")


# Divergence. Steps on the whole data, so that an epoch is one step and NumPy can say which.


@pytest.fixture(scope="module")
def divergent(fit):
    settings = Hyperparameters(learning_rate=np.float32([0.1, 100, 1e38]), l2=np.float32([0, 1, 0]))
    return settings, fit(settings, num_epochs=21, batch_size=500)


def test_divergence_is_dated(divergent, digits, by_hand):
    """With l2 = 1 and a rate of 100 each step multiplies W by -99, until float32 ends."""
    _, result = divergent
    assert result.diverged[0] == 0 and result.diverged[2] == 1
    when, largest = result.diverged[1], np.finfo(np.float32).max
    for epoch in when - 1, when:
        h = Hyperparameters(learning_rate=100.0, l2=1.0)
        W, b = by_hand(digits.train, h, num_epochs=epoch, batch_size=500)
        classifier = result.classifier(0)._replace(W=W, b=b)
        assert (loss_in_numpy(classifier, digits.val).sum() > largest) == (epoch == when)


def test_a_diverged_trial_is_marked_and_never_wins(divergent, fit):
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


def test_a_setting_with_one_diverged_seed_does_not_win(fit):
    result = fit(sweep.grid(learning_rate=(0.1, 0.2)), seeds=(0, 1))
    metrics = {name: values.copy() for name, values in result.metrics.items()}
    metrics["val_loss"][1, 0] = np.inf  # setting 1 under seed 0
    assert dataclasses.replace(result, metrics=metrics).best().hyperparameters["seed"] == 0
    assert dataclasses.replace(result, metrics=metrics).best().trial == 0
    metrics["val_loss"][2, 0] = np.inf  # setting 0 under seed 1
    assert not dataclasses.replace(result, metrics=metrics).has_winner


def test_the_smallest_batch_size_tried_is_an_edge_unless_it_is_one(fit):
    result = fit(sweep.grid(), batch_size=(4, 500))
    assert "batch_size = 4 is the smallest tried" in result.best().hints[0]
    result = fit(sweep.grid(), batch_size=(1, 500), num_epochs=1)
    assert result.best().hints == []


def test_the_trial_beside_a_diverged_one_is_untouched(divergent, fit, distance):
    _, result = divergent
    alone = fit(sweep.grid(learning_rate=(0.1, 0.2, 0.3)), num_epochs=21, batch_size=500)
    assert distance(result.classifier(0), alone.classifier(0)) <= 1e-6


# Honesty.


def labels_at_random(seed):
    rng = np.random.default_rng(seed)
    return data.from_arrays(
        *((rng.normal(size=(n, 20)), rng.integers(2, size=n)) for n in (60, 60, 2000))
    )


def test_the_best_of_a_thousand_settings_is_not_flattered():
    """On labels made at random: the test figure is chance, the one it was chosen by is not.

    Ten data sets: each interval of 95 % may miss 1/2, but three of ten would be a wonder.
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
        result = flat.fit(
            splits.train, splits.val, settings, num_epochs=4, batch_size=20, best_by="val_accuracy"
        )
        chosen = result.best("val_accuracy", epoch="best")
        low, high = chosen.classifier.test(splits.test)["accuracy_interval"]
        covered.append(low <= 0.5 <= high)
        assert chosen.metrics["val_accuracy"] > high
    assert sum(covered) >= 8
