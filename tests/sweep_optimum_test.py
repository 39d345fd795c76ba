"""A sweep by L-BFGS: the optimum that another solver finds, per fold and in its own units."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from softmax_jax import data, optimum, plots, sweep
from softmax_jax.sweep import chunks, inputs
from tests.sweep_fixtures import chunks_of, epochs

L2 = (1e-3, 1e-2, 0.3)


@pytest.fixture(scope="module")
def splits():
    """Three overlapping classes of five features with very different scales."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=400)
    x = rng.normal(size=(400, 5)) + y[:, None] * np.array([1.0, 0.5, 0.0, 0.0, 0.2])
    x = (x * np.array([1, 3, 0.2, 1, 5]) + np.array([0, 2, 5, -1, 0])).astype(np.float32)
    return data.from_arrays(train=(x[:300], y[:300]), val=(x[300:], y[300:]))


EXACT = sweep.LBFGS(tolerance=1e-6)
STANDARDIZED = sweep.Objective(standardize=True)


def fit(splits, l2=L2, val=None, **options):
    """The optimum of each l2; val: counts of resamples in the place of the validation set."""
    options = {"solver": EXACT, "num_epochs": 200} | options
    val = splits.val if val is None else val
    return sweep.fit(splits.train, val, sweep.grid(l2=l2), **options)


@pytest.fixture(scope="module")
def result(splits):
    return fit(splits)


def losses_of(classifier, dataset):
    x = (np.asarray(dataset.x, np.float64) - classifier.mean) / classifier.scale
    scores = log_softmax(x @ classifier.W.astype(np.float64) + classifier.b, axis=1)
    return -scores[np.arange(len(scores)), dataset.y].mean()


def by_scipy(x, y, l2):
    """(W [D, C], b [C], objective) by another solver, in float64."""
    num_features, num_classes = x.shape[1], y.max() + 1
    x = np.hstack([x.astype(np.float64), np.ones((len(x), 1))])
    labels = np.eye(num_classes)[y]

    def objective(flat):
        W = flat.reshape(num_features + 1, num_classes)
        log_p = log_softmax(x @ W, axis=1)
        penalised = np.vstack([W[:-1], np.zeros(num_classes)])
        gradient = x.T @ (np.exp(log_p) - labels) / len(x) + l2 * penalised
        value = -(labels * log_p).sum() / len(x) + l2 / 2 * (penalised**2).sum()
        return value, gradient.ravel()

    start = np.zeros((num_features + 1) * num_classes)
    found = minimize(objective, start, jac=True, options={"gtol": 1e-9, "maxiter": 5000})
    W = found.x.reshape(num_features + 1, num_classes)
    return W[:-1], W[-1], found.fun


def test_every_trial_reaches_the_optimum_of_its_l2(splits, result):
    for trial, l2 in enumerate(L2):
        W, _, objective = by_scipy(splits.train.x, splits.train.y, l2)
        # A column added to all classes changes no probability, and the objective hardly.
        own = result.classifier(trial).W
        np.testing.assert_allclose(own - own.mean(1, keepdims=True), W, atol=2e-3)
        assert result.values("objective")[trial] == pytest.approx(objective, rel=1e-5)
    assert result.facts["converged"].all()
    assert (result.values("gap_bound") <= 1e-6 * result.values("objective")).all()


def test_metrics_are_those_of_the_classifier(splits, result):
    for trial in range(len(L2)):
        classifier = result.classifier(trial)
        for name, dataset in (("train_loss", splits.train), ("val_loss", splits.val)):
            expected = losses_of(classifier, dataset)
            assert result.values(name)[trial] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_finished_trial_is_reported_no_more():
    settings = sweep.grid(l2=(1e-5, 10.0))
    steps = epochs(settings, num_epochs=200, solver=sweep.LBFGS())
    reported = [epoch.trials.tolist() for epoch in steps]
    assert reported[0] == [0, 1] and reported[-1] == [0]


def test_table_shows_l2_and_the_certificate_and_nothing_idle(result):
    row = result.table()[0]
    assert {"trial", "l2", "gradient_norm", "gap_bound", "iterations", "converged"} <= set(row)
    assert not {"learning_rate", "batch_size", "seed", "best_epoch"} & set(row)


