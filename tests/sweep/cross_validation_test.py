"""Cross-validation judges every setting on what it did not see; the winner is refitted on all."""

import itertools

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from softmax_jax import sweep
from softmax_jax.sweep import inputs
from tests import flat

OPTIONS = {"num_epochs": 4, "batch_size": 64}
SETTINGS = sweep.grid(learning_rate=(0.001, 0.1))


@pytest.fixture(scope="module")
def validated(digits):
    counts = sweep.fold_counts(digits.train.y, 4, seed=5)
    return flat.cross_validate(digits.train, SETTINGS, folds=counts, **OPTIONS)


def test_each_trial_is_judged_on_its_own_fold(validated, digits):
    counts = inputs.fold_counts(digits.train.y, 4, seed=5)
    for trial, row in enumerate(validated.table()):
        held_out = counts[:, row["fold"]] == 0
        classifier = validated.classifier(trial)
        x = digits.train.x[held_out].reshape(held_out.sum(), -1) / digits.train.scale
        log_p = log_softmax(x @ classifier.W + classifier.b, -1)
        labels = digits.train.y[held_out]
        loss = -log_p[np.arange(len(labels)), labels].mean()
        assert row["val_loss"] == pytest.approx(loss, rel=1e-4)
        assert row["val_accuracy"] == pytest.approx((log_p.argmax(-1) == labels).mean())


def test_the_winner_by_the_mean_is_refitted_on_the_whole_dataset(validated, digits):
    refit = validated.refit
    assert refit.refit and refit.hyperparameters["learning_rate"] == 0.1
    assert "500 training examples" in refit.why
    alone = flat.fit(digits.train, None, sweep.grid(learning_rate=0.1), **OPTIONS)
    np.testing.assert_array_equal(refit.classifier.W, alone.classifier(0).W)
    np.testing.assert_array_equal(
        validated.predict(digits.test.x), alone.classifier(0).predict(digits.test.x)
    )
    assert validated.test(digits.test)["accuracy"] > 0.7


def test_the_refit_of_best_epochs_takes_their_mean(digits):
    result = flat.cross_validate(digits.train, SETTINGS, folds=3, epoch="best", **OPTIONS)
    group = result.run.trials.setting
    own = group == group[result.refit.trial]
    assert result.refit.epoch == round(result.best_epoch[own].mean())
    means = result.values("val_loss", "best")[own].mean()
    assert result.refit.metrics["val_loss"] == pytest.approx(means)
    assert "fold" not in result.refit.hyperparameters


@pytest.mark.parametrize("axes", [{}, {"patience": 1}])
def test_a_refit_that_ends_early_has_the_rates_of_the_whole_course(digits, axes):
    """Its schedule is not squeezed into the shorter training."""
    settings = sweep.grid(learning_rate=5.0, momentum=0.9, final_rate=0.1, **axes)
    options = {"num_epochs": 8, "batch_size": 64, "schedule": "cosine"}
    epoch = "last" if axes else "best"
    result = flat.cross_validate(digits.train, settings, folds=2, epoch=epoch, **options)
    assert result.refit.epoch == round(result.best_epoch.mean()) < 8
    course = flat.epochs(digits.train, None, settings._replace(patience=None), **options)
    (W,) = (
        epoch.run.model.weights(jax.tree.map(lambda leaf: leaf[0, 0], epoch.states.params))[0]
        for epoch in itertools.islice(course, result.refit.epoch - 1, result.refit.epoch)
    )
    np.testing.assert_array_equal(result.refit.classifier.W, W)


@pytest.mark.parametrize("option", [{"rule": "onese"}, {"epoch": "first"}, {"metric": "val_los"}])
def test_a_misspelt_choice_is_refused_before_the_training(digits, compilations, option):
    with pytest.raises(ValueError):
        flat.cross_validate(digits.train, num_epochs=1, batch_size=499, **option)
    assert not compilations


def test_a_refit_that_diverges_is_an_error(digits):
    result = flat.cross_validate(digits.train, SETTINGS, folds=2, **OPTIONS)
    wild = {"learning_rate": 1e38, "momentum": 0.0, "l2": 0.0, "init_scale": 0.01}
    selected = result.refit._replace(hyperparameters=wild | {"seed": 0, "batch_size": 64})
    with pytest.raises(ValueError, match="diverged"):
        flat.refit(digits.train, result, selected)


def test_groups_stay_together(digits):
    groups = np.arange(500) % 5
    result = flat.cross_validate(digits.train, SETTINGS, folds=groups, **OPTIONS)
    assert len(result.table()) == 10


def test_the_bootstrap_interval_covers_the_figure_on_new_data(digits):
    result = flat.bootstrap(
        digits.train, sweep.grid(learning_rate=0.1), draws=40, num_epochs=8, batch_size=64
    )
    figures = result.values("val_accuracy")
    low, high = sweep.spread(result, result.refit, "val_accuracy")["interval"]
    assert low == pytest.approx(np.quantile(figures, 0.025))
    assert ((figures >= low) & (figures <= high)).mean() >= 0.94
    assert low - 0.03 <= result.test(digits.test)["accuracy"] <= high + 0.03


def test_class_weights_reach_the_refit(digits):
    heavy = (20.0,) + (1.0,) * 9
    options = OPTIONS | {"folds": 3, "class_weight": heavy}
    result = flat.cross_validate(digits.train, SETTINGS, **options)
    plain = flat.cross_validate(digits.train, SETTINGS, folds=3, **OPTIONS)
    x = digits.test.x
    assert (result.predict(x) == 0).sum() > (plain.predict(x) == 0).sum()
