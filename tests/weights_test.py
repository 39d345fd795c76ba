"""A weight means one thing everywhere: 0 is leaving the example out, k is k copies of it.

And class weights, which move the decisions, are taken out of the probabilities again.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit

import softmax_jax
from softmax_jax import (
    SoftmaxRegression,
    SoftmaxRegressionCV,
    calibration,
    conformal,
    data,
    decisions,
    metrics,
    optimum,
    studies,
    sweep,
)
from softmax_jax.host import DONE
from softmax_jax.job import run
from softmax_jax.predict import predict
from softmax_jax.sweep import inputs

L2 = (1e-3, 1e-2, 1e-1)
OPTIMUM = {"num_epochs": 300, "solver": sweep.LBFGS(tolerance=1e-7)}
# Full batches at a rate at which they converge.
SGD = {"num_epochs": 20, "solver": sweep.SGD()}
SOLVERS = pytest.mark.parametrize("options", [OPTIMUM, SGD], ids=["optimum", "SGD"])


def examples(n, seed=0, classes=3):
    """x [n, 4] with means and scales of their own, y [n] that depends on it."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4))
    y = (z[:, :classes] + 0.7 * rng.gumbel(size=(n, classes))).argmax(1)
    return z * [1, 2, 0.5, 1] + [0, 1, 2, 0], y


def with_junk(x, y, weights=None, share=0.4, seed=9, own_class=True):
    """(x, y, weights, there): rows of weight 0 in between, huge, half of a class of their own."""
    rng = np.random.default_rng(seed)
    there = np.ones(round(len(y) / (1 - share)), bool)
    there[rng.permutation(len(there))[: len(there) - len(y)]] = False
    wide = 1e6 * rng.normal(size=(len(there), x.shape[1]))
    wide[rng.random(len(there)) < 0.2] = 1e30
    labels = np.where(rng.random(len(there)) < 0.5, 0, y.max() + own_class)
    w = np.zeros(len(there))
    wide[there], labels[there], w[there] = x, y, 1 if weights is None else weights
    return wide, labels, w, there


def copied(k, *arrays):
    """Each row k times."""
    return tuple(np.repeat(array, k, axis=0) for array in arrays)


def model_of(result, trial=0):
    """Probabilities of a trial on examples that it has not seen."""
    return result.classifier(trial).predict_proba(np.float32(examples(50, seed=5)[0]))


def assert_same(one, other, error=1e-6):
    """Equal metrics, choice and probabilities."""
    assert one.metrics.keys() == other.metrics.keys()
    for name, values in one.metrics.items():
        if name not in ("gradient_norm", "gap_bound"):
            assert_allclose(values[:, -1], other.metrics[name][:, -1], rtol=2 * error, atol=error)
    for trial in range(len(one.best_epoch)):
        assert_allclose(model_of(one, trial), model_of(other, trial), atol=error)
    assert one.best().hyperparameters["l2"] == other.best().hyperparameters["l2"]


def warns_of_class():
    return pytest.warns(UserWarning, match=r"the class '?3'? have weight 0")


# Weight zero.


@SOLVERS
@pytest.mark.parametrize("standardize", [False, True])
def test_rows_of_weight_zero_change_nothing_in_train_val_and_test(options, standardize):
    train, val, test = (examples(60, seed) for seed in (0, 1, 2))
    plain = data.from_arrays(train, val, test)
    with warns_of_class():
        junk = data.from_arrays(*(with_junk(*own)[:3] for own in (train, val, test)))
    assert junk.label_names == plain.label_names
    objective = sweep.Objective(standardize=standardize, class_weight="balanced")
    options = options | {"batch_size": 16, "objective": objective}
    results = [
        sweep.fit(own.train, own.val, sweep.grid(l2=L2, learning_rate=0.05), **options)
        for own in (plain, junk)
    ]
    assert_same(*results)
    one, other = (result.test(own.test) for result, own in zip(results, (plain, junk), strict=True))
    for name in one:
        assert_allclose(one[name], other[name], rtol=1e-6)


