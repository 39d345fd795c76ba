"""No metric is better than chance on labels by coin flip, unless it is called selected on."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import log_softmax
from sklearn.datasets import load_iris

from configs import default, probe
from softmax_jax import data, sweep
from softmax_jax.data import validation
from softmax_jax.host import DONE, USAGE
from softmax_jax.job import outputs, run
from softmax_jax.sweep.inputs import Resamples

LABELS = np.repeat([0, 1, 2], (20, 25, 30))


def coin_flips(folder, seed, num_features, num_train=150):
    """A file of random features and labels: train, and 150 examples of test."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for role, n in (("train", num_train), ("test", 150)):
        arrays[f"x_{role}"] = rng.normal(size=(n, num_features)).astype(np.float32)
        arrays[f"y_{role}"] = rng.permutation(np.arange(n) % 2)
    path = folder / f"coins{seed}.npz"
    np.savez(path, **arrays)
    return str(path)


# Rows that are equal stay together.

GROUPS = st.lists(st.integers(0, 40), min_size=75, max_size=75).map(np.array)


@settings(max_examples=25, deadline=None)
@given(GROUPS, st.integers(2, 3), st.integers(0, 9))
def test_folds_keep_equal_rows_together(together, folds, seed):
    labels = LABELS[np.unique(together, return_index=True)[1]][
        np.unique(together, return_inverse=True)[1]
    ]  # equal rows have one label, that of the first
    if min(len(np.unique(together[labels == label])) for label in np.unique(labels)) < folds:
        return
    counts = sweep.fold_counts(labels, folds, seed=seed, together=together)
    assert ((counts == 0).sum(1) == 1).all()
    for number in np.unique(together):
        own = counts[together == number]
        assert (own == own[0]).all()


@given(st.integers(2, 6), st.integers(0, 9))
def test_rows_that_all_differ_are_assigned_as_ever(folds, seed):
    rng = np.random.default_rng(seed)
    labels, distinct = rng.permutation(LABELS), rng.permutation(75)
    one = sweep.fold_counts(labels, folds, seed=seed)
    assert_array_equal(sweep.fold_counts(labels, folds, seed=seed, together=distinct), one)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(2, 4), st.integers(0, 9))
def test_nested_folds_never_choose_on_what_the_outer_fold_measures(folds, outer_folds, seed):
    made = sweep.nested_folds(LABELS, folds, outer_folds, seed=seed)
    assert made.counts.shape == made.held_out.shape == (75, folds + outer_folds * (folds + 1))
    plain = sweep.fold_counts(LABELS, folds, seed=seed)
    assert_array_equal(made.counts[:, made.outer < 0], plain)
    measured = made.held_out[:, made.final]
    assert (measured.sum(1) == 1).all()  # each example once
    for number in range(outer_folds):
        fold = made.held_out[:, made.final & (made.outer == number)][:, 0] > 0
        inner = (made.outer == number) & ~made.final
        assert not made.counts[fold][:, made.outer == number].any()
        assert not made.held_out[fold][:, inner].any()
        used = made.counts[~fold][:, inner] + made.held_out[~fold][:, inner]
        assert (used == 1).all() and (made.held_out[~fold][:, inner].sum(1) == 1).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 99))
