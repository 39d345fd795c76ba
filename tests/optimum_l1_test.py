"""Sparse weights at the optimum: the KKT conditions, the duality gap, exact zeros, the path."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from softmax_jax import optimum
from softmax_jax.optimum import minimise
from softmax_jax.optimum.l1 import leaders
from tests.optimum_problems import random_problem

pytestmark = pytest.mark.numerical

PENALTIES = {
    "l1": (0.0, 0.02, 0.0),
    "group": (0.0, 0.0, 0.08),
    "both": (0.0, 0.02, 0.04),
    "elastic net": (0.01, 0.02, 0.0),
    "all": (0.01, 0.01, 0.01),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def problem(seed=0, **more):
    """One in which some of eight features matter, on one scale."""
    found = random_problem(seed, **({"num_examples": 60, "num_features": 8} | more))
    x = (found.x - found.x.mean(0)) / found.x.std(0)
    rng = np.random.default_rng(seed)
    scores = x[:, :3] @ rng.normal(size=(3, found.num_classes))
    y = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    return found._replace(x=x, y=y)


def gradient(found, trial, given, column=0):
    """∂loss/∂W and ∂loss/∂b in float64, by definition, and the loss."""
    weights = given.weights * (1 if given.resamples is None else given.resamples[:, column])
    fractions = weights / weights.sum()
    logits = given.x @ found.W[trial] + found.b[trial]
    labels = np.eye(logits.shape[1])[given.y]
    residuals = (special.softmax(logits, 1) - labels) * fractions[:, None]
    loss = fractions @ (special.logsumexp(logits, 1) - (labels * logits).sum(1))
    return given.x.T @ residuals, residuals.sum(0), loss


def violation(W, slope, l2, l1, l1_group):
    """How far the KKT conditions are from holding, in the largest coordinate."""
    norms = np.linalg.norm(W, axis=1)
    worst = 0.0
    for own, by, norm in zip(W, slope, norms, strict=True):
        if norm > 0:
            smooth = by + l2 * own + l1_group * own / norm
            at = np.where(
                own != 0, abs(smooth + l1 * np.sign(own)), np.maximum(abs(smooth) - l1, 0)
            )
            worst = max(worst, at.max())
        else:
            left = np.linalg.norm(np.maximum(abs(by) - l1, 0))
            worst = max(worst, left - l1_group)
    return worst


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PENALTIES)
def test_the_kkt_conditions_hold_with_exact_zeros(name):
    l2, l1, group = PENALTIES[name]
    given = problem()
    found = minimise(
        given,
        [l2] * 2,
        l1=l1,
        l1_group=group,
        columns=[0, 1],
        tolerance=1e-11,
        max_iterations=20000,
    )
    assert found.converged.all() and (found.gap_bound <= 1e-11 * found.objective).all()
    for trial in range(2):
        W = found.W[trial]
        slope, bias, loss = gradient(found, trial, given, trial)
        assert abs(bias).max() < 1e-7
        assert violation(W, slope, l2, l1, group) < 2e-6
        assert (W == 0).any() and (W != 0).any()
        if name == "group":  # a feature is in or out for all classes
            assert set((W != 0).sum(1)) <= {0, 3}
        value = loss + l2 / 2 * (W**2).sum() + l1 * abs(W).sum()
        value += group * np.linalg.norm(W, axis=1).sum()
        assert found.objective[trial] == pytest.approx(value, rel=1e-12)


@pytest.mark.usefixtures("float64")
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), name=st.sampled_from(sorted(PENALTIES)), steps=st.integers(0, 30))
def test_the_gap_bounds_the_distance_to_the_minimum_everywhere(seed, name, steps):
    l2, l1, group = PENALTIES[name]
    how = {"l1": l1, "l1_group": group}
    prepared = optimum.prepare(problem(seed))
    rng = np.random.default_rng(seed)
    initial = rng.normal(size=(1, 8, 3)), np.zeros((1, 3))
    near = minimise(prepared, [l2], initial=initial, max_iterations=steps, tolerance=1e-9, **how)
    best = minimise(prepared, [l2], max_iterations=20_000, tolerance=1e-10, **how)
    assert best.converged.all()
    above = near.objective - best.objective
    assert -1e-10 <= above[0] <= near.gap_bound[0] + 1e-12


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("group", [False, True])
def test_l1_max_is_the_smallest_penalty_without_weights(group):
    given = problem()._replace(resamples=None)
    prepared = optimum.prepare(given)
    name, largest = ("l1_group" if group else "l1"), optimum.l1_max(prepared, group=group)
    for l2 in (0.0, 0.1):
        found = minimise(prepared, [l2] * 2, **{name: [largest * 1.0001, largest * 0.999]})
        assert not found.W[0].any() and found.W[1].any()
    frequencies = np.bincount(given.y, given.weights) / given.weights.sum()
    p = special.softmax(found.b[0])
    np.testing.assert_allclose(p, frequencies, rtol=1e-6)
    path = optimum.l1_path(prepared, 5, group=group, ratio=0.01)
    np.testing.assert_allclose(path, largest * np.array([1, 10**-0.5, 0.1, 10**-1.5, 0.01]))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["l1", "l1_group"])
def test_small_penalties_approach_the_smooth_optimum(name):
    given = problem()._replace(resamples=None)
    smooth = minimise(given, [0.01], tolerance=1e-10)
    found = minimise(given, [0.01] * 3, **{name: [1e-3, 1e-5, 1e-7]}, tolerance=1e-9)
    away = abs(found.W - smooth.W).reshape(3, -1).max(1)
    assert (away < np.array([1, 1e-2, 1e-4])).all() and (away[1:] < away[:-1]).all()


def test_trials_without_such_a_penalty_are_those_of_lbfgs():
    given = problem()
    alone = minimise(given, [0.01, 0.1])
    mixed = minimise(given, [0.01, 0.1, 0.1], l1=[0.0, 0.02, 0.0])
    np.testing.assert_array_equal(mixed.W[[0, 2]], alone.W)
    assert (mixed.W[1] == 0).any() and mixed.converged.all()


def test_a_path_with_folds_equals_its_trials_alone():
    given = problem()
    path = optimum.l1_path(optimum.prepare(given), 6, ratio=0.02)
    l1, columns = np.tile(path, 2), np.repeat([0, 1], 6)
    how = {"tolerance": 1e-5, "max_iterations": 5000}
    found = minimise(given, np.zeros(12), l1=l1, columns=columns, **how)
    assert found.converged.all()
    for trial in (3, 5, 11):
        own = {"l1": l1[trial], "columns": columns[[trial]]}
        alone = minimise(given, [0.0], **own, **how)
        assert found.objective[trial] == pytest.approx(alone.objective[0], rel=2e-5)
    sizes = (found.W != 0).sum((1, 2))
    assert sizes[0] <= 1 and sizes[6] <= 8 and sizes[5] > 10


def test_more_features_than_a_working_set_holds():
    """Features that were left out wrongly are found by the certificate, and added."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 400))
    y = (x[:, :3] @ rng.normal(size=(3, 4)) * 3 + rng.gumbel(size=(100, 4))).argmax(1)
    given = optimum.Problem(x, y)
    prepared = optimum.prepare(given)
    l1 = optimum.l1_max(prepared) * 0.2  # far from the start, where few features are near
    found = minimise(prepared, [0.0], l1=l1, max_iterations=5000)
    slope, _, _ = gradient(found, 0, given._replace(weights=np.ones(100)))
    assert found.converged[0] and violation(found.W[0], slope, 0.0, l1, 0.0) < 0.05 * l1