@SOLVERS
@pytest.mark.parametrize("kind", ["folds", "given folds", "counts", "bootstrap"])
def test_rows_of_weight_zero_change_nothing_in_resamples_and_refit(options, kind):
    x, y = examples(60)
    wide, labels, w, there = with_junk(x, y)
    with warns_of_class():
        junk = data.from_arrays((wide, labels, w), (x[:5], y[:5])).train
    plain = data.from_arrays((x, y), (x[:5].copy(), y[:5])).train
    groups = np.random.default_rng(0).integers(3, size=len(there))
    fit = sweep.bootstrap if kind == "bootstrap" else sweep.cross_validate
    how = {
        "folds": ({"folds": 3}, {"folds": 3}),
        "given folds": ({"folds": groups[there]}, {"folds": groups}),
        "counts": (
            {"folds": sweep.fold_counts(y, groups[there])},
            {"folds": sweep.fold_counts(labels, groups)},
        ),
        "bootstrap": ({"draws": 3}, {"draws": 3}),
    }[kind]
    options = options | {"batch_size": 16, "objective": sweep.Objective(standardize=True)}
    settings_ = sweep.grid(l2=L2, learning_rate=0.05)
    one, other = (
        fit(own, settings_, **division, **options)
        for own, division in zip((plain, junk), how, strict=True)
    )
    assert_same(one, other)
    new = np.float32(examples(50, seed=5)[0])
    assert_allclose(one.predict_proba(new), other.predict_proba(new), atol=1e-6)


def test_a_sweep_leaves_out_rows_whose_weights_were_set_to_zero_later():
    x, y = examples(60)
    wide, labels, w, there = with_junk(x, y, own_class=False)
    splits = data.from_arrays((wide, labels), (x, y))
    weighted = dataclasses.replace(splits.train, weights=w)
    plain = data.from_arrays((x, y), (x.copy(), y))
    counts = sweep.fold_counts(np.arange(len(there)) % 3, 3)
    for mine, others in ((splits.val, plain.val), (counts, counts[there])):
        found = sweep.fit(weighted, mine, sweep.grid(l2=L2), **OPTIMUM)
        assert_same(found, sweep.fit(plain.train, others, sweep.grid(l2=L2), **OPTIMUM))
    path = sweep.l2_path(weighted, 4, standardize=True)
    assert path == sweep.l2_path(plain.train, 4, standardize=True)


def test_validation_chooses_by_what_counts():
    """400 rows, 40 % of them with random labels and weight 0: the choice and the loss are those
    without them, in one split and in folds."""
    rng = np.random.default_rng(0)
    x, y = examples(400, classes=2)
    w = np.ones(400)
    w[rng.permutation(400)[:160]] = 0
    y = np.where(w > 0, y, rng.integers(2, size=400))
    train, val = slice(0, 300), slice(300, 400)
    splits = data.from_arrays((x[train], y[train], w[train]), (x[val], y[val], w[val]))
    options = SGD | {"batch_size": 32}
    grid = sweep.grid(l2=L2, learning_rate=0.2)
    found = sweep.fit(splits.train, splits.val, grid, **options)
    kept = data.from_arrays(*((x[s][w[s] > 0], y[s][w[s] > 0]) for s in (train, val)))
    right = sweep.fit(kept.train, kept.val, grid, **options)
    assert_same(found, right)
    assert right.best().metrics["val_loss"] < 0.65
    folds = [sweep.cross_validate(own.train, grid, folds=3, **options) for own in (splits, kept)]
    assert_same(*folds)


