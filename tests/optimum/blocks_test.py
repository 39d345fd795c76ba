"""Cut into blocks, or not, the optimum and what is proved of it are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from softmax_jax.optimum import Problem, minimise, prepare
from softmax_jax.optimum import problem as problem_module
from softmax_jax.optimum.problem import map_tiles, num_tiles, sum_tiles, wanted_tiles


def problem(num_examples=1029, num_classes=300):
    rng = np.random.default_rng(0)
    y = np.append(np.arange(num_classes), rng.integers(0, num_classes, num_examples - num_classes))
    x = rng.normal(size=(num_classes, 5))[y] + rng.normal(size=(num_examples, 5))
    return Problem(x.astype(np.float32), y, rng.uniform(0.5, 2, num_examples))


@pytest.mark.parametrize(
    "num_classes, num_examples, expected", [(10, 10**6, 1), (1000, 256, 1), (1000, 50_048, 128)]
)
def test_many_scores_are_cut_and_few_are_not(num_classes, num_examples, expected):
    assert num_tiles(num_classes, num_examples) == expected


def test_a_number_that_cannot_be_halved_often_enough_is_cut_less():
    assert num_tiles(1000, 50_000) == 16 and num_tiles(1000, 50_001) == 1


def test_blocks_together_are_the_whole():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, 4096)).astype(np.float32)
    y = rng.integers(0, 300, 4096)
    assert num_tiles(*scores.shape) > 1
    each = map_tiles(lambda scores, y: scores.max(0) + y, jnp.asarray(scores), jnp.asarray(y))
    np.testing.assert_array_equal(each, scores.max(0) + y.astype(np.float32))
    total = sum_tiles(lambda scores: scores @ scores.T, jnp.asarray(scores))
    np.testing.assert_allclose(total, scores @ scores.T, rtol=1e-3, atol=1e-3)


def test_the_problem_is_filled_up_with_examples_of_no_weight():
    prepared = prepare(problem())
    assert len(prepared.y) % wanted_tiles(300, 1029) == 0 and len(prepared.y) > 1029
    assert not prepared.weights[1029:].any() and not prepared.features[:, 1029:].any()


def test_the_optimum_in_blocks_is_that_of_scikit_learn(monkeypatch):
    """And of the same problem uncut, to the bound."""
    given = problem()
    found = minimise(given, [1e-2], tolerance=1e-5)
    assert found.converged.all()
    scale = given.weights / given.weights.mean()
    model = LogisticRegression(C=1 / (1e-2 * len(given.y)), tol=1e-8, max_iter=5000)
    model.fit(given.x.astype(float), given.y, scale)
    losses = -np.log(model.predict_proba(given.x)[np.arange(len(given.y)), given.y])
    best = np.average(losses, weights=given.weights) + 1e-2 / 2 * np.sum(model.coef_**2)
    assert found.objective[0] == pytest.approx(best, rel=1.1e-5)
    monkeypatch.setattr(problem_module, "_MANY_CLASSES", 10**9)
    for program in (minimise.start, minimise.advance):
        program.clear_cache()
    whole = minimise(given, [1e-2], tolerance=1e-5)
    for program in (minimise.start, minimise.advance):
        program.clear_cache()
    assert whole.objective[0] == pytest.approx(found.objective[0], rel=2e-5)
    assert whole.iterations[0] == pytest.approx(found.iterations[0], abs=3)
    assert jax.device_count() == 1  # with more of them nothing is cut
