"""Cross-validation judges every setting on what it did not see; the winner is refitted on all."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax

from softmax_jax import SoftmaxRegression, data, sweep
from tests.sweep_fixtures import DIGITS, epochs, fit

OPTIONS = {"num_epochs": 4, "batch_size": 64}
SETTINGS = sweep.grid(learning_rate=(0.001, 0.1))


@pytest.fixture(scope="module")
def validated():
    counts = sweep.fold_counts(DIGITS.train.y, 4, seed=5)
    return sweep.cross_validate(DIGITS.train, SETTINGS, folds=counts, **OPTIONS)


def test_trial_is_evaluated_on_its_own_fold(validated):
    counts = sweep.fold_counts(DIGITS.train.y, 4, seed=5)
    for trial, row in enumerate(validated.table()):
        held_out = counts[:, row["fold"]] == 0
        classifier = validated.classifier(trial)
        x = DIGITS.train.x[held_out].reshape(held_out.sum(), -1) / DIGITS.train.scale
        log_p = log_softmax(x @ classifier.W + classifier.b, -1)
        labels = DIGITS.train.y[held_out]
        loss = -log_p[np.arange(len(labels)), labels].mean()
        assert row["val_loss"] == pytest.approx(loss, rel=1e-4)
        assert row["val_accuracy"] == pytest.approx((log_p.argmax(-1) == labels).mean())


def test_winner_is_refitted_on_the_whole_dataset(validated):
    refit = validated.refit
    assert refit.refit and refit.hyperparameters["learning_rate"] == 0.1
    assert "500 training examples" in refit.why
    alone = fit(sweep.grid(learning_rate=0.1), None, **OPTIONS)
    np.testing.assert_array_equal(refit.classifier.W, alone.classifier(0).W)
    np.testing.assert_array_equal(
        validated.predict(DIGITS.test.x), alone.classifier(0).predict(DIGITS.test.x)
    )
    assert validated.test(DIGITS.test)["accuracy"] > 0.7


def test_best_epoch_is_common_to_all_folds_of_a_setting():
    """It is read off the mean curve, and not off each fold's, which has its own luck."""
    result = sweep.cross_validate(
        DIGITS.train, SETTINGS, folds=3, selection=sweep.Selection(epoch="best"), **OPTIONS
    )
    group = result.run.trials.setting
    for setting in np.unique(group):
        curve = result.metrics["val_loss"][group == setting].mean(0)
        assert (result.epochs("best")[group == setting] == curve.argmin() + 1).all()
    own = group == group[result.refit.trial]
    assert result.refit.epoch == result.epochs("best")[own][0]
    assert result.refit.metrics["val_loss"] == pytest.approx(
        result.metrics["val_loss"][own, result.refit.epoch - 1].mean()
    )
    assert result.refit.selected_on
    assert "fold" not in result.refit.hyperparameters


@pytest.mark.parametrize("axes", [{}, {"patience": 1}])
def test_early_refit_keeps_the_full_schedule(axes):
    """The schedule is not squeezed into the shorter training."""
    settings = sweep.grid(learning_rate=5.0, momentum=0.9, final_rate=0.1, **axes)
    options = {"num_epochs": 8, "batch_size": 64, "solver": sweep.SGD(schedule="cosine")}
    selection = sweep.Selection(epoch="last" if axes else "best")
    result = sweep.cross_validate(DIGITS.train, settings, folds=2, selection=selection, **options)
    assert result.refit.epoch == result.epochs("best")[0] < 8
    for epoch in epochs(settings._replace(patience=None), None, **options):
        if epoch.epoch == result.refit.epoch:
            params = jax.tree.map(lambda leaf: leaf[0, 0], epoch.states.params)
            W, _ = epoch.run.model.weights(params)
    np.testing.assert_array_equal(result.refit.classifier.W, W)


@pytest.mark.parametrize(
    "option",
    [sweep.Selection(rule="onese"), sweep.Selection(epoch="first"), sweep.Selection("val_los")],
)
def test_misspelt_selection_is_refused_before_training(compilations, option):
    with pytest.raises(ValueError, match="onese|first|val_los"):
        sweep.cross_validate(DIGITS.train, num_epochs=1, batch_size=499, selection=option)
    assert not compilations