@pytest.mark.filterwarnings("ignore:All training examples of the class")
@pytest.mark.slow
def test_a_job_on_a_file_with_rows_of_weight_zero_is_that_without_them(config, tmp_path):
    """Everything that it writes: tables, scores, classes, costs, predictions, studies."""
    arrays, kept = {}, {}
    for seed, split in enumerate(("train", "val", "test")):
        x, y = examples(90, seed)
        w = np.random.default_rng(seed).integers(1, 4, len(y)) / 2
        names = np.array(["ant", "bee", "cat", "dog"])
        wide, labels, own, there = with_junk(x, y, w)
        given = {"x": wide, "y": names[labels], "w": own}
        arrays |= {f"{letter}_{split}": values for letter, values in given.items()}
        kept |= {f"{letter}_{split}": values[there] for letter, values in given.items()}
    config.train_split = config.val_split = config.test_split = "auto"
    config.update({"optimizer": "lbfgs", "num_epochs": 300, "tolerance": 1e-6, "l2_path": 3})
    config.update({"standardize": True, "predictions": True, "audit_folds": 3, "refit": True})
    config.update({"class_weight": "balanced", "precision": "float32"})
    config.cost_matrix = ((0.0, 1.0, 2.0), (5.0, 0.0, 1.0), (1.0, 1.0, 0.0))
    config.learning_curve.sizes = (30, 60, 90)
    config.learning_curve.seeds = 1
    summaries, predictions, audits = [], [], []
    for name, own in (("junk", arrays), ("kept", kept)):
        np.savez(tmp_path / f"{name}.npz", **own)
        config.dataset = str(tmp_path / f"{name}.npz")
        assert run.main(config, tmp_path / name) == DONE
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        summaries.append(
            {key: summary[key] for key in summary if key not in ("dataset", "seconds")}
        )
        predictions.append(dict(np.load(tmp_path / name / "predictions.npz")))
        audits.append((tmp_path / name / "audit.csv").read_text().splitlines()[1:])
    _assert_near(*summaries)
    junk, plain = predictions
    rows = np.flatnonzero(arrays["w_test"])
    assert_array_equal(junk.pop("test_rows"), rows)
    assert_array_equal(junk["test_weights"], arrays["w_test"][rows])
    del junk["val_rows"]
    for name, values in plain.items():
        if name.endswith("probabilities"):
            assert_allclose(junk[name], values, atol=1e-6)
        else:
            assert_array_equal(junk[name], values)
    place = np.flatnonzero(arrays["w_train"])
    for one, other in zip(*audits, strict=True):
        assert int(one.split(",")[0]) == place[int(other.split(",")[0])]
        assert one.split(",")[1:3] == other.split(",")[1:3]


def _assert_near(one, other):
    """Equal JSON, numbers to 1e-6."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            _assert_near(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for mine, others in zip(one, other, strict=True):
            _assert_near(mine, others)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=2e-6, abs=1e-6)
    else:
        assert one == other


def folds_of(kind, num_rows):
    rng = np.random.default_rng(3)
    member = rng.integers(3, size=num_rows)
    return {
        "number": 3,
        "splitter": KFold(3, shuffle=True, random_state=0),
        "groups": GroupKFold(3),
        "predefined": PredefinedSplit(member),
        "rows": [(np.flatnonzero(member != k), np.flatnonzero(member == k)) for k in range(3)],
        "masks": [(member != k, member == k) for k in range(3)],
    }[kind]


def only(folds, there):
    """Given folds as those of the rows that are there."""
    if isinstance(folds, PredefinedSplit):
        return PredefinedSplit(folds.test_fold[there])
    if not isinstance(folds, list):
        return folds
    place, everything = np.cumsum(there) - 1, np.arange(len(there))
    return [
        tuple(place[rows[there[rows]]] for rows in (everything[a], everything[b])) for a, b in folds
    ]


@pytest.mark.parametrize("kind", ["number", "splitter", "groups", "predefined", "rows", "masks"])
def test_rows_of_weight_zero_change_nothing_in_the_estimators(kind):
    x, y = examples(60)
    wide, labels, w, there = with_junk(x, y)
    groups, options = np.arange(len(there)) // 5, {"class_weight": "balanced", "tol": 1e-10}
    plain = SoftmaxRegression(**options).fit(x, y)
    with warns_of_class():
        junk = SoftmaxRegression(**options).fit(wide, labels, w)
    assert junk.classes_.tolist() == [0, 1, 2, 3]
    assert_allclose(junk.predict_proba(x)[:, :3], plain.predict_proba(x), atol=1e-6)
    assert junk.predict_proba(x)[:, 3].max() < 1e-9
    folds = folds_of(kind, len(there))
    options |= {"Cs": 4, "scoring": "neg_log_loss"}
    own, others = ({"groups": g} if kind == "groups" else {} for g in (groups, groups[there]))
    plain = SoftmaxRegressionCV(cv=only(folds, there), **options).fit(x, y, **others)
    with warns_of_class():
        junk = SoftmaxRegressionCV(cv=folds, **options).fit(wide, labels, w, **own)
    assert junk.C_ == plain.C_
    assert_allclose(junk.scores_, plain.scores_, rtol=1e-6)
    assert_allclose(junk.predict_proba(x)[:, :3], plain.predict_proba(x), atol=1e-6)


def test_five_folds_score_only_what_counts():
    """60 rows of junk among 200: a log loss of 7 in place of about 1."""
    x, y = examples(140)
    wide, labels, w, _ = with_junk(x, y, share=0.3)
    with warns_of_class():
        found = SoftmaxRegressionCV(cv=5, Cs=3).fit(wide, labels, w)
    right = SoftmaxRegressionCV(cv=5, Cs=3).fit(x, y)
    assert_allclose(found.scores_, right.scores_, rtol=1e-6)
    assert right.scores_.min() > -1.2


# Weight k.


K = np.random.default_rng(4).integers(1, 5, 60)


@SOLVERS
@pytest.mark.parametrize("standardize", [False, True])
def test_weight_k_is_k_copies_in_fit_and_scores(options, standardize):
    """At full batches: those of SGD have the objective's gradient, too."""
    train, val = examples(60), examples(60, 1)
    weighted = data.from_arrays((*train, K), (*val, K[::-1]), (*val, K))
    copies = data.from_arrays(copied(K, *train), copied(K[::-1], *val), copied(K, *val))
    objective = sweep.Objective(standardize=standardize, class_weight="balanced")
    results = [
        sweep.fit(
            own.train,
            own.val,
            sweep.grid(l2=L2, learning_rate=0.05, init_scale=0.0),
            **options | {"batch_size": len(own.train), "objective": objective},
        )
        for own in (weighted, copies)
    ]
    # The solver may stop at another iterate: a gap of 1e-7 is 3e-4 of the probabilities.
    assert_same(*results, 5e-4 if options["solver"] == OPTIMUM["solver"] else 1e-5)
    one, other = results[0].test(weighted.test), results[1].test(copies.test)
    for name in ("loss", "accuracy"):
        assert one[name] == pytest.approx(other[name], rel=5e-4)
    paths = [sweep.l2_path(own.train, 5, standardize=standardize) for own in (weighted, copies)]
    assert_allclose(*paths, rtol=2e-3)  # three digits


