"""Minibatch SGD on the pieces of a sweep: an epoch is an order of the data and its programs."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from softmax_jax.batches import Data
from softmax_jax.sweep import portions, program, tasks
from softmax_jax.sweep.epoch import Epoch
from softmax_jax.sweep.figures import evaluate, fetch, named
from softmax_jax.sweep.placement import padded
from softmax_jax.sweep.settings import in_use
from softmax_jax.train import MOMENTUM_SGD, SGD


class _Span(NamedTuple):
    """Steps that run as one program: those of an epoch, or of its part `number` (from 1)."""

    epoch: int
    number: int
    is_last: bool
    data: Data
    order: np.ndarray


def epochs(run, work, objective, sources, span_steps=0) -> Iterator[Epoch]:
    """The epochs of all tasks, one task after the other.

    span_steps: the most steps in a program (0: an epoch); after each the generator yields.
    """
    for number, task in enumerate(work):
        fold = int(run.trials.fold[task.piece.trials[0, 0]])
        rest = tuple(work[number + 1 :])
        yield from _piece_epochs(run, task, rest, objective, *sources.of(fold), span_steps)


def _piece_epochs(run, task, rest, objective, feed, held_out, span_steps):
    """Train, evaluate, keep the best, stop who is done, yield."""
    piece, placement = task.piece, run.placement
    states, best, sums = _start(run, task, objective, feed)
    running = np.broadcast_to(np.arange(piece.trials.shape[1]) < piece.num_real, piece.trials.shape)
    if states.stopped is not None:
        running = running & ~placement.fetch(states.stopped)
    at_once = _at_once(run, piece, feed, states.objective)
    spans = _spans(run, task, feed, span_steps)
    upcoming = next(spans)
    while upcoming is not None:
        span = upcoming
        states, own = program.train_epoch(states, span.data, span.order, at_once)
        sums = own if sums is None else program.add(sums, own)
        figures, trained, facts, part = {}, np.zeros_like(running), {}, span.number
        if span.is_last:
            figures = named("train", program.values(states, sums))
            if held_out is not None:
                figures |= named("val", evaluate(states, held_out))
                best = program.keep_best(best, states, _cost(figures, run.best_by), span.epoch)
            if states.stopped is not None:
                states = states.replace(stopped=program.stopped(states, best, span.epoch))
            trained, sums, part = running, None, 0
        upcoming = next(spans, None)  # the device is at work: time to shuffle, and to read
        if states.stopped is not None and span.is_last:
            stopped = placement.fetch(states.stopped)
            facts = {"stopped_epoch": np.where(stopped, span.epoch, 0)[trained]}
            running = trained & ~stopped
        metrics = {name: values[trained] for name, values in fetch(figures, placement).items()}
        ends = upcoming is None or not running.any()
        numbers = piece.trials[trained]
        yield Epoch(
            epoch=span.epoch,
            trials=numbers,
            reached=np.full(len(numbers), span.epoch),
            metrics=metrics,
            facts=facts,
            states=states,
            best=best,
            piece=piece,
            ends=ends,
            run=run,
            part=part,
            progress={"states": states, "best": best} | ({"sums": sums} if part else {}),
            rest=rest,
        )
        if ends:
            return


def _start(run, task, objective, feed):
    """States, best epochs and sums (None: the epoch has not begun), fresh or as they were saved."""
    placement = run.placement
    states = create(run, task.piece, objective, feed)
    best = placement.trials(program.no_best(states))
    if task.saved is None:
        return states, best, None
    like = {"states": states, "best": best}
    if task.part:
        like["sums"] = jax.eval_shape(program.train_epoch, states, *_example(feed, states))[1]
    saved = placement.trials(tasks.load(task, like))
    return saved["states"], saved["best"], saved.get("sums")


def _example(feed, states):
    """Data and an order of one step, for their shapes."""
    _, data = next(feed.parts())
    return data, np.zeros((len(states.step), 1, 1), np.int32)


def _spans(run, task, feed, span_steps) -> Iterator[_Span]:
    """Every span of the task's epochs that does not lie behind it."""
    piece, placement = task.piece, run.placement
    seeds, batch_size = run.trials.seed[piece.trials[:, 0]], _batch_size(run, piece)
    for epoch in range(task.epoch + 1, run.num_epochs + 1):
        done = task.part if epoch == task.epoch + 1 else 0
        left = -(-run.num_examples // batch_size)
        number = 0
        for part, data in feed.parts(epoch, batch_size):
            order = orders(seeds, epoch, len(data.y), batch_size, part)
            order = padded(order, -1, placement.size("batch"), -1)
            limit = span_steps or order.shape[1]
            for start in range(0, order.shape[1], limit):
                span = order[:, start : start + limit]
                left, number = left - span.shape[1], number + 1
                if number > done:
                    span = placement.batches(span, piece.trials.shape)
                    yield _Span(epoch, number, left == 0, data, span)


def orders(seeds, epoch, num_examples, batch_size, part=0):
    """The minibatches of an epoch, [S, steps, B] int32: a permutation per seed, padded with -1.

    A function of (seed, epoch) alone; where an epoch is read in parts, of the part's number too.

    >>> orders([0], 1, num_examples=5, batch_size=2).shape
    (1, 3, 2)
    """
    steps = -(-num_examples // batch_size)
    order = np.full((len(seeds), steps * batch_size), -1, np.int32)
    for row, seed in zip(order, seeds, strict=True):
        key = (seed, epoch, part) if part else (seed, epoch)
        row[:num_examples] = np.random.default_rng(key).permutation(num_examples)
    return order.reshape(len(seeds), steps, batch_size)


def create(run, piece, objective, feed):
    """Fresh states [S, K] for the trials of a piece."""
    table, columns, placement = run.trials, piece.trials[0], run.placement
    return program.create(
        placement.everywhere(table.seed[piece.trials[:, 0]].astype(np.uint32)),
        placement.rows(jax.tree.map(lambda column: column[columns], in_use(table.hyperparameters))),
        placement.rows(np.maximum(table.fold[columns], 0).astype(np.int32)),
        -(-run.num_examples // _batch_size(run, piece)) * run.num_epochs,
        model=run.model,
        objective=objective(int(table.num_samples[columns[0]])),
        schedule=run.schedule,
        tx=MOMENTUM_SGD if table.hyperparameters.momentum.any() else SGD,
        num_features=feed.dataset.num_features,
        num_classes=len(run.label_names),
        placement=placement,
    )


def _at_once(run, piece, feed, objective):
    """How many trials of each seed to train at once; None: all."""
    num_scores = _batch_size(run, piece) if objective.holds_logits else 0
    sizes = feed.dataset.num_features, len(run.label_names), num_scores
    return portions.in_training(run.placement, piece.trials.shape, *sizes)


def _batch_size(run, piece):
    """That of all trials of a piece."""
    return int(run.trials.batch_size[piece.trials[0, 0]])


def _cost(figures, best_by):
    return figures[best_by] if best_by.endswith("loss") else -figures[best_by]
