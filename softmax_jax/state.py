"""One model in training: its hyperparameters, and the state that a step of SGD moves. Pure."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

from softmax_jax import models, objectives


class Hyperparameters(NamedTuple):
    """What may differ between trials: float32 scalars, or arrays [T] of one value per setting.

    learning_rate, momentum: of SGD · l2: of the objective · init_scale: of the initial weights.

    The others are None where no trial has them; they are then left out of the program:
    label_smoothing, averaging: see `cures.smoothed`, `cures.tail_mean` · warmup, final_rate: see
    `schedules.height` · patience: the epochs without improvement after which a sweep stops a trial.
    """

    learning_rate: Any = 0.1
    momentum: Any = 0.0
    l2: Any = 0.0
    init_scale: Any = 0.01
    label_smoothing: Any = None
    warmup: Any = None
    final_rate: Any = None
    averaging: Any = None
    patience: Any = None


class State(TrainState):
    """A Flax `TrainState` with its hyperparameters, its column of the resamples and its objective.

    num_steps: of the whole training · average: the mean of the iterates · stopped: whether nothing
    may change any more. Each of these is None where no hyperparameter needs it. squared_norm: that
    of `models.Model`.
    """

    hyperparameters: Hyperparameters
    resample: jax.Array
    num_steps: jax.Array | None
    average: Any
    stopped: jax.Array | None
    squared_norm: Callable = struct.field(pytree_node=False)
    objective: objectives.Objective = struct.field(pytree_node=False)
    schedule: str = struct.field(pytree_node=False)

    @property
    def averaged(self):
        """The parameters that count: the mean of the iterates, or without averaging the last."""
        return self.params if self.average is None else self.average


# Made once for all runs: a transformation is part of what a compiled program is keyed by, and a new
# one per run would compile anew. The zeros are placeholders for the traced values of
# `create_state`. Without momentum there is no buffer to keep, to read and to write.
SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
MOMENTUM_SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.0)


def create_state(
    key,
    model: models.Model,
    hyperparameters: Hyperparameters,
    num_features: int,
    num_classes: int,
    *,
    objective=objectives.CROSS_ENTROPY,
    schedule="constant",
    num_steps=None,
    tx=MOMENTUM_SGD,
    resample=0,
) -> State:
    """A fresh model: weights from N(0, init_scale²), biases zero, no momentum gathered.

    schedule: one of `schedules.SCHEDULES`. num_steps: of the whole training, for warm-up, decay and
    averaging: raises ValueError if one of them is there without it. tx: `SGD` where the momentum is
    known to be zero, else `MOMENTUM_SGD`.
    """
    h = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), hyperparameters)
    params = model.init(key, num_features, num_classes, h.init_scale)
    timed = not (h.warmup is None and h.final_rate is None and h.averaging is None)
    if timed and num_steps is None:
        raise ValueError("warmup, final_rate and averaging are shares of num_steps: give it.")
    state = State.create(
        apply_fn=model.apply,
        squared_norm=model.squared_norm,
        params=params,
        tx=tx,
        hyperparameters=h,
        resample=jnp.asarray(resample, jnp.int32),
        num_steps=jnp.asarray(num_steps, jnp.float32) if timed else None,
        average=None if h.averaging is None else params,
        stopped=None if h.patience is None else jnp.zeros((), bool),
        objective=objective,
        schedule=schedule,
    )
    traced = {"learning_rate": h.learning_rate, "momentum": h.momentum}
    own = {name: traced[name] for name in state.opt_state.hyperparams}
    opt_state = optax.tree.set(state.opt_state, **own)
    return state.replace(step=jnp.zeros((), jnp.int32), opt_state=opt_state)