@SOLVERS
def test_weight_k_is_k_copies_in_folds_that_are_given(options):
    x, y = examples(60)
    folds = np.random.default_rng(0).integers(3, size=60)
    both = []
    for own, groups in (((x, y, K), folds), (copied(K, x, y), np.repeat(folds, K))):
        train = data.from_arrays(own, (x.copy(), y)).train
        options = options | {"batch_size": len(train)}
        grid = sweep.grid(l2=L2, learning_rate=0.05, init_scale=0.0)
        objective = sweep.Objective(standardize=True)
        how = {"folds": groups, "objective": objective}
        both.append(sweep.cross_validate(train, grid, **how, **options))
    assert_same(*both, 5e-4 if options["solver"] == OPTIMUM["solver"] else 1e-5)


@pytest.mark.parametrize("scoring", ["neg_log_loss", "accuracy"])
def test_weight_k_is_k_copies_in_the_estimators(scoring):
    """In float64 to the 1e-6; C counts the weights, and the folds are those that are given."""
    x, y = examples(60)
    X, Y = copied(K, x, y)
    options = {"class_weight": "balanced", "tol": 1e-10}
    weighted = SoftmaxRegression(**options).fit(x, y, K)
    copies = SoftmaxRegression(**options).fit(X, Y)
    assert_allclose(weighted.coef_, copies.coef_, atol=1e-5)
    assert_allclose(weighted.predict_proba(x), copies.predict_proba(x), atol=1e-6)
    folds = np.random.default_rng(0).integers(3, size=60)
    found, expected = (
        SoftmaxRegressionCV(Cs=4, cv=PredefinedSplit(own), scoring=scoring, **options).fit(*given)
        for own, given in ((folds, (x, y, K)), (np.repeat(folds, K), (X, Y)))
    )
    assert found.C_ == expected.C_
    assert_allclose(found.scores_, expected.scores_, atol=1e-6)


@pytest.mark.slow
def test_weight_k_is_k_copies_in_refits_and_learning_curves():
    x, y = examples(60)
    val = examples(40, 1)
    weighted = data.from_arrays((x, y, K), (*val, K[:40]))
    copies = data.from_arrays(copied(K, x, y), copied(K[:40], *val))
    both = data.joined(weighted.train, weighted.val), data.joined(copies.train, copies.val)
    l2 = {"l2": [0.01], "tolerance": 1e-8}
    found = [optimum.minimise(optimum.Problem(own.x, own.y, own.weights), **l2) for own in both]
    assert_allclose(found[0].W, found[1].W, atol=1e-4)
    fits = [
        sweep.fit(own.train, own.val, sweep.grid(l2=0.01), **OPTIMUM).classifier(0)
        for own in (weighted, copies)
    ]
    sizes = [(60,), (int(K.sum()),)]  # all of them: fewer examples are not fewer copies
    curves = [
        studies.learning_curve(own, model, 0.01, size, 1)[0][0]
        for own, model, size in zip((weighted, copies), fits, sizes, strict=True)
    ]
    for name in ("l2", "train_loss", "val_loss", "val_accuracy"):
        assert curves[0][name] == pytest.approx(curves[1][name], rel=5e-3)  # its tolerance


