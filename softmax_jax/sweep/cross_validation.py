"""Cross-validation and the bootstrap: settings × resamples as trials of one program, then a refit.

Both train every setting once per resample of the data, evaluate it on the examples that the
resample leaves out, choose a setting by its mean over the resamples, and train it anew on all
examples.
"""

import dataclasses

from softmax_jax.sweep import checks, resampling, tables
from softmax_jax.sweep.collecting import collect
from softmax_jax.sweep.loop import epochs, fit
from softmax_jax.sweep.result import Result
from softmax_jax.sweep.run import Selected
from softmax_jax.sweep.settings import grid

# What a refit does not take over: it is one trial of a fixed length.
_OF_THE_SWEEP = ("num_epochs", "batch_size", "num_samples", "seeds", "chunk", "schedule")


def cross_validate(
    dataset, settings=None, *, folds=5, stratified=True, seed=0, **options
) -> Result:
    """K-fold cross-validation of settings, with the chosen one refitted on the whole dataset.

    folds, stratified, seed: see `resampling.fold_counts`; the other options are those of
    `sweep.fit` and `Result.best` (metric, epoch, rule). `result.refit` is what `predict` and
    `test` use; the figures are means over examples that their trial did not see.
    """
    counts = resampling.fold_counts(dataset.y, folds, stratified=stratified, seed=seed)
    return _fit_and_refit(dataset, settings, counts, **options)


def bootstrap(dataset, settings=None, *, draws=100, seed=0, **options) -> Result:
    """`draws` bootstrap draws of every setting, evaluated out of bag, then the refit.

    `tables.spread(result, result.refit, metric)` gives the interval of a figure over the draws.
    Options as in `cross_validate`.
    """
    counts = resampling.bootstrap_counts(len(dataset.y), draws, seed=seed)
    return _fit_and_refit(dataset, settings, counts, **options)


def refit(dataset, result: Result, selected: Selected, epoch="last", **options) -> Selected:
    """The selected setting, trained anew on the whole dataset.

    It takes all epochs (epoch='last') or, where each trial was judged at its own best epoch
    (epoch='best', or early stopping), the mean of those over the setting's trials. Its figures are
    the means over these trials, by which it was chosen. options: those of `sweep.fit` that say what
    is trained and how (model, loss, class_weight, optimizer, ...).
    Raises ValueError if the refit diverges.
    """
    trials = result.run.trials
    settings = {name: value for name, value in selected.hyperparameters.items() if name != "fold"}
    axes = {
        name: settings.get(name, column[selected.trial]) for name, column in trials.axes().items()
    }
    judged = result.epochs(epoch)[trials.group == trials.group[selected.trial]]
    early = epoch == "best" or axes["patience"] > 0
    num_epochs = round(judged.mean()) if early else result.run.num_epochs
    again = epochs(
        dataset,
        None,
        grid(**axes | {"patience": 0}),
        num_epochs=result.run.num_epochs,
        schedule=result.run.schedule if axes["final_rate"] < 1 else "constant",
        batch_size=int(min(trials.batch_size[selected.trial], len(dataset.y))),
        num_samples=int(trials.num_samples[selected.trial]),
        seeds=(int(trials.seed[selected.trial]),),
        **options,
    )
    again = collect(_until(again, num_epochs))
    if again.diverged[0]:
        raise ValueError("The refit on all training examples diverged: try a smaller rate.")
    means = {n: tables.spread(result, selected, n, epoch)["mean"] for n in result.metrics}
    return selected._replace(
        classifier=again.classifier(0),
        epoch=int(again.epochs("last")[0]),
        hyperparameters=settings,
        metrics=means,
        refit=True,
        why=f"{selected.why}; refitted on all {len(dataset.y):,} training examples",
    )


def _until(epochs, number):
    """The epochs up to that one, which ends the training: what goes by its length is as it was."""
    for epoch in epochs:
        last = epoch.epoch == number and not epoch.part
        yield epoch._replace(ends=epoch.ends or last)
        if last:
            return


def _fit_and_refit(
    dataset, settings, counts, *, metric="val_loss", epoch="last", rule="best", **options
):
    checks.choice(metric, epoch, rule)
    result = fit(dataset, None, settings, resamples=counts, best_by=metric, **options)
    kept = {name: value for name, value in options.items() if name not in _OF_THE_SWEEP}
    selected = result.best(metric, epoch, rule)
    return dataclasses.replace(result, refit=refit(dataset, result, selected, epoch, **kept))
