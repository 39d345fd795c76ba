"""The certified optimum against SciPy's, its certificate, and what is refused.

`estimator_agreement_test` compares it with scikit-learn's on datasets.
"""

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse, special

from softmax_jax import optimum
from softmax_jax.optimum import Problem, certificate, minimise
from tests.optimum_problems import random_problem

pytestmark = pytest.mark.numerical

L2 = np.array([1e-3, 1e-1])


def objective(W, b, x, y, weights, l2):
    """By definition, in float64."""
    W = np.asarray(W, np.float64)
    logits = x @ W + b
    loss = special.logsumexp(logits, 1) - logits[np.arange(len(y)), y]
    return (weights * loss).sum() / weights.sum() + l2 / 2 * (W**2).sum()


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def minimum(problem, l2):
    """The minimum by SciPy's trust-exact, with derivatives from their definition, to ~1e-15."""
    x = np.append(problem.x, np.full((len(problem.y), 1), float(problem.fit_bias)), 1)
    fractions = problem.weights / problem.weights.sum()
    labels = np.eye(problem.num_classes)[problem.y]
    penalty = np.full((x.shape[1], problem.num_classes), l2)
    penalty[-1] = 0

    def value(v):
        params = v.reshape(penalty.shape)
        return objective(params[:-1], params[-1], problem.x, problem.y, problem.weights, l2)

    def gradient(v):
        p = special.softmax(x @ v.reshape(penalty.shape), 1)
        return (x.T @ ((p - labels) * fractions[:, None])).ravel() + penalty.ravel() * v

    def hessian(v):
        p = special.softmax(x @ v.reshape(penalty.shape), 1)
        inner = np.einsum("nc,cd->ncd", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None]
        full = np.einsum("n,nj,nk,ncd->jckd", fractions, x, x, inner, optimize=True)
        return full.reshape(v.size, v.size) + np.diag(penalty.ravel())

    options = {"gtol": 1e-11, "maxiter": 500}
    zeros = np.zeros(penalty.size)
    found = optimize.minimize(
        value, zeros, jac=gradient, hess=hessian, method="trust-exact", options=options
    )
    v = found.x
    for _ in range(3):
        v = v - np.linalg.lstsq(hessian(v), gradient(v), rcond=1e-13)[0]
    assert abs(gradient(v)).max() < 1e-11
    return value(v)


@pytest.mark.usefixtures("float64")
def test_gap_bound_is_never_below_the_true_gap():
    for seed in range(12):
        problem = random_problem(seed)
        best = np.array([minimum(problem, l2) for l2 in L2])
        prepared = optimum.prepare(problem)
        state = optimum.start(prepared, *optimum.check_trials(prepared, L2))
        bounds = [np.asarray(state.gap_bound)]
        assert (bounds[0] >= np.asarray(state.objective) - best).all()
        for reached in optimum.iterate(prepared, state, tolerance=1e-11, segment=1 + seed % 4):
            found = optimum.report(prepared, reached)
            values = [
                objective(found.W[t], found.b[t], *problem[:3], l2) for t, l2 in enumerate(L2)
            ]
            np.testing.assert_allclose(found.objective, values, rtol=1e-12)
            assert (found.gap_bound >= values - best - 1e-14).all()
            assert np.isfinite(found.gap_bound).all()
            proved = found.gap_bound <= 1e-11 * found.objective
            np.testing.assert_array_equal(found.converged, proved)
            bounds.append(found.gap_bound)
        assert found.converged.all() and len(bounds) > 3
        np.testing.assert_allclose(found.objective, best, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_gap_bound_is_within_a_thousand_true_gaps():
    problem = random_problem(0)
    found = minimise(problem, L2, tolerance=1e-2)
    best = [minimum(problem, l2) for l2 in L2]
    assert (found.gap_bound < 1000 * (found.objective - best)).all()


@pytest.mark.slow
def test_trials_together_match_single_trials():
    prepared = optimum.prepare(random_problem(1))
    l2, columns = np.array([1e-3, 1e-1]), np.array([1, 0])
    together = minimise(prepared, l2, columns=columns, tolerance=1e-5)
    for t in range(2):
        alone = minimise(prepared, l2[[t]], columns=columns[[t]], tolerance=1e-5)
        np.testing.assert_allclose(alone.objective[0], together.objective[t], rtol=1e-5)
        np.testing.assert_allclose(alone.W[0], together.W[t], atol=2e-2)
    assert together.iterations[1] < together.iterations[0]


@pytest.mark.usefixtures("float64")
def test_weight_k_matches_k_copies():
    problem = random_problem(2, weighted=False)
    counts = problem.resamples[:, 1]
    assert counts.min() == 0 and counts.max() > 1
    rows = np.repeat(np.arange(40), counts)
    copied = problem._replace(x=problem.x[rows], y=problem.y[rows])
    expected = minimise(copied, L2, tolerance=1e-12)
    for weights, column in ((counts * 0.7, 0), (None, 1)):
        one = problem._replace(weights=weights)
        found = minimise(one, L2, columns=[column] * 2, tolerance=1e-12)
        np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-11)
        np.testing.assert_allclose(found.W, expected.W, atol=1e-5)