def test_moments_are_those_of_the_copies():
    x, _ = examples(60)
    counts = np.random.default_rng(1).integers(0, 3, (60, 4))
    halves = [(0, x[:30]), (30, x[30:])]
    found = inputs.moments(halves, counts, weights=K / 10)
    expected = inputs.moments([(0, np.repeat(x, K, 0))], np.repeat(counts, K, 0))
    assert_allclose(found, expected, rtol=1e-12)
    assert_allclose(inputs.moments(halves, weights=K / 10)[0][0], np.average(x, 0, K))


_weights = st.lists(st.integers(0, 4), min_size=30, max_size=30).filter(any).map(np.array)


@settings(deadline=None, database=None, derandomize=True, max_examples=40)
@given(_weights, st.integers(0, 99), st.sampled_from([1e-6, 1.0, 7.5]))
def test_weight_k_is_k_copies_in_calibration_sets_decisions_and_reports(k, seed, unit):
    """Those that know only shares hold in any unit; conformal sets count examples beside one."""
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(30, 3)).round(1), rng.integers(3, size=30)
    p = softmax(logits, 1)
    P, Y = copied(k, p, labels)
    predicted, happened = p.max(1), p.argmax(1) == labels
    w = unit * k
    dirty = np.where(k[:, None] > 0, p, np.nan)  # what is absent may hold anything
    for binning in calibration.BINNINGS:
        weights = w if binning == "width" else k
        for error in (
            calibration.expected_calibration_error,
            calibration.classwise_calibration_error,
        ):
            expected = error(P, Y, 5, binning)
            assert error(dirty, labels, 5, binning, weights=weights) == pytest.approx(expected)
        diagram = calibration.reliability(predicted, happened, 5, binning, weights)
        copies = calibration.reliability(*copied(k, predicted, happened), 5, binning)
        assert_allclose(diagram.observed, copies.observed, atol=1e-12)
        assert_allclose(diagram.predicted, copies.predicted, atol=1e-12)
    score = calibration.brier_score(dirty, labels, weights=w)
    assert score == pytest.approx(calibration.brier_score(P, Y))
    for alpha in (0.05, 0.1, 0.3, 0.5):
        assert conformal.threshold(dirty, labels, alpha, weights=k) == conformal.threshold(
            P, Y, alpha
        )
    for share in (0.1, 0.5, 0.9, 1.0):
        found = decisions.sensitivity_threshold(dirty, labels, 1, share, weights=w)
        assert found == decisions.sensitivity_threshold(P, Y, 1, share)
    table = metrics.confusion_matrix(labels, p.argmax(1), 3, weights=w)
    copies = metrics.confusion_matrix(Y, P.argmax(1), 3)
    assert_allclose(table, unit * copies)
    for name in ("precision", "recall", "f1"):
        assert_allclose(metrics.per_class(table)[name], metrics.per_class(copies)[name])
    cost = rng.uniform(size=(3, 3))
    assert_allclose(metrics.mean_cost(table, cost), metrics.mean_cost(copies, cost))


def test_temperature_of_weight_k_is_that_of_k_copies():
    x, y = examples(60)
    logits = np.where(K[:, None] > 1, x[:, :3], np.nan)
    T = calibration.temperature(logits, y, weights=np.where(K > 1, K, 0) / 7)
    own = K > 1
    expected = calibration.temperature(*copied(K[own], x[own, :3], y[own]))
    assert_allclose(T, expected, rtol=1e-5)


