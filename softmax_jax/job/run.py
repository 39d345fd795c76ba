"""A job from config to results: load, train, select, write, in this order.

Here the fields of the config become plain arguments, and go no further.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from softmax_jax import data, host, inference, losses, model, sweep
from softmax_jax.classifier import Classifier
from softmax_jax.data import validation
from softmax_jax.data.dataset import Dataset, Splits, example_weights
from softmax_jax.host import DIVERGED, DONE, LOST, USAGE, WORKDIR, JobError
from softmax_jax.hyperparameters import SPARSE, TRACED
from softmax_jax.job import checkpoint, console, outputs, processes, workdir
from softmax_jax.job.config import (
    RULES,
    WITHOUT_LOGITS,
    axis_values,
    config_problems,
    define_flags,
    field_value,
    names_data,
    obeys,
    parse_flags,
    problems_with,
    refuse,
    unreadable_fields,
)
from softmax_jax.job.workdir import (
    Workdir,
    clear,
    digest,
    holds,
    is_longer,
    job_identity,
    job_in,
    locked,
    tidy,
)
from softmax_jax.sweep import inputs
from softmax_jax.sweep.chunks import Epoch, Epochs, MisfitError, Pending
from softmax_jax.sweep.result import Result, Selected

_OPERATIONS_PER_CALL = 4e11  # multiplications and additions before a signal is looked for: seconds
_BYTES_PENALTY = 512  # a setting of a path, as Python's numbers and in arrays
_BYTES_MEASURED = 64  # of a trial in an epoch: eight metrics
_DECADES = 3  # that an automatic path of l2 reaches further down, one by one, where it must
_MOST_COEFFICIENTS, _MOST_PRODUCTS = 2_000, 1e11  # of which a job finds the standard errors
_MOST_CLASSES = 1000  # of which each has its own line in a table


def start(argv: list[str]) -> None:
    """Runs the job of a command line, and ends the program with its exit code.

    Args:
      argv: the name of the program, and its flags.
    """
    define_flags()
    names = ("overwrite", "mode", "distributed")

    def with_flags(_):
        options: Any = {name: flags.FLAGS[name].value for name in names}
        return main(flags.FLAGS.config, flags.FLAGS.workdir, **options)

    app.run(with_flags, argv, flags_parser=parse_flags)


def main(
    config: ConfigDict,
    folder: str | Path = "",
    *,
    overwrite: bool = False,
    mode: str = "run",
    distributed: bool = False,
) -> int:
    """Runs (or only checks) a job; an error is one message on the standard error.

    Args:
      config: what to run.
      folder: of the results; '': a new one under runs/.
      overwrite: whether the job that the folder holds is replaced.
      mode: 'run', or 'check' for everything short of training.
      distributed: whether this is one of several processes, see `processes.join_cluster`; one that
        fails alone does not return.

    Returns:
      The exit code.
    """
    console.quieten()
    workdir: Workdir | None = None
    try:
        workdir = Workdir(folder)
        with processes.handled_signals() as stop:
            if distributed:
                processes.join_cluster(folder)
            if mode == "check":
                code = check(config)
            else:
                code = run(config, workdir, stop, overwrite=overwrite)
    except (Exception, processes.Stopped) as error:
        code = report_error(error, workdir, folder)
    return processes.leave(code)


def check(config: ConfigDict) -> int:
    """Everything short of training: the config, the data, and what the job would take."""
    _prepare(config)
    splits = load_checked(config)
    epochs = start_sweep(config, splits)
    outputs.check_studies(config, splits)
    console.say_forecast(config, splits, epochs)
    return DONE


def run(
    config: ConfigDict, workdir: Workdir, stop: processes.Stop, *, overwrite: bool = False
) -> int:
    """The job itself, from its start or from where it was interrupted; returns the exit code.

    Raises:
      JobError, data.DataError: it cannot be run.
      processes.Stopped: a signal came.
    """
    _prepare(config)
    seconds: dict[str, float] = {}
    splits, job, ended = processes.agreed(_read, config, workdir, overwrite, seconds)
    processes.same(int(digest(job)[:7], 16), "config and data")
    sizes = sum(split.shard_size or 0 for split in (splits.train, splits.val))
    processes.same(sizes, "number of examples in memory at a time")
    if ended is not None:  # even where nothing can be written
        return ended
    with contextlib.ExitStack() as held:
        own = held, config, workdir, splits, job, overwrite
        ended, progress, epochs = processes.led(_begin, *own)
        if ended is not None:
            return ended
        processes.same(progress.number, "checkpoint (is --workdir a folder that they share?)")
        with _resuming(workdir.path, progress):
            return _run(config, workdir, stop, splits, progress, epochs, seconds)


def _read(config, workdir, overwrite, seconds):
    """The data, the identity of the job on them, and the exit code with which it has ended."""
    found = None if overwrite else job_in(workdir.path)
    with timed(seconds, "data"):
        splits = load_checked(config, found)
    processes.mesh_sizes(config)
    job = job_identity(config.to_dict(), splits)
    return splits, job, None if overwrite else _outcome(workdir.path, job)


def _begin(held, config, workdir, splits, job, overwrite):
    """(exit code, None, None) of a job that has ended; else (None, its progress, its epochs).

    held: what is released at the end, such as the lock of the folder.
    """
    workdir.open()
    if processes.is_first():
        console.warn_if(held.enter_context(locked(workdir.path)))
    # The previous lock holder may have changed the folder.
    ended = None if overwrite else _outcome(workdir.path, job)
    if ended is not None:
        return ended, None, None
    return None, *_start_or_resume(config, workdir, splits, job, overwrite)


def _outcome(folder, job):
    """The exit code of this job where the folder holds it and it has ended, else None."""
    held = workdir.job_in(folder) if workdir.holds(folder, job) else None
    ended = held is not None and not workdir.is_longer(job, held)
    code = workdir.outcome(folder) if ended else None
    if code is not None:
        console.say(f"{folder} holds this job, finished. Nothing is left to do.")
    return code


def _start_or_resume(config, workdir, splits, job, overwrite):
    """Where the job stands, and its pending epochs.

    What cannot be run is refused before anything is deleted or written.
    """
    folder = workdir.path
    held = job_in(folder) if not overwrite and holds(folder, job) else None
    longer = held is not None and is_longer(job, held)
    same = held is not None and not longer
    epochs = None if same else start_sweep(config, splits)
    if not same:
        outputs.check_studies(config, splits)
    workdir.begun = held is not None
    tidy(folder)
    if not same:
        clear(folder, results_alone=longer)
        outputs.write_provenance(workdir, config, splits, job)
    progress = checkpoint.Progress(folder / "checkpoints", job, config)
    with _resuming(folder, progress):
        if progress.pending is not None or epochs is None:
            epochs = start_sweep(config, splits, progress.pending, progress.num_trials)
        return progress, epochs


@contextlib.contextmanager
def _resuming(folder, progress):
    """In this block an error that nobody foresaw may be the fault of the checkpoint, if any.

    Its digest finds accidents; what a checkpoint with a right digest holds is believed.
    """
    try:
        yield
    except (JobError, data.DataError, MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:
        if progress.pending is None:  # it was begun, and not resumed
            raise
        host.keep_traceback(error, folder)
        reason = f"{type(error).__name__}: {host.cut(' '.join(str(error).split()), 200)}"
        raise JobError(
            f"{folder} cannot be resumed from its checkpoint ({reason}). The "
            f"traceback is in {host.ERROR_FILE} there. Begin the job anew with --overwrite.",
            WORKDIR,
        ) from error


def _run(config, workdir, stop, splits, progress, epochs, seconds):
    """The remaining work of the job, in its own folder."""
    outputs.say_start(splits, workdir.path, progress)
    result = train(config, epochs, progress, workdir, len(splits.train.y), stop)
    while (epochs := _further(config, splits, result)) is not None:
        result = train(config, epochs, progress, workdir, len(splits.train.y), stop)
    seconds["training"] = progress.training_seconds()
    outputs.write_tables(workdir, config, result)
    if result.has_winner:
        finish(config, workdir, splits, result, seconds)
        return DONE
    outputs.write_summary(workdir, config, splits, result, None, None, {}, seconds)
    outputs.say_diverged(result)
    return DIVERGED


def _further(config, splits, result):
    """The epochs of smaller penalties, where the smallest of an automatic path is chosen.

    They come after the trials of the sweep so far, a decade at a time.
    """
    if not (config.l2_path and config.optimizer == "lbfgs" and result.has_winner):
        return None
    trials = result.run.trials
    tried = trials.hyperparameters.l2
    if tried[select_winner(config, result).trial] > tried.min():
        return None
    num_settings, every = len(set(trials.setting.tolist())), penalties(config, splits, 2**31)
    longer = every[: num_settings + -(-(len(every) - config.l2_path) // _DECADES)]
    if len(longer) == num_settings:
        return None
    console.say(
        f"The best l2 so far is the smallest tried, {tried.min():g}: the path goes on to "
        f"{longer[-1]:g}."
    )
    return start_sweep(config, splits, len(tried), len(longer) * len(tried) // num_settings)


def penalties(config: ConfigDict, splits: Splits, num: int = 0) -> tuple[float, ...]:
    """The penalties of `config.l2_path`, the smallest first, then up to `num` in all: ever smaller.

    These are three decades below the path, for where its smallest penalty is chosen.
    """
    how = _path_options(config, "l2")
    path = sweep.l2_path(splits.train, config.l2_path, further=_DECADES, **how)
    own, further = path[-config.l2_path :], path[: -config.l2_path][::-1]
    return own + further[: max(0, num - len(own))]


def sparse_path(config: ConfigDict, splits: Splits, name: str) -> tuple[float, ...]:
    """The penalties of `config.l1_path` or `config.l1_group_path`, the smallest first."""
    num, how = config[f"{name}_path"], _path_options(config, name)
    return sweep.l1_path(splits.train, num, group=name == "l1_group", **how)


def _path_options(config, name):
    """The objective of a path of this penalty, which must fit into the memory."""
    num, objective = config[f"{name}_path"], objective_of(config)
    what = f"A path of {num:,} penalties"
    host.require_memory(_BYTES_PENALTY * num, what, f"Set a smaller {name}_path.")
    return {own: getattr(objective, own) for own in ("class_weight", "standardize", "dtype")}


def _prepare(config):
    refuse(unreadable_fields(config))
    console.warn_if(host.use_compilation_cache())
    processes.use_precision(field_value(config, "precision"))
    processes.start_devices()
    if word := processes.without_tensorfloat32(field_value(config, "precision")):
        console.say(word)


def load_checked(config: ConfigDict, found: dict | None = None) -> Splits:
    """The data of the config, after all checks of both.

    Args:
      config: names the data.
      found: the identity of the job to be resumed: its dataset is loaded, and no fallback.

    Raises:
      JobError: names every problem of the config and the data (exit code 2).
      DataError: only the data have one.
    """
    problems = config_problems(config)
    if not names_data(config):
        refuse(problems)
    try:
        splits = load_data(config, found["data"]["name"] if found else "")
    except data.DataError as error:
        if not problems:
            raise
        refuse([*problems, str(error)])
    refuse(problems + problems_with(config, splits))
    say_copies(splits, config)
    return splits


def say_copies(splits: Splits, config: ConfigDict) -> None:
    """Warns of examples that occur twice, in several splits or among those that are resampled."""
    together = validation.copies(splits.train) if resampled(config) else None
    if together is not None:
        console.warn(
            f"{len(together) - together.max() - 1:,} of the {len(together):,} examples of train "
            "repeat the features of another one. Each is kept in the fold of the first."
        )
    others = {"val": splits.val} | ({"test": splits.test} if splits.test else {})
    found = {
        ("train", role): n for role, n in validation.count_copies(splits.train, others).items()
    }
    used = config.refit or not resampled(config)  # whether val is trained on, or chosen by
    if used and splits.test and not splits.val_is_test:
        found["val", "test"] = validation.count_copies(splits.val, {"test": splits.test})["test"]
    for (seen, role), number in found.items():
        if number:
            console.warn(
                f"{number:,} of the {len(others[role]):,} examples of {role} occur in {seen} too, "
                "with the very same features. A model is not judged on what it was trained on, "
                "or chosen by: leave out of one of the two what occurs in both."
            )


def load_data(config: ConfigDict, name: str = "") -> Splits:
    """The dataset of that name, or that of the config, or with a loud warning its fallback."""
    known = obeys(RULES["precision"], config.precision)  # else it is one of the problems
    options: dict[str, Any] = {
        "train": config.train_split,
        "val": config.val_split,
        "test": config.test_split,
        "dtype": "float64" if known and config.precision == "float64" else "float32",
    }
    if name and name == config.dataset_fallback:
        return data.load(name, **options)
    columns = {"label_column": config.label_column, "group_column": config.group_column}
    try:
        return data.load(config.dataset, data_dir=config.data_dir or None, **columns, **options)
    except data.DatasetNotFoundError as error:
        if name or config.dataset != "fashion_mnist" or not config.dataset_fallback:
            raise
        console.warn(
            f"{error}\nTRAINING ON {config.dataset_fallback.upper()} INSTEAD. "
            "To make this an error: --config.dataset_fallback="
        )
        return data.load(config.dataset_fallback, **options)


def start_sweep(
    config: ConfigDict,
    splits: Splits,
    pending: list[Pending] | int | None = None,
    num_trials: int = 0,
) -> Epochs:
    """The epochs of the sweep that the config asks for, checked and ready to run.

    Args:
      config: what to train.
      splits: the data.
      pending: the remaining chunks of an interrupted sweep, or the first trial of what is still to
        be run; None: all of it.
      num_trials: how many there are, where an automatic path of l2 has been extended.

    Raises:
      JobError: the config does not fit the data (exit code 2).
    """
    axes = {name: axis_values(config, name) for name in TRACED}
    if config.schedule == "constant" and not config.sweep.final_rate:
        del axes["final_rate"]
    if config.optimizer != "adamw":  # the config's default is for that one
        del axes["weight_decay"]
    combine = {"product": sweep.grid, "zip": sweep.zipped}[config.combine]
    solver, objective, devices = solver_of(config), objective_of(config), devices_of(config)
    try:
        drawn = resamples(config, splits.train)
        if config.l2_path:
            in_each = 1 if drawn is None else drawn.counts.shape[1]
            # Trials of outer folds come last, and none can be added: the whole path at once.
            num = 2**31 if config.outer_folds else num_trials // in_each
            axes["l2"] = penalties(config, splits, num)
        for name in SPARSE:
            if config[f"{name}_path"]:
                axes[name] = sparse_path(config, splits, name)
        settings = combine(**axes)
        samples = max(axis_values(config, "num_samples"))
        columns = _largest_batch(config, splits.train) + splits.train.num_features
        remedy = "Draw fewer."
        host.require_memory(8 * samples * columns, f"{samples:,} samples in a step", remedy)
        epochs = sweep.epochs(
            splits.train,
            splits.val if drawn is None else drawn,
            settings,
            num_epochs=config.num_epochs,
            batch_size=axis_values(config, "batch_size"),
            seeds=axis_values(config, "seed"),
            solver=solver,
            objective=objective,
            devices=devices._replace(
                steps_per_call=_steps_per_call(splits.train, settings, config)
            ),
            halving=tuple(config.halving.values()) if config.halving.factor else None,
            pending=pending,
        )
        trials = len(epochs.run.trials.setting)
        what = f"The metrics of {trials:,} trials in {config.num_epochs:,} epochs"
        host.require_memory(_BYTES_MEASURED * trials * config.num_epochs, what, "Ask for fewer.")
        return epochs
    except ValueError as error:
        raise JobError(f"The config cannot be run on {splits.name}: {error}") from error


def solver_of(config: ConfigDict) -> sweep.SGD | sweep.LBFGS:
    """How the config minimises."""
    if config.optimizer == "lbfgs":
        return sweep.LBFGS(config.tolerance, config.select_metric)
    num_samples = axis_values(config, "num_samples")
    return sweep.SGD(config.schedule, num_samples, config.select_metric, config.optimizer)


def resampled(config: ConfigDict) -> bool:
    """Whether settings are judged within the train split."""
    return bool(config.folds or config.bootstraps)


def objective_of(config: ConfigDict) -> sweep.Objective:
    """What the config minimises."""
    return sweep.Objective(
        model=model.by_name(config.model, config.precision),
        loss=losses.FROM_LOGITS.get(config.loss) or WITHOUT_LOGITS[config.loss],
        class_weight=config.class_weight,
        standardize=config.standardize,
        dtype=np.dtype("float64" if config.precision == "float64" else "float32"),
    )


def devices_of(config: ConfigDict) -> sweep.Devices:
    """How the config lays the work on devices."""
    return sweep.Devices((config.mesh.trials, config.mesh.batch, config.mesh.classes), config.chunk)


def resamples(config: ConfigDict, train: Dataset) -> inputs.Resamples | None:
    """The folds or bootstrap draws of the config, with groups and equal rows together.

    None: it has none.
    """
    if not resampled(config):
        return None
    together = validation.together(train)
    if config.bootstraps:
        drawn = inputs.bootstrap_counts(
            train.y, config.bootstraps, seed=config.seed, together=together
        )
        return inputs.Resamples.of(drawn)
    how = {"stratified": config.stratify, "seed": config.seed, "together": together}
    if config.outer_folds:
        return inputs.nested_folds(train.y, config.folds, config.outer_folds, **how)
    return inputs.Resamples.of(inputs.fold_counts(train.y, config.folds, **how))


def _steps_per_call(train, settings, config):
    """How many steps of SGD run in a call; a function of the job alone, and not of its devices."""
    columns = config.folds + config.outer_folds * (config.folds + 1)
    trials = len(settings.l2) * max(columns, config.bootstraps, 1)
    trials *= len(axis_values(config, "seed"))
    each = 4 * _largest_batch(config, train) * train.num_features * train.num_classes * trials
    return max(1, round(_OPERATIONS_PER_CALL / each))


def _largest_batch(config, train):
    return min(max(axis_values(config, "batch_size")), len(train))


def train(
    config: ConfigDict,
    epochs: Epochs,
    progress: checkpoint.Progress,
    workdir: Workdir,
    num_examples: int,
    stop: processes.Stop,
) -> Result:
    """Runs the pending epochs and adds them to what was restored.

    Raises:
      processes.Stopped: a signal came; a checkpoint has been saved after the step it came in.
      JobError: the folder cannot be written, or the checkpoint does not fit (exit code 3).
    """
    collection = progress.collection(epochs.run)
    workdir.write_metrics(collection.lines())
    shown: Iterable[Epoch] = console.watch(epochs, num_examples, config.tolerance)
    if config.tensorboard and processes.is_first():
        shown = console.record_events(shown, workdir.file())
    try:
        with stop.deferred():
            _train_steps(shown, collection, progress, workdir, stop)
        if collection.order_log():
            workdir.write_metrics(collection.lines())
    except MisfitError as error:
        raise JobError(f"{workdir.path}: {error}", WORKDIR) from error
    progress.arrays = collection.arrays()
    return collection.result()


def _train_steps(epochs, collection, progress, workdir, stop):
    for epoch in epochs:
        collection.add(epoch)
        workdir.append_metrics(epoch)
        stopping, due = progress.agree(stop)
        if stopping or due or (epoch.ends and not epoch.pending):
            progress.save(collection, epoch)
        if stopping:
            stop.requested = stopping
            break


def finish(
    config: ConfigDict, workdir: Workdir, splits: Splits, result: Result, seconds: dict[str, float]
) -> None:
    """Chooses, refits, reads the test split once, writes, draws; summary.json says when it ends."""
    with timed(seconds, "selection"):
        chosen = select_winner(config, result)
        selected = refit_winner(config, splits, result, chosen)
        test = outputs.test_metrics(splits, selected)
        more = _judged(config, splits, result, chosen, selected)
        more["nested"] = _nested(config, result)
        more["leaders"] = _leaders(config, result)
    outputs.write_params(workdir, selected.classifier)
    outputs.write_weights(workdir, selected.classifier)
    rows = outputs.sparse_rows(selected)
    if rows is None and config.optimizer == "lbfgs":
        trained_on = (splits.train, splits.val) if config.refit else (splits.train,)
        rows = coefficient_rows(trained_on, selected.classifier)
    outputs.write_coefficients(workdir, rows)
    # A refit on train and val has seen what it would be judged on: the chosen model has not.
    judged = chosen if config.refit else selected
    if config.predictions:
        outputs.write_predictions(workdir, splits, judged.classifier, selected.classifier)
    if config.out_of_fold:
        write_out_of_fold(workdir, splits.train, result, chosen)
    with timed(seconds, "studies"):
        studied, pictures = outputs.write_studies(workdir, config, splits, selected)
    summary = workdir, config, splits, result, selected, test, more | studied, seconds
    outputs.write_summary(*summary)
    with timed(seconds, "pictures"):
        if processes.is_first():
            outputs.draw(workdir, config, splits, result, judged, pictures)
    outputs.write_summary(*summary)  # with the seconds of the pictures: the job has ended
    outputs.say_leaders(config, result, more["leaders"])
    outputs.say_classes(more)
    outputs.say_result(config, splits, result, selected, test, more["nested"])
    outputs.say_costs(more)
    outputs.say_files(workdir.file())


def coefficient_rows(trained_on: tuple[Dataset, ...], classifier: Classifier) -> list[dict] | None:
    """The `inference.table` of a model at its optimum on one dataset, or on two together.

    None where that is large: read by shards, more than 2,000 weights, or more than 10¹¹ products
    of examples · weights². Where there are no errors, a line of the log says why.
    """
    size, examples = classifier.W.size, sum(len(dataset.y) for dataset in trained_on)
    sharded = any(dataset.shard_size for dataset in trained_on)
    if sharded or size > _MOST_COEFFICIENTS or examples * size**2 > _MOST_PRODUCTS:
        return None
    dataset = data.joined(*trained_on) if len(trained_on) > 1 else trained_on[0]
    dataset = dataset.without_absent()
    labels, weights = np.asarray(dataset.y), example_weights(dataset)
    try:
        rows = inference.table(
            classifier._replace(labels=None), dataset.x, labels, sample_weight=weights
        )
    except ValueError as error:
        console.say(f"There is no coefficients.csv: {error}")
        return None
    return [row | {"class": classifier.label_names[row["class"]]} for row in rows]


def write_out_of_fold(workdir: Workdir, train: Dataset, result: Result, chosen: Selected) -> None:
    """Writes out_of_fold.npz, see `sweep.out_of_fold`.

    Its arrays: probabilities [N, C], labels and fold of each training example, index, its row among
    all that were given, label_names, and where there are weights, weights.
    """
    probabilities, fold = sweep.out_of_fold(train, result, chosen)
    arrays = {
        "probabilities": probabilities,
        "labels": np.asarray(train.y),
        "index": train.rows,
        "fold": fold,
    }
    arrays["label_names"] = np.array(train.label_names)
    if train.weights is not None:
        arrays["weights"] = example_weights(train)
    workdir.write_npz("out_of_fold.npz", **arrays)


def select_winner(config: ConfigDict, result: Result) -> Selected:
    """The winning setting, as its first trial."""
    return result.best(*_selection(config))


def _selection(config):
    return sweep.Selection(config.select_metric, config.select_epoch, config.select)


def _leaders(config, result):
    """The best settings; None where there is only one."""
    if len(np.unique(result.run.trials.setting)) < 2:
        return None
    return result.leaders(config.select_metric, config.select_epoch)


def _nested(config, result):
    """The outer estimate; None without outer folds, or where it is not a number."""
    try:
        return sweep.outer_estimate(result, _selection(config))
    except ValueError as error:
        console.warn(f"There is no estimate by the outer folds: {error}")
        return None


def refit_winner(config: ConfigDict, splits: Splits, result: Result, chosen: Selected) -> Selected:
    """The winner, retrained on the whole train split after folds or bootstrap draws.

    With config.refit on train and val together; without any of these it is returned unchanged.

    Raises:
      JobError: the retraining diverged (exit code 4).
    """
    if not (resampled(config) or config.refit):
        return chosen
    dataset = data.joined(splits.train, splits.val) if config.refit else splits.train
    console.say(f"Training the selected setting on all {len(dataset.y):,} examples.")
    try:
        return sweep.refit(
            dataset,
            result,
            chosen,
            config.select_epoch,
            solver=solver_of(config),
            objective=objective_of(config),
            devices=devices_of(config),
        )
    except ValueError as error:
        raise JobError(str(error), DIVERGED) from error


def _judged(config, splits, result, chosen, selected):
    """What summary.json holds beyond loss and accuracy: classes, costs, what the dataset knows."""
    measured = splits.measure(selected.classifier) if splits.measure else {}
    for name, value in measured.items():
        console.say(f"{name}: {value}")
    more: dict = {"classes": None, "decisions": None} | measured
    if len(splits.label_names) <= _MOST_CLASSES:
        more["classes"] = outputs.class_fields(splits, chosen, selected)
        more["decisions"] = outputs.decision_fields(config, splits, result, chosen, selected)
    return more


@contextlib.contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Adds the seconds of the block to a dictionary, under the name of the phase."""
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started


def report_error(error: BaseException, workdir: Workdir | None, folder: str | Path) -> int:
    """Prints a message about the error that ended the job, and returns the exit code.

    The traceback of an unforeseen one is written into the folder.

    Args:
      error: what was raised.
      workdir: the folder in use.
      folder: the value of --workdir.
    """
    if isinstance(error, JobError | data.DataError):
        if str(error):  # else another process says it
            console.complain(f"{host.program()}: {error}")
        return getattr(error, "exit_code", USAGE)
    path = workdir.path if workdir else None
    hint = _how_to_resume(path, folder)
    if isinstance(error, processes.Stopped):
        if processes.is_first():
            console.complain(f"{host.program()}: {error}{hint}.")
        return error.exit_code
    if processes.is_loss(error):
        reason = f"{type(error).__name__}: {host.cut(' '.join(str(error).split()), 200)}"
        console.complain(f"{host.program()}: another process or a device is lost ({reason}){hint}.")
        return LOST
    return host.unforeseen(host.program(), error, path)


def _how_to_resume(path, folder):
    """How to resume a job that was stopped; nothing if it had no folder yet."""
    if folder:
        return "; the same command resumes it"
    if path:
        return f"; the same command with --workdir={path} resumes it"
    return ""
