"""Every field of a config that concerns the sweep reaches it."""

import numpy as np
import pytest

from softmax_jax import sweep
from softmax_jax.host import JobError
from softmax_jax.job import run
from tests import flat


def test_the_axes_of_the_config_become_trials(config, splits):
    config.sweep.learning_rate = (0.1, 0.3)
    config.sweep.batch_size = (64, 128)
    config.sweep.seed = (3, 4, 5)
    result = sweep.collect(run.start_sweep(config, splits))
    rows = {(row["learning_rate"], row["batch_size"], row["seed"]) for row in result.table()}
    assert len(result.table()) == len(rows) == 12
    assert result.run.num_epochs == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.2),
        ("momentum", 0.5),
        ("l2", 0.5),
        ("init_scale", 0.5),
        ("label_smoothing", 0.5),
        ("warmup", 0.5),
        ("schedule", "cosine"),
        ("schedule", "exponential"),
        ("averaging", 0.5),
        ("batch_size", 100),
        ("num_epochs", 3),
        ("seed", 1),
        ("model", "scratch"),
        ("precision", "bfloat16"),
        ("class_weight", "balanced"),
        ("class_weight", tuple(range(1, 11))),
        ("folds", 2),
        ("bootstraps", 2),
    ],
)
def test_a_field_changes_the_weights(config, splits, field, value):
    plain = sweep.collect(run.start_sweep(config, splits)).classifier(0).W
    config[field] = value
    changed = sweep.collect(run.start_sweep(config, splits)).classifier(0).W
    assert np.abs(plain - changed).max() > 0


def test_zipped_axes_become_a_trial_each_under_every_seed(config, splits):
    config.combine = "zip"
    config.sweep.l2 = (0.0, 0.1, 0.0)
    config.sweep.patience = (0, 0, 1)
    config.sweep.seed = (0, 1)
    rows = sweep.collect(run.start_sweep(config, splits)).table()
    settings = [(row["l2"], row["patience"], row["seed"]) for row in rows]
    assert settings == [(l2, p, s) for s in (0, 1) for l2, p in ((0, 0), (0.1, 0), (0, 1))]


def test_a_decay_has_its_final_rate_and_without_one_there_is_none(config, splits):
    config.final_rate = 0.5
    assert sweep.collect(run.start_sweep(config, splits)).table()[0]["final_rate"] == 1
    config.schedule = "cosine"
    assert sweep.collect(run.start_sweep(config, splits)).table()[0]["final_rate"] == 0.5
    config.schedule, config.sweep.final_rate = "constant", (0.1, 1.0)
    with pytest.raises(JobError, match="final_rate below 1 needs a schedule"):
        run.start_sweep(config, splits)


def test_patience_reaches_the_sweep_and_its_folds(config, splits):
    config.learning_rate, config.num_epochs, config.folds = 10.0, 30, 2
    config.early_stopping.patience = 1
    result = sweep.collect(run.start_sweep(config, splits))
    assert (result.facts["stopped_epoch"] > 0).all()
    chosen = run.refit_winner(config, splits, result, run.select_winner(config, result))
    assert chosen.epoch == round(result.best_epoch.mean())


def test_the_losses_agree_where_all_of_them_are_accurate(config, splits):
    weights = []
    for loss in ("cross_entropy", "cross_entropy_from_probabilities"):
        config.loss = loss
        weights.append(sweep.collect(run.start_sweep(config, splits)).classifier(0).W)
    np.testing.assert_allclose(*weights, atol=1e-5)


def test_a_chunk_of_any_size_gives_the_same_results(config, splits):
    config.sweep.l2 = (0.0, 1e-3, 1e-2)
    whole = sweep.collect(run.start_sweep(config, splits))
    config.chunk = 2
    cut = sweep.collect(run.start_sweep(config, splits))
    np.testing.assert_allclose(whole.metrics["val_loss"], cut.metrics["val_loss"], rtol=1e-6)


def test_folds_end_in_a_refit_of_the_winner(config, splits):
    config.folds = 3
    config.sweep.learning_rate = (0.01, 0.3)
    result = sweep.collect(run.start_sweep(config, splits))
    selected = run.refit_winner(config, splits, result, run.select_winner(config, result))
    assert selected.refit and selected.hyperparameters["learning_rate"] == 0.3
    alone = flat.fit(
        splits.train, None, sweep.grid(learning_rate=0.3), num_epochs=2, batch_size=256
    )
    np.testing.assert_array_equal(selected.classifier.W, alone.classifier(0).W)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"batch_size": 2000}, "batch_size must be from 1 to the 1437"),
        ({"class_weight": (1.0, 2.0)}, "class_weight needs 10"),
        ({"folds": 500}, "folds must be from 2 to the"),
    ],
)
def test_what_does_not_fit_the_data_is_a_job_error(config, splits, fields, text):
    config.update(fields)
    with pytest.raises(JobError, match=text):
        run.start_sweep(config, splits)