def test_weights_count_under_jit_as_they_do_outside():
    rng = np.random.default_rng(0)
    logits, labels = np.float32(rng.normal(size=(30, 3))), rng.integers(3, size=30)
    p, w = softmax(logits, 1), np.float32(rng.integers(0, 3, 30))
    for function in (
        lambda p, y, w: calibration.expected_calibration_error(p, y, 5, "width", weights=w),
        lambda p, y, w: calibration.expected_calibration_error(p, y, 5, "mass", weights=w),
        lambda p, y, w: calibration.brier_score(p, y, weights=w),
        lambda p, y, w: conformal.threshold(p, y, 0.2, weights=w),
        lambda p, y, w: decisions.sensitivity_threshold(p, y, 1, 0.7, weights=w),
    ):
        assert_allclose(jax.jit(function)(p, labels, w), function(p, labels, w), rtol=1e-5)
    found = jax.jit(lambda w: calibration.temperature(jnp.asarray(logits), labels, weights=w))(w)
    assert_allclose(found, calibration.temperature(logits, labels, weights=w), rtol=1e-5)


@pytest.mark.parametrize("weights", [[1.0], [1, -1, 1], [0, 0, 0], [1, np.nan, 1], ["a"] * 3])
def test_weights_that_are_none_are_refused(weights):
    p, labels = np.full((3, 2), 0.5), np.array([0, 1, 0])
    for function in (
        lambda: calibration.brier_score(p, labels, weights=weights),
        lambda: calibration.temperature(p, labels, weights=weights),
        lambda: calibration.calibration_error(p[:, 0], labels, weights=weights),
        lambda: conformal.threshold(p, labels, 0.5, weights=weights),
        lambda: decisions.sensitivity_threshold(p, labels, 1, 0.5, weights=weights),
    ):
        with pytest.raises(ValueError, match="weights must"):
            function()


def test_intervals_are_those_of_as_many_equal_weights_as_say_as_much():
    """(Σw)²/Σw² of them: weights in any unit give one interval, and copies say nothing new."""
    x, y = examples(60)
    model = sweep.fit(data.from_arrays((x, y), examples(9, 1)).train, None, **OPTIMUM)
    model = model.classifier(0)

    def test(weights):
        return model.test(data.from_arrays((x, y), (x.copy(), y, weights)).val)

    plain, same = test(np.ones(60)), test(np.full(60, 7.0))
    for name, value in plain.items():
        assert same[name] == pytest.approx(value)
    found, n = test(K), K.sum() ** 2 / (K**2).sum()
    low, high = found["accuracy_interval"]
    for bound in (low, high):  # Wilson's equation
        spread = 1.959964 * np.sqrt(bound * (1 - bound) / n)
        assert abs(found["accuracy"] - bound) == pytest.approx(spread, rel=1e-5)
    low, high = found["loss_interval"]
    assert high - low > np.diff(plain["loss_interval"]).item() * 0.5
    assert metrics.effective_size(K) == pytest.approx(n)


# The objective of folds.


@pytest.mark.parametrize("class_weight", [None, (0.5, 2.0)])
@pytest.mark.parametrize("batch_size", [80, 8])
def test_l2_means_the_same_in_lopsided_folds_by_sgd_and_at_the_optimum(class_weight, batch_size):
    """One fold holds a few heavy examples, which many batches lack; the other the light ones."""
    x, y = examples(80, classes=2)
    x = np.float32((x - x.mean(0)) / x.std(0))
    folds = (np.arange(80) >= 60).astype(int)
    w = np.where(folds, 9.0, 0.1) * np.random.default_rng(0).uniform(0.5, 1.5, 80)
    train = data.from_arrays((x, y, w), (x.copy(), y)).train
    counts, objective = sweep.fold_counts(y, folds), sweep.Objective(class_weight=class_weight)
    rate, averaging, error = (0.3, 0, 1e-3) if batch_size == 80 else (0.01, 0.5, 0.03)
    by_sgd = sweep.fit(
        train,
        counts,
        sweep.grid(l2=0.5, learning_rate=rate, averaging=averaging),
        num_epochs=600,
        batch_size=batch_size,
        objective=objective,
    )
    best = sweep.fit(train, counts, sweep.grid(l2=0.5), objective=objective, **OPTIMUM)
    for fold in range(2):
        one, other = (result.classifier(fold).W for result in (by_sgd, best))
        one, other = (np.linalg.norm(W[:, 1] - W[:, 0]) for W in (one, other))
        assert one == pytest.approx(other, rel=error)


# Class weights.


COSTS = ((0.0, 1.0), (10.0, 0.0))