def test_bootstrap_draws_have_as_many_of_every_class_as_the_data(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    counts = sweep.bootstrap_counts(labels, 20, seed=seed)
    for label, size in enumerate(sizes):
        assert (counts[labels == label].sum(0) == size).all()


def test_bootstrap_draws_equal_rows_together():
    together = np.arange(60) // 2
    counts = sweep.bootstrap_counts(np.repeat([0, 1], 30), 20, together=together)
    assert_array_equal(counts[::2], counts[1::2])
    assert ((counts == 0).mean(0) > 0.2).all()


def test_copies_are_numbered_in_order_of_appearance():
    x = np.random.default_rng(0).normal(size=(5, 8))
    rows = [3, 1, 3, 0, 1]
    splits = data.from_arrays((x[rows], [0, 1, 0, 1, 1]), (x[:2] + 1, [0, 1]))
    assert validation.copies(splits.train).tolist() == [0, 1, 0, 2, 1]
    assert validation.copies(splits.val) is None


def test_rows_of_few_values_are_equal_by_chance():
    """A table of a few categories has every row many times, and no fold could do without one."""
    x = np.random.default_rng(0).integers(0, 3, size=(200, 2)).astype(np.float32)
    splits = data.from_arrays((x[:150], x[:150, 0].astype(int)), (x[150:], x[150:, 0].astype(int)))
    assert validation.copies(splits.train) is None
    result = sweep.cross_validate(splits.train, folds=5, num_epochs=1, batch_size=50)
    assert len(result.table()) == 5


def test_rows_that_occur_twice_are_counted_in_a_warning(tmp_path, capsys):
    config = default.get_config()
    config.dataset = coin_flips(tmp_path, 0, 20)
    config.train_split, config.folds, config.batch_size = "train[:120]+train[:120]", 5, 50
    with pytest.warns(UserWarning, match="takes examples twice"):
        splits = run.load_checked(config)
    assert capsys.readouterr().err.count("120 of the 240 examples of train repeat") == 1
    drawn = run.resamples(config, splits.train)
    assert not capsys.readouterr().err  # nor where a path of l2 goes on
    assert_array_equal(drawn.counts[:120], drawn.counts[120:])


# What is chosen on is called so, and is not trained on.


@pytest.mark.parametrize("val", ["test", "test[:80%]", "train[:10]+test[20:]"])
def test_refit_on_examples_of_test_is_refused(tmp_path, capsys, val):
    config = probe.get_config()
    config.dataset = coin_flips(tmp_path, 0, 20)
    config.train_split, config.val_split, config.test_split = "train[50:]", val, "test"
    assert run.main(config, tmp_path / "w") == USAGE
    said = capsys.readouterr().err
    assert "refit trains on val as well" in said and "shares examples with test_split" in said
    assert not (tmp_path / "w").exists()


def test_summary_and_log_say_what_was_selected_on(tmp_path, capsys):
    config = default.get_config()
    config.dataset, config.batch_size = coin_flips(tmp_path, 0, 20), 50
    config.test_split, config.num_epochs = "test", 3
    config.sweep.learning_rate = (0.01, 0.1)
    assert run.main(config, tmp_path / "w") == DONE
    said = capsys.readouterr().out
    rows = {line[:8].strip(): line for line in said.splitlines()}
    assert rows["val"].endswith("selected on") and rows["test"].endswith("selected on")
    assert "examples of its own, or folds with outer_folds" in said
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert summary["selected"]["selected_on"] and summary["test"]["selected_on"]
    assert "accuracy_interval" not in summary["test"]


def test_single_setting_at_its_last_epoch_is_not_selected(tmp_path):
    config = default.get_config()
    config.dataset, config.batch_size, config.num_epochs = coin_flips(tmp_path, 0, 20), 50, 3
    config.test_split = "test"
    splits = run.load_checked(config)
    result = sweep.collect(run.start_sweep(config, splits))
    selected = run.select_winner(config, result)
    assert not selected.selected_on
    test = outputs.test_metrics(splits, selected)
    low, high = test["accuracy_interval"]
    assert not test["selected_on"] and low < test["accuracy"] < high


@pytest.mark.slow
def test_outer_estimate_is_that_of_a_loop_over_the_outer_folds():
    """The choice, made by hand on the inner folds of each outer fold's other examples."""
    x, y = load_iris(return_X_y=True)
    x = (x + np.random.default_rng(0).normal(scale=0.5, size=x.shape)).astype(np.float32)
    whole = data.from_arrays((x, y), (x[:3] + 9, [0, 1, 2])).train
    grid = sweep.grid(l2=(0.001, 0.01, 0.1))
    how = {"num_epochs": 200, "solver": sweep.LBFGS(1e-6)}
    result = sweep.cross_validate(whole, grid, folds=2, outer_folds=2, **how)
    found = sweep.outer_estimate(result)
    made = sweep.nested_folds(y, 2, 2)
    losses, hits, chosen = [], [], []
    for number in range(2):
        inner = (made.outer == number) & ~made.final
        fold = made.held_out[:, made.final & (made.outer == number)][:, 0] > 0
        rest = data.from_arrays((x[~fold], y[~fold]), (x[fold], y[fold]))
        counts = made.counts[~fold][:, inner]
        alone = sweep.fit(rest.train, counts, grid, **how).best()
        chosen.append(alone.hyperparameters["l2"])
        model = sweep.fit(rest.train, None, sweep.grid(l2=chosen[-1]), **how).classifier(0)
        log_p = log_softmax(x[fold] @ model.W + model.b, -1)
        losses += list(-log_p[np.arange(fold.sum()), y[fold]])
        hits += list(log_p.argmax(-1) == y[fold])
    assert [setting["l2"] for setting in found["chosen"]] == chosen
    assert_allclose(found["loss"], np.mean(losses), rtol=1e-3)
    assert_allclose(found["accuracy"], np.mean(hits), atol=1e-6)
    assert found["loss_interval"][0] >= 0  # of two folds, Student's alone goes far below
    assert len(result.table()) == 6 and result.nested is not None


def test_outer_folds_do_not_stop_early_on_what_they_measure():
    """Their trials ignore the patience: they train as long as the inner folds decide."""
    x, y = (array[::3] for array in load_iris(return_X_y=True))
    train = data.from_arrays((x, y), (x + 9, y)).train
    grid = sweep.grid(learning_rate=(0.5, 2.0), patience=2)
    options = {"num_epochs": 30, "batch_size": 10, "folds": 2, "outer_folds": 2}
    result = sweep.cross_validate(train, grid, **options)
    final = result.run.resamples.final[result.nested.run.trials.fold]
    assert (result.nested.reached[final, -1] == 30).all()
    assert (result.nested.reached[~final, -1] < 30).any()
    assert sweep.outer_estimate(result)["outer_folds"] == 2


# The one-standard-error rule.


def test_standard_error_over_draws_does_not_shrink_with_their_number():
    """The examples limit what is known, and not the draws of them."""
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=400)
    labels = np.zeros(400, int)
    errors = []
    for draws in (200, 800):
        resamples = Resamples.of(sweep.bootstrap_counts(labels, draws))
        values = losses @ resamples.held_out / resamples.held_out.sum(0)
        errors.append(values.std(ddof=1) * resamples.error_factor)
    assert_allclose(errors, losses.std() / 20, rtol=0.2)
    folds = Resamples.of(sweep.fold_counts(labels, 10))
    assert folds.error_factor == pytest.approx(10**-0.5)
    assert folds.corrected_factor == pytest.approx((1 / 10 + 1 / 9) ** 0.5)


