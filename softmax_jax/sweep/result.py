"""The result of a sweep: metrics by trial and epoch, parameters, tables, the winning setting.

Settings are compared on metrics that are averaged over their trials.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Bool, Float, Int, Num, Shaped

from softmax_jax import metrics as measures
from softmax_jax.classifier import Classifier
from softmax_jax.data import Dataset
from softmax_jax.data.dataset import example_weights, html_table
from softmax_jax.hyperparameters import SPARSE
from softmax_jax.sweep.chunks import Epoch, Pending, Run, ended
from softmax_jax.sweep.settings import (
    SELECTION_RULES,
    Comparison,
    compare_settings,
    edge_hints,
    shortest,
    winning_setting,
)

# Losses as fractions of those without features. A model whose weights are almost zero has at least
# this train loss; one whose features do not help has at least this validation loss.
_CHANCE = {"train_loss": 0.85, "val_loss": 0.99}
_SHOWN_SETTINGS = 10  # in a notebook, the best ones
_FEWEST_EPOCHS = 5  # that tell the noise of a curve
_HOPELESS = 100  # times the loss of guessing: a trial that ends there has diverged


def hopeless_loss(num_samples: Int[np.ndarray, " T"], num_classes: int) -> Float[np.ndarray, " T"]:
    """The loss beyond which each trial has diverged.

    The losses on samples are those of as many decisions between two.
    """
    guessing = np.maximum((num_samples + 1) * math.log(2), math.log(max(num_classes, 2)))
    return _HOPELESS * guessing


class Selection(NamedTuple):
    """How settings are compared.

    Attributes:
      metric: the validation metric, such as 'val_loss' or 'val_accuracy'.
      epoch: 'last' or 'best', see `Result.epochs`.
      rule: 'best' mean, or 'one_se': the simplest within one standard error of it.
    """

    metric: str = "val_loss"
    epoch: str = "last"
    rule: str = "best"


def check_selection(selection: Selection) -> None:
    """Raises ValueError before the training for what `Result.best` would refuse after it."""
    check_metric(selection.metric)
    if selection.epoch not in ("last", "best"):
        raise ValueError(f"The epoch must be 'last' or 'best'; it is {selection.epoch!r}.")
    if selection.rule not in SELECTION_RULES:
        raise ValueError(f"The rule must be one of {SELECTION_RULES}; it is {selection.rule!r}.")


def check_metric(name: str) -> None:
    """Raises ValueError for a name that is not one of the `validation_metrics`."""
    if name not in validation_metrics():
        raise ValueError(f"No metric {name!r}; there are: {', '.join(validation_metrics())}.")


def validation_metrics() -> list[str]:
    """The names of the validation metrics."""
    return [f"val_{name}" for name in ("loss", *measures.METRICS)]


class Selected(NamedTuple):
    """The chosen trial.

    Attributes:
      trial: its number.
      epoch: the chosen epoch.
      hyperparameters: its setting, by name.
      metrics: its metrics at that epoch, by name.
      why: the reason for the choice.
      hints: what may be wrong with the choice: a grid too small, an optimum not reached.
      classifier: its model at that epoch.
      refit: whether the classifier was trained anew on all training examples with this setting.
      selected_on: whether the validation metrics decided the choice of the setting or of the epoch:
        then they flatter the model, and the honest ones are those of a test split, or
        `sweep.outer_estimate`.
    """

    trial: int
    epoch: int
    hyperparameters: dict
    metrics: dict
    why: str
    hints: list[str]
    classifier: Classifier
    refit: bool = False
    selected_on: bool = False

    def __repr__(self) -> str:
        return (
            f"<Selected trial {self.trial}, epoch {self.epoch}: {self.why}{_texts(self.metrics)}>"
        )

    def _repr_html_(self) -> str:
        return html_table([{"trial": self.trial, **self.hyperparameters, **self.metrics}])


@dataclasses.dataclass(frozen=True)
class Result:
    """The trials of a sweep after training.

    Attributes:
      run: what was the same throughout the sweep.
      metrics: of every trial by epoch, by name. A trial that ended before others keeps its last
        values.
      reached: the epoch at which each value was measured.
      params: after the last epoch, stacked [T, ...].
      best_params: after the best epoch of each trial, stacked [T, ...].
      best_epoch: of each trial; 0 where none was kept.
      facts: what else is known of each trial, by name.
      refit: the winner, trained anew on all training examples; None: there was no refit.
      nested: the trials that serve the outer folds of a nested cross-validation.
    """

    run: Run
    metrics: dict[str, Float[np.ndarray, "T E"]]
    reached: Int[np.ndarray, "T E"]
    params: dict | None
    best_params: dict | None
    best_epoch: Int[np.ndarray, " T"]
    facts: dict[str, Shaped[np.ndarray, " T"]]
    refit: Selected | None = None
    nested: "Result | None" = None

    def __repr__(self) -> str:
        trials, settings = len(self.best_epoch), len(np.unique(self.run.trials.setting))
        diverged = int((self.diverged > 0).sum())
        last = {name: values[:, -1] for name, values in self.metrics.items()}
        ranges = "".join(f"\n  {name} {v.min():.4g} to {v.max():.4g}" for name, v in last.items())
        return (
            f"<Result of {trials:,} trials of {settings:,} settings, {diverged:,} diverged, "
            f"{self.reached.max()} epochs; at the last epoch:{ranges}>"
        )

    def _repr_html_(self) -> str:
        rows = self.by_setting()
        by = next(f"{name}_mean" for name in ("val_loss", "train_loss") if name in self.metrics)
        return html_table(sorted(rows, key=lambda row: row[by])[:_SHOWN_SETTINGS])

    @property
    def diverged(self) -> Int[np.ndarray, " T"]:
        """The epoch in which each trial diverged; 0: it did not.

        That is where a loss stopped being finite, or came to be more than 100 times as large as
        guessing gives, and ended so.
        """
        losses = [values for name, values in self.metrics.items() if name.endswith("_loss")]
        finite = np.all(np.isfinite(losses), axis=0)
        judged = self.metrics["val_loss" if "val_loss" in self.metrics else "train_loss"]
        limits = hopeless_loss(self.run.trials.num_samples, len(self.run.label_names))
        hopeless = judged > limits[:, None]
        hopeless &= hopeless[:, -1:]
        sound = np.where(finite.all(1)[:, None], ~hopeless, finite)
        first = self.reached[np.arange(len(sound)), sound.argmin(1)]
        return np.where(sound.all(1), 0, first)

    @property
    def halved(self) -> Int[np.ndarray, " T"]:
        """The epoch at which halving stopped each trial; 0: it was trained to the end."""
        none = np.zeros(len(self.best_epoch), np.int64)
        return none if self.run.halving is None else self.facts.get("stopped_epoch", none)

    @property
    def full_batch(self) -> bool:
        """Whether the trials were trained by L-BFGS, whose epochs are iterations."""
        return "converged" in self.facts

    @property
    def remedy(self) -> str:
        """What helps where a trial diverges."""
        if self.full_batch:  # it has no learning rate
            return "standardise the features, or try a larger l2"
        return "try a smaller learning rate"

    def table(self) -> list[dict]:
        """A row per trial: its setting, its metrics at the last and at its best epoch."""
        return trial_rows(self)

    def path(self) -> list[dict]:
        """A row per trial of L-BFGS, the largest l2 first: the whole path of the optimum.

        Its penalties (l2, and l1 and l1_group where they are above 0), the fold where there are
        folds, the objective, gap (gap_bound / objective), norm_W (of the weights of features as
        they were normalised), the losses and accuracies, iterations, converged.

        Raises:
          ValueError: the trials are of another solver.
        """
        return path_rows(self)

    def by_setting(self, epoch: str = "last") -> list[dict]:
        """A row per setting: mean and standard deviation of its metrics over seeds and folds."""
        return setting_rows(self, epoch)

    def curves(self) -> dict[str, Float[np.ndarray, "T E"]]:
        """Every metric of every trial by epoch, by name."""
        return self.metrics

    def values(self, metric: str = "val_loss", epoch: str = "last") -> Float[np.ndarray, " T"]:
        """The metric of each trial at the epoch meant by 'last' or 'best' (see `epochs`)."""
        return self.metrics[metric][np.arange(len(self.best_epoch)), self._columns(epoch)]

    @property
    def has_winner(self) -> bool:
        """Whether there is a setting of which no trial diverged, or was stopped by halving."""
        setting, out = self.run.trials.setting, (self.diverged > 0) | (self.halved > 0)
        return len(np.unique(setting[out])) < len(np.unique(setting))

    def best(self, metric: str = "val_loss", epoch: str = "last", rule: str = "best") -> Selected:
        """The winning setting by its mean over seeds and folds, as its first trial.

        Args:
          metric: any name in `curves()`.
          epoch: 'last' or 'best', see `epochs`.
          rule: 'best' or 'one_se', see `winning_setting`. The standard error is that over the folds
            or bootstrap draws; without these that of the difference from the best setting, example
            by example, on the validation set.

        Raises:
          ValueError: a metric that was not measured, or by which no best epoch was kept; an unknown
            epoch or rule; or every setting has a diverged trial.

        Source of one_se: Breiman et al., *Classification and Regression Trees* (1984), section
        3.4.3.
        """
        if metric not in self.metrics:
            raise ValueError(f"No metric {metric!r}; there are: {', '.join(self.metrics)}.")
        if epoch == "best" and metric != self.run.best_by and self.best_epoch.any():
            raise ValueError(
                f"The best epochs were kept by {self.run.best_by}: run with best_by={metric!r}."
            )
        trials, values = self.run.trials, self.values(metric, epoch)
        settings = self.compared(values)
        columns = trials.columns()
        axes = {name: column[settings.first] for name, column in columns.items()}
        how, larger_wins = (
            (settings, axes["l2"], axes["learning_rate"]),
            not metric.endswith("loss"),
        )
        options = {"sparse": axes["l1"] + axes["l1_group"], "larger_wins": larger_wins}
        best, errors = winning_setting(*how, **options), None
        if rule == "one_se" and self.run.resamples is None and best is not None:
            errors = self._paired_errors(settings, best, metric, epoch)
        chosen = winning_setting(*how, **options, rule=rule, errors=errors)
        if chosen is None:
            which = "Every setting" if not self.halved.any() else "Every setting that halving left"
            raise ValueError(f"{which} has a diverged trial: {self.remedy}.")
        early = " (with early stopping the best)" if axes["patience"].any() else ""
        why = _why(metric, f"{epoch} epoch{early}", rule, settings, chosen)
        if stopped := len(np.unique(trials.setting[self.halved > 0])):
            why += f"; halving stopped {stopped} of them on the way"
        trial, num_examples = int(settings.first[chosen]), self.run.num_examples
        helpless = self._helpless(trials.setting == trials.setting[trial], epoch)
        edges = edge_hints(axes, chosen, num_examples, helpless=helpless)
        hints = [f"The winner is at the edge of the grid: {edge}." for edge in edges]
        hints += self._noise(settings, chosen, metric) if rule == "best" and not early else []
        selected_on = len(settings.mean) > 1 or bool(self.at_best(epoch)[trial])
        selected = self._select(trial, epoch, why, hints + self._doubts(trial))
        return selected._replace(selected_on=selected_on)

    def compared(self, values: Num[np.ndarray, " T"], corrected: bool = False) -> Comparison:
        """The settings, compared by a value of each trial.

        corrected: whether errors are those of intervals, see `Resamples.corrected_factor`.
        """
        trials, resamples = self.run.trials, self.run.resamples
        excluded = (self.diverged > 0) | (self.halved > 0)
        if resamples is None:
            return compare_settings(trials.setting, values, excluded)
        factor = resamples.corrected_factor if corrected else resamples.error_factor
        return compare_settings(trials.setting, values, excluded, trials.fold, factor)

    def classifier(self, trial: int | np.integer, epoch: str = "last") -> Classifier:
        """The trial's model at its last or its best epoch; with early stopping, at its best.

        That is the best epoch of this trial by itself, also where `epochs` means a common one.
        """
        stacked = self.best_params if self.at_best(epoch)[trial] else self.params
        W, b = self.run.model.weights(jax.tree.map(lambda leaf: leaf[trial], stacked))
        mean, scale = self.run.mean, self.run.scale
        if isinstance(mean, np.ndarray) and isinstance(scale, np.ndarray) and scale.ndim == 2:
            fold = self.run.trials.fold[trial]
            mean, scale = mean[fold], scale[fold]
        own = np.asarray(W), np.asarray(b), mean, scale, self.run.label_names, self.run.labels
        return Classifier(*own, features=self.run.features).corrected(self.run.class_weight)

    def predict(self, x: Any) -> Shaped[np.ndarray, " N"]:
        """Labels, as the data have them: by the refitted model if there is one, else by `best()`.

        For another choice: `best('val_accuracy').classifier.predict(x)`.
        """
        return self._selected.classifier.predict(x)

    def predict_proba(self, x: Any) -> Float[np.ndarray, "N C"]:
        """Probabilities by the same model as `predict`."""
        return self._selected.classifier.predict_proba(x)

    def test(self, test: Dataset) -> dict:
        """Loss and accuracy on a test set, with intervals, of the same model as `predict`."""
        return self._selected.classifier.test(test)

    @property
    def _selected(self):
        if not self.refit and "val_loss" not in self.metrics:
            raise ValueError("Nothing was validated, so nothing is selected: classifier(trial).")
        return self.refit or self.best()

    def epochs(self, epoch: str) -> Int[np.ndarray, " T"]:
        """The number of the epoch meant by 'last' or 'best', for each trial.

        'best' is each trial's own best epoch, by the `best_by` of the sweep. With folds or
        bootstrap draws it is one epoch for all trials of a setting: the best of their mean curve,
        as far as all of them were trained. (The best of each curve by itself would flatter the
        setting by the noise of every fold.) A trial with early stopping ends with the parameters of
        its best epoch: for it both are one.
        """
        resampled = self.run.resamples is not None
        best = self._common_best if resampled else self.best_epoch
        return np.where(self.at_best(epoch), best, self.reached[:, -1])

    def at_best(self, epoch: str) -> Bool[np.ndarray, " T"]:
        """Whether that epoch is a best one, for each trial."""
        if epoch not in ("last", "best"):
            raise ValueError(f"The epoch must be 'last' or 'best'; it is {epoch!r}.")
        early = self.run.trials.hyperparameters.patience > 0
        return ((epoch == "best") | early) & (self.best_epoch > 0)

    @functools.cached_property
    def _common_best(self):
        """The best epoch of the mean curve of each trial's setting."""
        setting, by = self.run.trials.setting, self.run.best_by
        cost = self.metrics[by] if by.endswith("loss") else -self.metrics[by]
        trained = np.diff(self.reached, axis=1, prepend=0) > 0
        common = np.zeros_like(self.best_epoch)
        for own in (setting == number for number in np.unique(setting)):
            with np.errstate(invalid="ignore", over="ignore"):
                curve = cost[own].astype(np.float64).mean(0)
            usable = trained[own].all(0) & np.isfinite(curve)
            common[own] = self.reached[own, np.where(usable, curve, np.inf).argmin()]
        return common

    def leaders(self, metric: str = "val_loss", epoch: str = "last", most: int = 10) -> list[dict]:
        """The best settings, a row each, and how far each is behind the best one.

        `sd` is the standard deviation over the setting's trials, 0 of one.
        `difference` is to the best one, on the same examples (or folds): its `interval` is one of
        95 % for all comparisons with the best at once (Bonferroni), since the best of many is the
        luckiest, too. None where the metric is not a mean over the examples of a validation set.
        """
        settings = self.compared(self.values(metric, epoch))
        sign = 1 if metric.endswith("loss") else -1
        order = np.argsort(np.where(settings.excluded, np.inf, sign * settings.mean), kind="stable")
        order = order[: min(most, int((~settings.excluded).sum()))]
        confidence = 1 - 0.05 / max(len(settings.mean) - 1, 1)
        rows, of_best = [], None
        for number in order:
            own = self._paired(settings.first[number], metric, epoch)
            of_best = own if of_best is None else of_best
            row = self.run.trials.row(settings.first[number])
            row = {name: value for name, value in row.items() if name not in ("seed", "fold")}
            row |= {metric: float(settings.mean[number]), "sd": float(settings.spread[number])}
            row["difference"] = float(settings.mean[number] - settings.mean[order[0]])
            row["interval"] = None if own is None else self._interval(own - of_best, confidence)
            rows.append(row)
        return rows

    def _paired(self, first, metric, epoch):
        """The metric by fold, or by example of the val set: the mean over the setting's seeds."""
        trials, val = self.run.trials, self.run.val
        own = np.flatnonzero(trials.setting == trials.setting[first])
        if self.run.resamples is not None:
            values = self.values(metric, epoch)[own].astype(np.float64)
            return np.array([values[trials.fold[own] == f].mean() for f in np.unique(trials.fold)])
        if metric not in ("val_loss", "val_accuracy") or val is None:
            return None
        measured = (self.classifier(trial, epoch).by_example(val) for trial in own)
        return np.mean([pair[metric == "val_accuracy"] for pair in measured], 0, np.float64)

    def _val_weights(self):
        """The weights of the validation examples, or None."""
        val = self.run.val
        return None if val is None else example_weights(val)

    def _interval(self, differences, confidence):
        resamples = self.run.resamples
        if resamples is None:
            return measures.mean_interval(differences, self._val_weights(), confidence)
        error = differences.std(ddof=1) * resamples.corrected_factor
        return measures.t_interval(differences.mean(), error, len(differences) - 1, confidence)

    def _paired_errors(self, settings, best, metric, epoch):
        """The standard errors of the settings' differences from the best one on the val set [G]."""
        of_best = self._paired(settings.first[best], metric, epoch)
        if of_best is None:
            raise ValueError(
                "The rule 'one_se' needs folds or bootstrap draws, or select by val_loss or "
                f"val_accuracy: {metric} is not a mean over the validation examples."
            )
        errors = np.full(len(settings.mean), math.nan)
        for number in np.flatnonzero(~settings.excluded):
            difference = self._paired(settings.first[number], metric, epoch) - of_best
            _, deviation, n = measures.mean_and_spread(difference, self._val_weights())
            errors[number] = deviation / math.sqrt(n)
        return errors

    def take(self, rows: Bool[np.ndarray, " T"]) -> "Result":
        """The result of some of the trials."""
        params, best_params = jax.tree.map(lambda leaf: leaf[rows], (self.params, self.best_params))
        return dataclasses.replace(
            self,
            run=self.run._replace(trials=self.run.trials.take(rows)),
            metrics={name: values[rows] for name, values in self.metrics.items()},
            reached=self.reached[rows],
            params=params,
            best_params=best_params,
            best_epoch=self.best_epoch[rows],
            facts={name: values[rows] for name, values in self.facts.items()},
        )

    def _columns(self, epoch):
        """The column of that epoch in `metrics` [T, E], for each trial."""
        return (self.reached == self.epochs(epoch)[:, None]).argmax(1)

    def _noise(self, settings, chosen, metric):
        """A hint where the winner is ahead of others by less than their last epochs vary.

        The noise of a curve is what is left without its trend: the deviation of its second
        differences, / √6; the curve is that of the difference from the winner, since settings that
        share their minibatches share most of their noise.
        """
        curves = self.metrics[metric].astype(np.float64)
        tail = curves[:, -max(_FEWEST_EPOCHS, curves.shape[1] // 4) :]
        if len(settings.mean) < 2 or tail.shape[1] < _FEWEST_EPOCHS or "converged" in self.facts:
            return []
        _, setting = np.unique(self.run.trials.setting, return_inverse=True)
        means = np.array([np.bincount(setting, values) for values in tail.T]) / settings.count
        with np.errstate(invalid="ignore"):  # of diverged trials
            ahead = (means - means[:, [chosen]])[:, ~settings.excluded]
        noise = np.diff(ahead, 2, axis=0).std(0) / math.sqrt(6)
        close = int((noise > np.abs(ahead[-1])).sum())
        if not close:
            return []
        return [
            f"By {metric} the winner is ahead of {close} of the other {len(settings.mean) - 1} "
            "settings by less than the difference varies from epoch to epoch: either may win by "
            "chance. Use more seeds, averaging, or a schedule that ends with a small rate."
        ]

    def _helpless(self, chosen, epoch):
        """What the largest l2 means where its model is hardly one of the features, else ''."""
        chance = self.run.chance
        if not all(name in self.metrics and name in chance for name in _CHANCE):
            return ""
        found = {name: self.values(name, epoch)[chosen].mean() for name in _CHANCE}
        if any(found[name] < least * chance[name] for name, least in _CHANCE.items()):
            return ""
        return (
            f", and the validation loss there is {found['val_loss']:.4g}, where the frequencies of "
            f"the classes alone have {chance['val_loss']:.4g}: the features hardly help"
        )

    def _doubts(self, trial):
        """Hints where the solver did not converge."""
        facts = {name: values[trial] for name, values in self.facts.items()}
        if facts.get("separable", False):
            return [
                "The classes are separable, wholly or in part, and l2 is 0: the optimum is at "
                "infinity, and the weights are some on the way there. Try an l2 above 0."
            ]
        if facts.get("converged", True):
            return []
        iterations = facts["iterations"]
        if iterations < self.run.num_epochs:
            end, remedy = f"float precision was exhausted after {iterations} iterations", "use"
        else:
            end, remedy = f"{iterations} iterations did not suffice", "raise num_epochs, or use"
        return [
            f"The winner has not converged, as {end}: {remedy} a larger tolerance, standardised "
            "features, or float64."
        ]

    def _select(self, trial, epoch, why, hints):
        number = int(self.epochs(epoch)[trial])
        metrics = {name: shortest(self.values(name, epoch)[trial]) for name in self.metrics}
        settings = self.run.trials.row(trial)
        return Selected(trial, number, settings, metrics, why, hints, self.classifier(trial, epoch))


def _texts(metrics):
    return "".join(f"\n  {name} {value:.4f}" for name, value in metrics.items())


def _why(metric, when, rule, settings, chosen):
    if len(settings.mean) == 1:
        return "the only setting"
    order = "largest" if not metric.endswith("loss") else "smallest"
    what = f"{order} {metric} at the {when}"
    if rule == "one_se":
        what = f"simplest setting within one standard error of the {what}"
    mean, spread, count = settings.mean[chosen], settings.spread[chosen], settings.count[chosen]
    over = f" ± {spread:.4f} (mean and standard deviation of {count} trials)" if count > 1 else ""
    return f"{what} of {len(settings.mean)} settings: {mean:.4f}{over}"


def trial_rows(result: Result) -> list[dict]:
    """A row per trial: its setting, its metrics at the last and at its best epoch."""
    metrics = {name: values[:, -1] for name, values in result.metrics.items()}
    facts = result.facts | {"diverged": result.diverged > 0}
    if result.best_epoch.any():
        metrics |= {f"best_{name}": result.values(name, "best") for name in result.metrics}
        facts = {"best_epoch": result.epochs("best")} | facts
    return [
        {"trial": trial}
        | result.run.trials.row(trial)
        | {name: shortest(values[trial]) for name, values in metrics.items()}
        | {name: values[trial].item() for name, values in facts.items()}
        for trial in range(len(result.best_epoch))
    ]


def path_rows(result: Result) -> list[dict]:
    """The rows of `Result.path`."""
    if not result.full_batch:
        raise ValueError("A path is one of optima: use solver=sweep.LBFGS().")
    trials, last = result.run.trials, {name: v[:, -1] for name, v in result.metrics.items()}
    h, rows = trials.hyperparameters, []
    penalties = ["l2", *(name for name in SPARSE if getattr(h, name).any())]
    order = [-getattr(h, name) for name in penalties[::-1]]
    for trial in np.lexsort((trials.fold, *order)):
        fold = {"fold": int(trials.fold[trial])} if trials.fold.max() >= 0 else {}
        own = {name: shortest(values[trial]) for name, values in last.items()}
        objective, gap_bound = last["objective"][trial], last["gap_bound"][trial]
        W = result.classifier(trial).W.astype(np.float64)
        row = {name: shortest(getattr(h, name)[trial]) for name in penalties} | fold
        row |= {"objective": own["objective"]}
        row |= {"gap": shortest(np.float32(gap_bound / objective))}
        row |= {"norm_W": shortest(np.float32(np.linalg.norm(W)))}
        row |= {name: own[name] for name in own if name.endswith(("_loss", "_accuracy"))}
        facts = {name: result.facts[name][trial].item() for name in ("iterations", "converged")}
        rows.append(row | facts)
    return rows


def setting_rows(result: Result, epoch: str = "last") -> list[dict]:
    """A row per setting and batch size: mean and standard deviation of each metric.

    Both are over the setting's trials, which differ in seed and fold only; `epoch` as in
    `Result.values`.
    """
    trials, diverged = result.run.trials, result.diverged > 0
    compared = {name: result.compared(result.values(name, epoch)) for name in result.metrics}
    settings = next(iter(compared.values()))
    number_diverged = np.bincount(trials.setting, diverged)
    rows = []
    for number, first in enumerate(settings.first):
        row = {"setting": number} | trials.row(first)
        row = {name: value for name, value in row.items() if name not in ("seed", "fold")}
        row |= {"trials": int(settings.count[number]), "diverged": int(number_diverged[number])}
        row |= {} if result.run.halving is None else {"stopped_epoch": int(result.halved[first])}
        for name, own in compared.items():
            row[f"{name}_mean"] = round(float(own.mean[number]), 6)
            row[f"{name}_sd"] = round(float(own.spread[number]), 6)
        rows.append(row)
    return rows


def collect(epochs: Iterable[Epoch]) -> Result:
    """Drains the iterator `sweep.epochs` (or one that passes its epochs on) into a `Result`."""
    collection: Collection | None = None
    for epoch in epochs:
        collection = collection or Collection(epoch.run)
        collection.add(epoch)
    if collection is None:
        raise ValueError("There are no epochs to collect.")
    return collection.result()


class Collection:
    """The outcome of the epochs so far, by the number of the trial.

    Attributes:
      run: what stays the same throughout the sweep.
      count: how often each trial was measured.
      reached: the epochs at which it was, [T, E], of which the first `count` are filled.
      metrics: the same of every metric, by name.
      facts: what else is known of each trial, by name.
      last, best: the parameters [T, ...] of the trials that have ended; None: none has.
      best_epoch: of the trials that have ended.
      log: the trials in order of arrival.
      ended: the chunks that have ended, by their first trials, with what a longer training of them
        goes on from (`chunks.ended`); None: it is not kept.
    """

    def __init__(self, run: Run, ended: dict[int, Pending] | None = None) -> None:
        num_trials = len(run.trials.setting)
        self.run, self.ended = run, ended
        self.count = np.zeros(num_trials, np.int64)
        self.reached = np.zeros((num_trials, run.num_epochs), np.int32)
        self.metrics: dict[str, np.ndarray] = {}
        self.facts: dict[str, np.ndarray] = {}
        self.last: dict | None = None
        self.best: dict | None = None
        self.best_epoch = np.zeros(num_trials, np.int32)
        self.log: list[np.ndarray] = []

    def add(self, epoch: Epoch) -> None:
        """Adds the outcome of an `Epoch`."""
        trials, columns = epoch.trials, self.count[epoch.trials]
        self.reached[trials, columns] = epoch.reached
        for name, values in epoch.metrics.items():
            self._metric(name, values.dtype)[trials, columns] = values
        for name, values in epoch.facts.items():
            self.facts.setdefault(name, np.zeros(len(self.count), values.dtype))[trials] = values
        self.count[trials] += 1
        self.log.append(np.asarray(trials, np.int32))
        if epoch.ends or epoch.pauses:  # it may be the last of its trials
            params, best = epoch.run.placement.fetch((epoch.states.averaged, epoch.best))
            self.last = _write_rows(self.last, params, epoch.chunk, len(self.count))
            self.best = _write_rows(self.best, best.params, epoch.chunk, len(self.count))
            self.best_epoch = _write_rows(self.best_epoch, best.epoch, epoch.chunk, len(self.count))
        if epoch.ends and self.ended is not None:
            self.ended[int(epoch.chunk.trials[0, 0])] = ended(epoch)

    def result(self) -> Result:
        """The `Result`; a trial that ended before others keeps its last metrics."""
        columns = np.minimum(np.arange(self.count.max()), self.count[:, None] - 1)

        def filled(values):
            return np.take_along_axis(values, columns, 1)

        result = Result(
            self.run,
            {name: filled(values) for name, values in self.metrics.items()},
            filled(self.reached),
            self.last,
            self.best,
            self.best_epoch,
            self.facts,
        )
        compared = np.arange(len(self.count)) < self.run.num_compared
        if compared.all():
            return result
        return dataclasses.replace(result.take(compared), nested=result.take(~compared))

    def arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """All of it as arrays by name, for `restored`."""
        length = self.count.max()
        kept = {"count": self.count, "reached": self.reached[:, :length], "facts": self.facts}
        kept["metrics"] = {name: values[:, :length] for name, values in self.metrics.items()}
        kept |= {"best_epoch": self.best_epoch, "log": self._order()}
        if self.last is not None:
            kept |= {"last": self.last, "best": self.best}
        return traverse_util.flatten_dict(kept, sep="/")

    @classmethod
    def restored(
        cls,
        run: Run,
        arrays: dict[str, Shaped[np.ndarray, "..."]],
        ended: dict[int, Pending] | None = None,
    ) -> "Collection":
        """The collection of this run with these `arrays`, or those of its first trials.

        Raises:
          ValueError: they cannot be those of `arrays()`.
        """
        collection = cls(run, ended)
        more = len(collection.count) - len(arrays["count"])
        longer = {
            name: array
            if name == "log"
            else np.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1))
            for name, array in arrays.items()
        }
        kept = traverse_util.unflatten_dict(longer, sep="/")
        length = kept["reached"].shape[1]
        if not 0 <= kept["count"].min() <= kept["count"].max() <= length:
            raise ValueError(f"a trial cannot have been measured {kept['count'].max():,} times")
        collection.count, collection.facts = kept["count"], kept.get("facts", {})
        collection.reached[:, :length] = kept["reached"]
        for name, values in kept.get("metrics", {}).items():
            collection._metric(name, values.dtype)[:, :length] = values
        collection.last, collection.best = kept.get("last"), kept.get("best")
        collection.best_epoch, collection.log = kept["best_epoch"], [kept["log"].astype(np.int32)]
        return collection

    def order_log(self) -> bool:
        """Puts the log into the order of the chunks, as if each had been trained in one go.

        Returns:
          Whether it was in another one: where chunks that had ended have gone on.
        """
        place = np.zeros(len(self.count), np.int64)
        for number, item in enumerate((self.ended or {}).values()):
            place[item.chunk.trials] = number
        log = self._order().astype(np.int32)
        self.log = [log[np.argsort(place[log], kind="stable")]]
        return bool((self.log[0] != log).any())

    def lines(self) -> Iterator[dict]:
        """The metrics, a dictionary per compared trial and epoch, in the order of the log."""
        seen = np.zeros_like(self.count)
        for trial in self._order().astype(int):
            column = seen[trial]
            seen[trial] += 1
            if trial >= self.run.num_compared:
                continue
            measured = {name: values[trial, column] for name, values in self.metrics.items()}
            yield {"trial": trial, "epoch": self.reached[trial, column]} | measured

    def _order(self):
        """The log as one array."""
        return np.concatenate([np.zeros(0, np.int32), *self.log])

    def _metric(self, name, dtype):
        return self.metrics.setdefault(name, np.zeros(self.reached.shape, dtype))


def _write_rows(collected, stacked, chunk, num_trials):
    """Writes the chunk's arrays [S, K, ...] into the rows of its trials of arrays [T, ...]."""
    real = slice(chunk.num_real)  # the padding is dropped
    numbers = chunk.trials[:, real]
    if collected is None:
        collected = jax.tree.map(
            lambda leaf: np.zeros((num_trials, *leaf.shape[2:]), leaf.dtype), stacked
        )

    def write(whole, own):
        whole[numbers] = own[:, real]
        return whole

    return jax.tree.map(write, collected, stacked)