@pytest.mark.usefixtures("float64")
def test_gradient_at_the_optimum_is_zero():
    problem = random_problem(4)
    found = minimise(problem, L2, tolerance=1e-11)
    fractions = problem.weights / problem.weights.sum()
    for t, l2 in enumerate(L2):
        p = special.softmax(problem.x @ found.W[t] + found.b[t], 1)
        residual = (p - np.eye(3)[problem.y]) * fractions[:, None]
        np.testing.assert_allclose(residual.sum(0), 0, atol=1e-13)
        gradient = problem.x.T @ residual + l2 * found.W[t]
        np.testing.assert_allclose(np.linalg.norm(gradient), found.gradient_norm[t], rtol=1e-4)
        assert found.gap_bound[t] == pytest.approx(found.gradient_norm[t] ** 2 / (2 * l2))
        penalty = l2 / 2 * (found.W[t] ** 2).sum()
        assert found.loss[t] + penalty == pytest.approx(found.objective[t], rel=1e-12)


def test_trial_out_of_iterations_is_not_converged():
    problem = random_problem(1)
    found = minimise(problem, [1e-4, 100.0], tolerance=1e-5, max_iterations=3)
    assert found.converged.tolist() == [False, True]
    assert found.iterations[0] == 3
    assert found.gap_bound[0] > 1e-5 * found.objective[0]


def test_start_at_the_optimum_takes_at_most_one_iteration():
    """A start that is lower than what the leader's optimum leads to is kept."""
    problem = random_problem(1)
    first = minimise(problem, L2, tolerance=1e-5)
    again = minimise(problem, L2, tolerance=1e-4, initial=(first.W, first.b))
    assert again.converged.all() and again.iterations.max() <= 1
    np.testing.assert_allclose(again.W, first.W, atol=1e-2)


def test_separable_data_without_penalty_is_reported():
    problem = random_problem(0)
    apart = problem._replace(x=problem.x / problem.x.std() + 20 * np.eye(3)[problem.y])
    found = minimise(apart, [0.0, 0.1])
    assert found.separable.tolist() == [True, False]
    assert found.converged.tolist() == [False, True]
    assert found.iterations[0] < 200 and found.gap_bound[0] == np.inf


@pytest.mark.usefixtures("float64")
def test_convergence_without_penalty_is_judged_by_the_gradient():
    problem = random_problem(5)
    found = minimise(problem, [0.0, 1.0], tolerance=1e-7)
    assert found.converged[0] and not found.separable[0] and found.gap_bound[0] == np.inf
    # The loss does not change when every class gets the same weights: the minimum is a line.
    assert found.objective[0] == pytest.approx(minimum(problem, 0.0), rel=1e-10)


@pytest.mark.usefixtures("float64")
def test_optimum_without_bias_minimises_over_the_weights_alone():
    problem = random_problem(9)._replace(fit_bias=False)
    best = np.array([minimum(problem, l2) for l2 in L2])
    rough = minimise(problem, L2, tolerance=1e-2)
    found = minimise(problem, L2, tolerance=1e-11, initial=(rough.W, rough.b))
    for each in (rough, found):
        values = [objective(each.W[t], 0, *problem[:3], l2) for t, l2 in enumerate(L2)]
        np.testing.assert_allclose(each.objective, values, rtol=1e-12)
        assert not each.b.any() and (each.gap_bound >= values - best - 1e-14).all()
    assert found.converged.all() and found.iterations.min() > 1
    np.testing.assert_allclose(found.objective, best, rtol=1e-10)
    with_bias = minimise(problem._replace(fit_bias=True), L2, tolerance=1e-11)
    assert (with_bias.objective < found.objective * 0.99).all()