def test_diverged_refit_is_an_error():
    result = sweep.cross_validate(DIGITS.train, SETTINGS, folds=2, **OPTIONS)
    wild = {"learning_rate": 1e38, "momentum": 0.0, "l2": 0.0, "init_scale": 0.01}
    selected = result.refit._replace(hyperparameters=wild | {"seed": 0, "batch_size": 64})
    with pytest.raises(ValueError, match="diverged"):
        sweep.refit(DIGITS.train, result, selected)


def test_groups_are_folds():
    groups = np.arange(500) % 5
    result = sweep.cross_validate(DIGITS.train, SETTINGS, folds=groups, **OPTIONS)
    assert len(result.table()) == 10


def test_bootstrap_interval_is_as_wide_as_its_examples_allow():
    """Not as wide as the spread over the draws, each of which is measured on 37 % of them."""
    result = sweep.bootstrap(
        DIGITS.train, sweep.grid(learning_rate=0.1), draws=40, num_epochs=8, batch_size=64
    )
    values = result.values("val_accuracy")
    found = sweep.spread(result, result.refit, "val_accuracy")
    assert found["spread"] == pytest.approx(np.quantile(values, (0.025, 0.975)))
    low, high = found["interval"]
    assert low < values.mean() < high
    assert high - low < np.ptp(found["spread"])
    binomial = 2 * 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / len(DIGITS.train))
    assert high - low == pytest.approx(binomial, rel=0.3)


def test_class_weights_reach_the_refit():
    heavy = (20.0,) + (1.0,) * 9
    weighted, plain = (
        sweep.cross_validate(DIGITS.train, SETTINGS, folds=3, objective=objective, **OPTIONS)
        for objective in (sweep.Objective(class_weight=heavy), sweep.Objective())
    )
    x = DIGITS.test.x
    assert (weighted.predict(x) == 0).sum() > (plain.predict(x) == 0).sum()


@pytest.mark.parametrize("outer_folds", [0, 2])
def test_out_of_fold_probabilities_are_those_of_models_without_the_fold(outer_folds):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4)).astype(np.float32)
    y = (x[:, 0] + rng.logistic(size=120) > 0).astype(int) + (x[:, 1] > 1)
    weights = rng.integers(0, 3, 120).astype(float)
    groups = np.arange(120) // 3
    dataset = data.from_arrays((x, y, weights, groups), (x[:9].copy(), y[:9])).train
    result = sweep.cross_validate(
        dataset,
        sweep.grid(l2=(0.03, 10.0)),
        folds=3,
        outer_folds=outer_folds,
        num_epochs=300,
        solver=sweep.LBFGS(tolerance=1e-6),
    )
    there = dataset.without_absent()
    found, fold = sweep.out_of_fold(there, result, result.refit)
    l2 = result.refit.hyperparameters["l2"]
    kept = weights > 0
    assert all(len(set(fold[groups[kept] == group])) < 2 for group in groups)
    for number in range(3):
        rest = fold != number
        fit = SoftmaxRegression(l2=l2, tol=1e-9).fit(
            x[kept][rest], y[kept][rest], weights[kept][rest]
        )
        expected = fit.predict_proba(x[kept][~rest])
        assert_allclose(found[~rest], expected, atol=2e-3)
    with pytest.raises(ValueError, match="divide"):
        sweep.out_of_fold(there[:50], result, result.refit)


def test_out_of_fold_needs_folds():
    splits = data.load("digits", "train[:100]", "train[100:150]")
    options = {"num_epochs": 1, "batch_size": 50}
    plain = sweep.fit(splits.train, splits.val, **options)
    drawn = sweep.bootstrap(splits.train, draws=3, **options)
    for result in (plain, drawn):
        with pytest.raises(ValueError, match="hold out each example once"):
            sweep.out_of_fold(splits.train, result, result.best())
