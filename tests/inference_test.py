"""Standard errors and leave-one-out: against jax.hessian, statsmodels, refits, and simulation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats
from sklearn.exceptions import ConvergenceWarning

from softmax_jax import SoftmaxRegression, data, inference, sweep


def examples(n=120, num_features=3, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, num_features))
    logits = x @ rng.normal(size=(num_features, num_classes))
    return x, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def column(rows, name, num_columns):
    return np.array([row[name] for row in rows]).reshape(-1, num_columns)


def fitted(x, y, weights=None, **options):
    return SoftmaxRegression(tol=1e-10, **options).fit(x, y, weights)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("options", [{"l2": 0.01}, {"l2": 0.01, "fit_intercept": False}])
def test_errors_are_those_of_the_hessian_that_jax_derives(num_classes, options):
    x, y = examples(num_classes=num_classes)
    weights = np.random.default_rng(1).integers(1, 4, len(y)).astype(float)
    fit = fitted(x, y, weights, **options)
    z = np.append(x, np.ones((len(x), 1)), 1) if fit.fit_intercept else x
    K, lam = z.shape[1], fit.l2_ * weights.sum()

    def objective(theta):
        theta = theta.reshape(num_classes, K)
        of_labels = jnp.take_along_axis(jax.nn.log_softmax(z @ theta.T), y[:, None], 1)[:, 0]
        # A constant of all intercepts changes nothing: a penalty on their sum alone fixes it.
        free = (theta[:, 3:].sum(0) ** 2).sum() / 2
        return -(weights * of_labels).sum() + lam / 2 * (theta[:, :3] ** 2).sum() + free

    rows = inference.table(fit, x, y, sample_weight=weights)
    estimates = column(rows, "estimate", K)
    with jax.enable_x64(True):
        H = np.asarray(jax.hessian(objective)(jnp.asarray(estimates.ravel())))
        gradient = np.asarray(jax.grad(objective)(jnp.asarray(estimates.ravel())))
    assert_allclose(gradient, 0, atol=1e-6 * weights.sum())
    centre = np.kron(np.eye(num_classes) - 1 / num_classes, np.eye(K))
    covariance = centre @ np.linalg.inv(H) @ centre
    errors = np.sqrt(np.diag(covariance)).reshape(-1, K)
    assert_allclose(column(rows, "standard_error", K), errors, rtol=1e-7)


@pytest.mark.parametrize("covariance", inference.COVARIANCES)
@pytest.mark.parametrize("reference", [0, 2])
def test_contrasts_without_a_penalty_are_those_of_statsmodels(covariance, reference):
    mnlogit = pytest.importorskip("statsmodels.api").MNLogit
    x, y = examples(300)
    x = x * [1.0, 50.0, 1e-3] + [0.0, 1000.0, 0.0]  # features in any units
    groups = np.arange(len(y)) // 6
    own = {"cov_type": "nonrobust"}
    if covariance != "observed":
        own = {"cov_type": "cluster" if covariance == "clustered" else "HC0"}
    if covariance == "clustered":
        own["cov_kwds"] = {"groups": groups}
    design = np.append(x, np.ones((len(x), 1)), 1)
    # Its reference is the first class: the wanted one becomes that.
    found = mnlogit((y - reference) % 3, design).fit(method="newton", maxiter=100, disp=0, **own)
    rows = inference.table(
        fitted(x, y, C=np.inf),
        *(x, y),
        covariance=covariance,
        groups=groups if covariance == "clustered" else None,
        reference=reference,
    )
    order = [(reference + 1) % 3, (reference + 2) % 3]
    by_class = {label: [row for row in rows if row["class"] == label] for label in order}
    rows = [row for label in order for row in by_class[label]]
    assert_allclose(column(rows, "estimate", 4), np.asarray(found.params).T, rtol=1e-6, atol=1e-6)
    # It has no HC1 beside HC0 for this model: the factor is that of its linear models.
    factor = np.sqrt(300 / (300 - 8)) if covariance == "HC1" else 1.0
    errors = factor * np.asarray(found.bse).T
    assert_allclose(column(rows, "standard_error", 4), errors, rtol=1e-6)
    expected = 2 * stats.norm.sf(abs(np.asarray(found.params).T / errors))
    assert_allclose(column(rows, "p_value", 4), expected, atol=1e-6)
    assert [row["feature"] for row in rows[:4]] == ["x0", "x1", "x2", "intercept"]


@pytest.mark.parametrize("covariance", inference.COVARIANCES)
def test_weight_k_is_k_copies_and_weight_0_is_absence(covariance):
    x, y = examples(80)
    weights = np.random.default_rng(2).integers(0, 3, 80)
    groups = np.arange(80) // 4
    clustered = covariance == "clustered"

    def of(rows, own):
        fit = fitted(x[rows], y[rows], own, l2=0.05, class_weight={0: 1.0, 1: 2.0, 2: 0.5})
        given = {"groups": groups[rows] if clustered else None, "covariance": covariance}
        found = inference.table(fit, x[rows], y[rows], sample_weight=own, **given)
        return column(found, "standard_error", 4), inference.leave_one_out(
            fit, x[rows], y[rows], sample_weight=own
        )

    everything = np.arange(80)
    errors, left_out = of(everything, weights.astype(float))
    copied = np.repeat(everything, weights)
    others, others_left_out = of(copied, None)
    assert_allclose(errors, others, rtol=1e-5)
    assert_allclose(np.repeat(left_out, weights, 0), others_left_out, rtol=1e-5)


@pytest.mark.parametrize("l2", [0.5, 0.02])
@pytest.mark.parametrize("class_weight", [None, {0: 1.0, 1: 3.0, 2: 0.5}])
def test_leave_one_out_is_near_that_of_refits(l2, class_weight):
    x, y = examples(60)
    options = {"class_weight": class_weight, "l2": l2}
    fit = fitted(x, y, **options)
    estimated = inference.leave_one_out(fit, x, y)
    total = fit.l2_ * fitted_weight(fit, y).sum()  # the penalty of the sum stays
    refits = []
    for i in range(60):
        rest = np.arange(60) != i
        l2_of_rest = total / fitted_weight(fit, y[rest]).sum()
        refits.append(fitted(x[rest], y[rest], **options | {"l2": l2_of_rest}).predict_proba(x)[i])
    mean = [-np.log(p[np.arange(60), y]).mean() for p in (estimated, np.array(refits))]
    assert mean[0] == pytest.approx(mean[1], rel=1e-4)
    inside = -np.log(fit.predict_proba(x)[np.arange(60), y]).mean()
    assert abs(mean[0] - mean[1]) < 0.1 * abs(inside - mean[1])


def fitted_weight(fit, y):
    return fit.class_weight_[y]


def test_classifier_of_a_run_has_the_table_of_the_estimator():
    """In raw units, whatever the run normalised by; its penalty is read off the optimum."""
    x, y = examples(200)
    x = (x * [1.0, 20.0, 0.1] + [0.0, 300.0, 5.0]).astype(np.float32)
    splits = data.from_arrays((x, y), (x[:50].copy(), y[:50]))
    options = {
        "num_epochs": 300,
        "solver": sweep.LBFGS(tolerance=1e-7),
        "objective": sweep.Objective(standardize=True),
    }
    result = sweep.fit(splits.train, splits.val, sweep.grid(l2=0.03), **options)
    found = inference.table(result.classifier(0), x, y)
    scale = x.astype(np.float64).std(0)
    model = fitted((x - x.mean(0)) / scale, y, l2=0.03)
    expected = inference.table(model, (x - x.mean(0)) / scale, y)
    for name in ("estimate", "standard_error"):
        own, others = column(found, name, 4)[:, :3], column(expected, name, 4)[:, :3]
        assert_allclose(own, others / scale, rtol=2e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"covariance": "HC2"}, "none of observed, HC0, HC1, clustered"),
        ({"covariance": "clustered"}, "needs groups"),
        ({"groups": np.zeros(120)}, "no other takes them"),
        ({"covariance": "clustered", "groups": np.zeros(120)}, "one group"),
        ({"covariance": "clustered", "groups": np.zeros(7)}, "shape"),
        ({"reference": 3}, "position of a class: 0 to 2"),
        ({"reference": "b"}, "position of a class"),
        ({"reference": True}, "position of a class"),
        ({"covariance": "clustered", "groups": np.full(120, np.nan)}, "missing values"),
        ({"covariance": "clustered", "groups": np.array([None] * 120)}, "missing values"),
        ({"sample_weight": np.zeros(120)}, "no examples that count"),
        ({"sample_weight": np.full(120, np.nan)}, "finite"),
    ],
)
def test_arguments_are_checked(change, message, untyped):  # noqa: ARG001
    x, y = examples()
    with pytest.raises(ValueError, match=message):
        inference.table(fitted(x, y, l2=0.1), x, y, **change)


def test_what_has_no_errors_is_refused():
    x, y = examples()
    fit = fitted(x, y, l2=0.01)
    with pytest.raises(ValueError, match="not at the optimum"):
        inference.table(fit, x[::-1], y)
    with pytest.raises(ValueError, match="does not know the label"):
        inference.table(fit, x, y + 7)
    with pytest.raises(ValueError, match="3 features"):
        inference.table(fit, x[:, :2], y)
    twice = np.append(x, x[:, :1], 1)
    with pytest.raises(ValueError, match="singular"):
        inference.table(fitted(twice, y, C=np.inf), twice, y)
    inference.table(fitted(twice, y, l2=0.01), twice, y)  # the penalty holds them
    with pytest.raises(ValueError, match="no model that has been fitted"):
        inference.table(SoftmaxRegression(), x, y)
    with pytest.raises(ValueError, match="labels y"):
        inference.table(fit, x, np.eye(3)[y])
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    with pytest.raises(ValueError, match="another order"):
        inference.table(fitted(frame, y, l2=0.01), frame[["b", "a", "c"]], y)
    x, y = np.array([[0.0], [1], [2], [3]]), np.array([0, 0, 1, 1])
    with pytest.warns(ConvergenceWarning):
        separated = SoftmaxRegression(C=np.inf).fit(x, y)
    with pytest.raises(ValueError, match="separable|separates"):
        inference.table(separated, x, y)


@pytest.mark.slow
@pytest.mark.parametrize("covariance", ["observed", "HC0"])
def test_intervals_cover_the_truth_as_often_as_they_say(covariance):
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(2, 3)) / 2, np.array([0.3, 0.0, -0.3])
    W, b = W - W.mean(1, keepdims=True), b - b.mean()
    truth = np.append(W, b[None], 0).T
    inside = []
    for _ in range(400):
        x = rng.normal(size=(500, 2))
        y = (special.log_softmax(x @ W + b, 1) + rng.gumbel(size=(500, 3))).argmax(1)
        fit = SoftmaxRegression(C=np.inf, tol=1e-8).fit(x, y)
        rows = inference.table(fit, x, y, covariance=covariance)
        low, high = column(rows, "low", 3), column(rows, "high", 3)
        inside.append((low <= truth) & (truth <= high))
    assert 0.93 < np.mean(inside) < 0.97


def test_p_values_of_noise_are_uniform():
    found = []
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=(150, 4))
        y = np.random.default_rng(1000 + seed).integers(0, 2, 150)
        rows = inference.table(SoftmaxRegression(C=np.inf).fit(x, y), x, y, reference=0)
        found += [row["p_value"] for row in rows[:4]]
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def mnlogit(x, y):
    sm = pytest.importorskip("statsmodels.api")
    return sm.MNLogit(y, np.append(x, np.ones((len(x), 1)), 1))


def test_summary_without_a_penalty_is_that_of_statsmodels():
    x, y = examples(300)
    model, found = mnlogit(x, y), fitted(x, y, C=np.inf).summary(x, y)
    expected = model.fit(method="newton", maxiter=100, disp=0)
    for name, own in (
        ("log_likelihood", expected.llf),
        ("null_log_likelihood", expected.llnull),
        ("aic", expected.aic),
        ("bic", expected.bic),
        ("pseudo_r2", expected.prsquared),
        ("degrees_of_freedom", 8),
        ("num_examples", 300),
    ):
        assert_allclose(getattr(found, name), own, rtol=1e-6)
    estimates = np.asarray(expected.params).T
    assert_allclose(column(found.rows, "estimate", 4), estimates, rtol=1e-6)
    assert_allclose(column(found.rows, "odds_ratio", 4), np.exp(estimates), rtol=1e-6)
    assert found.reference == 0 and {row["class"] for row in found.rows} == {1, 2}
    text, page = str(found), found._repr_html_()
    for row in found.rows:
        for name in ("estimate", "standard_error", "low", "high"):
            assert f"{row[name]:.4f}" in text and f"{row[name]:.4f}" in page
    assert f"{found.log_likelihood:.4f}" in text and f"{found.aic:.2f}" in page
    assert [row for row in inference.table(fitted(x, y, C=np.inf), x, y, reference=0)] == [
        {k: v for k, v in row.items() if k != "odds_ratio"} for row in found.rows
    ]


def test_effective_parameters_are_the_change_of_the_fit_by_the_labels():
    """tr(H⁻¹H₀) with both Hessians by jax, and between nothing and all parameters."""
    x, y = examples(100)
    found = []
    for l2 in (1e-6, 0.01, 1.0, 1e4):
        fit = fitted(x, y, l2=l2)
        found.append(inference.summary(fit, x, y, reference=None).degrees_of_freedom)
        z = np.append(x, np.ones((100, 1)), 1)
        p = fit.predict_proba(x)
        blocks = np.einsum("nc,cd->ncd", p, np.eye(3)) - p[:, :, None] * p[:, None]
        H0 = np.einsum("ncd,nk,nl->ckdl", blocks, z, z).reshape(12, 12)
        penalty = np.tile(np.append(np.full(3, l2 * 100), 0), 3)
        assert found[-1] == pytest.approx(np.trace(np.linalg.pinv(H0 + np.diag(penalty)) @ H0))
    assert 8 > found[0] > found[1] > found[2] > found[3] > 2
    assert found[0] == pytest.approx(8, abs=1e-3) and found[3] == pytest.approx(2, abs=1e-2)


def test_summary_escapes_names_and_knows_those_of_a_run():
    x, y = examples(80)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x, columns=["<b>age</b>", "x\ny", "z"])
    fit = fitted(frame, np.array(["<a>", "b", "c"])[y], l2=0.1)
    found = fit.summary(frame, np.array(["<a>", "b", "c"])[y], reference=2)
    page = found._repr_html_()
    assert "&lt;b&gt;age" in page and "<b>age" not in page and "&lt;a&gt;" in page
    assert found.reference == "c" and re.search(r"against +c\n", str(found))
    assert "x\ny" not in str(found)
    splits = data.from_arrays((frame, y), (frame[:20], y[:20]))
    options = {"num_epochs": 300, "solver": sweep.LBFGS(tolerance=1e-6)}
    run = sweep.fit(splits.train, splits.val, sweep.grid(l2=0.1), **options).classifier(0)
    rows = run.summary(x.astype(np.float32), y)
    assert [row["feature"] for row in rows.rows[:4]] == [*frame.columns, "intercept"]
    assert rows.l2 == pytest.approx(0.1, rel=1e-2)


@pytest.mark.parametrize("covariance", ["observed", "HC0", "clustered"])
def test_marginal_effects_are_those_of_statsmodels(covariance):
    x, y = examples(300)
    x = x * [1.0, 50.0, 1e-3] + [0.0, 100.0, 0.0]
    groups = np.arange(300) // 6
    own = {"cov_type": "nonrobust" if covariance == "observed" else covariance}
    if covariance == "clustered":
        own = {"cov_type": "cluster", "cov_kwds": {"groups": groups}}
    model = mnlogit(x, y).fit(method="newton", maxiter=100, disp=0, **own)
    expected = model.get_margeff(at="overall", method="dydx")
    given = {"groups": groups} if covariance == "clustered" else {}
    fit = fitted(x, y, C=np.inf)
    rows = inference.marginal_effects(fit, x, y, covariance=covariance, **given)
    effects = column(rows, "estimate", 3)
    assert_allclose(effects, np.asarray(expected.margeff).T, rtol=1e-6, atol=1e-9)
    errors = column(rows, "standard_error", 3)
    assert_allclose(errors, np.asarray(expected.margeff_se).T, rtol=1e-6)
    assert_allclose(effects.sum(0), 0, atol=1e-12)


def test_marginal_effects_are_derivatives_of_the_probabilities():
    """With a penalty, class weights and weights: by differences of predict_proba."""
    x, y = examples(120)
    weights = np.random.default_rng(1).integers(0, 3, 120).astype(float)
    fit = fitted(x, y, weights, l2=0.02, class_weight={0: 1.0, 1: 3.0, 2: 0.5})
    rows = inference.marginal_effects(fit, x, y, sample_weight=weights)
    for d in range(3):
        step = 1e-4 * np.eye(3)[d]
        change = (fit.predict_proba(x + step) - fit.predict_proba(x - step)) / 2e-4
        expected = np.average(change, 0, weights)
        assert_allclose(column(rows, "estimate", 3)[:, d], expected, atol=1e-6)


@pytest.mark.parametrize("features", [["x1"], [0, "x2"], [2, 0, 1]])
def test_tests_of_features_are_those_of_statsmodels(features):
    x, y = examples(300)
    model = mnlogit(x, y)
    full = model.fit(method="newton", maxiter=100, disp=0)
    fit = fitted(x, y, C=np.inf)
    places = {"x0": 0, "x1": 1, "x2": 2}
    columns = [places.get(feature, feature) for feature in features]
    R = np.zeros((2 * len(columns), 8))
    for row, (c, k) in enumerate((c, k) for c in range(2) for k in columns):
        R[row, 4 * c + k] = 1  # its parameters are class by class
    expected = full.wald_test(R, scalar=True)
    found = inference.wald_test(fit, x, y, features=features)
    assert found["statistic"] == pytest.approx(float(expected.statistic), rel=1e-6)
    assert found["p_value"] == pytest.approx(float(expected.pvalue), rel=1e-5)
    assert found["degrees_of_freedom"] == 2 * len(columns)
    smaller = type(model)(y, np.delete(model.exog, columns, 1))
    reduced = smaller.fit(method="newton", maxiter=100, disp=0)
    statistic = 2 * (full.llf - reduced.llf)
    found = inference.likelihood_ratio_test(fit, x, y, features=features)
    assert found["statistic"] == pytest.approx(statistic, rel=1e-6)
    assert found["p_value"] == pytest.approx(stats.chi2.sf(statistic, 2 * len(columns)), rel=1e-5)


@pytest.mark.parametrize("test", [inference.wald_test, inference.likelihood_ratio_test])
@pytest.mark.parametrize(
    "features, message",
    [
        ("x1", "a list"),
        ([], "a list"),
        (["age"], "no feature 'age'"),
        (["intercept"], "no feature 'intercept'"),
        ([3], "no feature 3"),
        ([-1], "no feature -1"),
        ([1, "x1"], "names one twice"),
        ([False, True], "no feature False"),
        (None, "a list"),
        (1, "a list"),
    ],
)
def test_tests_refuse_features_that_are_none(test, features, message, untyped):  # noqa: ARG001
    x, y = examples()
    with pytest.raises(ValueError, match=message):
        test(fitted(x, y, C=np.inf), x, y, features=features)


def test_tests_refuse_what_has_no_distribution():
    x, y = examples()
    for options in ({"l2": 0.1}, {"C": np.inf, "class_weight": {0: 1.0, 1: 2.0, 2: 1.0}}):
        with pytest.raises(ValueError, match="without a penalty"):
            inference.likelihood_ratio_test(fitted(x, y, **options), x, y, features=[0])
    model = fitted(x, y, C=np.inf)
    given = {"groups": np.arange(120) // 60, "covariance": "clustered"}
    with pytest.raises(ValueError, match="give more groups"):
        inference.wald_test(model, x, y, features=[0, 1], **given)


def test_p_values_of_both_tests_are_uniform_for_noise():
    found = []
    for seed in range(60):
        x = np.random.default_rng(seed).normal(size=(150, 3))
        y = np.random.default_rng(1000 + seed).integers(0, 2, 150)
        fit = SoftmaxRegression(C=np.inf).fit(x, y)
        for test in (inference.wald_test, inference.likelihood_ratio_test):
            found.append(test(fit, x, y, features=["x0", "x2"])["p_value"])
    assert stats.kstest(found[::2], "uniform").pvalue > 1e-3
    assert stats.kstest(found[1::2], "uniform").pvalue > 1e-3