@pytest.mark.usefixtures("float64")
def test_missing_class_gets_no_weights():
    problem = random_problem(1)
    two = problem._replace(y=np.minimum(problem.y, 1), num_classes=2)
    found = minimise(two._replace(num_classes=3), L2, tolerance=1e-10)
    np.testing.assert_allclose(found.objective, [minimum(two, l2) for l2 in L2], rtol=1e-9)
    assert abs(found.W[:, :, 2]).max() < 1e-12
    assert found.converged.all() and np.isfinite(found.b).all()


@pytest.mark.parametrize("value", [0.0, 1234.567])
def test_constant_column_gets_no_weights(value):
    problem = random_problem(1)
    problem.x[:, 1] = value
    found = minimise(problem, L2)
    assert found.converged.all() and (found.W[:, 1] == 0).all()
    np.testing.assert_allclose(found.objective, [minimum(problem, l2) for l2 in L2], rtol=2e-4)


@pytest.mark.parametrize("x64", [True, False])
def test_constant_columns_get_no_weights_without_penalty(x64):
    problem = random_problem(1)
    problem.x[:, [0, 2]] = 0
    with jax.enable_x64(x64):
        found = minimise(problem, [0.0, 1e-9], tolerance=1e-5)
    assert found.converged[0] and not found.W[0, [0, 2]].any()
    np.testing.assert_allclose(found.objective, minimum(problem, 0.0), rtol=5e-6)


@pytest.mark.parametrize("order", range(4))
def test_float32_reaches_the_optimum_in_any_order_of_examples(order):
    """Sums in another order round as on another machine."""
    problem = random_problem(1)
    rows = np.random.default_rng(order).permutation(40)
    problem = problem._replace(x=problem.x[rows], y=problem.y[rows], weights=problem.weights[rows])
    problem = problem._replace(resamples=problem.resamples[rows])
    found = minimise(problem, L2, tolerance=1e-7)
    assert found.W.dtype == np.float32 and found.converged.all()
    best = [minimum(problem, l2) for l2 in L2]
    values = [objective(found.W[t], found.b[t], *problem[:3], l2) for t, l2 in enumerate(L2)]
    np.testing.assert_allclose(values, best, rtol=2e-7)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_rounding_is_not_amplified_with_more_features_than_examples():
    """The same sums in two orders, under little penalty."""
    rng = np.random.default_rng(0)
    x, y, order = rng.uniform(size=(20, 30)), rng.integers(0, 3, 20), rng.permutation(20)
    one = minimise(Problem(x, y), [1e-3], tolerance=1e-6)
    other = minimise(Problem(x[order], y[order]), [1e-3], tolerance=1e-6)
    assert one.iterations == other.iterations > 15
    np.testing.assert_allclose(one.W, other.W, atol=1e-10)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_a_problem_needs_an_example_and_a_feature(form):
    for shape in ((5, 0), (0, 5)):
        y = np.arange(shape[0]) % 2
        with pytest.raises(ValueError, match="with an example and a feature"):
            optimum.minimise(optimum.Problem(form(np.zeros(shape)), y), [0.1])


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_optimum_with_more_features_than_examples_is_exact():
    problem = random_problem(6, num_examples=20, num_features=30)
    found = minimise(problem, L2, tolerance=1e-10)
    expected = [minimum(problem, l2) for l2 in L2]
    np.testing.assert_allclose(found.objective, expected, rtol=1e-9)


def test_second_problem_of_equal_shape_compiles_nothing():
    minimise(random_problem(7), L2)
    traces = optimum.start._cache_size(), optimum.advance._cache_size()
    minimise(random_problem(8), 2 * L2, tolerance=1e-3, max_iterations=50)
    assert (optimum.start._cache_size(), optimum.advance._cache_size()) == traces


