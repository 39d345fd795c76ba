"""A job from config to results: load, train, finish, in this order."""

import contextlib

from softmax_jax.job import (
    console,
    contents,
    endings,
    finishing,
    forecast,
    identity,
    loading,
    lock,
    machine,
    outputs,
    processes,
    report,
    resuming,
    signals,
    sweeping,
    training,
)
from softmax_jax.job.errors import DIVERGED, DONE
from softmax_jax.job.finishing import timed
from softmax_jax.job.workdir import Workdir


def main(config, folder="", *, overwrite=False, mode="run", distributed=False) -> int:
    """Runs (or only checks) the job and returns its exit code.

    An error is one message on the standard error. distributed: as one of several processes, see
    `processes.join`; one that fails alone does not return.
    """
    console.quieten()
    workdir = Workdir(folder)
    try:
        with signals.handled() as stop:
            if distributed:
                processes.join(folder)
            if mode == "check":
                code = check(config)
            else:
                code = run(config, workdir, stop, overwrite=overwrite)
    except (Exception, signals.Stopped) as error:
        code = endings.told(error, workdir, folder)
    return processes.leave(code)


def check(config) -> int:
    """Everything short of training: the config, the data, and what the job would take."""
    _prepare(config)
    splits = loading.load_checked(config)
    epochs = sweeping.start(config, splits)
    forecast.say(splits, epochs)
    return DONE


def run(config, workdir, stop, *, overwrite=False) -> int:
    """The job itself, from its start or from where it was broken off.

    Raises JobError, data.DataError and `signals.Stopped`.
    """
    _prepare(config)
    seconds = {}
    splits, job, ended = processes.agreed(_read, config, workdir, overwrite, seconds)
    processes.same(int(identity.digest(job)[:7], 16), "config and data")
    parts = sum(part.part_size or 0 for part in (splits.train, splits.val))
    processes.same(parts, "number of examples in memory at a time")
    if ended is not None:  # even where nothing can be written
        return ended
    with contextlib.ExitStack() as held:
        own = held, config, workdir, splits, job, overwrite
        ended, progress, epochs = processes.led(_begin, *own)
        if ended is not None:
            return ended
        processes.same(progress.number, "checkpoint (is --workdir a folder that they share?)")
        return _run(config, workdir, stop, splits, progress, epochs, seconds)


def _read(config, workdir, overwrite, seconds):
    """The data, the identity of the job on them, and the exit code with which it has ended."""
    found = None if overwrite else contents.job_in(workdir.path)
    with timed(seconds, "data"):
        splits = loading.load_checked(config, found)
    machine.mesh(config)
    job = identity.of(config.to_dict(), splits)
    return splits, job, None if overwrite else _outcome(workdir.path, job)


def _begin(held, config, workdir, splits, job, overwrite):
    """(exit code, None, None) of a job that has ended; else (None, where it stands, its epochs).

    held: what is to be held until the end, of which the lock of the folder is one.
    """
    workdir.open()
    if processes.is_first():
        console.warn_if(held.enter_context(lock.held(workdir.path)))
    # Who held the lock before may have been at work here.
    ended = None if overwrite else _outcome(workdir.path, job)
    if ended is not None:
        return ended, None, None
    return None, *_start(config, workdir, splits, job, overwrite)


def _outcome(folder, job):
    """The exit code of this job where the folder holds it and it has ended, else None."""
    code = contents.outcome(folder) if contents.holds(folder, job) else None
    if code is not None:
        console.say(f"{folder} holds this job, finished. Nothing is left to do.")
    return code


def _start(config, workdir, splits, job, overwrite):
    """Where the job stands, and the epochs that are left of it.

    What cannot be run is refused before anything is deleted or written.
    """
    folder = workdir.path
    begun = not overwrite and contents.holds(folder, job)
    epochs = None if begun else sweeping.start(config, splits)
    contents.tidy(folder)
    if not begun:
        contents.clear(folder)
        outputs.write_provenance(workdir, config, splits, job)
    progress = resuming.Progress(folder / "checkpoints", job, config)
    return progress, epochs or sweeping.start(config, splits, progress.work)


def _run(config, workdir, stop, splits, progress, epochs, seconds):
    """What is left of the job, in its own folder, with the data at hand."""
    report.say_start(splits, workdir.path, progress)
    result = training.train(config, epochs, progress, workdir, len(splits.train.y), stop)
    seconds["training"] = progress.training_seconds()
    outputs.write_tables(workdir, config, result)
    if result.has_winner:
        finishing.finish(config, workdir, splits, result, seconds)
        return DONE
    outputs.write_summary(workdir, config, splits, result, None, None, {}, seconds)
    report.say_diverged(result)
    return DIVERGED


def _prepare(config):
    machine.use_compilation_cache()
    machine.use_precision(config.get("precision"))
    machine.start()
