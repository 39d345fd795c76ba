"""The certified optimum of the trials of a sweep: L-BFGS on all trials of a chunk at once.

An iteration over the full batch counts as an epoch; metrics are measured after every segment of
iterations.

Training examples that are read by shards are passed over, on one device: see `optimum.passes`.

On a mesh every device updates its own share of the trials. The trials [K] are reshaped to
[P, K / P], neighbours together, a row for each of the P devices of the axis of trials; a choice of
trials is `rows` [P, n], counted within the share. So each gather and scatter stays within a device.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from softmax_jax import checks, model, optimum, train
from softmax_jax.data import Dataset
from softmax_jax.data.dataset import example_weights, normalised
from softmax_jax.hyperparameters import SPARSE
from softmax_jax.optimum import l1, passes
from softmax_jax.sweep import chunks, program
from softmax_jax.sweep.chunks import Epoch, Pending, Run
from softmax_jax.sweep.inputs import (
    InputPair,
    Inputs,
    class_weights,
    leave_out_absent,
    make_inputs,
    objective_weights,
)
from softmax_jax.sweep.mesh import Placement, constrain, padded
from softmax_jax.sweep.program import evaluate_inputs, fetch_metrics, prefixed

# All models have the same optimum; its parameters are one matrix, as in `optimum`.
MODEL = model.augment(model.scratch)
_TRAIN = ("loss", "accuracy")
_CERTIFICATE = ("objective", "gradient_norm", "gap_bound")
_PENALTIES = ("l2", *SPARSE)
_FACTS = ("iterations", "converged", "separable")
BY_SHARDS = (
    "LBFGS passes over training examples that are read by shards on one device, and there are "
    "several: make one visible, or use SGD, fewer examples, or features of a smaller type."
)
SPARSE_BY_SHARDS = (
    "l1 and l1_group need all training examples in memory, and they are read by shards: leave them "
    "at 0, or use fewer examples, or features of a smaller type."
)


def l2_path(
    train: Dataset,
    num: int,
    *,
    class_weight: str | ArrayLike | Sequence | None = None,
    standardize: bool = False,
    dtype: Any = np.float32,
    further: int = 0,
) -> tuple[float, ...]:
    """`num` penalties worth trying on this training set, the smallest first.

    They range from one that is usually too small to matter to one with almost zero weights: see
    `optimum.l2_path`. Where classes differ in directions in which the features hardly vary, as in
    many embeddings, smaller ones do matter: where the smallest is the best, look further. Of
    examples that are read by shards, a sample is asked.

    Args:
      train: the examples to train on.
      num: how many penalties.
      class_weight, standardize, dtype: see `sweep.Objective`.
      further: decades below the smallest of these, in their steps (of a decade at most), which come
        on top of `num`.

    Raises:
      ValueError: num is below 1, further is no whole number from 0, or all features are constant.
    """
    checks.check_whole("further", further, 0, 30)
    train = leave_out_absent(train)
    total = float(example_weights(train).sum())
    prepared = _prepared(train, class_weight, standardize, dtype)
    if isinstance(prepared, passes.Passing):
        prepared = prepared.sample
    path = optimum.l2_path(prepared, num, total_weight=total)
    step = min(path[0] / path[1], 10.0) if num > 1 else 10.0
    more = path[-1] / step ** np.arange(1, math.ceil(further / math.log10(step) - 1e-9) + 1)
    return tuple(float(f"{l2:.3g}") for l2 in (*more[::-1], *path[::-1]))


def l1_path(
    train: Dataset,
    num: int,
    *,
    group: bool | np.bool_ = False,
    ratio: float = 1e-3,
    class_weight: str | ArrayLike | Sequence | None = None,
    standardize: bool = False,
    dtype: Any = np.float32,
) -> tuple[float, ...]:
    """`num` values of l1, or for `group` of l1_group, the smallest first.

    The largest is the smallest that leaves no weight: see `optimum.l1_path`.

    Args:
      train: the examples to train on.
      num: how many penalties.
      group: whether they are values of l1_group.
      ratio: of the smallest to the largest.
      class_weight, standardize, dtype: see `sweep.Objective`.

    Raises:
      ValueError: num is below 1, the ratio is not between 0 and 1, the features do not predict the
        labels, or the examples are read by shards.
    """
    if train.shard_size is not None:
        raise ValueError(SPARSE_BY_SHARDS)
    train = leave_out_absent(train)
    prepared = cast(optimum.Prepared, _prepared(train, class_weight, standardize, dtype))
    path = optimum.l1_path(prepared, num, group=group, ratio=ratio)
    return tuple(float(f"{penalty:.3g}") for penalty in path[::-1])


def _prepared(train, class_weight, standardize, dtype):
    """The training set in the form of the solver, for a path of penalties."""
    options = {"standardize": standardize, "dtype": dtype}
    by_class = class_weights(train, class_weight)
    data, _, _ = make_inputs(train, None, class_weight=by_class, centred=True, **options)
    return prepare(data.train)


class _Rows:
    """The features of a dataset that is read by shards, normalised when they are asked for."""

    def __init__(self, dataset, dtype):
        self.dataset, self.dtype = dataset, np.dtype(dtype)
        self.shape = dataset.num_examples, dataset.num_features

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        own = self.dataset
        return normalised(own.x[rows], own.mean, own.scale, self.dtype)


def prepare(inputs: Inputs, num_trials: int = 1) -> optimum.Prepared | passes.Passing:
    """The data in the form of the solver: normalised, centred, with their spectrum.

    Each device has its own share of them; examples that are padding weigh nothing. num_trials: how
    many share a pass over examples that are read by shards.
    """
    data, placement = inputs.resident, inputs.placement
    if data is None:
        dataset = inputs.dataset
        weights = objective_weights(dataset, inputs.class_weight)
        x: Any = _Rows(dataset, inputs.dtype)
        own = np.asarray(dataset.y), weights, inputs.resamples
        return passes.prepare(optimum.Problem(x, *own, dataset.num_classes), num_trials)
    x = jax.jit(train.normalise)(data, data.x)
    weights = objective_weights(inputs.dataset, inputs.class_weight)
    if weights is None and len(x) > len(inputs.dataset.y):
        weights = np.ones(len(inputs.dataset.y), inputs.dtype)
    of_examples = np.asarray(inputs.dataset.y), weights, inputs.resamples
    y, weights, resamples = jax.tree.map(lambda array: padded(array, 0, len(x)), of_examples)
    problem = optimum.Problem(x, y, weights, resamples, inputs.dataset.num_classes)
    prepared = optimum.prepare(problem)._asdict()
    divided = {name: prepared.pop(name) for name in ("y", "weights", "resamples")}
    features = placement.examples(prepared.pop("features"), axis=1)
    whole = placement.everywhere(prepared)
    return optimum.Prepared(features=features, **placement.examples(divided), **whole)


def epochs(
    run: Run, pending: list[Pending], pair: InputPair, tolerance: int | float
) -> Iterator[Epoch]:
    """The segments of all pending chunks, one chunk after the other.

    The spectrum is computed once for all folds that have the same features.
    """
    prepared = None
    for number, item in enumerate(pending):
        fold = int(run.trials.fold[item.chunk.trials[0, 0]])
        if prepared is None or pair.differ:
            own = pair.of(fold)
            prepared = prepare(own[0], item.chunk.trials.shape[1])
        passing = isinstance(prepared, passes.Passing)
        states = (_passes if passing else _segments)(run, item, prepared, tolerance)
        yield from _chunk_epochs(run, item, pending[number + 1 :], prepared, own, states)


def _chunk_epochs(run, item, later, prepared, own, states) -> Iterator[Epoch]:
    """After every segment, the metrics of the trials that it changed."""
    chunk, (inputs, held_out), criterion = item.chunk, own, run.criterion(0)
    template = chunks.create_states(run, chunk, inputs)
    best = run.placement.trials(program.no_best(template))
    mean = prepared.sample.mean if isinstance(prepared, passes.Passing) else prepared.mean
    before, ended = _iterations_of(item, sparse_trials(run, item)), _ended(item)
    for reached, unfinished in states:
        passing = isinstance(reached, passes.Trial)
        state = reached.state if passing else reached
        names = (*_CERTIFICATE, *_FACTS)
        known = fetch_metrics({name: getattr(state, name) for name in names}, run.placement)
        known |= _separated(run, item, prepared, known, unfinished)
        iterations, left = known["iterations"][: chunk.num_real], unfinished[: chunk.num_real]
        moves = iterations > before
        if passing:  # while its bias is improved, a trial has no bound, and is not evaluated
            known["gap_bound"] = np.where(unfinished, np.inf, known["gap_bound"])
            on_line = np.asarray(passes.on_line(reached))[: chunk.num_real]
            moves = np.where(left, moves & on_line, ~ended)
            before, ended = np.where(moves, iterations, before), ~left
        else:
            before = iterations
        moved = np.flatnonzero(moves)
        trained = template.replace(params=_params(mean, state))
        measured = _metrics(trained, criterion, moved, inputs, held_out)
        yield Epoch(
            epoch=int(iterations.max()),
            trials=chunk.trials[0, moved],
            reached=iterations[moved],
            metrics=measured | {name: known[name][moved] for name in _CERTIFICATE},
            facts={name: known[name][moved] for name in _FACTS},
            states=trained,
            best=best,
            chunk=chunk,
            ends=not unfinished.any(),
            run=run,
            segment=0,
            progress=jax.tree.map(lambda leaf: leaf[None], _saved(reached)),
            pending=tuple(later),
        )


def _separated(run, item, prepared, known, unfinished):
    """The facts of the trials, with those that are done and separable only in part found out."""
    if isinstance(prepared, passes.Passing):
        return {}
    trials = item.chunk.trials[0]
    free = np.all([getattr(run.trials.hyperparameters, n)[trials] == 0 for n in _PENALTIES], 0)
    free &= ~known["separable"] & ~unfinished
    if not (free.any() and prepared.features.is_fully_addressable):
        return {}
    columns = np.maximum(run.trials.fold[trials], 0)
    in_part = optimum.separable_in_part(prepared, free, columns)
    separable, converged = known["separable"] | in_part, known["converged"] & ~in_part
    return {"separable": separable, "converged": converged}


def _segments(run, item, prepared, tolerance):
    """(state [K], which trials are unfinished [K]) after each segment.

    Where all are finished, the first state alone.
    """
    placement, most, dtype = run.placement, run.num_epochs, prepared.mean.dtype
    sharding = placement.sharding("trials")
    state = _start(run, item, prepared)
    if isinstance(state, l1.State):
        yield from _sparse_segments(item, prepared, state, tolerance, most)
        return
    limits = jnp.asarray(tolerance, dtype), jnp.int32(most), jnp.int32(optimum.SEGMENT)

    def unfinished():
        done, iterations = placement.fetch((state.done, state.iterations))
        real = np.arange(len(done)) < item.chunk.num_real
        return ~done & (iterations < most) & real

    remaining = unfinished()
    if not remaining.any():
        yield state, remaining
    while remaining.any():
        rows = unfinished_rows(remaining, prepared.features.size * 20, placement)
        state = advance_divided(prepared, state, placement.rows(rows), limits, sharding)
        remaining = unfinished()
        yield state, remaining


def _sparse_segments(item, prepared, state, tolerance, most):
    """As `_segments`: after each step along the paths of l1."""
    limits = {"tolerance": tolerance, "max_iterations": most}
    real = np.arange(len(state.column)) < item.chunk.num_real

    def unfinished(state):
        return ~np.asarray(state.done) & (np.asarray(state.iterations) < most) & real

    if not unfinished(state).any():
        yield state, unfinished(state)
    for reached in l1.iterate(prepared, state, **limits):
        yield reached, unfinished(reached)


def sparse_trials(run: Run, item: Pending) -> bool:
    """Whether trials of the chunk have a penalty that makes weights exactly zero."""
    table, trials = run.trials.hyperparameters, item.chunk.trials[0]
    return any(getattr(table, name)[trials].any() for name in SPARSE)


def _passes(run, item, own, tolerance):
    """(trials [K], which are unfinished [K]) after every so many passes: see `_segments`."""
    rows, table = item.chunk.trials[0], run.trials
    folds = np.maximum(table.fold[rows], 0)
    l2, columns, _ = optimum.check_trials(own.sample, table.hyperparameters.l2[rows], folds)
    limits = {"tolerance": tolerance, "max_iterations": run.num_epochs}
    if item.saved is None:
        trials = passes.start(own, l2, columns, None, **limits)
    else:
        like = jax.tree.map(lambda leaf: leaf[None], _saved(passes.blank(own, l2, columns)))
        saved = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), chunks.restore_state(item, like))
        state = optimum.State(**{name: saved.pop(name) for name in optimum.State._fields})
        trials = passes.Trial(state=state, **saved)
    real = np.arange(len(rows)) < item.chunk.num_real
    trials = trials._replace(finished=trials.finished | ~real)
    if np.asarray(trials.finished).all():
        yield trials, np.zeros(len(rows), bool)
    for number, further in enumerate(passes.iterate(own, trials, **limits), 1):
        unfinished = ~np.asarray(further.finished)
        if number % optimum.SEGMENT == 0 or not unfinished.any():
            yield further, unfinished


def _saved(reached):
    """The trials as a dict of leaves, those of their state among them."""
    if not isinstance(reached, passes.Trial):
        return reached._asdict()
    own = reached._asdict()
    return own.pop("state")._asdict() | own


def _ended(item):
    """Which trials [K] were already reported with their last certificate, of passes."""
    if item.saved is None or "finished" not in item.saved:
        return np.zeros(item.chunk.num_real, bool)
    return item.saved["finished"][0]


def _start(run, item, prepared):
    trials, table, placement = item.chunk.trials[0], run.trials, run.placement
    folds = np.maximum(table.fold[trials], 0)
    l2, columns, _ = optimum.check_trials(prepared, table.hyperparameters.l2[trials], folds)
    if sparse_trials(run, item):
        others = (getattr(table.hyperparameters, name)[trials] for name in SPARSE)
        state = l1.start(prepared, l1.check_penalty(l2, *others), columns)
    else:
        own = placement.rows(l2), placement.rows(columns)
        state = start_divided(prepared, *own, placement.sharding("trials"))
    if item.saved is None:
        return state
    like = jax.tree.map(lambda leaf: leaf[None], state._asdict())
    saved = jax.tree.map(lambda leaf: leaf[0], chunks.restore_state(item, like))
    return placement.rows(type(state)(**saved))


def _iterations_of(item, sparse):
    """The iterations [K] that were already reported; -1: not even the initial point.

    That of a path of l1, which most trials leave much later, is never reported.
    """
    if item.saved is None:
        return np.full(item.chunk.num_real, 0 if sparse else -1)
    return item.saved["iterations"][0]


def _metrics(states, criterion, moved, inputs, held_out):
    """{name: [n]} of the trials that moved; finished trials are not evaluated again."""
    which, placement = np.isin(np.arange(states.step.shape[1]), moved), inputs.placement
    rows = unfinished_rows(which, (inputs.resident or inputs.dataset).x.size * 10, placement)
    states = choose_trials(states, placement.rows(rows))
    train = evaluate_inputs(states, inputs, criterion)
    measured = prefixed("train", {name: train[name] for name in _TRAIN})
    if held_out is not None:
        measured |= prefixed("val", evaluate_inputs(states, held_out, criterion))
    measured = fetch_metrics(measured, placement)
    computed = np.take_along_axis(which.reshape(len(rows), -1), rows, 1).ravel()
    return {name: values[0][computed] for name, values in measured.items()}


@jax.jit
def _params(mean, state):
    """The parameters [1, K, ...] of `MODEL`, from those of centred features."""
    shift = optimum.product(state.params[:, :, :-1], mean)
    return {"augmented": state.params.at[:, :, -1].add(-shift)[None]}


def unfinished_rows(
    unfinished: Bool[np.ndarray, " K"], cost: int, placement: Placement
) -> Int[np.ndarray, "P n"]:
    """The trials to compute: see `optimum.unfinished_rows`."""
    return optimum.unfinished_rows(unfinished.reshape(placement.size("trials"), -1), cost)


@functools.partial(jax.jit, static_argnums=3)
def start_divided(
    prepared: optimum.Prepared,
    l2: Float[Array, " K"],
    columns: Int[Array, " K"],
    sharding: NamedSharding | None,
) -> optimum.State:
    """`optimum.start`, with the trials divided over the devices from the start."""
    return constrain(optimum.start(prepared, l2, columns), sharding)


@functools.partial(jax.jit, donate_argnums=1, static_argnums=4)
def advance_divided(
    prepared: optimum.Prepared,
    state: optimum.State,
    rows: Int[Array, "P n"],
    limits: tuple[Array, Array, Array],
    sharding: NamedSharding | None,
) -> optimum.State:
    """`optimum.advance` of the trials in `rows`; limits: (tolerance, max_iterations, segment)."""
    if len(rows) == 1:
        return optimum.advance(prepared, state, rows[0], *limits)
    one = jax.vmap(optimum.advance, in_axes=(None, 0, 0, None, None, None))
    moved = one(prepared, jax.tree.map(lambda leaf: _by_device(leaf, rows), state), rows, *limits)
    return constrain(jax.tree.map(_joined, moved), sharding)


@jax.jit
def choose_trials(states: PyTree, rows: Int[Array, "P n"]) -> PyTree:
    """The trials in `rows` of leaves [1, K, ...]: [1, P · n, ...]."""

    def choose(leaf):
        return _joined(jax.vmap(lambda own, rows: own[rows])(_by_device(leaf[0], rows), rows))[None]

    return jax.tree.map(choose, states)


def _by_device(leaf, rows):
    return leaf.reshape(len(rows), -1, *leaf.shape[1:])


def _joined(leaf):
    return leaf.reshape(-1, *leaf.shape[2:])
