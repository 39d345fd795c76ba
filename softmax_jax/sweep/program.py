"""The compiled programs of a sweep: the functions of `softmax_jax.train` under two `jax.vmap`s.

The inner axis is that of the trials [K], which share each minibatch: their products are one matrix
product [B, D + 1] × [D + 1, K·C] (or, where a CPU takes microchunks, one for each of these). The
outer axis is that of the seeds [S], each with its own initial weights and its own order of the
data. This is the only place where either axis is added.

Microchunks: a trial adds C rows to the matrix products. With few rows the products are slow; with
too many, weights and scores no longer fit the caches and are read from memory at every step.
(Measured on 2 cores with 32 MB of cache: 1,024 trials on Fashion-MNIST take 18 % less time, 5,000
on digits 35 %, an evaluation of 256 a quarter.)
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from softmax_jax import train
from softmax_jax.hyperparameters import Hyperparameters
from softmax_jax.model import Model
from softmax_jax.sweep.inputs import Inputs
from softmax_jax.sweep.mesh import ONE, Placement, constrain
from softmax_jax.train import Criterion, Data, State

_MOST_WEIGHTS = 2_100_000  # at most, in all rows: with their gradients 17 MB in float32
_MOST_SCORES = 1_300_000  # at most, of all rows for a minibatch
_FEWEST_ROWS = 1280  # that products need, whatever the caches hold
_EVALUATION_ROWS = 640  # their scores for 1,000 examples are 2.6 MB


def training_microchunk(
    placement: Placement,
    shape: tuple[int, ...],
    num_features: int,
    num_classes: int,
    num_scores: int,
) -> int | None:
    """For trials of shape [S, K], how many of the K to train at once; None: all.

    Args:
      placement: a mesh takes all trials at once.
      shape: (S, K).
      num_features: D.
      num_classes: C.
      num_scores: how many scores of each class are held at a time: B; 0 for a loss without logits.
    """
    rows = min(_MOST_WEIGHTS // (num_features + 1), _MOST_SCORES // max(num_scores, 1))
    return _microchunk(placement, shape, num_classes, max(rows, _FEWEST_ROWS))


def evaluation_microchunk(
    placement: Placement, shape: tuple[int, ...], num_classes: int
) -> int | None:
    """For trials of shape [S, K], how many of the K to evaluate at once; None: all."""
    return _microchunk(placement, shape, num_classes, _EVALUATION_ROWS)


def _microchunk(placement, shape, num_classes, rows):
    if placement.mesh is not None or jax.default_backend() != "cpu":
        return None
    return even_size(shape[1], -(-shape[0] * shape[1] * num_classes // rows))


def even_size(num_trials: int, num_microchunks: int) -> int | None:
    """The size of equal microchunks: num_microchunks of them, or as few more as divide the trials.

    None where one is enough, or twice as many would be needed.

    >>> [even_size(256, 4), even_size(1000, 3), even_size(8, 100), even_size(1009, 4)]
    [64, 250, 1, None]
    """
    fewest = min(num_microchunks, num_trials)
    numbers = (n for n in range(fewest, 2 * fewest) if n > 1 and num_trials % n == 0)
    return next((num_trials // n for n in numbers), None)


# The fields of a `Data` that have a row for each example, and the axes to map it over these.
_BY_EXAMPLE = ("x", "y", "weights", "resamples")
_EXAMPLES = Data._make(0 if name in _BY_EXAMPLE else None for name in Data._fields)


class Best(NamedTuple):
    """The best epoch so far of every trial [S, K]: its number, its value, its parameters."""

    epoch: Int[Array, "S K"]
    value: Float[Array, "S K"]
    params: dict


@functools.partial(
    jax.jit, static_argnames=("model", "num_features", "num_classes", "placement", "optimizer")
)
def create(
    seeds: Integer[Array | np.ndarray, " S"],
    hyperparameters: Hyperparameters,
    resample: Int[Array | np.ndarray, " K"],
    num_steps: int | Int[Array, ""] | None = None,
    *,
    model: Model,
    num_features: int,
    num_classes: int,
    placement: Placement = ONE,
    optimizer: str = "sgd",
) -> State:
    """Fresh states [S, K].

    Args:
      seeds: of the initial weights.
      hyperparameters: columns [K]; one that is None is left out of the program.
      resample: each trial's column of the resamples.
      num_steps: see `train.create_state`.
      model: in the form that is trained.
      num_features: D.
      num_classes: C.
      placement: where on the devices the states are created.
      optimizer: one of `train.OPTIMIZERS`.
    """

    def one(seed, hyperparameters, resample):
        return train.create_state(
            jax.random.key(seed),
            model,
            hyperparameters,
            num_features,
            num_classes,
            num_steps=num_steps,
            resample=resample,
            optimizer=optimizer,
        )

    states = jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)), in_axes=(0, None, None))(
        seeds, hyperparameters, resample
    )
    return placement.divide(states)


@functools.partial(
    jax.jit,
    static_argnames=("criterion", "schedule", "microchunk"),
    donate_argnames="states",
)
def train_epoch(
    states: State,
    data: Data,
    orders: Int[Array | np.ndarray, "S steps B"],
    criterion: Criterion,
    schedule: str = "constant",
    microchunk: int | None = None,
) -> tuple[State, dict]:
    """`train.train_epoch` for states [S, K], with an order [steps, B] per seed.

    The memory of the states is reused. microchunk: how many of the K trials at once, a divisor of K
    (None: all); each microchunk runs through the whole epoch before the next begins.
    """
    one = functools.partial(train.train_epoch, criterion=criterion, schedule=schedule)
    trials = jax.vmap(one, in_axes=(0, None, None))
    if microchunk is not None:
        trials = functools.partial(_by_microchunks, trials, microchunk)
    if len(orders) > 1:
        return jax.vmap(trials, in_axes=(0, None, 0))(states, data, orders)
    # One seed needs no axis: a batched product of length one is slower than a plain one.
    alone = trials(jax.tree.map(lambda leaf: leaf[0], states), data, orders[0])
    return jax.tree.map(lambda leaf: leaf[None], alone)


def _by_microchunks(trials, microchunk, states, *shared):
    """trials(states [K], *shared) -> (states, sums), one microchunk after the other, in place.

    A loop that updates one set of states: a map would hold the old ones beside the new.
    """
    _, sums = jax.eval_shape(trials, states, *shared)
    everything = states, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)

    def one_microchunk(number, everything):
        start = number * microchunk

        def replace(whole, part):
            return lax.dynamic_update_slice_in_dim(whole, part, start, axis=0)

        own = jax.tree.map(
            lambda leaf: lax.dynamic_slice_in_dim(leaf, start, microchunk), everything[0]
        )
        return jax.tree.map(replace, everything, trials(own, *shared))

    return lax.fori_loop(0, len(states.step) // microchunk, one_microchunk, everything)


@functools.partial(jax.jit, static_argnames="criterion")
def values(sums: dict, criterion: Criterion) -> dict[str, Float[Array, "S K"]]:
    """{name: metric [S, K]} of sums over steps of training or batches of evaluation."""
    return jax.vmap(jax.vmap(criterion.values))(sums)


@functools.partial(jax.jit, static_argnames=("criterion", "sharding", "microchunk"))
def evaluate(
    states: State,
    data: Data,
    criterion: Criterion,
    sharding: NamedSharding | None = None,
    microchunk: int | None = None,
) -> dict:
    """The sums [S, K] of every metric over the data.

    sharding: of the examples over devices. microchunk: how many of the K trials at once; None: all.
    """
    one = functools.partial(train.evaluate, criterion=criterion)

    def of_seed(states, data):
        return lax.map(lambda state: one(state, data), states, batch_size=microchunk)

    if microchunk is None:
        of_seed = jax.vmap(one, in_axes=(0, None))
    trials = jax.vmap(of_seed, in_axes=(0, None))
    if sharding is None:
        return trials(states, data)
    sums = jax.vmap(trials, in_axes=(None, _EXAMPLES))(states, _divided_examples(data, sharding))
    return jax.tree.map(lambda leaf: leaf.sum(0), sums)


@jax.jit
def add(sums: dict, more: dict) -> dict:
    """The sums of two sets of examples, added."""
    return jax.tree.map(jnp.add, sums, more)


@jax.jit
def no_best(states: State) -> Best:
    """Before the first epoch: epoch 0, an infinite value, the initial parameters (a copy)."""
    shape = states.step.shape
    params = jax.tree.map(jnp.copy, states.averaged)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    return Best(jnp.zeros(shape, jnp.int32), jnp.full(shape, jnp.inf, dtype), params)


@functools.partial(jax.jit, donate_argnames="best")
def keep_best(
    best: Best, states: State, value: Float[Array, "S K"], epoch: int | Int[Array, ""]
) -> Best:
    """Where `value` is below the best one, this epoch and its parameters replace it."""
    better = value < best.value

    def choose(new, old):
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old)

    now = Best(jnp.full(best.epoch.shape, epoch, jnp.int32), value, states.averaged)
    return jax.tree.map(choose, now, best)


@jax.jit
def stopped(states: State, best: Best, epoch: int | Int[Array, ""]) -> Bool[Array, "S K"]:
    """Whether each trial [S, K] has stopped by now: its best epoch is `patience` epochs ago."""
    patience = states.hyperparameters.patience
    return states.stopped | ((patience > 0) & (epoch - best.epoch >= patience))


def _divided_examples(data, sharding):
    """The examples as [P, N / P, ...], a share for each of P devices; padded with zeros."""
    num_shares = sharding.mesh.shape[sharding.spec[0]]

    def deal(leaf):
        missing = -len(leaf) % num_shares
        leaf = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
        return constrain(leaf.reshape(num_shares, -1, *leaf.shape[1:]), sharding)

    parts = {name: getattr(data, name) for name in _BY_EXAMPLE}
    return data._replace(**jax.tree.map(deal, parts))


def evaluate_inputs(
    states: State, inputs: Inputs, criterion: Criterion
) -> dict[str, Float[Array, "S K"]]:
    """Every metric over the inputs, by name."""
    total, placement = None, inputs.placement
    microchunk = evaluation_microchunk(placement, states.step.shape, inputs.dataset.num_classes)
    for _, data in inputs.shards():
        sums = evaluate(states, data, criterion, placement.by_examples, microchunk)
        total = sums if total is None else add(total, sums)
    return values(total, criterion)


def prefixed(prefix: str, metrics: dict) -> dict:
    """{'train_loss': ...} of {'loss': ...}: the loss first."""
    names = sorted(metrics, key=lambda name: name != "loss")
    return {f"{prefix}_{name}": metrics[name] for name in names}


def fetch_metrics(
    metrics: dict[str, Array], placement: Placement
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The metrics on the host, in their order (a jitted function would sort them by name)."""
    return dict(zip(metrics, placement.fetch(list(metrics.values())), strict=True))
