"""A job's progress outlives its process: measurements, work that is left, seconds of training."""

import itertools

import jax
import numpy as np
import pytest

from softmax_jax import sweep
from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import checkpoint
from softmax_jax.job.processes import Stop
from tests import flat

JOB = {"config": {"l2": 0.0}, "data": {"name": "digits"}}


@pytest.fixture
def start(config, tmp_path):
    """start(job=JOB, **fields): the progress of a job in this folder, as a new process sees it."""

    def make(job=JOB, **fields):
        config.update(fields)
        return checkpoint.Progress(tmp_path, job, config)

    return make


@pytest.fixture
def epochs(splits):
    """epochs(pending=None): three of two trials, in two chunks."""

    def make(pending=None):
        settings = sweep.grid(learning_rate=(0.1, 0.3))
        options = {"num_epochs": 3, "batch_size": 256, "chunk": 1, "pending": pending}
        return flat.epochs(splits.train, splits.val, settings, **options)

    return make


def test_a_new_job_has_nothing_behind_it(start, epochs):
    progress = start()
    assert progress.pending is None and progress.warnings == [] and progress.seconds == 0
    assert progress.collection(epochs().run).arrays()["log"].size == 0


@pytest.mark.parametrize("after", [2, 3, 6])
def test_a_new_process_goes_on_where_the_last_checkpoint_was_saved(start, epochs, after):
    def train(progress, steps):
        running = epochs(progress.pending)
        collection = progress.collection(running.run)
        for epoch in itertools.islice(running, steps):
            collection.add(epoch)
            progress.save(collection, epoch)
        return collection

    whole = train(start(keep=9), after)
    progress = start()
    assert checkpoint.saved_files(progress._folder)[-1].stem == f"{after:08d}"
    assert sum(3 - task.epoch for task in progress.pending) == 6 - after
    again = progress.collection(epochs().run)
    jax.tree.map(np.testing.assert_array_equal, again.arrays(), whole.arrays())
    rest = train(progress, 9)
    assert rest.count.tolist() == [3, 3] and start().pending == []
    numbers = [int(path.stem) for path in checkpoint.saved_files(progress._folder)]
    assert numbers == list(range(1, 7))


def test_the_seconds_of_earlier_processes_count(start, epochs, monkeypatch):
    now = iter(range(0, 10**6, 100))
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(now))
    progress, running = start(), epochs()
    collection, epoch = progress.collection(running.run), next(running)
    collection.add(epoch)
    progress.save(collection, epoch)
    spent = start().seconds
    assert spent >= 100
    assert start().training_seconds() >= spent + 100


def test_a_checkpoint_is_due_after_so_many_seconds_of_a_clock_that_never_goes_back(
    start, epochs, monkeypatch
):
    now = [1000.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint.time, "time", lambda: pytest.fail("a clock that may be set"))
    progress, running = start(checkpoint_seconds=30), epochs()
    assert progress.agree(Stop()) == (0, False)
    now[0] += 30
    assert progress.agree(Stop()) == (0, True)
    collection, epoch = progress.collection(running.run), next(running)
    collection.add(epoch)
    progress.save(collection, epoch)
    assert progress.agree(Stop()) == (0, False)
    assert start(checkpoint_seconds=0).agree(Stop()) == (0, True)


def test_a_signal_is_passed_on(start):
    stop = Stop()
    stop.requested = 15
    assert start(checkpoint_seconds=30).agree(stop) == (15, False)


def test_checkpoints_of_another_job_are_refused(start, epochs):
    progress, running = start(), epochs()
    collection, epoch = progress.collection(running.run), next(running)
    collection.add(epoch)
    progress.save(collection, epoch)
    with pytest.raises(JobError, match="belongs to another job") as error:
        start({"config": {"l2": 0.1}, "data": {"name": "digits"}})
    assert error.value.exit_code == WORKDIR


def test_a_damaged_checkpoint_is_told_of(start, epochs):
    progress, running = start(keep=2), epochs()
    collection = progress.collection(running.run)
    for epoch in itertools.islice(running, 2):
        collection.add(epoch)
        progress.save(collection, epoch)
    with open(checkpoint.saved_files(progress._folder)[-1], "r+b") as file:
        file.truncate(1000)
    again = start()
    assert len(again.warnings) == 1 and "00000002.npz is damaged" in again.warnings[0]
    assert again.work[0].epoch == 1
