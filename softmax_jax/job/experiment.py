"""A job from config to results: load, train, select, test, draw, write, in this order."""

import contextlib
import time

from softmax_jax import data
from softmax_jax.job import config as rules
from softmax_jax.job import (
    console,
    contents,
    decisions,
    forecast,
    identity,
    language,
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
from softmax_jax.job.workdir import Workdir

_MOST_CLASSES = 1000  # of which each has its own line in a table


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
    splits = load_checked(config)
    epochs = sweeping.start(config, splits)
    forecast.say(config, splits, epochs)
    return DONE


def run(config, workdir, stop, *, overwrite=False) -> int:
    """The job itself, from its start or from where it was broken off.

    Raises JobError, data.DataError and `signals.Stopped`.
    """
    _prepare(config)
    seconds, found = {}, None if overwrite else contents.job_in(workdir.path)
    with _timed(seconds, "data"):
        splits = load_checked(config, found)
    job = identity.of(config.to_dict(), splits)
    ended = None if overwrite else _outcome(workdir.path, job)
    if ended is not None:  # even where nothing can be written
        return ended
    workdir.open()
    with lock.held(workdir.path) as warning:
        console.warn_if(warning)
        if overwrite:
            contents.clear(workdir.path)
        ended = _outcome(workdir.path, job)  # who held the lock before may have been at work
        if ended is not None:
            return ended
        contents.tidy(workdir.path)
        if not contents.holds(workdir.path, job):
            outputs.write_provenance(workdir, config, splits, job)
        return _run(config, workdir, stop, splits, job, seconds)


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


def _run(config, workdir, stop, splits, job, seconds):
    """What is left of the job, in its own folder, with the data at hand."""
    progress = resuming.Progress(workdir.path / "checkpoints", job, config)
    epochs = sweeping.start(config, splits, progress.work)
    report.say_start(splits, workdir.path, progress)
    result = training.train(config, epochs, progress, workdir, len(splits.train.y), stop)
    seconds["training"] = progress.training_seconds()
    outputs.write_tables(workdir, config, result)
    if not result.has_winner:
        outputs.write_summary(workdir, config, splits, result, None, None, {}, seconds)
        report.say_diverged(result)
        return DIVERGED
    with _timed(seconds, "selection"):
        chosen = sweeping.select(config, result)
        selected = sweeping.refit(config, splits, result, chosen)
        test = None if splits.test is None else selected.classifier.test(splits.test)
        more = _judged(config, splits, result, chosen, selected)
    outputs.write_params(workdir, selected.classifier)
    # A refit on train and val has seen what it would be judged on: the chosen model has not.
    judged = chosen if config.refit else selected
    if config.predictions:
        outputs.write_predictions(workdir, splits, judged.classifier, selected.classifier)
    with _timed(seconds, "pictures"):
        outputs.draw(workdir, config, splits, result, judged)
    with _timed(seconds, "studies"):
        studies = outputs.write_studies(workdir, config, splits, selected)
    more |= studies
    outputs.write_summary(workdir, config, splits, result, selected, test, more, seconds)
    report.say_result(config, splits, result, selected, test)
    report.say_more(config, more)
    report.say_files(workdir.path)
    return DONE


def _judged(config, splits, result, chosen, selected):
    """What summary.json holds beyond loss and accuracy: classes, costs, the language."""
    more = {"language": language.distance(splits, selected.classifier), "decisions": None}
    if len(splits.label_names) <= _MOST_CLASSES:
        counts = sweeping.resamples(config, splits.train)
        more["decisions"] = decisions.fields(config, splits, result, chosen, selected, counts)
    return more


def load_checked(config, found=None) -> data.Splits:
    """The data of the config, or one JobError with all that is wrong with either.

    found: the identity of the job that is to go on; its data are taken, and no fallback.
    """
    problems = rules.problems(config)
    if not rules.names_data(config):
        rules.refuse(problems)
    try:
        splits = load(config, found["data"]["name"] if found else "")
    except data.DataError as error:
        if not problems:
            raise
        rules.refuse([*problems, str(error)])
    rules.refuse(problems + rules.problems_with(config, splits))
    return splits


def load(config, name="") -> data.Splits:
    """The dataset of that name, or that of the config, or with a loud warning its fallback."""
    splits = config.train_split, config.val_split, config.test_split
    options = {"dtype": "float64" if config.precision == "float64" else "float32"}
    if name and name == config.dataset_fallback:
        return data.load(name, *splits, **options)
    try:
        return data.load(config.dataset, *splits, data_dir=config.data_dir or None, **options)
    except data.DatasetNotFoundError as error:
        if name or config.dataset != "fashion_mnist" or not config.dataset_fallback:
            raise
        console.warn(
            f"{error}\nTRAINING ON {config.dataset_fallback.upper()} INSTEAD. "
            "To make this an error: --config.dataset_fallback="
        )
        return data.load(config.dataset_fallback, *splits, **options)


def _prepare(config):
    console.quieten()
    machine.use_compilation_cache()
    machine.use_precision(config.get("precision"))


@contextlib.contextmanager
def _timed(seconds, phase):
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