@pytest.mark.parametrize("standardize", [False, True])
def test_fold_is_trained_and_standardised_by_its_own_examples(splits, standardize):
    counts = inputs.fold_counts(splits.train.y, 3)
    folds = fit(splits, (1e-2,), counts, objective=sweep.Objective(standardize=standardize))
    for fold, rows in enumerate(counts.T.astype(bool)):
        x, y = splits.train.x[rows], splits.train.y[rows]
        mean, scale = (x.mean(0), x.std(0)) if standardize else (0.0, 1.0)
        W, b, objective = by_scipy((x - mean) / scale, y, 1e-2)
        assert folds.values("objective")[fold] == pytest.approx(objective, rel=1e-5)
        classifier, others = folds.classifier(fold), splits.train.x[~rows]
        expected = (others - mean) / scale @ W + b
        found = classifier.logits(others)
        centred = [scores - scores.mean(1, keepdims=True) for scores in (found, expected)]
        np.testing.assert_allclose(*centred, atol=2e-2)


def test_standardised_weights_are_penalised_in_standard_units(splits):
    ours, x = fit(splits, objective=STANDARDIZED), splits.train.x
    x = (x - x.mean(0)) / x.std(0)
    for trial, l2 in enumerate(L2):
        objective = by_scipy(x, splits.train.y, l2)[2]
        assert ours.values("objective")[trial] == pytest.approx(objective, rel=1e-5)
    loss = losses_of(ours.classifier(1), splits.val)
    assert ours.values("val_loss")[1] == pytest.approx(loss, rel=1e-5)


def test_sgd_standardises_each_fold_by_its_own_examples_too(splits):
    counts = inputs.fold_counts(splits.train.y, 2)
    options = {"num_epochs": 2, "batch_size": 50, "solver": sweep.SGD()}
    folds = fit(splits, (0.0, 0.1), counts, objective=STANDARDIZED, **options)
    rows = counts[:, 1].astype(bool)
    classifier = folds.classifier(1)
    assert folds.run.trials.fold[1] == 1
    np.testing.assert_allclose(classifier.mean, splits.train.x[rows].mean(0), rtol=1e-4)
    expected = losses_of(classifier, splits.train[~rows])
    assert folds.values("val_loss")[1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_cross_validation_refits_by_the_same_solver(splits):
    options = {"num_epochs": 200, "solver": EXACT, "objective": STANDARDIZED}
    result = sweep.cross_validate(splits.train, sweep.grid(l2=L2), folds=3, **options)
    again = fit(splits, l2=(result.refit.hyperparameters["l2"],), objective=STANDARDIZED)
    np.testing.assert_allclose(result.refit.classifier.W, again.classifier(0).W, atol=1e-3)


@pytest.mark.slow
def test_chunks_reach_the_same_optimum(splits, result):
    chunked = fit(splits, devices=chunks_of(2))
    for name, values in result.metrics.items():
        if name.endswith(("loss", "objective")):
            np.testing.assert_allclose(chunked.values(name), values[:, -1], rtol=1e-5)


def test_winner_that_has_not_converged_has_a_hint(splits):
    selected = fit(splits, l2=(1e-4, 2e-4, 3e-4), num_epochs=2).best()
    assert "2 iterations did not suffice: raise num_epochs" in selected.hints[-1]


def test_winner_beyond_float_precision_is_not_told_to_iterate_longer(splits):
    solver = sweep.LBFGS(tolerance=1e-30)
    hint = fit(splits, l2=(1e-3,), solver=solver, num_epochs=1000).best().hints[-1]
    assert "float precision was exhausted" in hint and "num_epochs" not in hint


def test_separable_winner_has_a_hint():
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]], np.float32)
    split = (x, np.array([0, 0, 1, 1]))
    separable = data.from_arrays(train=split, val=(x.copy(), split[1]))
    assert "optimum is at infinity" in fit(separable, l2=(0.0,)).best().hints[0]


def one_class_far():
    """Three classes that overlap, and one far away."""
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=80)
    return rng.normal(size=(80, 2)) + 50.0 * (y == 3)[:, None], y


