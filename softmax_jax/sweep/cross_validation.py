"""Cross-validation and the bootstrap: settings × resamples as trials of one program, then a refit.

Both train every setting once per resample of the data, evaluate it on the examples that the
resample leaves out, choose a setting by its mean over the resamples, and train it anew on all
examples.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import ArrayLike

from softmax_jax.checks import named_keywords
from softmax_jax.data import Dataset
from softmax_jax.hyperparameters import Hyperparameters
from softmax_jax.sweep.chunks import Epoch
from softmax_jax.sweep.inputs import bootstrap_counts, fold_counts, leave_out_absent
from softmax_jax.sweep.loop import LBFGS, SGD, Devices, Objective, Wholes, check_types, epochs, fit
from softmax_jax.sweep.result import Result, Selected, Selection, check_selection, collect, spread
from softmax_jax.sweep.settings import grid


@named_keywords("sweep.cross_validate")
def cross_validate(
    dataset: Dataset,
    settings: Hyperparameters | None = None,
    *,
    folds: ArrayLike | Sequence[int] = 5,
    num_epochs: int,
    batch_size: int | Wholes = 256,
    seeds: Wholes = (0,),
    solver: SGD | LBFGS = SGD(),  # noqa: B008 (a tuple of constants)
    objective: Objective = Objective(),  # noqa: B008
    devices: Devices = Devices(),  # noqa: B008
    selection: Selection = Selection(),  # noqa: B008
) -> Result:
    """K-fold cross-validation of settings, with the chosen one refitted on the whole dataset.

    `predict` and `test` use `result.refit`; every metric is a mean over examples that its trial did
    not see.

    Args:
      dataset: a `data.Dataset`; examples of weight 0 are left out before the folds are drawn.
      folds: how many stratified folds; or [N] integers that say which fold each example is in
        (groups that must stay together); or counts [N, R], as `sweep.fold_counts` makes them.
      selection: how the settings are compared.
      settings, num_epochs, batch_size, seeds, solver, objective, devices: see `sweep.epochs`.

    Raises:
      ValueError: see `sweep.epochs`; or the refit diverges.
    """
    dataset = leave_out_absent(dataset)
    folds = dataset.aligned(np.asarray(folds)) if np.ndim(folds) else folds
    counts = folds if np.ndim(folds) == 2 else fold_counts(dataset.y, folds)
    return _fit_and_refit(
        dataset,
        settings,
        counts,
        selection,
        num_epochs=num_epochs,
        batch_size=batch_size,
        seeds=seeds,
        solver=solver,
        objective=objective,
        devices=devices,
    )


@named_keywords("sweep.bootstrap")
def bootstrap(
    dataset: Dataset,
    settings: Hyperparameters | None = None,
    *,
    draws: ArrayLike = 100,
    num_epochs: int,
    batch_size: int | Wholes = 256,
    seeds: Wholes = (0,),
    solver: SGD | LBFGS = SGD(),  # noqa: B008
    objective: Objective = Objective(),  # noqa: B008
    devices: Devices = Devices(),  # noqa: B008
    selection: Selection = Selection(),  # noqa: B008
) -> Result:
    """Bootstrap draws of every setting, evaluated out of bag, then the refit.

    `sweep.spread(result, result.refit, metric)` gives the spread of a metric over the draws.

    Args:
      draws: how many, or counts [N, R], as `sweep.bootstrap_counts` makes them.
      dataset, settings, num_epochs, batch_size, seeds, solver, objective, devices, selection: see
        `cross_validate`.

    Raises:
      ValueError: see `sweep.epochs`; or the refit diverges.
    """
    dataset = leave_out_absent(dataset)
    counts = (
        draws if np.ndim(draws) == 2 else bootstrap_counts(len(dataset.y), int(np.asarray(draws)))
    )
    return _fit_and_refit(
        dataset,
        settings,
        counts,
        selection,
        num_epochs=num_epochs,
        batch_size=batch_size,
        seeds=seeds,
        solver=solver,
        objective=objective,
        devices=devices,
    )


def refit(
    dataset: Dataset,
    result: Result,
    selected: Selected,
    epoch: str = "last",
    *,
    solver: SGD | LBFGS = SGD(),  # noqa: B008
    objective: Objective = Objective(),  # noqa: B008
    devices: Devices = Devices(),  # noqa: B008
) -> Selected:
    """The selected setting, trained anew on the whole dataset.

    It trains for all epochs or, where each trial was evaluated at its own best epoch (epoch='best',
    or early stopping), for the mean of those over the setting's trials. Its metrics are the means
    over these trials, by which it was chosen.

    Args:
      dataset: all examples to train on.
      result: of the sweep.
      selected: the choice, from `result.best`.
      epoch: 'last' or 'best', as it was chosen.
      solver, objective, devices: those of the sweep.

    Raises:
      ValueError: the refit diverged.
    """
    trials = result.run.trials
    settings = {name: value for name, value in selected.hyperparameters.items() if name != "fold"}
    axes = {
        name: settings.get(name, column[selected.trial]) for name, column in trials.axes().items()
    }
    stops = result.epochs(epoch)[trials.setting == trials.setting[selected.trial]]
    early = epoch == "best" or axes["patience"] > 0
    num_epochs = round(float(stops.mean())) if early else result.run.num_epochs
    if isinstance(solver, SGD):
        schedule = solver.schedule if axes["final_rate"] < 1 else "constant"
        num_samples = int(trials.num_samples[selected.trial])
        solver = solver._replace(schedule=schedule, num_samples=num_samples)
    again = epochs(
        dataset,
        None,
        grid(**axes | {"patience": 0}),
        num_epochs=result.run.num_epochs,
        batch_size=int(min(trials.batch_size[selected.trial], len(dataset.y))),
        seeds=(int(trials.seed[selected.trial]),),
        solver=solver,
        objective=objective,
        devices=devices,
    )
    again = collect(_until(again, num_epochs))
    if again.diverged[0]:
        raise ValueError("The refit on all training examples diverged: try a smaller rate.")
    means = {n: spread(result, selected, n, epoch)["mean"] for n in result.metrics}
    return selected._replace(
        classifier=again.classifier(0),
        epoch=int(again.epochs("last")[0]),
        hyperparameters=settings,
        metrics=means,
        refit=True,
        why=f"{selected.why}; refitted on all {len(dataset.y):,} training examples",
    )


def _until(epochs: Iterable[Epoch], number: int) -> Iterator[Epoch]:
    """The epochs up to that number, which is marked as the last; schedules keep their length."""
    for epoch in epochs:
        last = epoch.epoch == number and not epoch.segment
        yield epoch._replace(ends=epoch.ends or last)
        if last:
            return


def _fit_and_refit(dataset, settings, counts, selection, *, solver, objective, devices, **sizes):
    check_types(solver=solver, objective=objective, devices=devices)
    check_selection(selection)
    solver = solver._replace(best_by=selection.metric)
    how = {"solver": solver, "objective": objective, "devices": devices}
    result = fit(dataset, counts, settings, **sizes, **how)
    selected = result.best(*selection)
    return dataclasses.replace(
        result, refit=refit(dataset, result, selected, selection.epoch, **how)
    )