@pytest.mark.usefixtures("float64")
def test_copies_are_weights_and_the_scale_of_weights_does_not_matter():
    given = problem()._replace(resamples=None)
    counts = np.arange(60) % 3
    how = {"l1": 0.02, "tolerance": 1e-10, "max_iterations": 20_000}
    one = minimise(given._replace(weights=counts * 7.0), [0.0], **how)
    rows = np.repeat(np.arange(60), counts)
    other = minimise(given._replace(x=given.x[rows], y=given.y[rows], weights=None), [0.0], **how)
    np.testing.assert_allclose(one.W, other.W, atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_two_classes_have_opposite_weights():
    """So ‖W‖₁ is |coef|, and ‖W‖² half its square: what the estimator relies on."""
    given = problem(num_classes=2)._replace(resamples=None)
    found = minimise(given, [0.01], l1=0.02, tolerance=1e-11, max_iterations=20_000)
    np.testing.assert_allclose(found.W[0, :, 0], -found.W[0, :, 1], atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_without_a_bias_nothing_but_the_weights_moves():
    given = problem()._replace(resamples=None, fit_bias=False)
    found = minimise(given, [0.0], l1=0.02, tolerance=1e-10, max_iterations=20_000)
    slope, _, _ = gradient(found, 0, given)
    assert found.converged[0] and not found.b.any()
    assert violation(found.W[0], slope, 0.0, 0.02, 0.0) < 1e-5


@pytest.mark.parametrize(
    "more, words",
    [
        ({"l1": -1.0}, "l1 must be at least 0"),
        ({"l1_group": np.nan}, "l1_group must be"),
        ({"l1": [0.1, 0.2, 0.3]}, "l1 must be one number or 2"),
        ({"l1": [[0.1]]}, "l1 must be one number or 2"),
        ({"l1": True}, "l1 must be"),
        ({"l1_group": "a"}, "l1_group must be"),
        ({"l1": 1e39}, "l1 must be"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_invalid_penalties_are_refused(more, words):
    with pytest.raises(ValueError, match=words):
        minimise(random_problem(), [0.1, 0.2], **more)


def test_paths_share_a_column_and_a_ratio():
    path = np.array([0.1, 0.01, 0.03])
    columns = np.repeat([0, 1], 3)
    l1, zero = np.tile(path, 2), np.zeros(6)
    expected = [0, 2, 0, 3, 5, 3]
    for l2 in (zero, zero + 0.5, l1 * 2):
        penalty = optimum.l1.Penalty(l2, l1, zero)
        assert leaders(penalty, columns).tolist() == expected