@pytest.mark.parametrize(
    "change, words",
    [
        ({"x": np.full((40, 3), np.nan)}, "NaN"),
        ({"x": np.zeros((39, 3))}, "N, D"),
        ({"y": np.full(40, -1)}, "Labels"),
        ({"y": np.zeros(40)}, "Labels"),
        ({"num_classes": 2}, "classes"),
        ({"weights": np.zeros(40)}, "Weights"),
        ({"weights": -np.ones(40)}, "Weights"),
        ({"weights": np.full(40, np.nan)}, "Weights"),
        ({"weights": np.full(40, np.inf)}, "Weights"),
        ({"weights": np.ones(40, complex)}, "weights must be numbers"),
        ({"weights": np.ones(39)}, "weights must be numbers"),
        ({"resamples": np.ones((39, 2))}, "resamples"),
        ({"resamples": np.zeros((40, 1))}, "resample"),
        ({"resamples": -np.ones((40, 1))}, "counts of resamples"),
        ({"resamples": np.full((40, 1), np.nan)}, "counts of resamples"),
        ({"resamples": np.ones(40)}, "resamples must be counts"),
        ({"x": np.ones((40, 3), complex)}, "x must be real"),
        ({"num_classes": 3.0}, "num_classes must be a whole number"),
        ({"num_classes": True}, "num_classes must be a whole number"),
        ({"fit_bias": "no"}, "fit_bias must be True or False"),
    ],
)
def test_invalid_problem_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        optimum.prepare(random_problem()._replace(**change))


@pytest.mark.parametrize(
    "l2, more, words",
    [
        ([-1.0], {}, "l2"),
        ([np.nan], {}, "l2"),
        ([], {}, "l2"),
        ([np.inf], {}, "l2"),
        ([1e39], {}, "l2 must be at least 0 and at most 3.4"),  # infinite in float32
        ([1j], {}, "l2"),
        ([True], {}, "l2"),
        (["0.1"], {}, "l2"),
        ([1.0], {"columns": [2]}, "columns"),
        ([1.0], {"columns": [0.5]}, "columns"),
        ([1.0], {"initial": (np.zeros((1, 3, 2)), np.zeros((1, 2)))}, "initial"),
        ([1.0], {"initial": (np.zeros((1, 3, 3)), np.ones((1, 3)))}, "fit_bias"),
        ([1.0], {"initial": (np.full((1, 3, 3), np.nan), np.ones((1, 3)))}, "initial W"),
    ],
)
def test_invalid_trials_are_refused(l2, more, words):
    problem = random_problem()._replace(fit_bias=words != "fit_bias")
    with pytest.raises(ValueError, match=words):
        minimise(problem, l2, **more)


NUMBERS = (0, -1, np.nan, np.inf, 1j, True, "2", None, [3], np.array([1.0]))
WHOLES = ("max_iterations", "segment", "num")


