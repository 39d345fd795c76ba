"""A job from config to results: load, train, select, test, write, in this order."""

import contextlib
import importlib.metadata
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from softmax_jax import data, losses, models, sweep
from softmax_jax.job import config as rules
from softmax_jax.job import console, plots, report, sweep_plots
from softmax_jax.job.errors import DIVERGED, DONE, INTERRUPTED, JobError
from softmax_jax.job.workdir import Workdir


def main(config, workdir="") -> int:
    """Runs the job and returns its exit code; an error is one message on the standard error."""
    try:
        return run(config, workdir)
    except (JobError, data.DataError) as error:
        print(f"main.py: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("main.py: interrupted.", file=sys.stderr)
        return INTERRUPTED


def run(config, folder="") -> int:
    """The job itself. Raises JobError and data.DataError."""
    seconds = {}
    rules.check(config)
    console.quieten()
    _use_compilation_cache()
    with _timed(seconds, "data"):
        splits = load(config)
    epochs = start(config, splits)
    workdir = Workdir(folder)
    workdir.write_json("config.json", _provenance(config, splits))
    device = jax.local_devices()[0]
    console.say(
        f"{jax.default_backend()} · {jax.device_count()} × {device.device_kind} · "
        f"{splits.name} ({_sizes(splits)}) → {workdir.path}"
    )
    with _timed(seconds, "training"):
        result = sweep.collect(_written(console.watch(epochs, len(splits.train.y)), workdir))
    if (result.diverged > 0).all():
        return _all_diverged(splits, result, workdir, seconds)
    with _timed(seconds, "selection"):
        selected = select(config, splits, result)
        test = None if splits.test is None else selected.classifier.test(splits.test)
    with _timed(seconds, "pictures"):
        names = _draw(config, splits, result, selected, workdir)
    _write(splits, result, selected, test, workdir, seconds)
    report.say_result(splits, result, selected, test)
    files = ["summary.json", "trials.csv", "metrics.jsonl", "params.npz", "config.json", *names]
    console.say(f"\nWritten to {workdir.path}: {', '.join(files)}")
    return DONE


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


def start(config, splits):
    """The epochs of the sweep that the config asks for, checked and ready to run."""
    axes = {name: rules.axis(config, name) for name in sweep.settings.NAMES}
    try:
        resamples = _resamples(config, splits.train)
        return sweep.epochs(
            splits.train,
            splits.val if resamples is None else None,
            sweep.grid(**axes),
            num_epochs=config.num_epochs,
            batch_size=rules.axis(config, "batch_size"),
            seeds=rules.axis(config, "seed"),
            resamples=resamples,
            best_by=config.select_metric,
            chunk=config.chunk,
            **_objective(config),
        )
    except ValueError as error:
        raise JobError(f"The config cannot be run on {splits.name}: {error}") from error


def select(config, splits, result):
    """The winner; after cross-validation or the bootstrap it is refitted on the train split."""
    selected = result.best(config.select_metric, config.select_epoch, config.select)
    if not (config.folds or config.bootstraps):
        return selected
    options = _objective(config)
    return sweep.refit(splits.train, result, selected, config.select_epoch, **options)


def _objective(config):
    """What is trained, apart from the hyperparameters."""
    return {
        "model": models.get(config.model, config.precision),
        "loss": losses.FROM_LOGITS[config.loss],
        "class_weight": config.class_weight,
    }


def _resamples(config, train):
    if config.folds:
        return sweep.resampling.fold_counts(train.y, config.folds, seed=config.seed)
    if config.bootstraps:
        return sweep.resampling.bootstrap_counts(len(train.y), config.bootstraps, seed=config.seed)
    return None


def _written(epochs, workdir):
    for epoch in epochs:
        workdir.append_metrics(epoch)
        yield epoch


def _write(splits, result, selected, test, workdir, seconds):
    classifier = selected.classifier
    workdir.write_csv("trials.csv", result.table())
    workdir.write_npz(
        "params.npz",
        W=classifier.W,
        b=classifier.b,
        mean=np.asarray(classifier.mean, np.float32),
        scale=np.asarray(classifier.scale, np.float32),
        label_names=np.array(classifier.label_names),
    )
    workdir.write_json("summary.json", report.summary(splits, result, selected, test, seconds))


def _all_diverged(splits, result, workdir, seconds):
    workdir.write_csv("trials.csv", result.table())
    workdir.write_json("summary.json", report.summary(splits, result, None, None, seconds))
    console.warn(
        f"Every trial diverged, the first in epoch {result.diverged.min()}: a loss stopped being "
        "finite. Try a smaller learning_rate (0.1 is safe for pixels), or with momentum m one "
        "smaller by the factor 1 - m."
    )
    return DIVERGED


def _draw(config, splits, result, selected, workdir):
    """Writes the pictures that this job and dataset have, and returns their names."""
    title = splits.name
    if len(result.run.trials.group) > 1:
        title += f", trial {selected.trial}, epoch {selected.epoch}"
    figures = {"curves.png": plots.curves(result, selected, title)}
    grid = sweep_plots.lay_out(result, selected, config.select_metric, config.select_epoch)
    if grid:
        figures["sweep.png"] = sweep_plots.sweep(grid, splits.name)
    figures |= plots.of_classifier(selected.classifier, splits.val, title)
    for name, figure in figures.items():
        workdir.write_figure(name, figure)
    return list(figures)


def _provenance(config, splits):
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "config": config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "backend": jax.default_backend(),
        "device_kind": jax.local_devices()[0].device_kind,
        "device_count": jax.device_count(),
        "dataset": splits.name,
        "fingerprint": data.fingerprint(splits),
    }


def _use_compilation_cache():
    """Compiled programs outlive the process: the second run of a config compiles nothing."""
    if jax.config.jax_compilation_cache_dir is None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "softmax_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _sizes(splits):
    roles = {"train": splits.train, "val": splits.val, "test": splits.test}
    return ", ".join(f"{len(part.y):,} {role}" for role, part in roles.items() if part is not None)


@contextlib.contextmanager
def _timed(seconds, phase):
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