PARTS = {
    "one point in common": lambda: (np.array([[0.0], [1], [2], [2], [3], [4]]), np.arange(6) // 3),
    "one class far": one_class_far,
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("standardize", [False, True])
def test_separation_in_part_has_a_hint_and_no_claim_to_have_converged(name, standardize):
    x, y = PARTS[name]()
    splits = data.from_arrays(train=(x, y), val=(x.copy(), y))
    objective = sweep.Objective(standardize=standardize)
    found = fit(splits, l2=(0.0, 1e-3), num_epochs=500, objective=objective)
    assert found.facts["separable"].tolist() == [True, False]
    assert found.facts["converged"].tolist() == [False, True]
    assert "separable, wholly or in part" in found.best().hints[0]
    assert "in part" not in " ".join(fit(splits, l2=(1e-4, 1e-3), num_epochs=500).best().hints)


def test_separation_in_part_is_looked_for_in_every_fold():
    x, y = PARTS["one point in common"]()
    x, y = x.repeat(3, 0), y.repeat(3)
    splits = data.from_arrays(train=(x, y), val=(x.copy(), y))
    counts = np.ones((18, 2), np.uint8)
    counts[0, 0] = 0  # of three equal rows
    counts[6:9, 1] = 0  # the common point of one class: what remains is separable as a whole
    overlap = np.array([15, 16, 17, 0, 1, 2])  # and with the outermost rows exchanged, in no way
    mixed = y.copy()
    mixed[overlap] = 1 - mixed[overlap]
    for labels, expected in ((y, [True, True]), (mixed, [False, False])):
        splits = data.from_arrays(train=(x, labels), val=(x.copy(), labels))
        found = fit(splits, l2=(0.0,), val=counts, num_epochs=500)
        assert found.facts["separable"].tolist() == expected


@pytest.mark.slow
def test_refit_without_penalty_has_a_spread_without_warnings():
    x, y = one_class_far()
    splits = data.from_arrays(train=(x, y), val=(x.copy(), y))
    options = {"num_epochs": 500, "solver": EXACT}
    result = sweep.cross_validate(splits.train, sweep.grid(l2=0.0), folds=2, **options)
    assert np.isinf(result.refit.metrics["gap_bound"])
    assert "in part" in result.refit.hints[0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"seeds": (0, 1)}, "l2, l1 and l1_group alone: seeds cannot vary"),
        ({"solver": sweep.LBFGS(tolerance=0.0)}, "tolerance must be between 0 and 1"),
        ({"objective": sweep.Objective(dtype=np.float64)}, "float64 needs"),
    ],
)
def test_option_that_lbfgs_does_not_take_is_refused(splits, options, message):
    with pytest.raises(ValueError, match=message):
        fit(splits, **options)


def test_l2_path_ends_at_almost_zero_weights(splits):
    path = sweep.l2_path(splits.train, 3, standardize=True)
    assert len(path) == 3 and all(np.diff(np.log(path)) > 0)
    largest = fit(splits, l2=path, objective=STANDARDIZED).classifier(2)
    assert np.abs(largest.W).max() < 0.1


@pytest.mark.parametrize("num, decades", [(1, 2), (3, 1), (8, 3), (40, 3)])
def test_l2_path_reaches_further_in_its_own_steps(splits, num, decades):
    own = np.array(sweep.l2_path(splits.train, num))
    longer = np.array(sweep.l2_path(splits.train, num, further=decades))
    np.testing.assert_array_equal(longer[-num:], own)
    steps = np.diff(np.log10(longer))
    assert longer[0] <= own[0] / 10**decades * 1.02
    assert own[0] / 10**decades / longer[0] < 10 ** steps.max()
    further = steps[: len(longer) - num]
    np.testing.assert_allclose(further, min(steps[-1], 1), atol=0.01)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("further", [-1, 0.5, None, "3"])
def test_l2_path_reaches_a_whole_number_of_decades_further(splits, further):
    with pytest.raises(ValueError, match="further must be a whole number"):
        sweep.l2_path(splits.train, 3, further=further)


