"""The loop: an iterator that yields one `Epoch` at a time, and `fit`, which drains it."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from softmax_jax import losses, models
from softmax_jax.sweep import checks, program, resampling, trials
from softmax_jax.sweep.collecting import collect
from softmax_jax.sweep.memory import fitting_chunk
from softmax_jax.sweep.result import Result, Run
from softmax_jax.sweep.settings import as_arrays
from softmax_jax.sweep.trials import Piece
from softmax_jax.train import MOMENTUM_SGD, SGD, Hyperparameters, State


class Epoch(NamedTuple):
    """What one epoch of one piece of the sweep brought.

    `epoch` counts from 1; `trials` [n] are the numbers of the trials trained here, `reached` [n]
    the epoch that each of them has come to, `metrics` {name: [n]} their figures (train_loss,
    val_accuracy, ...) and `facts` {name: [n]} what else is known of them by now. `states` and
    `best` are stacked [S, K] as the `piece` has its trials, and valid until the next step of the
    generator; `ends` says whether this is the piece's last epoch.
    """

    epoch: int
    trials: np.ndarray
    reached: np.ndarray
    metrics: dict
    facts: dict
    states: State
    best: program.Best
    piece: Piece
    ends: bool
    run: Run


def epochs(
    train,
    val,
    settings: Hyperparameters | None = None,
    *,
    num_epochs: int,
    batch_size,
    seeds=(0,),
    model=models.concise,
    loss=losses.cross_entropy,
    class_weight=None,
    resamples=None,
    best_by: str = "val_loss",
    chunk: int = 0,
) -> Iterator[Epoch]:
    """Trains every trial of settings × seeds × batch sizes, an epoch per step of the generator.

    train, val: `data.Dataset`; val None means that nothing is evaluated. settings: from
    `sweep.grid` or `sweep.random` (None: the defaults). batch_size: one, or a sequence of them,
    run one after the other. class_weight: None, 'balanced' or C numbers. resamples: None, or counts
    [N, R] of the training examples: every setting is then a trial per column, trained where the
    count is positive and evaluated (val must be None) where it is zero. best_by: the figure that
    decides each trial's best epoch. chunk: how many trials run at once (0: as many as the memory
    holds).

    Raises ValueError for settings, sizes and weights out of range: at the call, before anything is
    compiled.
    """
    sizes = np.atleast_1d(batch_size).tolist()
    checks.options(train, val, num_epochs, sizes, seeds, resamples, best_by, chunk)
    settings = as_arrays(Hyperparameters() if settings is None else settings)
    num_resamples = 0 if resamples is None else resamples.shape[1]
    num_trials = len(settings.l2) * len(seeds) * len(sizes) * max(num_resamples, 1)
    chunk = fitting_chunk(num_trials, train.num_features, train.num_classes, max(sizes), chunk)
    table = trials.table(settings, seeds=seeds, batch_sizes=sizes, num_resamples=num_resamples)
    importance = resampling.importance(train, class_weight)
    data = program.device_data(train, importance, resamples)
    held_out = _evaluation_data(data, val, resamples)
    stored = models.class_first(model)
    run = Run(table, num_epochs, stored, best_by, len(train.y), *_input(train))
    return itertools.chain.from_iterable(
        _piece_epochs(run, piece, loss, data, held_out) for piece in trials.plan(table, chunk)
    )


def _piece_epochs(run, piece, loss, data, held_out):
    """The epochs of one piece: train, evaluate, keep the best, yield."""
    table, num_examples = run.trials, len(data.y)
    batch_size = int(table.batch_size[piece.trials[0, 0]])
    seeds = table.seed[piece.trials[:, 0]]
    states = _create(run, piece, loss, math.prod(data.x.shape[1:]))
    best = program.no_best(states)
    order = orders(seeds, 1, num_examples, batch_size)
    for epoch in range(1, run.num_epochs + 1):
        states, sums = program.train_epoch(states, data, order)
        figures = _named("train", program.values(states, sums))
        if held_out is not None:
            figures |= _named("val", program.evaluate(states, held_out))
            best = program.keep_best(best, states, _cost(figures, run.best_by), epoch)
        if epoch < run.num_epochs:  # the device is at work: time to shuffle for the next epoch
            order = orders(seeds, epoch + 1, num_examples, batch_size)
        numbers, metrics = _real(piece, jax.device_get(figures))
        reached, ends = np.full(len(numbers), epoch), epoch == run.num_epochs
        yield Epoch(epoch, numbers, reached, metrics, {}, states, best, piece, ends, run)


def fit(train, val, settings: Hyperparameters | None = None, **options) -> Result:
    """`epochs` to the end: the `Result` of all trials. Takes what `epochs` takes."""
    return collect(epochs(train, val, settings, **options))


def orders(seeds, epoch, num_examples, batch_size):
    """The minibatches of an epoch, [S, steps, B] int32: a permutation per seed, padded with -1.

    A function of (seed, epoch) alone.

    >>> orders([0], 1, num_examples=5, batch_size=2).shape
    (1, 3, 2)
    """
    steps = -(-num_examples // batch_size)
    order = np.full((len(seeds), steps * batch_size), -1, np.int32)
    for row, seed in zip(order, seeds, strict=True):
        row[:num_examples] = np.random.default_rng((seed, epoch)).permutation(num_examples)
    return order.reshape(len(seeds), steps, batch_size)


def _create(run, piece, loss, num_features):
    table, columns = run.trials, piece.trials[0]
    return program.create(
        table.seed[piece.trials[:, 0]].astype(np.uint32),
        Hyperparameters(*(column[columns] for column in table.hyperparameters)),
        np.maximum(table.fold[columns], 0).astype(np.int32),
        model=run.model,
        loss=loss,
        tx=MOMENTUM_SGD if table.hyperparameters.momentum.any() else SGD,
        num_features=num_features,
        num_classes=len(run.label_names),
    )


def _input(train):
    return train.mean, train.scale, train.label_names


def _evaluation_data(on_device, val, resamples):
    if resamples is None:
        return None if val is None else program.device_data(val)
    held_out = (np.asarray(resamples) == 0).astype(np.uint8)
    return on_device._replace(resamples=jax.device_put(held_out))


def _named(prefix, figures):
    return {f"{prefix}_{name}": value for name, value in figures.items()}


def _cost(figures, best_by):
    return figures[best_by] if best_by.endswith("loss") else -figures[best_by]


def _real(piece, figures):
    """The numbers and figures of the real trials, flat: the padding goes no further."""

    def flat(values):
        return values[:, : piece.num_real].ravel()

    losses_first = sorted(
        figures, key=lambda name: (name.split("_")[0] != "train", "loss" not in name)
    )
    return flat(piece.trials), {name: flat(figures[name]) for name in losses_first}
