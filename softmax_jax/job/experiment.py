"""A job from config to results: load, train, select, test, draw, write, in this order."""

import contextlib
import sys
import time

from softmax_jax import data, sweep
from softmax_jax.job import config as rules
from softmax_jax.job import console, machine, outputs, report, sweeping
from softmax_jax.job.errors import DIVERGED, DONE, INTERRUPTED, USAGE, JobError
from softmax_jax.job.workdir import Workdir


def main(config, folder="") -> int:
    """Runs the job and returns its exit code; an error is one message on the standard error."""
    try:
        return run(config, folder)
    except (JobError, data.DataError) as error:
        print(f"main.py: {error}", file=sys.stderr)
        return getattr(error, "exit_code", USAGE)
    except KeyboardInterrupt:
        print("main.py: interrupted.", file=sys.stderr)
        return INTERRUPTED


def run(config, folder="") -> int:
    """The job itself, with its results in `folder` ('': a new one under runs/).

    Raises JobError and data.DataError.
    """
    seconds = {}
    console.quieten()
    machine.use_compilation_cache()
    with _timed(seconds, "data"):
        splits = load_checked(config)
    epochs = sweeping.start(config, splits)
    workdir = Workdir(folder)
    outputs.write_provenance(workdir, config, splits)
    report.say_start(splits, workdir.path)
    with _timed(seconds, "training"):
        shown = console.watch(epochs, len(splits.train.y))
        result = sweep.collect(outputs.recorded(shown, workdir))
    outputs.write_tables(workdir, config, result)
    if not result.has_winner:
        outputs.write_summary(workdir, config, splits, result, None, None, seconds)
        report.say_diverged(result)
        return DIVERGED
    with _timed(seconds, "selection"):
        selected = sweeping.select(config, splits, result)
        test = None if splits.test is None else selected.classifier.test(splits.test)
    outputs.write_params(workdir, selected.classifier)
    with _timed(seconds, "pictures"):
        outputs.draw(workdir, config, splits, result, selected)
    outputs.write_summary(workdir, config, splits, result, selected, test, seconds)
    report.say_result(config, splits, result, selected, test)
    report.say_files(workdir.path)
    return DONE


def load_checked(config) -> data.Splits:
    """The data of the config, or one JobError with all that is wrong with either."""
    problems = rules.problems(config)
    if not rules.names_data(config):
        rules.refuse(problems)
    try:
        splits = load(config)
    except data.DataError as error:
        if not problems:
            raise
        rules.refuse([*problems, str(error)])
    rules.refuse(problems + rules.problems_with(config, len(splits.train.y)))
    return splits


def load(config) -> data.Splits:
    """The dataset of the config, or with a loud warning its fallback."""
    splits = config.train_split, config.val_split, config.test_split
    try:
        return data.load(config.dataset, *splits, data_dir=config.data_dir or None)
    except data.DatasetNotFoundError as error:
        if config.dataset != "fashion_mnist" or not config.dataset_fallback:
            raise
        console.warn(
            f"{error}\nTRAINING ON {config.dataset_fallback.upper()} INSTEAD. "
            "To make this an error: --config.dataset_fallback="
        )
        return data.load(config.dataset_fallback, *splits)


@contextlib.contextmanager
def _timed(seconds, phase):
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