@pytest.mark.parametrize("seed", range(6))
def test_largest_l2_is_never_to_be_extended_where_the_features_say_nothing(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(300, 20)), (rng.random(300) < 0.1).astype(int)
    splits = data.from_arrays(train=(x[:200], y[:200]), val=(x[200:], y[200:]))
    path = sweep.l2_path(splits.train, 5, standardize=True)
    selected = fit(splits, l2=path, objective=STANDARDIZED).best()
    hints = " ".join(selected.hints)
    assert "upwards" not in hints
    assert ("the features hardly help" in hints) == (selected.hyperparameters["l2"] == path[-1])


def test_largest_l2_of_a_grid_too_low_is_to_be_extended(splits):
    x = np.tile(splits.train.x, (1, 20))[:150] + np.random.default_rng(0).normal(size=(150, 100))
    few = data.from_arrays(
        train=(x[:75], splits.train.y[:75]), val=(x[75:], splits.train.y[75:150])
    )
    hints = fit(few, l2=(1e-5, 1e-4)).best().hints
    assert any("extend l2 upwards" in hint for hint in hints)


# Weights that are exactly zero.

SPARSE = {"solver": sweep.LBFGS(tolerance=1e-5), "num_epochs": 5000}


def test_sparse_trials_are_the_optima_of_their_penalties(splits):
    path = sweep.l1_path(splits.train, 4, standardize=True)
    assert len(path) == 4 and list(path) == sorted(path)
    result = sweep.fit(
        splits.train, splits.val, sweep.grid(l1=path), objective=STANDARDIZED, **SPARSE
    )
    assert result.facts["converged"].all()
    assert (result.values("gap_bound") <= 1e-5 * result.values("objective")).all()
    assert [row["l1"] for row in result.table()] == pytest.approx(path)
    left = [(result.classifier(trial).W != 0).sum() for trial in range(4)]
    assert left[3] <= 1 and left[0] > left[2] > left[3]
    x = (np.asarray(splits.train.x, np.float64) - result.run.mean) / result.run.scale
    problem = optimum.Problem(x, splits.train.y)
    own = optimum.minimise(problem, np.zeros(4), l1=path, tolerance=1e-6, max_iterations=5000)
    np.testing.assert_allclose(result.values("objective"), own.objective, rtol=2e-5)
    for trial in range(4):
        expected = losses_of(result.classifier(trial), splits.val)
        assert result.values("val_loss")[trial] == pytest.approx(expected, rel=1e-5)
    selected = result.best()
    norms, counts, metric = plots.path(result, selected, "val_loss", "title").axes
    W = np.stack([result.classifier(trial).W for trial in range(4)])
    np.testing.assert_array_equal(counts.lines[0].get_ydata(), (W != 0).any(2).sum(1))
    drawn = np.stack([line.get_ydata() for line in norms.lines[:-1]])
    expected = np.linalg.norm(W, axis=2)
    np.testing.assert_allclose(np.sort(drawn, 0), np.sort(expected.T, 0))
    np.testing.assert_array_equal(metric.lines[0].get_ydata(), result.values("val_loss"))
    for panel in (norms, counts, metric):
        assert panel.lines[-1].get_xdata()[0] == pytest.approx(selected.hyperparameters["l1"])


def test_there_is_no_picture_of_a_path_without_one(result):
    assert plots.path(result, result.best(), "val_loss", "title") is None


def test_one_se_takes_the_sparsest_of_what_is_as_good(splits):
    """Over folds, with features of their own; the refit is as sparse."""
    path = sweep.l1_path(splits.train, 6, standardize=True)
    how = {"folds": 3, "objective": STANDARDIZED, **SPARSE}
    result = sweep.cross_validate(splits.train, sweep.grid(l1=path), **how)
    assert result.facts["converged"].all() and len(result.facts["converged"]) == 18
    best, simple = result.best(), result.best(rule="one_se")
    assert simple.hyperparameters["l1"] >= best.hyperparameters["l1"]
    mean = result.compared(result.values("val_loss"))
    within = mean.mean <= mean.mean.min() + mean.error[mean.mean.argmin()]
    assert simple.hyperparameters["l1"] == pytest.approx(np.array(path)[within].max())
    refit = sweep.refit(
        splits.train, result, simple, objective=STANDARDIZED, solver=SPARSE["solver"]
    )
    assert (refit.classifier.W == 0).any() and (refit.classifier.W != 0).any()


