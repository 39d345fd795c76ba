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


WITH_LOGITS = train.criterion_of_logits(MODEL)


def state():
    h = train.Hyperparameters(init_scale=1.0)
    return train.create_state(jax.random.key(1), MODEL, h, D, C)


def exact():
    return vocabulary.criterion("cross_entropy", C)


def test_the_exact_loss_without_logits_trains_as_the_one_with_them(batch):
    with_logits, sums = train.train_step(state(), batch, WITH_LOGITS)
    without, own = train.train_step(state(), batch, exact())
    for pair in zip(MODEL.weights(without.params), MODEL.weights(with_logits.params), strict=True):
        assert_allclose(*pair, rtol=1e-5, atol=1e-6)
    assert_allclose(own["loss"]["sum"], sums["loss"]["sum"], rtol=1e-5)
    assert_allclose(own["loss"]["weight"], batch.weights.sum())


def test_it_measures_the_same(batch):
    expected = WITH_LOGITS.values(WITH_LOGITS.evaluate(state().params, batch))
    found = exact().values(exact().evaluate(state().params, batch))
    assert set(found) == {"loss", "accuracy", "top5"}
    for name, value in found.items():
        assert_allclose(value, expected[name], rtol=1e-5)


def test_importance_weighs_the_objective_alone(batch):
    weighted = batch._replace(importance=np.linspace(0.5, 1.5, B).astype(np.float32))
    scores = MODEL.apply(state().params, batch.x)
    each = losses.cross_entropy(scores, batch.y)
    w = weighted.weights * weighted.importance
    value, _ = exact().loss(state().params, weighted, None, 0)
    assert_allclose(value, (w * each).sum() / batch.weights.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", vocabulary.OBJECTIVES[1:])
def test_samples_are_new_at_every_step_and_the_same_for_equal_steps(batch, name):
    loss, params = vocabulary.criterion(name, C, 4).loss, state().params
    (first, _), (again, _), (later, _) = (loss(params, batch, None, step) for step in (0, 0, 1))
    assert first == again and first != later


def test_equal_objectives_are_one_so_that_nothing_is_compiled_twice():
    again = train.criterion_of_logits(MODEL, losses.cross_entropy)
    assert again is train.criterion_of_logits(MODEL, losses.cross_entropy)
    assert exact() is exact()
