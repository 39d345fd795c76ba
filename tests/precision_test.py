"""Features with a large mean: what float32 would round away is subtracted before, on every path."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.metrics import log_loss

from softmax_jax import data, optimum, predict, studies, sweep
from softmax_jax.classifier import load
from softmax_jax.data import DataError, loading
from softmax_jax.data.dataset import column_moments
from softmax_jax.estimator import SoftmaxRegression, SoftmaxRegressionCV
from softmax_jax.job import outputs
from softmax_jax.job.workdir import Workdir

N, HALF, L2 = 400, 200, 0.01
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(N, 3))
Y = (Z @ [2.0, -1.0, 0.0] + 0.5 * RNG.normal(size=N) > 0).astype(int)
# Unix times, UTM metres, whole numbers of more than 24 bits, and features that need nothing.
COLUMNS = {
    "times": 1.7e9 + 30 * Z,
    "metres": 4.5e6 + 0.1 * Z,
    "whole": np.int64(3_000_000_000) + np.round(50 * Z).astype(np.int64),
    "mixed": Z + [0.0, -1e8, 5.0],
}
EACH = pytest.mark.parametrize("name", COLUMNS)
UNIX = COLUMNS["times"]


def halves(x):
    return (x[:HALF], Y[:HALF]), (x[HALF:], Y[HALF:])


def stored(folder, kind, x):
    (x, y), (x_val, y_val) = halves(x)
    arrays = {"x_train": x, "y_train": y, "x_val": x_val, "y_val": y_val}
    if kind == "npz":
        np.savez(folder / "a.npz", **arrays)
        return str(folder / "a.npz")
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


def splits_of(kind, x, folder):
    if kind == "arrays":
        return data.from_arrays(*halves(x))
    stream = kind == "streamed"
    return data.load(stored(folder, kind, x), "train", "val", stream=stream)


def standardised(x):
    """By the moments of the training half, in float64."""
    x = x.astype(np.float64)
    return (x - x[:HALF].mean(0)) / x[:HALF].std(0)


def reference(x):
    """Probabilities of the validation half at the optimum, all in float64."""
    z = standardised(x)
    return SoftmaxRegression(l2=L2).fit(z[:HALF], Y[:HALF]).predict_proba(z[HALF:])


def fitted(splits, standardize=True):
    return sweep.fit(
        splits.train,
        splits.val,
        sweep.grid(l2=[L2]),
        num_epochs=200,
        solver=sweep.LBFGS(1e-5),
        objective=sweep.Objective(standardize=standardize),
    )


@EACH
@pytest.mark.parametrize("kind", ["npz", "folder", "arrays"])
def test_the_optimum_is_that_of_float64(name, kind, tmp_path):
    x = COLUMNS[name]
    result, expected = fitted(splits_of(kind, x, tmp_path)), reference(x)
    assert_allclose(result.predict_proba(x[HALF:]), expected, atol=1e-3)
    loss = log_loss(Y[HALF:], expected)
    assert float(result.metrics["val_loss"][0, -1]) == pytest.approx(loss, abs=1e-3)


@EACH
def test_params_and_predictions_take_raw_features(name, tmp_path):
    """NumPy by the formula, the loaded model and the command line agree to 1e-5."""
    x = COLUMNS[name]
    classifier = fitted(splits_of("arrays", x, None)).best().classifier
    outputs.write_params(Workdir(tmp_path), classifier)
    with np.load(tmp_path / "params.npz") as file:
        assert file["mean"].dtype == file["scale"].dtype == np.float64
        formula = softmax(((x - file["mean"]) / file["scale"]) @ file["W"] + file["b"], -1)
    assert_allclose(formula[HALF:], reference(x), atol=1e-3)
    np.save(tmp_path / "x.npy", x)
    predict.predict(tmp_path, tmp_path / "x.npy", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        assert_allclose(file["probabilities"], formula, atol=1e-5)
    assert_allclose(load(tmp_path).predict_proba(x), formula, atol=1e-5)


@EACH
def test_streamed_folders_train_as_standardised_features_do(name, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_SHARD_BYTES", 64 * 3 * 8)
    x = COLUMNS[name]
    streamed = splits_of("streamed", x, tmp_path)
    assert streamed.train.shard_size and streamed.train.shard_size < HALF
    assert streamed.val.shard_size
    (z, y), val = halves(standardised(x).astype(np.float32))
    own = dict(num_epochs=5, batch_size=HALF)
    result = sweep.fit(
        streamed.train, streamed.val, objective=sweep.Objective(standardize=True), **own
    )
    known = sweep.fit(*(getattr(data.from_arrays((z, y), val), r) for r in ("train", "val")), **own)
    assert_allclose(result.metrics["val_loss"], known.metrics["val_loss"], atol=2e-2)
    tested = result.test(streamed.val)
    assert tested["loss"] == pytest.approx(float(result.metrics["val_loss"][0, -1]), abs=1e-5)


def test_folds_standardise_each_by_its_own_moments():
    splits = splits_of("arrays", UNIX, None)
    counts = sweep.fold_counts(splits.train.y, 4)
    ours = sweep.fit(
        splits.train,
        counts,
        sweep.grid(l2=[L2]),
        num_epochs=200,
        solver=sweep.LBFGS(1e-5),
        objective=sweep.Objective(standardize=True),
    )
    x, y = UNIX[:HALF], Y[:HALF]
    for trial in range(4):
        kept = counts[:, trial] > 0
        z = (x - x[kept].mean(0)) / x[kept].std(0)
        expected = SoftmaxRegression(l2=L2).fit(z[kept], y[kept]).predict_proba(z)
        assert_allclose(ours.classifier(trial).predict_proba(x), expected, atol=1e-3)


def test_without_standardisation_the_bias_absorbs_the_mean():
    x = COLUMNS["mixed"]
    result = fitted(splits_of("arrays", x, None), standardize=False)
    expected = SoftmaxRegression(l2=L2).fit(x[:HALF] - x[:HALF].mean(0), Y[:HALF])
    expected = expected.predict_proba(x[HALF:] - x[:HALF].mean(0))
    assert_allclose(result.predict_proba(x[HALF:]), expected, atol=1e-3)


def test_studies_normalise_before_they_round():
    splits = splits_of("arrays", UNIX, None)
    classifier = fitted(splits).best().classifier
    rows, _ = studies.learning_curve(splits, classifier, L2, [HALF], 1)
    loss = log_loss(Y[HALF:], reference(UNIX))
    assert rows[0]["val_loss"] == pytest.approx(loss, abs=1e-3)


@pytest.mark.parametrize("convert", [np.asarray, lambda x: np.asarray(x) + 0.25])
def test_x_stays_as_it_was_given(convert):
    x = convert(COLUMNS["whole"])
    splits = data.from_arrays(*halves(x))
    assert_array_equal(splits.train.x, x[:HALF])
    both = data.joined(splits.train, splits.val)
    assert_array_equal(both.x, x)
    assert_array_equal(both.shift, splits.train.shift)


def test_features_that_float32_holds_are_float32_as_ever():
    for x in (Z, Z + 50, np.round(99 * Z).astype(np.int64), np.ones_like(Z) * 1e9):
        train = data.from_arrays(*halves(x)).train
        assert train.x.dtype == np.float32 and train.shift is None
    assert data.from_arrays(*halves(UNIX), dtype="float64").train.shift is None


def test_whole_numbers_on_a_device_are_shifted_too():
    x = (1_700_000_000 + np.round(30 * Z)).astype(np.int32)
    splits = data.from_arrays((jnp.asarray(x[:HALF]), Y[:HALF]), (x[HALF:], Y[HALF:]))
    assert_array_equal(splits.train.x, x[:HALF])
    assert_allclose(fitted(splits).predict_proba(jnp.asarray(x[HALF:])), reference(x), atol=1e-3)


def test_a_value_beyond_float32_is_refused_beside_shifted_columns():
    x = UNIX.copy()
    x[5, 2] = 1e300
    with pytest.raises(DataError, match="inf in row 5, column 2 is not a finite float32"):
        data.from_arrays(*halves(x))


@EACH
def test_the_estimator_in_float32_finds_what_it_finds_in_float64(name):
    x = COLUMNS[name].astype(np.float64)
    x = x / x.std(0)  # one scale; the means are as large as before
    narrow = SoftmaxRegression(l2=L2, dtype="float32", tol=1e-5).fit(x[:HALF], Y[:HALF])
    wide = SoftmaxRegression(l2=L2).fit(x[:HALF], Y[:HALF])
    assert_allclose(narrow.predict_proba(x), wide.predict_proba(x), atol=1e-3)


@pytest.mark.slow
def test_the_estimators_shift_in_folds_and_warm_starts():
    """As on features that are centred before, which float32 holds."""
    x = UNIX / 30
    far, near = (
        SoftmaxRegressionCV(Cs=[0.1], cv=3, dtype="float32", tol=1e-4).fit(features, Y)
        for features in (x, x - x.mean(0))
    )
    assert_allclose(far.scores_, near.scores_, atol=1e-3)
    assert_allclose(far.predict_proba(x), near.predict_proba(x - x.mean(0)), atol=2e-3)
    model = SoftmaxRegression(l2=L2, dtype="float32", tol=1e-4, warm_start=True).fit(x, Y)
    assert model.fit(x, Y).n_iter_[0] <= 1


@settings(deadline=None, database=None, derandomize=True, max_examples=40)
@given(
    centre=st.floats(-1e12, 1e12),
    exponent=st.integers(-6, 6),
    rows=st.integers(1, 40),
)
def test_column_moments_are_those_of_numpy(centre, exponent, rows):
    x = centre + np.random.default_rng(rows).normal(size=(40, 2)) * 10.0**exponent
    mean, deviation = column_moments(x[start : start + rows] for start in range(0, 40, rows))
    around, rounding = x - x[0], 1e-14 * np.abs(x).max()
    assert_allclose(mean, x[0] + around.mean(0), atol=rounding)
    assert_allclose(deviation, around.std(0), rtol=1e-6, atol=rounding)


@pytest.mark.parametrize(
    "x, why",
    [
        (UNIX.astype(np.float32), "Columns 0 .*float32 rounds such numbers.*save it as float64"),
        (1.7e18 + 3e4 * Z, "Columns 0 .mean 1.7e.18.*: float64 rounds such numbers"),
        (np.stack([Z[:, 0], 1e6 + 0.1 * Z[:, 1]], 1).astype(np.float32), r"Column 1 \(mean 1e\+06"),
    ],
)
def test_what_stays_rounded_is_named(x, why):
    with pytest.warns(UserWarning, match=why):
        data.from_arrays(*halves(x))


def test_the_estimator_names_what_stays_rounded():
    for model, x in (
        (SoftmaxRegression(dtype="float32"), UNIX.astype(np.float32)),
        (SoftmaxRegression(dtype="float32", fit_intercept=False), UNIX),
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?!.*float32 rounds)")
            with pytest.raises(UserWarning, match="Columns 0 .*float32 rounds such numbers"):
                model.fit(x, Y)


def test_sgd_on_a_large_mean_says_so_unless_it_is_subtracted():
    splits = splits_of("arrays", Z + [0.0, 500.0, 0.0], None)
    with pytest.warns(UserWarning, match=r"Column 1 \(mean 500.*standardize=True"):
        sweep.fit(splits.train, splits.val, num_epochs=1, batch_size=50)
    sweep.fit(
        splits.train,
        splits.val,
        num_epochs=1,
        batch_size=50,
        objective=sweep.Objective(standardize=True),
    )


@EACH
def test_the_optimum_itself_takes_raw_features(name):
    """`minimise` by itself: x W + b in float64."""
    x, z = COLUMNS[name].astype(np.float64), standardised(COLUMNS[name])
    found = optimum.minimise(optimum.Problem(x, Y), [0.0], tolerance=1e-5)
    expected = SoftmaxRegression(C=np.inf).fit(z, Y).predict_proba(z)
    assert_allclose(softmax(x @ found.W[0] + found.b[0], -1), expected, atol=5e-3)


def test_val_that_has_lost_digits_before_is_named():
    train, (x, y) = halves(UNIX)
    with pytest.warns(UserWarning, match="float32 rounds such numbers"):
        data.from_arrays(train, (x.astype(np.float32), y))
