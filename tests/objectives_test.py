"""With or without the logits, the same is minimised and measured."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from softmax_jax import losses, model, train, vocabulary
from softmax_jax.train import Batch

C, D, B = 12, 5, 30
MODEL = model.augment(model.scratch)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, B).astype(np.float32)
    x = rng.normal(size=(B, D)).astype(np.float32)
    return Batch(x, rng.integers(0, C, B).astype(np.int32), weights)


def state(objective):
    h = train.Hyperparameters(init_scale=1.0)
    return train.create_state(jax.random.key(1), MODEL, h, D, C, objective=objective, tx=train.SGD)


def exact():
    return train.of_vocabulary("cross_entropy", C)


def test_the_exact_loss_without_logits_trains_as_the_one_with_them(batch):
    with_logits, sums = train.train_step(state(train.CROSS_ENTROPY), batch)
    without, own = train.train_step(state(exact()), batch)
    for pair in zip(MODEL.weights(without.params), MODEL.weights(with_logits.params), strict=True):
        assert_allclose(*pair, rtol=1e-5, atol=1e-6)
    assert_allclose(own["loss"]["sum"], sums["loss"]["sum"], rtol=1e-5)
    assert_allclose(own["loss"]["weight"], batch.weights.sum())


def test_it_measures_the_same(batch):
    expected = train.values(with_all := state(train.CROSS_ENTROPY), measured(with_all, batch))
    found = train.values(without := state(exact()), measured(without, batch))
    assert set(found) == {"loss", "accuracy", "top5"}
    for name, value in found.items():
        assert_allclose(value, expected[name], rtol=1e-5)


def measured(state, batch):
    return state.objective.evaluate(state, batch)


def test_importance_weighs_the_objective_alone(batch):
    weighted = batch._replace(importance=np.linspace(0.5, 1.5, B).astype(np.float32))
    scores = MODEL.apply(state(exact()).params, batch.x)
    each = losses.cross_entropy(scores, batch.y)
    w = weighted.weights * weighted.importance
    value, _ = exact().train(state(exact()), state(exact()).params, weighted)
    assert_allclose(value, (w * each).sum() / batch.weights.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", vocabulary.OBJECTIVES[1:])
def test_samples_are_new_at_every_step_and_the_same_for_equal_steps(batch, name):
    objective = train.of_vocabulary(name, C, 4)
    fresh = state(objective)
    first, _ = objective.train(fresh, fresh.params, batch)
    again, _ = objective.train(fresh, fresh.params, batch)
    later, _ = objective.train(fresh.replace(step=fresh.step + 1), fresh.params, batch)
    assert first == again and first != later


def test_equal_objectives_are_one_so_that_nothing_is_compiled_twice():
    assert train.of_logits(losses.cross_entropy) is train.CROSS_ENTROPY
    assert exact() is exact()
