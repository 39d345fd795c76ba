"""The cures of overfitting, trial by trial: what each does, and what those without it keep."""

import dataclasses

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import model, sweep
from softmax_jax.train import Hyperparameters
from tests import flat

# Each cure on its own, all of them together, and none.
CURED = sweep.zipped(
    learning_rate=0.1,
    momentum=0.5,
    init_scale=0.1,
    label_smoothing=(0.0, 0.2, 0.0, 0.0, 0.0, 0.1),
    warmup=(0.0, 0.0, 0.3, 0.0, 0.0, 0.2),
    final_rate=(1.0, 1.0, 1.0, 0.1, 1.0, 0.05),
    averaging=(0.0, 0.0, 0.0, 0.0, 0.5, 0.3),
)


def alone(settings, trial):
    return jax.tree.map(lambda column: column[trial].item(), settings)


@pytest.fixture(scope="module")
def cured(fit):
    return fit(CURED, schedule="cosine")


@pytest.mark.parametrize("trial", range(6))
def test_a_cured_trial_equals_training_by_hand(cured, digits, by_hand, distance, trial):
    """In NumPy float64, from the definitions."""
    h = alone(CURED, trial)

    def height(fraction):
        if fraction < h.warmup:
            return fraction / h.warmup
        rest = (fraction - h.warmup) / (1 - h.warmup)
        return h.final_rate + (1 - h.final_rate) * (1 + np.cos(np.pi * rest)) / 2

    expected = by_hand(digits.train, h, height=height)
    assert distance(cured.classifier(trial), expected) <= 1e-6
    figures = cured.classifier(trial).test(digits.val)
    assert cured.metrics["val_loss"][trial, -1] == pytest.approx(figures["loss"], rel=1e-5)


def test_the_average_is_what_is_left_without_validation_too(cured, fit):
    blind = fit(CURED, schedule="cosine", val=None)
    for trial in range(6):
        assert_allclose(blind.classifier(trial).W, cured.classifier(trial).W, rtol=1e-5, atol=1e-7)


def test_every_cure_makes_a_difference(cured, distance):
    for trial in range(1, 6):
        assert distance(cured.classifier(trial), cured.classifier(0)) > 1e-3


def test_a_trial_without_cures_is_as_in_a_sweep_without_them(cured, fit, distance):
    plain = fit(Hyperparameters(momentum=0.5, init_scale=0.1))
    assert distance(cured.classifier(0), plain.classifier(0)) <= 1e-6
    for name, values in plain.metrics.items():
        assert_allclose(cured.metrics[name][0], values[0], rtol=1e-6)


def test_an_exponential_decay_of_every_seed(fit, digits, by_hand, distance):
    result = fit(sweep.grid(final_rate=0.01), schedule="exponential", seeds=(0, 1))
    for seed in 0, 1:
        expected = by_hand(
            digits.train, Hyperparameters(), seed=seed, height=lambda fraction: 0.01**fraction
        )
        assert distance(result.classifier(seed), expected) <= 1e-6


def test_without_cures_nothing_is_kept_for_them(digits):
    """No copy of the weights beside themselves; with averaging, one."""

    def kept(**axes):
        options = {"num_epochs": 1, "batch_size": 500}
        epoch = next(flat.epochs(digits.train, None, sweep.grid(**axes), **options))
        return [leaf.shape for leaf in jax.tree.leaves(epoch.states)].count((1, 1, 10, 65))

    assert kept() == kept(l2=0.1, label_smoothing=0.1, warmup=0.1) == 1
    assert kept(averaging=0.1) == 2


def counting_model():
    """The concise model, with a list that grows by one with every trace of it."""
    traces = []

    def apply(params, x):
        traces.append(x.shape)
        return model.concise.apply(params, x)

    return model.concise._replace(apply=apply), traces


def test_cures_of_other_strength_and_length_are_no_new_program(digits):
    small = dataclasses.replace(digits.train, x=digits.train.x[:40], y=digits.train.y[:40])
    model, traces = counting_model()
    options = {"batch_size": 8, "model": model, "schedule": "cosine"}
    for num_epochs, strength in [(2, 0.1), (5, 0.3)]:
        cures = {"label_smoothing": strength, "averaging": strength, "warmup": strength}
        settings = sweep.grid(learning_rate=(0.1, strength + 1), final_rate=strength, **cures)
        flat.fit(small, None, settings, num_epochs=num_epochs, **options)
    assert traces == [(8, 65)]