@pytest.mark.parametrize(
    "axes, solver, message",
    [
        ({"l1": 0.1}, sweep.SGD(), "l1 above 0 need LBFGS"),
        ({"l1_group": (0.0, 0.1)}, sweep.SGD(), "l1_group above 0 need LBFGS"),
        ({"l1": (0.0, 0.1)}, sweep.LBFGS(), "each needs some penalty"),
        ({"l1_group": (0.0, 0.1), "l2": (0.0, 0.1)}, sweep.LBFGS(), "each needs some penalty"),
        ({"l1": (0.1, 0.2), "momentum": (0.1, 0.2)}, sweep.LBFGS(), "momentum cannot vary"),
    ],
)
def test_sparse_settings_that_cannot_be_solved_are_refused(splits, axes, solver, message):
    with pytest.raises(ValueError, match=message):
        sweep.fit(splits.train, splits.val, sweep.grid(**axes), num_epochs=9, solver=solver)


def test_a_sweep_of_l1_resumes_bit_for_bit(splits):
    settings = sweep.grid(l1=sweep.l1_path(splits.train, 4), l2=(0.0, 0.1))
    whole = list(sweep.epochs(splits.train, splits.val, settings, **SPARSE))
    steps = sweep.epochs(splits.train, splits.val, settings, **SPARSE)
    pending = chunks.pending_after(next(steps))
    later = list(sweep.epochs(splits.train, splits.val, settings, **SPARSE, pending=pending))
    assert len(later) == len(whole) - 1 > 2
    for one, other in zip(whole[1:], later, strict=True):
        np.testing.assert_array_equal(one.trials, other.trials)
        for name, values in one.metrics.items():
            np.testing.assert_array_equal(values, other.metrics[name])


# Examples that are read by shards.


def by_shards(splits, size=64):
    """The same examples, of which so many are read at a time."""
    return dataclasses.replace(
        splits,
        train=dataclasses.replace(splits.train, shard_size=size),
        val=dataclasses.replace(splits.val, shard_size=size),
    )


@pytest.mark.parametrize(
    "standardize, folds",
    [
        (True, 0),
        pytest.param(False, 0, marks=pytest.mark.slow),
        pytest.param(True, 2, marks=pytest.mark.slow),
    ],
)
def test_examples_that_are_read_by_shards_have_the_same_optima(splits, standardize, folds):
    options = {"objective": sweep.Objective(standardize=standardize)}
    options["val"] = sweep.fold_counts(splits.train.y, folds) if folds else None
    held, passed = (fit(one, **options) for one in (splits, by_shards(splits)))
    assert passed.facts["converged"].all()
    for name, rtol in (("objective", 2e-6), ("train_loss", 2e-4), ("val_loss", 2e-4)):
        np.testing.assert_allclose(passed.values(name), held.values(name), rtol=rtol)
    assert (passed.values("gap_bound") <= 1e-6 * passed.values("objective")).all()
    np.testing.assert_allclose(
        passed.classifier(1).W, held.classifier(1).W, atol=0.01 * abs(held.classifier(1).W).max()
    )
    assert passed.best().hyperparameters == held.best().hyperparameters


def test_automatic_path_of_examples_that_are_read_by_shards(splits):
    path, expected = (sweep.l2_path(one.train, 5) for one in (by_shards(splits), splits))
    np.testing.assert_allclose(path, expected, rtol=0.5)  # 40 of the 300 examples are asked


def test_path_has_a_row_for_each_optimum(splits, result):
    rows = result.path()
    assert [row["l2"] for row in rows] == sorted(L2, reverse=True)
    for row in rows:
        gap = row["objective"] - row["train_loss"]
        assert gap == pytest.approx(row["l2"] / 2 * row["norm_W"] ** 2, rel=1e-3)
        assert 0 <= row["gap"] <= 1e-6 and row["converged"]
    norms = [row["norm_W"] for row in rows]
    assert norms == sorted(norms)  # weights grow as the penalty falls
    sgd = sweep.fit(splits.train, splits.val, num_epochs=1, batch_size=100)
    with pytest.raises(ValueError, match="LBFGS"):
        sgd.path()
