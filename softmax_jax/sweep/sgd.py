"""Minibatch SGD on the chunks of a sweep: an epoch is an order of the data and its programs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Integer

from softmax_jax.sweep import chunks, program
from softmax_jax.sweep.chunks import Chunk, Epoch, Pending, Run
from softmax_jax.sweep.inputs import InputPair, Inputs
from softmax_jax.sweep.mesh import padded
from softmax_jax.sweep.program import evaluate_inputs, fetch_metrics, prefixed
from softmax_jax.sweep.settings import in_use
from softmax_jax.train import Data, State


class _Segment(NamedTuple):
    """Steps that run as one program: segment `number` (from 1) of an epoch."""

    epoch: int
    number: int
    is_last: bool
    data: Data
    order: Int[np.ndarray, "S steps B"]


def epochs(
    run: Run, pending: list[Pending], pair: InputPair, steps_per_call: int = 0
) -> Iterator[Epoch]:
    """The epochs of all pending chunks, one chunk after the other.

    steps_per_call: the most steps of a segment (0: an epoch); after each the generator yields.
    """
    for number, item in enumerate(pending):
        fold = int(run.trials.fold[item.chunk.trials[0, 0]])
        later = tuple(pending[number + 1 :])
        yield from _chunk_epochs(run, item, later, *pair.of(fold), steps_per_call)


def _chunk_epochs(run, item, later, inputs, held_out, steps_per_call):
    """Trains, evaluates, keeps the best, stops the trials that are done, yields."""
    chunk, placement, criterion = item.chunk, run.placement, _criterion(run, item.chunk)
    states, best, sums = _start(run, item, inputs)
    running = np.broadcast_to(np.arange(chunk.trials.shape[1]) < chunk.num_real, chunk.trials.shape)
    if states.stopped is not None:
        running = running & ~placement.fetch(states.stopped)
    static = criterion, run.schedule, _microchunk(run, chunk, inputs)
    segments = _segments(run, item, inputs, steps_per_call)
    upcoming = next(segments)
    while upcoming is not None:
        segment = upcoming
        states, own = program.train_epoch(states, segment.data, segment.order, *static)
        sums = own if sums is None else program.add(sums, own)
        measured, trained, facts, done = {}, np.zeros_like(running), {}, segment.number
        if segment.is_last:
            measured = prefixed("train", program.values(sums, criterion))
            if held_out is not None:
                measured |= prefixed("val", evaluate_inputs(states, held_out, criterion))
                best = program.keep_best(best, states, _cost(measured, run.best_by), segment.epoch)
            if states.stopped is not None:
                states = states.replace(stopped=program.stopped(states, best, segment.epoch))
            trained, sums, done = running, None, 0
        upcoming = next(segments, None)  # shuffle and read while the device computes
        if states.stopped is not None and segment.is_last:
            stopped = placement.fetch(states.stopped)
            facts = {"stopped_epoch": np.where(stopped, segment.epoch, 0)[trained]}
            running = trained & ~stopped
        fetched = fetch_metrics(measured, placement)
        ends = upcoming is None or not running.any()
        numbers = chunk.trials[trained]
        yield Epoch(
            epoch=segment.epoch,
            trials=numbers,
            reached=np.full(len(numbers), segment.epoch),
            metrics={name: values[trained] for name, values in fetched.items()},
            facts=facts,
            states=states,
            best=best,
            chunk=chunk,
            ends=ends,
            run=run,
            segment=done,
            progress={"states": states, "best": best} | ({"sums": sums} if done else {}),
            pending=later,
        )
        if ends:
            return


def _start(run, item, inputs):
    """States, best epochs and sums (None: no segment is done), fresh or as they were saved."""
    placement = run.placement
    states = create_states(run, item.chunk, inputs)
    best = placement.trials(program.no_best(states))
    if item.saved is None:
        return states, best, None
    like = {"states": states, "best": best}
    if item.segment:
        _, data = next(inputs.shards())
        order = np.zeros((len(states.step), 1, 1), np.int32)  # one step, for the shapes
        static = _criterion(run, item.chunk), run.schedule
        like["sums"] = jax.eval_shape(
            lambda states: program.train_epoch(states, data, order, *static)[1], states
        )
    saved = placement.trials(chunks.restore_state(item, like))
    return saved["states"], saved["best"], saved.get("sums")


def _segments(run, item, inputs, steps_per_call) -> Iterator[_Segment]:
    """Every segment of the chunk's epochs that is still pending."""
    chunk, placement = item.chunk, run.placement
    seeds, batch_size = run.trials.seed[chunk.trials[:, 0]], _batch_size(run, chunk)
    for epoch in range(item.epoch + 1, run.num_epochs + 1):
        done = item.segment if epoch == item.epoch + 1 else 0
        steps_left = -(-run.num_examples // batch_size)
        number = 0
        for shard, data in inputs.shards(epoch, batch_size):
            order = orders(seeds, epoch, len(data.y), batch_size, shard)
            order = np.asarray(padded(order, -1, placement.size("batch"), -1))
            limit = steps_per_call or order.shape[1]
            for start in range(0, order.shape[1], limit):
                steps = order[:, start : start + limit]
                steps_left, number = steps_left - steps.shape[1], number + 1
                if number > done:
                    steps = placement.batches(steps, chunk.trials.shape)
                    yield _Segment(epoch, number, steps_left == 0, data, steps)


def orders(
    seeds: Sequence[int] | Integer[np.ndarray, " S"],
    epoch: int,
    num_examples: int,
    batch_size: int,
    shard: int = 0,
) -> Int[np.ndarray, "S steps B"]:
    """The minibatches of an epoch: a permutation of the examples per seed, padded with -1.

    A function of (seed, epoch) alone; where an epoch is read by shards, of the shard's number too.

    >>> orders([0], 1, num_examples=5, batch_size=2).shape
    (1, 3, 2)
    """
    steps = -(-num_examples // batch_size)
    order = np.full((len(seeds), steps * batch_size), -1, np.int32)
    for row, seed in zip(order, seeds, strict=True):
        key = (seed, epoch, shard) if shard else (seed, epoch)
        row[:num_examples] = np.random.default_rng(key).permutation(num_examples)
    return order.reshape(len(seeds), steps, batch_size)


def create_states(run: Run, chunk: Chunk, inputs: Inputs) -> State:
    """Fresh states [S, K] for the trials of a chunk."""
    table, columns, placement = run.trials, chunk.trials[0], run.placement
    return program.create(
        placement.everywhere(table.seed[chunk.trials[:, 0]].astype(np.uint32)),
        placement.rows(jax.tree.map(lambda column: column[columns], in_use(table.hyperparameters))),
        placement.rows(np.maximum(table.fold[columns], 0).astype(np.int32)),
        -(-run.num_examples // _batch_size(run, chunk)) * run.num_epochs,
        model=run.model,
        num_features=inputs.dataset.num_features,
        num_classes=len(run.label_names),
        placement=placement,
    )


def _criterion(run, chunk):
    """What the trials of a chunk minimise: all draw the same number of samples."""
    return run.criterion(int(run.trials.num_samples[chunk.trials[0, 0]]))


def _microchunk(run, chunk, inputs):
    """How many trials of each seed to train at once; None: all."""
    num_scores = _batch_size(run, chunk) if _criterion(run, chunk).holds_logits else 0
    sizes = inputs.dataset.num_features, len(run.label_names), num_scores
    return program.training_microchunk(run.placement, chunk.trials.shape, *sizes)


def _batch_size(run, chunk):
    """That of all trials of a chunk."""
    return int(run.trials.batch_size[chunk.trials[0, 0]])


def _cost(measured, best_by):
    return measured[best_by] if best_by.endswith("loss") else -measured[best_by]
