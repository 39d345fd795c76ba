"""Every step is on disk before the next; a signal ends the training with nothing lost."""

import json
import signal

import numpy as np
import pytest

from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import checkpoint, workdir
from softmax_jax.job.processes import Stop, Stopped
from softmax_jax.job.run import train
from softmax_jax.job.workdir import Workdir
from tests import flat

JOB = {"config": {}, "data": {"name": "digits"}}
NUM_EPOCHS = 4


@pytest.fixture
def job(config, splits, tmp_path):
    """job(stop, watch, **fields): trains what is left of a job, as a new process would.

    watch(epoch) is called with every epoch before the training hears of it.
    """
    config.checkpoint_seconds = 0

    def run(stop=None, watch=id, **fields):
        config.update(fields)
        progress = checkpoint.Progress(tmp_path / "checkpoints", JOB, config)
        options = {"num_epochs": NUM_EPOCHS, "batch_size": 256, "work": progress.pending}
        epochs = flat.epochs(splits.train, splits.val, seeds=(0, 1), **options)
        epochs._epochs = seen(epochs._epochs, watch)
        workdir = Workdir(tmp_path)
        return train(config, epochs, progress, workdir, 1437, stop or Stop())

    return run


def seen(epochs, watch):
    for epoch in epochs:
        watch(epoch)
        yield epoch


def saved(folder):
    return [int(path.stem) for path in checkpoint.saved_files(folder / "checkpoints")]


def lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_each_epoch_is_on_disk_before_the_next_is_asked_for(job, tmp_path):
    def watch(epoch):
        assert len(lines(tmp_path)) == 2 * (epoch.epoch - 1)
        assert saved(tmp_path) == list(range(1, epoch.epoch))

    result = job(watch=watch, keep=9)
    last = json.loads(lines(tmp_path)[-1])
    assert (last["trial"], last["epoch"]) == (1, NUM_EPOCHS)
    assert np.float32(last["val_loss"]) == result.metrics["val_loss"][1, -1]
    assert saved(tmp_path) == [1, 2, 3, 4]


def test_the_last_checkpoints_are_kept_and_one_is_made_at_the_end_in_any_case(job, tmp_path):
    job(keep=2)
    assert saved(tmp_path) == [3, 4]


def test_without_a_checkpoint_due_there_is_one_at_the_end(job, tmp_path):
    job(checkpoint_seconds=1000)
    assert saved(tmp_path) == [1]


@pytest.mark.parametrize("when", [1, 3, NUM_EPOCHS])
def test_a_signal_ends_the_step_saves_and_the_rest_is_as_if_nothing_had_happened(
    job, tmp_path, when
):
    stop = Stop()

    def watch(epoch):
        if epoch.epoch == when:
            stop.handle(signal.SIGTERM, None)

    with pytest.raises(Stopped) as stopped:
        job(stop, watch, checkpoint_seconds=1000)
    assert stopped.value.exit_code == 143
    assert saved(tmp_path) == [1] and len(lines(tmp_path)) == 2 * when
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"trial": 0, "epoch": 5, "train_lo')  # as one that is killed leaves it
    seen_after = []
    broken_off = job(watch=lambda epoch: seen_after.append(epoch.epoch))
    assert seen_after == list(range(when + 1, NUM_EPOCHS + 1))
    interrupted = (tmp_path / "metrics.jsonl").read_text()
    for path in checkpoint.saved_files(tmp_path / "checkpoints"):
        path.unlink()
    whole = job()
    assert interrupted == (tmp_path / "metrics.jsonl").read_text()
    assert broken_off.table() == whole.table()
    np.testing.assert_array_equal(broken_off.classifier(1).W, whole.classifier(1).W)


def test_what_was_saved_by_another_program_is_an_error_of_the_folder(job, tmp_path):
    """The same job under the same format, whose state has another leaf than this program's."""

    def stop_at_once(_):
        stop.handle(signal.SIGINT, None)

    stop = Stop()
    with pytest.raises(Stopped):
        job(stop, stop_at_once)
    made, _ = checkpoint.restore(tmp_path / "checkpoints", workdir.digest(JOB))
    made.arrays["work/0/states/other"] = made.arrays.pop("work/0/states/step")
    checkpoint.save(tmp_path / "checkpoints", made, 1)
    with pytest.raises(JobError, match="states/step is missing; states/other has no") as error:
        job()
    assert error.value.exit_code == WORKDIR


def test_metrics_that_cannot_be_written_end_the_training_with_what_was_saved_intact(job, tmp_path):
    def take_away(epoch):
        if epoch.epoch == 3:
            (tmp_path / "metrics.jsonl").unlink()
            (tmp_path / "metrics.jsonl").mkdir()

    with pytest.raises(JobError, match="metrics.jsonl cannot be written") as error:
        job(watch=take_away)
    assert error.value.exit_code == WORKDIR and saved(tmp_path) == [1, 2]
