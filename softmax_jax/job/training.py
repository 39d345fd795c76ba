"""The training of a job: every step recorded, checkpoints in between, an orderly stop."""

from softmax_jax.job import console, processes, tensorboard
from softmax_jax.job.errors import WORKDIR, JobError
from softmax_jax.sweep.trees import MisfitError


def train(config, epochs, progress, workdir, num_examples, stop):
    """The `Result` of all epochs that are left, on top of what was there.

    Raises `signals.Stopped`, with a checkpoint saved, after the step in which a signal came, and
    JobError (exit code 3) where nothing can be written, or what was saved does not fit.
    """
    collection = progress.collection(epochs.run)
    workdir.write_metrics(collection.lines())
    shown = console.watch(epochs, num_examples)
    if config.tensorboard and processes.is_first():
        shown = tensorboard.recorded(shown, workdir.path)
    try:
        with stop.deferred():
            _steps(shown, collection, progress, workdir, stop)
    except MisfitError as error:
        raise JobError(f"{workdir.path}: {error}", WORKDIR) from error
    return collection.result()


def _steps(epochs, collection, progress, workdir, stop):
    for epoch in epochs:
        collection.add(epoch)
        workdir.append_metrics(epoch)
        stopping, due = progress.agree(stop)
        if stopping or due or (epoch.ends and not epoch.rest):
            progress.save(collection, epoch)
        if stopping:
            stop.requested = stopping
            break