def rare(n, seed):
    """5 % positives, whose feature is 1.5 larger on average; y is drawn from p."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.05).astype(int)
    return np.float32(rng.normal(size=(n, 2)) + np.outer(y, [1.5, 0])), y


def mean_cost(actions, y):
    return np.asarray(COSTS)[y, np.asarray(actions)].mean()


@pytest.fixture(scope="module")
def splits():
    return data.from_arrays(*(rare(4000, seed) for seed in (0, 1, 2)))


@pytest.fixture(scope="module")
def balanced(splits):
    """(with balanced class weights, without)."""
    return [
        sweep.fit(
            splits.train,
            splits.val,
            sweep.grid(l2=1e-4),
            objective=sweep.Objective(class_weight=class_weight),
            **OPTIMUM,
        )
        for class_weight in ("balanced", None)
    ]


def test_probabilities_are_those_of_data_as_they_are_and_predictions_those_trained(
    splits, balanced
):
    x, y = splits.test.x, splits.test.y
    weighted, plain = (result.classifier(0) for result in balanced)
    p = weighted.predict_proba(x)
    assert p[:, 1].mean() == pytest.approx(0.05, abs=0.01)
    assert weighted.weighted_proba(x)[:, 1].mean() > 0.2
    assert_allclose(
        calibration.unweighted(weighted.weighted_proba(x), weighted.class_weight), p, atol=1e-6
    )
    assert_allclose(p, plain.predict_proba(x), atol=0.05)
    assert_array_equal(weighted.predict(x), weighted.weighted_proba(x).argmax(1))
    assert weighted.predict(x).mean() > 5 * plain.predict(x).mean()
    right = mean_cost(decisions.bayes_action(plain.predict_proba(x), COSTS), y)
    assert mean_cost(decisions.bayes_action(p, COSTS), y) == pytest.approx(right, abs=0.02)
    wrong = mean_cost(decisions.bayes_action(weighted.weighted_proba(x), COSTS), y)
    assert wrong > 1.5 * right
    assert calibration.expected_calibration_error(p, y) < 0.01
    assert calibration.temperature(weighted.logits(x), y) == pytest.approx(1, abs=0.15)
    low = conformal.threshold(p, y, 0.1)
    assert conformal.prediction_sets(p, low).sum(1).mean() < 1.1


def test_losses_of_a_sweep_are_those_of_the_corrected_probabilities(splits, balanced):
    for result in balanced:
        measured = result.classifier(0).test(splits.val)
        for name in ("loss", "accuracy"):
            assert result.metrics[f"val_{name}"][0, -1] == pytest.approx(measured[name], rel=1e-5)
        measured = result.classifier(0).test(splits.train)
        assert result.metrics["train_loss"][0, -1] == pytest.approx(measured["loss"], rel=1e-5)
    weighted, plain = (result.metrics["val_loss"][0, -1] for result in balanced)
    assert weighted == pytest.approx(plain, abs=0.01)


@pytest.mark.parametrize("loss", ["cross_entropy", "linear_cross_entropy"])
def test_train_loss_is_that_of_the_corrected_probabilities_under_every_loss(loss, config):
    """The mean cross-entropy, weighted by example, whatever the classes weigh."""
    config.update({"loss": loss, "class_weight": tuple(range(1, 11)), "batch_size": 1437})
    config.update({"learning_rate": 1e-7, "num_epochs": 1})
    splits = run.load_checked(config)
    result = sweep.collect(run.start_sweep(config, splits))
    measured = result.classifier(0).test(splits.train)["loss"]
    assert result.metrics["train_loss"][0, 0] == pytest.approx(measured, rel=1e-4)


def test_estimator_corrects_its_probabilities_and_predicts_as_scikit_learn_does(splits):
    x, y = splits.train.x, splits.train.y
    weighted = SoftmaxRegression(C=100.0, class_weight="balanced").fit(x, y)
    plain = SoftmaxRegression(C=100.0).fit(x, y)
    new, labels = splits.test.x, splits.test.y
    p = weighted.predict_proba(new)
    assert p[:, 1].mean() == pytest.approx(0.05, abs=0.01)
    assert_allclose(np.log(p), weighted.predict_log_proba(new), atol=1e-9)
    as_fitted = weighted.predict_weighted_proba(new)
    assert_allclose(calibration.unweighted(as_fitted, weighted.class_weight_), p, rtol=1e-6)
    logits = weighted.decision_function(new)
    assert_allclose(as_fitted[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-6)
    assert_array_equal(weighted.predict(new), logits > 0)
    cost = mean_cost(decisions.bayes_action(p, COSTS), labels)
    right = mean_cost(decisions.bayes_action(plain.predict_proba(new), COSTS), labels)
    assert cost == pytest.approx(right, abs=0.02)
    chosen = SoftmaxRegressionCV(Cs=2, cv=3, class_weight="balanced").fit(x[:500], y[:500])
    assert chosen.scores_.max() > -0.25  # a log loss of the corrected probabilities


def test_job_with_class_weights_writes_corrected_probabilities(splits, config, tmp_path):
    arrays = {}
    for role in ("train", "val", "test"):
        own = getattr(splits, role)
        arrays |= {f"x_{role}": own.x, f"y_{role}": own.y}
    np.savez(tmp_path / "rare.npz", **arrays)
    config.dataset = str(tmp_path / "rare.npz")
    config.train_split = config.val_split = config.test_split = "auto"
    config.update({"optimizer": "lbfgs", "num_epochs": 300, "standardize": True, "l2": 1e-4})
    config.update({"class_weight": "balanced", "predictions": True, "cost_matrix": COSTS})
    assert run.main(config, tmp_path / "run") == DONE
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    y, costs = splits.test.y, summary["decisions"]["costs"]
    stored = np.load(tmp_path / "run" / "params.npz")
    logits = (splits.test.x - stored["mean"]) / stored["scale"] @ stored["W"] + stored["b"]
    p, trained = softmax(logits, 1), logits + np.log(stored["class_weight"])
    assert p[:, 1].mean() == pytest.approx(0.05, abs=0.01)
    assert costs["bayes"]["cost"]["mean"] == pytest.approx(
        mean_cost(decisions.bayes_action(p, COSTS), y), abs=1e-6
    )
    assert costs["bayes"]["cost"]["mean"] < mean_cost(trained.argmax(1), y)
    assert costs["argmax"]["cost"]["mean"] == pytest.approx(mean_cost(trained.argmax(1), y))
    assert summary["test"]["accuracy"] == pytest.approx((trained.argmax(1) == y).mean())
    assert summary["test"]["loss"] == pytest.approx(
        -np.log(p[np.arange(len(y)), y]).mean(), rel=1e-5
    )
    predictions = np.load(tmp_path / "run" / "predictions.npz")
    assert_allclose(predictions["test_probabilities"], p, atol=1e-5)
    assert_array_equal(predictions["test_predicted"], trained.argmax(1))
    model = softmax_jax.load(tmp_path / "run")
    assert_allclose(model.predict_proba(splits.test.x), p, atol=1e-5)
    assert_allclose(model.weighted_proba(splits.test.x), softmax(trained, 1), atol=1e-5)
    np.save(tmp_path / "new.npy", splits.test.x)
    predict(tmp_path / "run", tmp_path / "new.npy", tmp_path / "out.npz")
    written = np.load(tmp_path / "out.npz")
    assert_allclose(written["probabilities"], p, atol=1e-5)
    assert_array_equal(written["predicted"], trained.argmax(1))


@pytest.mark.slow
def test_audit_and_learning_curve_judge_by_corrected_probabilities(splits, balanced):
    few = dataclasses.replace(splits, train=splits.train[:600])
    model = balanced[0].classifier(0)
    heavy = studies.label_audit(few.train, model, 1e-3, 3, (1.0, 19.0))
    plain = studies.label_audit(few.train, model, 1e-3, 3)
    assert_allclose(heavy.probability[:30].mean(), plain.probability[:30].mean(), rtol=0.1)
    assert plain.probability[:30].mean() < 0.3
    rows = [
        studies.learning_curve(few, model, 1e-3, (600,), 1, class_weight)[0][0]
        for class_weight in ((1.0, 19.0), None)
    ]
    for name in ("train_loss", "val_loss"):
        assert rows[0][name] == pytest.approx(rows[1][name], abs=0.01)


def test_class_of_weight_zero_stays_as_improbable_as_the_fit_left_it():
    x, y = examples(200)
    splits = data.from_arrays((x, y), examples(50, 1))
    objective = sweep.Objective(class_weight=(1.0, 2.0, 0.0))
    result = sweep.fit(
        splits.train, splits.val, sweep.grid(l2=1e-2), objective=objective, **OPTIMUM
    )
    p = result.classifier(0).predict_proba(splits.val.x)
    assert np.isfinite(result.metrics["val_loss"]).all() and p[:, 2].max() < 0.01
