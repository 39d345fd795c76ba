"""From a config to a sweep: here its fields become plain arguments, and go no further."""

from softmax_jax import losses, models, sweep
from softmax_jax.job import config as rules
from softmax_jax.job.errors import DIVERGED, JobError


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
    try:
        return sweep.refit(splits.train, result, selected, config.select_epoch, **options)
    except ValueError as error:
        raise JobError(str(error), DIVERGED) from error


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
