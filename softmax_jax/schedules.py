"""The learning rate over the course of training: its height, from 0 to 1. Pure.

A height is a function of the fraction of training that is done, so that it holds for any number of
steps, and multiplies the peak: a rate of each trial's own, which schedules made of steps and rates
could not take (their arguments may not be traced).
"""

import jax.numpy as jnp
import optax


def _constant(_fraction, _final_rate):
    return 1.0


def _cosine(fraction, final_rate):
    return optax.cosine_decay_schedule(1.0, 1.0, final_rate)(fraction)


def _exponential(fraction, final_rate):
    return final_rate**fraction


_DECAYS = {"constant": _constant, "cosine": _cosine, "exponential": _exponential}

# What `config.schedule` may name.
SCHEDULES = tuple(_DECAYS)


def height(schedule, fraction, warmup=0.0, final_rate=1.0):
    """The rate in units of its peak, after a fraction of training. All are scalars.

    fraction/warmup up to warmup; from there 'constant', or a decay that arrives at final_rate r
    at the end: with u the fraction of the rest, 'cosine' is r + (1 - r)(1 + cos πu)/2, and
    'exponential' is rᵘ.

    >>> [round(float(height("cosine", fraction, 0.2, 0.1)), 2) for fraction in (0.1, 0.2, 0.6, 1)]
    [0.5, 1.0, 0.55, 0.1]
    """
    rest = jnp.maximum(fraction - warmup, 0) / (1 - warmup)
    rising = jnp.divide(fraction, warmup)
    return jnp.where(fraction < warmup, rising, _DECAYS[schedule](rest, final_rate))
