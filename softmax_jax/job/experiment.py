"""A job from config to results: load, train, finish, in this order."""

from softmax_jax import data
from softmax_jax.job import (
    console,
    contents,
    finishing,
    forecast,
    identity,
    loading,
    lock,
    machine,
    outputs,
    report,
    resuming,
    signals,
    sweeping,
    training,
)
from softmax_jax.job.errors import DIVERGED, DONE, USAGE, JobError
from softmax_jax.job.finishing import timed
from softmax_jax.job.workdir import Workdir


def main(config, folder="", *, overwrite=False, mode="run") -> int:
    """Runs (or only checks) the job and returns its exit code.

    An error is one message on the standard error.
    """
    workdir = Workdir(folder)
    try:
        with signals.handled() as stop:
            if mode == "check":
                return check(config)
            return run(config, workdir, stop, overwrite=overwrite)
    except (JobError, data.DataError) as error:
        console.complain(f"main.py: {error}")
        return getattr(error, "exit_code", USAGE)
    except signals.Stopped as stopped:
        console.complain(f"main.py: {stopped}{_way_on(workdir, folder)}.")
        return stopped.exit_code


def check(config) -> int:
    """Everything short of training: the config, the data, and what the job would take."""
    _prepare(config)
    splits = loading.load_checked(config)
    epochs = sweeping.start(config, splits)
    forecast.say(config, splits, epochs)
    return DONE


def run(config, workdir, stop, *, overwrite=False) -> int:
    """The job itself, from its start or from where it was broken off.

    Raises JobError, data.DataError and `signals.Stopped`.
    """
    _prepare(config)
    seconds, found = {}, None if overwrite else contents.job_in(workdir.path)
    with timed(seconds, "data"):
        splits = loading.load_checked(config, found)
    job = identity.of(config.to_dict(), splits)
    ended = None if overwrite else _outcome(workdir.path, job)
    if ended is not None:  # even where nothing can be written
        return ended
    workdir.open()
    with lock.held(workdir.path) as warning:
        console.warn_if(warning)
        # Who held the lock before may have been at work here.
        ended = None if overwrite else _outcome(workdir.path, job)
        if ended is not None:
            return ended
        progress, epochs = _start(config, workdir, splits, job, overwrite)
        return _run(config, workdir, stop, splits, progress, epochs, seconds)


def _outcome(folder, job):
    """The exit code of this job where the folder holds it and it has ended, else None."""
    code = contents.outcome(folder) if contents.holds(folder, job) else None
    if code is not None:
        console.say(f"{folder} holds this job, finished. Nothing is left to do.")
    return code


def _way_on(workdir, folder):
    """How a job that was stopped is gone on with; nothing if it had no folder yet."""
    if folder:
        return "; the same command goes on from here"
    if workdir.path:
        return f"; the same command with --workdir={workdir.path} goes on from here"
    return ""


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


def _run(config, workdir, stop, splits, job, seconds):
    """What is left of the job, in its own folder, with the data at hand."""
    progress = resuming.Progress(workdir.path / "checkpoints", job, config)
    epochs = sweeping.start(config, splits, progress.work)
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
    console.quieten()
    machine.use_compilation_cache()
    machine.use_precision(config.get("precision"))
