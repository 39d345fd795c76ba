import jax
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from softmax_jax import train

pytestmark = pytest.mark.numerical

STEPS = 50
FRACTIONS = np.arange(STEPS + 1, dtype=np.float32) / STEPS
EACH = pytest.mark.parametrize("schedule", train.SCHEDULES)

height = jax.jit(jax.vmap(train.rate_multiplier, (None, 0, None, None)), static_argnums=0)


def in_optax(schedule, warmup, final_rate):
    """The heights at every step, by optax's schedules of steps and rates."""
    rising = round(warmup * STEPS)
    made = {
        "constant": lambda: optax.warmup_constant_schedule(0.0, 1.0, rising),
        "cosine": lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, rising, STEPS, final_rate),
        "exponential": lambda: optax.warmup_exponential_decay_schedule(
            0.0, 1.0, rising, STEPS - rising, final_rate
        ),
    }[schedule]()
    return [float(made(step)) for step in range(STEPS + 1)]


@EACH
@pytest.mark.parametrize("warmup", [0.02, 0.2, 0.9])
@pytest.mark.parametrize("final_rate", [0.001, 0.3])
def test_the_heights_are_those_of_optax(schedule, warmup, final_rate):
    heights = height(schedule, FRACTIONS, warmup, final_rate)
    assert_allclose(heights, in_optax(schedule, warmup, final_rate), rtol=2e-5, atol=1e-6)


@EACH
def test_without_warmup_training_begins_at_the_peak(schedule):
    assert height(schedule, FRACTIONS, 0.0, 0.1)[0] == 1


@pytest.mark.parametrize("schedule", ["cosine", "exponential"])
def test_a_decay_arrives_at_its_final_rate_and_never_rises(schedule):
    heights = np.asarray(height(schedule, FRACTIONS, 0.0, 0.04))
    assert heights[-1] == pytest.approx(0.04, rel=1e-5)
    assert (np.diff(heights) < 0).all()
    assert_allclose(height(schedule, FRACTIONS, 0.3, 1.0)[15:], np.ones(36), rtol=1e-6)


def test_trials_have_heights_of_their_own_under_vmap():
    """Traced numbers, for which optax's own schedules of peaks and rates cannot be made."""
    warmup, final_rate = np.float32([0.0, 0.1, 0.4]), np.float32([0.5, 0.01, 1.0])
    for schedule in train.SCHEDULES:
        of_trials = jax.vmap(lambda w, r, s=schedule: train.rate_multiplier(s, 0.6, w, r))
        alone = [train.rate_multiplier(schedule, 0.6, warmup[i], final_rate[i]) for i in range(3)]
        assert_allclose(of_trials(warmup, final_rate), alone, rtol=1e-6)
