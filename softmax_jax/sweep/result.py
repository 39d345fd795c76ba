"""The result of a sweep: metrics by trial and epoch, parameters, tables, the winning setting.

Settings are compared on metrics that are averaged over their trials.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from softmax_jax import metrics as measures
from softmax_jax.classifier import Classifier
from softmax_jax.data import Dataset
from softmax_jax.data.dataset import html_table
from softmax_jax.hyperparameters import ROWS
from softmax_jax.sweep.chunks import Epoch, Run
from softmax_jax.sweep.settings import shortest

SELECTION_RULES = ("best", "one_se")
_SHOWN_SETTINGS = 10  # in a notebook, the best ones


class Comparison(NamedTuple):
    """The G settings, in the order of their index; their trials differ in seed and fold only.

    Attributes:
      mean: of the metric over the trials of each setting.
      spread: its standard deviation over these.
      count: the number of these.
      diverged: whether one of them diverged.
      first: the number of the first of them.
    """

    mean: Float[np.ndarray, " G"]
    spread: Float[np.ndarray, " G"]
    count: Int[np.ndarray, " G"]  # type: ignore[assignment]  # hides tuple.count
    diverged: Bool[np.ndarray, " G"]
    first: Int[np.ndarray, " G"]


def compare_settings(
    setting: Int[np.ndarray, " T"],
    values: Num[np.ndarray, " T"],
    diverged: Bool[np.ndarray, " T"],
) -> Comparison:
    """Summarises the values of a metric by the setting of each trial."""
    _, first, inverse, count = np.unique(
        setting, return_index=True, return_inverse=True, return_counts=True
    )
    mean = np.bincount(inverse, values) / count
    with np.errstate(invalid="ignore"):  # those of diverged trials may be infinite
        squares = np.bincount(inverse, np.square(values - mean[inverse]))
    spread = np.sqrt(squares / np.maximum(count - 1, 1))
    return Comparison(mean, spread, count, np.bincount(inverse, diverged) > 0, first)


def winning_setting(
    comparison: Comparison,
    l2: Num[np.ndarray, " G"],
    learning_rate: Num[np.ndarray, " G"],
    *,
    larger_wins: bool = False,
    rule: str = "best",
) -> int | None:
    """The index of the winning setting, or None where every one diverged.

    Args:
      comparison: of the settings.
      l2, learning_rate: of each setting.
      larger_wins: whether the metric is one of which more is better.
      rule: 'best': the best mean; ties go to the larger l2, then to the smaller learning rate.
        'one_se': the simplest setting (largest l2, then smallest learning rate) whose mean is
        within one standard error (of the best setting) of the best mean.

    Raises:
      ValueError: an unknown rule; or 'one_se' without two or more seeds or folds.

    Source of one_se: Breiman et al., *Classification and Regression Trees* (1984), section 3.4.3.
    """
    if rule not in SELECTION_RULES:
        raise ValueError(f"The rule must be one of {SELECTION_RULES}; it is {rule!r}.")
    cost = np.where(
        comparison.diverged, np.inf, -comparison.mean if larger_wins else comparison.mean
    )
    if not np.isfinite(cost).any():
        return None
    best = np.lexsort((learning_rate, -np.asarray(l2), cost))[0]
    if rule == "best":
        return int(best)
    if comparison.count[best] < 2:
        raise ValueError("The rule 'one_se' needs a spread: two or more seeds or folds.")
    limit = cost[best] + comparison.spread[best] / np.sqrt(comparison.count[best])
    within = np.flatnonzero(cost <= limit)
    simplest = np.lexsort((cost[within], learning_rate[within], -l2[within]))[0]
    return int(within[simplest])


def edge_hints(
    axes: dict[str, Num[np.ndarray, " G"]], chosen: int, num_examples: int = 2**53
) -> list[str]:
    """Hints where the winner is at the end of a swept axis: the optimum may be beyond.

    There is no hint at the end of a hyperparameter's range, nor for an axis of two values, off and
    on, that is not crossed with the others.

    Args:
      axes: of the settings, by name.
      chosen: the index of the winning setting.
      num_examples: to train on, the largest batch size.
    """
    hints, lengths = [], [len(np.unique(values)) for values in axes.values()]
    crossed = math.prod(lengths) == len(next(iter(axes.values())))
    for name, values in axes.items():
        tried, limits = np.unique(values), ROWS[name].range
        high = num_examples if name == "batch_size" else limits.high
        if len(tried) < (2 if crossed else 3):
            continue
        if values[chosen] == tried[-1] < high:
            hints.append(f"{name} = {tried[-1]:g} is the largest tried: extend {name} upwards")
        elif values[chosen] == tried[0] > limits.low:
            hints.append(f"{name} = {tried[0]:g} is the smallest tried: extend {name} downwards")
    return hints


class Selection(NamedTuple):
    """How settings are compared.

    Attributes:
      metric: the validation metric, such as 'val_loss' or 'val_accuracy'.
      epoch: 'last', or 'best': each trial at its own best epoch.
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
    """

    trial: int
    epoch: int
    hyperparameters: dict
    metrics: dict
    why: str
    hints: list[str]
    classifier: Classifier
    refit: bool = False

    def __repr__(self) -> str:
        return (
            f"<Selected trial {self.trial}, epoch {self.epoch}: {self.why}{_texts(self.metrics)}>"
        )

    def _repr_html_(self) -> str:
        return html_table([{"trial": self.trial, **self.hyperparameters, **self.metrics}])


@dataclass(frozen=True)
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
    """

    run: Run
    metrics: dict[str, Float[np.ndarray, "T E"]]
    reached: Int[np.ndarray, "T E"]
    params: dict | None
    best_params: dict | None
    best_epoch: Int[np.ndarray, " T"]
    facts: dict[str, Shaped[np.ndarray, " T"]]
    refit: Selected | None = None

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
        """The epoch in which a loss of each trial stopped being finite; 0: it did not."""
        losses = [values for name, values in self.metrics.items() if name.endswith("_loss")]
        finite = np.all(np.isfinite(losses), axis=0)
        first = self.reached[np.arange(len(finite)), finite.argmin(1)]
        return np.where(finite.all(1), 0, first)

    def table(self) -> list[dict]:
        """A row per trial: its setting, its metrics at the last and at its best epoch."""
        return trial_rows(self)

    def by_setting(self, epoch: str = "last") -> list[dict]:
        """A row per setting: mean and standard deviation of its metrics over seeds and folds."""
        return setting_rows(self, epoch)

    def curves(self) -> dict[str, Float[np.ndarray, "T E"]]:
        """Every metric of every trial by epoch, by name."""
        return self.metrics

    def values(self, metric: str = "val_loss", epoch: str = "last") -> Float[np.ndarray, " T"]:
        """The metric of each trial at its last epoch, or at its best one (see `epochs`)."""
        return self.metrics[metric][np.arange(len(self.best_epoch)), self._columns(epoch)]

    @property
    def has_winner(self) -> bool:
        """Whether there is a setting of which no trial diverged."""
        setting = self.run.trials.setting
        return len(np.unique(setting[self.diverged > 0])) < len(np.unique(setting))

    def best(self, metric: str = "val_loss", epoch: str = "last", rule: str = "best") -> Selected:
        """The winning setting by its mean over seeds and folds, as its first trial.

        Args:
          metric: any name in `curves()`.
          epoch: 'last', or 'best': each trial at its own best epoch, by the `best_by` of the sweep.
          rule: 'best' or 'one_se', see `winning_setting`.

        Raises:
          ValueError: a metric that was not measured, or by which no best epoch was kept; an unknown
            epoch or rule; or every setting has a diverged trial.
        """
        if metric not in self.metrics:
            raise ValueError(f"No metric {metric!r}; there are: {', '.join(self.metrics)}.")
        if epoch == "best" and metric != self.run.best_by and self.best_epoch.any():
            raise ValueError(
                f"The best epochs were kept by {self.run.best_by}: run with best_by={metric!r}."
            )
        trials, values = self.run.trials, self.values(metric, epoch)
        settings = compare_settings(trials.setting, values, self.diverged > 0)
        columns = trials.columns()
        axes = {name: column[settings.first] for name, column in columns.items()}
        chosen = winning_setting(
            settings,
            axes["l2"],
            axes["learning_rate"],
            larger_wins=not metric.endswith("loss"),
            rule=rule,
        )
        if chosen is None:
            raise ValueError("Every setting has a diverged trial: try a smaller learning rate.")
        early = " (with early stopping the best)" if axes["patience"].any() else ""
        why = _why(metric, f"{epoch} epoch{early}", rule, settings, chosen)
        trial, edges = int(settings.first[chosen]), edge_hints(axes, chosen, self.run.num_examples)
        hints = [f"The winner is at the edge of the grid: {edge}." for edge in edges]
        return self._select(trial, epoch, why, hints + self._doubts(trial))

    def classifier(self, trial: int | np.integer, epoch: str = "last") -> Classifier:
        """The trial's model at its last or its best epoch; with early stopping, at its best."""
        kept = self.epochs(epoch)[trial] == self.best_epoch[trial]
        stacked = self.best_params if kept else self.params
        W, b = self.run.model.weights(jax.tree.map(lambda leaf: leaf[trial], stacked))
        mean, scale = self.run.mean, self.run.scale
        if isinstance(mean, np.ndarray) and isinstance(scale, np.ndarray) and scale.ndim == 2:
            fold = self.run.trials.fold[trial]
            mean, scale = mean[fold], scale[fold]
        return Classifier(np.asarray(W), np.asarray(b), mean, scale, self.run.label_names)

    def predict(self, x: Shaped[Array | np.ndarray, "N ..."]) -> Int[np.ndarray, " N"]:
        """Classes by the refitted model if there is one, else by `best()` with its defaults.

        For another choice: `best('val_accuracy').classifier.predict(x)`.
        """
        return self._selected.classifier.predict(x)

    def predict_proba(self, x: Shaped[Array | np.ndarray, "N ..."]) -> Float[np.ndarray, "N C"]:
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

        A trial with early stopping ends with the parameters of its best epoch: for it both are one.
        """
        if epoch not in ("last", "best"):
            raise ValueError(f"The epoch must be 'last' or 'best'; it is {epoch!r}.")
        best = (epoch == "best") | (self.run.trials.hyperparameters.patience > 0)
        return np.where(best & (self.best_epoch > 0), self.best_epoch, self.reached[:, -1])

    def _columns(self, epoch):
        """The column of that epoch in `metrics` [T, E], for each trial."""
        return (self.reached == self.epochs(epoch)[:, None]).argmax(1)

    def _doubts(self, trial):
        """Hints where the solver did not converge."""
        facts = {name: values[trial] for name, values in self.facts.items()}
        if facts.get("separable", False):
            return [
                "The classes are separable and l2 is 0: the optimum is at infinity, and the "
                "weights are the first found that classify all training examples correctly. Try "
                "an l2 above 0."
            ]
        if not facts.get("converged", True):
            return [
                f"The winner had not converged after {facts['iterations']} iterations: raise "
                "num_epochs or tolerance, standardize the features, or use float64."
            ]
        return []

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


def setting_rows(result: Result, epoch: str = "last") -> list[dict]:
    """A row per setting and batch size: mean and standard deviation of each metric.

    Both are over the setting's trials, which differ in seed and fold only; `epoch` as in
    `Result.values`.
    """
    trials, diverged = result.run.trials, result.diverged > 0
    compared = {
        name: compare_settings(trials.setting, result.values(name, epoch), diverged)
        for name in result.metrics
    }
    settings = next(iter(compared.values()))
    number_diverged = np.bincount(trials.setting, diverged)
    rows = []
    for number, first in enumerate(settings.first):
        row = {"setting": number} | trials.row(first)
        row = {name: value for name, value in row.items() if name not in ("seed", "fold")}
        row |= {"trials": int(settings.count[number]), "diverged": int(number_diverged[number])}
        for name, own in compared.items():
            row[f"{name}_mean"] = round(float(own.mean[number]), 6)
            row[f"{name}_sd"] = round(float(own.spread[number]), 6)
        rows.append(row)
    return rows


def spread(
    result: Result, selected: Selected, metric: str = "val_loss", epoch: str = "last"
) -> dict:
    """A metric of the selected setting over its trials: mean, sd, and central 95 % interval.

    For bootstrap draws the interval is the percentile interval of the out-of-bag metric. Source:
    Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13.
    """
    setting = result.run.trials.setting
    own = result.values(metric, epoch)[setting == setting[selected.trial]].astype(np.float64)
    return {
        "mean": float(own.mean()),
        "sd": float(own.std(ddof=len(own) > 1)),
        "interval": [float(bound) for bound in np.quantile(own, (0.025, 0.975))],
    }


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
    """

    def __init__(self, run: Run) -> None:
        num_trials = len(run.trials.setting)
        self.run = run
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
        if epoch.ends:
            params, best = epoch.run.placement.fetch((epoch.states.averaged, epoch.best))
            self.last = _write_rows(self.last, params, epoch.chunk, len(self.count))
            self.best = _write_rows(self.best, best.params, epoch.chunk, len(self.count))
            self.best_epoch = _write_rows(self.best_epoch, best.epoch, epoch.chunk, len(self.count))

    def result(self) -> Result:
        """The `Result`; a trial that ended before others keeps its last metrics."""
        columns = np.minimum(np.arange(self.count.max()), self.count[:, None] - 1)

        def filled(values):
            return np.take_along_axis(values, columns, 1)

        return Result(
            self.run,
            {name: filled(values) for name, values in self.metrics.items()},
            filled(self.reached),
            self.last,
            self.best,
            self.best_epoch,
            self.facts,
        )

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
    def restored(cls, run: Run, arrays: dict[str, Shaped[np.ndarray, "..."]]) -> "Collection":
        """The collection of this run with these `arrays`.

        Raises:
          ValueError: they cannot be those of `arrays()`.
        """
        kept = traverse_util.unflatten_dict(arrays, sep="/")
        collection = cls(run)
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

    def lines(self) -> Iterator[dict]:
        """The metrics, a dictionary per trial and epoch, in the order of the log."""
        seen = np.zeros_like(self.count)
        for trial in self._order().astype(int):
            column = seen[trial]
            seen[trial] += 1
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