# Early stopping, at a rate so large that the validation loss jumps about. Trial 0 never stops.

ROUGH = {"learning_rate": 5.0, "momentum": 0.9}
PATIENCE = (0, 1, 2, 3, 30)


@pytest.fixture(scope="module")
def stopped(digits):
    """The epochs of a sweep of patience, as they came, and its result."""
    seen = []

    def passed_on():
        settings = sweep.grid(**ROUGH, patience=PATIENCE)
        for epoch in flat.epochs(digits.train, digits.val, settings, num_epochs=12, batch_size=64):
            seen.append((epoch.epoch, epoch.trials.tolist(), jax.device_get(epoch.states)))
            yield epoch

    return sweep.collect(passed_on()), seen


def stop_by_hand(losses, patience):
    """The first epoch that lies `patience` epochs behind the best so far; 0: there is none."""
    for epoch in range(1, len(losses) + 1):
        if patience and epoch - (1 + np.argmin(losses[:epoch])) >= patience:
            return epoch
    return 0


def test_a_trial_stops_when_its_patience_is_at_its_end(stopped):
    result, _ = stopped
    losses = result.metrics["val_loss"][0]
    expected = [stop_by_hand(losses, patience) for patience in PATIENCE]
    assert [row["stopped_epoch"] for row in result.table()] == expected
    assert expected[0] == expected[4] == 0 and 0 < expected[1] < expected[2] < 12
    for trial, stop in enumerate(expected):
        stop = stop or 12
        assert_array_equal(result.metrics["val_loss"][trial, :stop], losses[:stop])
        assert result.best_epoch[trial] == 1 + losses[:stop].argmin()


def test_a_stopped_trial_is_frozen_with_its_figures_while_others_go_on(stopped):
    result, seen = stopped
    stop = result.facts["stopped_epoch"][1]
    for name, values in result.metrics.items():
        assert (values[1, stop - 1 :] == values[1, stop - 1]).all(), name
    assert (result.reached[1, stop - 1 :] == stop).all() and result.reached[0, -1] == 12
    assert [epoch for epoch, trials, _ in seen if 1 in trials] == list(range(1, stop + 1))
    matrices = [states.params["augmented"][0] for _, _, states in seen]
    for before, after in zip(matrices[stop - 1 :], matrices[stop:], strict=False):
        assert_array_equal(before[1], after[1])
        assert abs(before[0] - after[0]).max() > 0


def test_a_stopped_trial_has_the_parameters_of_its_best_epoch(stopped, digits):
    result, _ = stopped
    for trial in 1, 2:
        best = result.best_epoch[trial]
        assert best < result.facts["stopped_epoch"][trial]
        for epoch in "last", "best":
            figures = result.classifier(trial, epoch).test(digits.val)
            loss = result.metrics["val_loss"][0, best - 1]
            assert figures["loss"] == pytest.approx(loss, rel=1e-4)
            assert result.values("val_loss", epoch)[trial] == loss
    assert result.epochs("last")[0] == 12


def test_when_all_have_stopped_the_training_ends(digits):
    settings = sweep.grid(**ROUGH, patience=(1, 2))
    options = {"num_epochs": 500, "batch_size": 64, "seeds": (0, 1)}
    epochs = list(flat.epochs(digits.train, digits.val, settings, **options))
    result = sweep.collect(iter(epochs))
    last = result.facts["stopped_epoch"].max()
    assert len(epochs) == last < 500 and epochs[-1].ends
    assert (result.facts["stopped_epoch"] > 0).all()
    assert result.metrics["val_loss"].shape == (4, last)


def test_early_stopping_waits_for_the_figure_that_it_is_told(fit):
    options = {"num_epochs": 12, "best_by": "val_accuracy", "seeds": (0, 1)}
    result = fit(sweep.grid(**ROUGH, patience=(0, 2)), **options)
    for trial in 0, 2:  # of each seed, the one that never stops
        stop = stop_by_hand(-result.metrics["val_accuracy"][trial], 2)
        assert result.facts["stopped_epoch"][trial + 1] == stop