def test_seeds_alone_are_compared_by_example():
    """The error of a difference between settings is that over the validation examples, paired."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(260, 4)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=260) > 0).astype(int)
    splits = data.from_arrays((x[:60], y[:60]), (x[60:], y[60:]))
    grid = sweep.grid(l2=(0.0, 0.01, 0.03, 0.1, 0.3, 1.0))
    options = {"num_epochs": 40, "batch_size": 20, "seeds": (0, 1)}
    result = sweep.fit(splits.train, splits.val, grid, **options)
    by_example = []
    for setting in range(6):
        own = np.flatnonzero(result.run.trials.setting == setting)
        models = [result.classifier(trial) for trial in own]
        log_p = [log_softmax(x[60:] @ model.W + model.b, -1) for model in models]
        by_example.append(-np.mean([p[np.arange(200), y[60:]] for p in log_p], 0))
    by_example = np.array(by_example)
    best = by_example.mean(1).argmin()
    difference = by_example - by_example[best]
    within = difference.mean(1) <= difference.std(1) / np.sqrt(200)
    expected = grid.l2[np.flatnonzero(within)[-1]]
    assert result.best(rule="one_se").hyperparameters["l2"] == pytest.approx(expected)
    assert 0 < expected < 1


# Chance, by simulation.


CASES = {
    "probe": (probe, {}),
    "probe with val": (probe, {"train_split": "train[:80%]", "val_split": "train[80%:]"}),
    "grid": (default, {"sweep.l2": (0.0, 0.1, 1.0), "sweep.learning_rate": (0.1, 0.5)}),
    "best epoch": (default, {"select_epoch": "best", "num_epochs": 40}),
    "early stopping": (default, {"early_stopping.patience": 5, "num_epochs": 40, "refit": True}),
    "folds": (default, {"folds": 5, "val_split": "test"}),
    "bootstraps": (default, {"bootstraps": 20, "val_split": "test"}),
    "outer folds": (
        default,
        {"folds": 3, "outer_folds": 5, "sweep.l2": (0.0, 0.1, 1.0), "select_epoch": "best"},
    ),
    "outer folds, early stopping": (
        default,
        {"folds": 3, "outer_folds": 5, "early_stopping.patience": 5, "num_epochs": 40},
    ),
    "outer folds, one_se": (
        default,
        {"folds": 3, "outer_folds": 5, "sweep.l2": (0.0, 0.1, 1.0), "select": "one_se"},
    ),
    "twice": (default, {"train_split": "train[:75]+train[:75]", "folds": 5, "val_split": "test"}),
}


def honest_interval(config, splits):
    """The interval of the accuracy that a job ends with, of data on which nothing was chosen."""
    result = sweep.collect(run.start_sweep(config, splits))
    chosen = run.select_winner(config, result)
    selected = run.refit_winner(config, splits, result, chosen)
    nested = sweep.outer_estimate(result, run._selection(config))
    if nested:
        return nested["accuracy_interval"]
    if splits.test is not None:
        return outputs.test_metrics(splits, selected)["accuracy_interval"]
    assert not selected.selected_on
    return outputs.resampled_metrics(config, result, selected)["val_accuracy"]["interval"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:train=:UserWarning")  # examples twice, in one of the cases
@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_chance_on_random_labels(tmp_path, case):
    """In 93 % of 60 seeds, as far as 60 can tell: of 95 % they often show less.

    What is chosen on what it measures covers chance in hardly any, and is above it in the mean.
    """
    module, fields = CASES[case]
    covered, centres = [], []
    for seed in range(60):
        config = module.get_config()
        config.dataset, config.batch_size = coin_flips(tmp_path, seed, 100), 50
        if module is default:
            config.val_split, config.train_split = "train[100:]", "train[:100]"
            config.test_split = "" if "folds" in fields or "bootstraps" in fields else "test"
        config.update_from_flattened_dict(fields)
        if config.folds or config.bootstraps:
            config.train_split = fields.get("train_split", "train")
            config.val_split = "test"
        low, high = honest_interval(config, run.load_checked(config))
        covered.append(low <= 0.5 <= high)
        centres.append((low + high) / 2)
    assert stats.binomtest(sum(covered), 60, 0.93, "less").pvalue > 0.01
    assert abs(np.mean(centres) - 0.5) < 3 * np.std(centres) / 60**0.5
