"""Cross-validation and the bootstrap: settings × resamples as trials of one program, then a refit.

Both train every setting once per resample of the data, evaluate it on the examples that the
resample leaves out, choose a setting by its mean over the resamples, and train it anew on all
examples.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from softmax_jax import metrics
from softmax_jax.checks import named_keywords
from softmax_jax.data import Dataset, validation
from softmax_jax.hyperparameters import Hyperparameters
from softmax_jax.sweep.chunks import Epoch
from softmax_jax.sweep.inputs import (
    bootstrap_counts,
    fold_counts,
    leave_out_absent,
    nested_folds,
)
from softmax_jax.sweep.loop import LBFGS, SGD, Devices, Objective, Wholes, check_types, epochs, fit
from softmax_jax.sweep.result import Result, Selected, Selection, check_selection, collect
from softmax_jax.sweep.settings import grid


@named_keywords("sweep.cross_validate")
def cross_validate(
    dataset: Dataset,
    settings: Hyperparameters | None = None,
    *,
    folds: ArrayLike | Sequence[int] = 5,
    outer_folds: int = 0,
    stratified: bool = True,
    num_epochs: int,
    batch_size: int | Wholes = 256,
    seeds: Wholes = (0,),
    solver: SGD | LBFGS = SGD(),  # noqa: B008 (a tuple of constants)
    objective: Objective = Objective(),  # noqa: B008
    devices: Devices = Devices(),  # noqa: B008
    halving: tuple[int, int] | None = None,
    selection: Selection = Selection(),  # noqa: B008
) -> Result:
    """K-fold cross-validation of settings, with the chosen one refitted on the whole dataset.

    `predict` and `test` use `result.refit`; every metric is a mean over examples that its trial did
    not see.

    Args:
      dataset: a `data.Dataset`; examples of weight 0 are left out before the folds are drawn.
      folds: how many folds, in which identical rows and the `groups` of the dataset stay together;
        or [N] integers that say which fold each example is in; or counts [N, R], as
        `sweep.fold_counts` makes them.
      outer_folds: of a nested cross-validation, for an `outer_estimate(result, selection)` of what
        the choice is worth; 0: none. It trains outer_folds · (folds + 1) more trials of each
        setting, in the same programs.
      stratified: whether each fold gets its share of every class.
      selection: how the settings are compared.
      settings, num_epochs, batch_size, seeds, solver, objective, devices, halving: see
        `sweep.epochs`.

    Raises:
      ValueError: see `sweep.epochs`; or the refit diverges.
    """
    dataset = leave_out_absent(dataset)
    folds = dataset.aligned(np.asarray(folds)) if np.ndim(folds) else folds
    if outer_folds:
        if np.ndim(folds):
            raise ValueError("outer_folds needs a number of folds, and not which fold is whose.")
        number = np.asarray(folds).item()
        how: dict[str, Any] = {"stratified": stratified, "together": validation.together(dataset)}
        counts = nested_folds(dataset.y, number, outer_folds, **how)
    elif np.ndim(folds) == 2:
        counts = folds
    else:
        together = None if np.ndim(folds) else validation.together(dataset)
        counts = fold_counts(dataset.y, folds, stratified=stratified, together=together)
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
        halving=halving,
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
    halving: tuple[int, int] | None = None,
    selection: Selection = Selection(),  # noqa: B008
) -> Result:
    """Bootstrap draws of every setting, evaluated out of bag, then the refit.

    `sweep.spread(result, result.refit, metric)` gives the spread of a metric over the draws.

    Args:
      draws: how many stratified draws, in which identical rows and groups stay together; or counts
        [N, R], as `sweep.bootstrap_counts` makes them.
      dataset, settings, num_epochs, batch_size, seeds, solver, objective, devices, halving,
        selection: see `cross_validate`.

    Raises:
      ValueError: see `sweep.epochs`; or the refit diverges.
    """
    dataset = leave_out_absent(dataset)
    counts = draws
    if np.ndim(draws) == 0:
        number, together = np.asarray(draws).item(), validation.together(dataset)
        counts = bootstrap_counts(dataset.y, number, together=together)
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
        halving=halving,
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

    It trains for all epochs or, with epoch='best' or early stopping, up to the best one (see
    `Result.epochs`; of several seeds with a validation set, for the mean of theirs). Its metrics
    are the means over the setting's trials, by which it was chosen.

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
        if solver.optimizer == "adamw" and axes["weight_decay"] == 0:
            solver = solver._replace(optimizer="adam")
        if solver.optimizer == "nesterov" and axes["momentum"] == 0:
            solver = solver._replace(optimizer="sgd")
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
        raise ValueError(f"The refit on all training examples diverged: {again.remedy}.")
    means = {n: spread(result, selected, n, epoch)["mean"] for n in result.metrics}
    return selected._replace(
        classifier=again.classifier(0),
        epoch=int(again.epochs("last")[0]),
        hyperparameters=settings,
        metrics=means,
        refit=True,
        why=f"{selected.why}; refitted on all {len(dataset.y):,} training examples",
    )


def spread(
    result: Result, selected: Selected, metric: str = "val_loss", epoch: str = "last"
) -> dict:
    """A metric of the selected setting over its trials.

    Returns:
      `mean` and `sd` over the trials; `spread`, the central 95 % of them, which is not an interval
      for the metric; and with folds or bootstrap draws `interval`, one with a nominal coverage of
      95 %: mean ± t · standard error (see `Resamples.corrected_factor`), in the metric's range.
      For bootstrap draws it is that of models trained on a draw, which holds 63 % of the examples.
    """
    setting, values = result.run.trials.setting, result.values(metric, epoch).astype(np.float64)
    own = values[setting == setting[selected.trial]]
    with np.errstate(invalid="ignore"):  # without a penalty the bound of the gap is infinite
        found = metrics.spread_of(own)
    resamples = result.run.resamples
    if resamples is not None:
        settings = result.compared(values, corrected=True)
        error = settings.error[np.unique(setting).searchsorted(setting[selected.trial])]
        num_columns = int((resamples.outer < 0).sum())
        low, high = metrics.t_interval(own.mean(), error, num_columns - 1)
        most = math.inf if metric.endswith("loss") else 1.0
        found["interval"] = [max(low, 0.0), min(high, most)]
    return found


def out_of_fold(
    dataset: Dataset, result: Result, selected: Selected
) -> tuple[Float[np.ndarray, "N C"], Int[np.ndarray, " N"]]:
    """What the selected setting says of each training example that it was not trained on.

    Of several seeds the models of the selected trial's seed are asked, at their last epoch. Where
    the folds chose the setting, losses of these probabilities flatter it, if only a little.

    Args:
      dataset: the examples that the folds divide, those of weight 0 left out.
      result: of the cross-validation.
      selected: the choice, from `result.best`.

    Returns:
      Probabilities [N, C], as `Classifier.predict_proba` has them, and the fold of each example.

    Raises:
      ValueError: there are no folds that hold out every example exactly once.
    """
    trials, resamples = result.run.trials, result.run.resamples
    held_out = np.zeros((0, 0)) if resamples is None else resamples.held_out
    held_out = held_out if resamples is None else held_out[:, resamples.outer < 0]
    if not held_out.size or not (held_out.sum(1) == 1).all():
        raise ValueError("Out-of-fold probabilities need folds that hold out each example once.")
    if len(held_out) != len(dataset.y):
        raise ValueError(
            f"The folds divide {len(held_out):,} examples, and the dataset has {len(dataset.y):,}."
        )
    fold = held_out.argmax(1)
    same = ("setting", "seed")
    own = np.all([getattr(trials, n) == getattr(trials, n)[selected.trial] for n in same], axis=0)
    found = np.empty((len(fold), len(result.run.label_names)), selected.classifier.W.dtype)
    for trial in np.flatnonzero(own):
        rows = np.flatnonzero(fold == trials.fold[trial])
        found[rows] = result.classifier(int(trial)).predict_proba(dataset.x[rows])
    return found, fold


def outer_estimate(result: Result, selection: Selection = Selection()) -> dict | None:  # noqa: B008
    """Loss and accuracy by nested cross-validation: nothing was chosen on what they measure.

    For each outer fold the whole choice (setting and epoch) is made on the inner folds of the
    other examples, and what it chose, trained on all of these, is measured on the outer fold.

    Returns:
      The loss (with the t interval over the outer folds) and the accuracy (with Wilson's), each as
      the mean over all examples; and the setting that each outer fold chose. Both intervals are
      wider than those of independent values by √(1 + O/(O - 1)) for O outer folds, which share
      their training examples (see `Resamples.corrected_factor`). None without outer folds.

    Raises:
      ValueError: every setting diverged within an outer fold, or the chosen one on it.

    Source: Varma and Simon, *Bias in error estimation when using cross-validation for model
    selection* (2006).
    """
    if result.nested is None or result.run.resamples is None:
        return None
    resamples, trials = result.run.resamples, result.nested.run.trials
    outer, final = resamples.outer[trials.fold], resamples.final[trials.fold]
    values, sizes, chosen = [], [], []
    for number in np.unique(outer):
        inner = result.nested.take((outer == number) & ~final)
        selected = inner.best(*selection)
        setting = inner.run.trials.setting[selected.trial]
        judged = result.nested.take((outer == number) & final & (trials.setting == setting))
        at = judged.reached == selected.epoch
        column = at[0].argmax() if inner.at_best(selection.epoch)[selected.trial] else -1
        means = [judged.metrics[f"val_{name}"][:, column].mean() for name in ("loss", "accuracy")]
        if not np.isfinite(means).all():
            raise ValueError(f"What outer fold {number} chose diverged when trained for it.")
        values.append(means)
        sizes.append(resamples.held_out[:, judged.run.trials.fold[0]].sum())
        chosen.append({k: v for k, v in selected.hyperparameters.items() if k != "fold"})
    losses, accuracies = np.array(values, np.float64).T
    total, inflation = float(np.sum(sizes)), 1 + len(sizes) / (len(sizes) - 1)
    error = losses.std(ddof=1) * math.sqrt(inflation / len(sizes))
    loss, accuracy = (float(np.average(of, weights=sizes)) for of in (losses, accuracies))
    low, high = metrics.t_interval(loss, error, len(losses) - 1)
    return {
        "outer_folds": len(sizes),
        "loss": loss,
        "accuracy": accuracy,
        "loss_interval": [max(low, 0.0), high],
        "accuracy_interval": metrics.wilson_interval(
            accuracy * total / inflation, total / inflation
        ),
        "chosen": chosen,
    }


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
