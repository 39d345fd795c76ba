"""Standard errors and leave-one-out: against jax.hessian, statsmodels, refits, and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

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