@pytest.mark.parametrize(
    "name, value",
    [
        *(("tolerance", value) for value in NUMBERS),
        *((name, value) for name in WHOLES for value in (2.5, *NUMBERS[1:])),
        ("segment", 0),
        ("num", 0),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_invalid_options_are_refused(name, value):
    prepared = optimum.prepare(random_problem())
    with pytest.raises(ValueError, match=f"^{name} must be"):
        if name == "num":
            optimum.l2_path(prepared, value)
        elif name == "segment":
            next(optimum.iterate(prepared, None, segment=value))
        else:
            minimise(prepared, [0.1], **{name: value})


def test_labels_of_the_largest_value_of_their_type_have_a_class():
    """255 + 1 is 0 in uint8."""
    problem = Problem(np.arange(256.0)[:, None], np.arange(256, dtype=np.uint8))
    assert len(optimum.prepare(problem).priors) == 256


@settings(derandomize=True, deadline=None, database=None, max_examples=25)
@given(st.floats(5e-324, 3e307))
@example(5e36)
@example(1e-39)
@example(5e-324)
def test_scale_of_the_weights_changes_nothing(scale):
    """The objective is a mean; a number of the smallest ones has one digit."""
    problem = random_problem(1)
    counts = np.round(problem.weights)
    scaled = optimum.prepare(problem._replace(weights=scale * counts))
    plain = optimum.prepare(problem._replace(weights=counts))
    for name in ("weights", "priors", "mean", "features"):
        ours, expected = (np.asarray(getattr(each, name)) for each in (scaled, plain))
        if name == "weights":
            ours, expected = ours / ours.max(), expected / expected.max()
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [5e36, 1e-39, 1e308 / 3, 5e-324])
def test_optimum_is_that_of_any_unit_of_the_weights(scale):
    problem = random_problem(1)
    counts = np.round(problem.weights)
    plain = minimise(problem._replace(weights=counts), L2)
    found = minimise(problem._replace(weights=scale * counts), L2)
    assert found.converged.all()
    np.testing.assert_allclose(found.objective, plain.objective, rtol=1e-6)


def test_resample_of_weights_that_float32_loses_is_refused():
    problem = random_problem(1)
    weights = np.where(np.arange(40) < 20, 1.0, 1e-60)
    counts = np.stack([np.ones(40), np.arange(40) >= 20], 1)
    with pytest.raises(ValueError, match="resample leaves no example .* lost .* float32"):
        optimum.prepare(problem._replace(weights=weights, resamples=counts))


def in_part(kind):
    """x, y whose optimum without a penalty is at infinity; no weights are right everywhere."""
    rng = np.random.default_rng(0)
    if kind == "one tie":
        return np.array([[0.0], [1], [2], [2], [3], [4]]), np.array([0, 0, 0, 1, 1, 1])
    x, y = rng.normal(size=(80, 3)), rng.integers(0, 4, 80)
    if kind == "one class far from three":
        x[y == 3] += 30
    if kind == "a feature that only one class has":
        x[:, 2] = (y == 1) * (rng.uniform(size=80) < 0.3)
    return x, y


@pytest.mark.parametrize(
    "kind", ["one tie", "one class far from three", "a feature that only one class has"]
)
def test_separation_in_part_is_reported(kind):
    found = minimise(Problem(*in_part(kind)), [0.0, 0.1], tolerance=1e-5)
    assert found.separable.tolist() == [True, False]
    assert found.converged.tolist() == [False, True]


def test_labels_that_are_nearly_as_probable_as_others_are_not_separable():
    """Both labels at both places, 4 to 6: the optimum is finite, and no probability is below .4."""
    x, y, weights = np.array([[0.0], [0], [1], [1]]), np.array([0, 1, 0, 1]), [4.0, 6, 6, 4]
    found = minimise(Problem(x, y, np.array(weights)), [0.0, 0.1], tolerance=1e-5)
    assert found.converged.all() and not found.separable.any()


@settings(derandomize=True, deadline=None, database=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 3), st.sampled_from([1e-5, 1, 1e6]))
def test_separation_in_part_is_found_and_nothing_else(seed, num_classes, size):
    """Each place has every label, so no margin is positive; a feature of one example has one."""
    places = np.random.default_rng(seed).normal(size=(12, 2))
    x, y = size * places.repeat(num_classes, 0) + 3, np.tile(np.arange(num_classes), 12)
    flag = np.zeros((len(x), 1))
    assert certificate.recedes(optimum.prepare(Problem(np.append(x, flag, 1), y))) is False
    flag[5] = 1
    assert certificate.recedes(optimum.prepare(Problem(np.append(x, flag, 1), y))) is True


def test_separation_in_part_counts_examples_and_classes_that_have_weight():
    x, y = in_part("one class far from three")
    counts = np.stack([np.ones(80), y != 3, y == 3], 1)
    prepared = optimum.prepare(Problem(x, y, resamples=counts))
    assert [certificate.recedes(prepared, column) for column in range(3)] == [True, False, False]


@pytest.mark.numerical
def test_objective_of_many_examples_keeps_its_digits():
    """Labels that the feature does not tell: the optimum is known, and each class has one loss."""
    N = 400_000
    y = (np.arange(N) % 100 == 0).astype(int)
    x = (np.arange(N) % 2)[:, None].astype(np.float32)  # 100 is even: x = 0 for the rare class
    x[y == 1] = np.arange(N // 100)[:, None] % 2
    expected = -(0.99 * np.log(0.99) + 0.01 * np.log(0.01))
    problem = Problem(x, y)
    found = minimise(problem, [10.0])
    np.testing.assert_allclose(found.objective, expected, rtol=1e-6)
