"""From a config to a sweep: here its fields become plain arguments, and go no further."""

import numpy as np

from softmax_jax import data, losses, models, sweep
from softmax_jax.job import config as rules
from softmax_jax.job.errors import DIVERGED, JobError

_SPAN = 4e11  # multiplications and additions that run before a signal is looked for: seconds


def start(config, splits, work=None):
    """The epochs of the sweep that the config asks for, checked and ready to run.

    work: what is left of them; None: all.
    """
    axes = {name: rules.axis(config, name) for name in sweep.settings.NAMES}
    if config.schedule == "constant" and not config.sweep.final_rate:
        del axes["final_rate"]
    combine = {"product": sweep.grid, "zip": sweep.zipped}[config.combine]
    try:
        if config.l2_path:
            axes["l2"] = sweep.l2_path(splits.train, config.l2_path, **_inputs(config))
        settings = combine(**axes)
        counts = resamples(config, splits.train)
        return sweep.epochs(
            splits.train,
            splits.val if counts is None else None,
            settings,
            num_epochs=config.num_epochs,
            batch_size=rules.axis(config, "batch_size"),
            num_samples=rules.axis(config, "num_samples"),
            seeds=rules.axis(config, "seed"),
            resamples=counts,
            schedule=config.schedule,
            best_by=config.select_metric,
            chunk=config.chunk,
            span_steps=_span_steps(splits.train, settings, config),
            work=work,
            **_objective(config),
        )
    except ValueError as error:
        raise JobError(f"The config cannot be run on {splits.name}: {error}") from error


def select(config, result):
    """The winning setting, as its first trial."""
    return result.best(config.select_metric, config.select_epoch, config.select)


def refit(config, splits, result, chosen):
    """The winner trained anew on the whole train split (after folds, after bootstraps).

    With config.refit on train and val together; without any of these it stays as it is.
    """
    if not (config.folds or config.bootstraps or config.refit):
        return chosen
    dataset = data.joined(splits.train, splits.val) if config.refit else splits.train
    try:
        return sweep.refit(dataset, result, chosen, config.select_epoch, **_objective(config))
    except ValueError as error:
        raise JobError(str(error), DIVERGED) from error


def _span_steps(train, settings, config):
    """How many steps of SGD make a span; a function of the job alone, and not of its devices."""
    trials = len(settings.l2) * max(config.folds, config.bootstraps, 1)
    trials *= len(rules.axis(config, "seed"))
    largest = max(rules.axis(config, "batch_size"))
    each = 4 * largest * train.num_features * train.num_classes * trials
    return max(1, round(_SPAN / each))


def _objective(config):
    """What is trained, how and where, apart from the hyperparameters."""
    return {
        "model": models.get(config.model, config.precision),
        "loss": losses.FROM_LOGITS.get(config.loss) or rules.WITHOUT_LOGITS[config.loss],
        "optimizer": config.optimizer,
        "tolerance": config.tolerance,
        "mesh": (config.mesh.trials, config.mesh.batch, config.mesh.classes),
        **_inputs(config),
    }


def _inputs(config):
    """How the examples enter."""
    return {
        "class_weight": config.class_weight,
        "standardize": config.standardize,
        "dtype": np.dtype("float64" if config.precision == "float64" else "float32"),
    }


def resamples(config, train):
    """Counts [N, R] of the folds or bootstrap draws of the config; None: it has none."""
    if config.folds:
        return sweep.resampling.fold_counts(train.y, config.folds, seed=config.seed)
    if config.bootstraps:
        return sweep.resampling.bootstrap_counts(len(train.y), config.bootstraps, seed=config.seed)
    return None
