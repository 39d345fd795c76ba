"""Cross-validation and the bootstrap: settings × resamples as trials of one program, then a refit.

Both train every setting once per resample of the data, evaluate it on the examples that the
resample leaves out, choose a setting by its mean over the resamples, and train it anew on all
examples.
"""

import dataclasses

from softmax_jax.sweep import checks, resampling, tables
from softmax_jax.sweep.loop import fit
from softmax_jax.sweep.result import Result, Selected
from softmax_jax.sweep.settings import grid


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
    (epoch='best'), the mean of those over the setting's trials. Its figures are the means over
    these trials, by which it was chosen. options: model, loss and class_weight, as in `sweep.fit`.
    Raises ValueError if the refit diverges.
    """
    group = result.run.trials.group
    settings = {name: value for name, value in selected.hyperparameters.items() if name != "fold"}
    best_epochs = result.best_epoch[group == group[selected.trial]]
    num_epochs = round(best_epochs.mean()) if epoch == "best" else result.run.num_epochs
    names = result.run.trials.axes()
    again = fit(
        dataset,
        None,
        grid(**{name: settings[name] for name in names}),
        num_epochs=num_epochs,
        batch_size=settings["batch_size"],
        seeds=(settings["seed"],),
        **options,
    )
    if again.diverged[0]:
        raise ValueError("The refit on all training examples diverged: try a smaller rate.")
    means = {n: tables.spread(result, selected, n, epoch)["mean"] for n in result.metrics}
    return selected._replace(
        classifier=again.classifier(0),
        epoch=num_epochs,
        hyperparameters=settings,
        metrics=means,
        refit=True,
        why=f"{selected.why}; refitted on all {len(dataset.y):,} training examples",
    )


def _fit_and_refit(
    dataset, settings, counts, *, metric="val_loss", epoch="last", rule="best", **options
):
    checks.choice(metric, epoch, rule)
    result = fit(dataset, None, settings, resamples=counts, best_by=metric, **options)
    kept = {name: options[name] for name in ("model", "loss", "class_weight") if name in options}
    selected = result.best(metric, epoch, rule)
    return dataclasses.replace(result, refit=refit(dataset, result, selected, epoch, **kept))
