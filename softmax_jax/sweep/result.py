"""What a sweep leaves: metrics by trial and epoch, parameters, tables, the winning setting.

Settings are compared on metrics that are averaged over their trials.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from flax import traverse_util

from softmax_jax import metrics as measures
from softmax_jax.classifier import Classifier
from softmax_jax.data.dataset import html_table
from softmax_jax.hyperparameters import ROWS
from softmax_jax.sweep.chunks import Run
from softmax_jax.sweep.settings import shortest

SELECTION_RULES = ("best", "one_se")
_SHOWN_SETTINGS = 10  # in a notebook, the best ones


class Comparison(NamedTuple):
    """The settings (groups of trials that differ in seed and fold only), in order of their number.

    Arrays [G]: `mean` and `spread` (standard deviation) of the figure over the group's trials,
    `count` of those, whether one of them `diverged`, and `first`, its first trial.
    """

    mean: np.ndarray
    spread: np.ndarray
    count: np.ndarray
    diverged: np.ndarray
    first: np.ndarray


def compare_settings(group, figures, diverged) -> Comparison:
    """Summarises the figures [T] of trials by their group [T]."""
    _, first, inverse, count = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    mean = np.bincount(inverse, figures) / count
    with np.errstate(invalid="ignore"):  # the figures of diverged trials may be infinite
        squares = np.bincount(inverse, np.square(figures - mean[inverse]))
    spread = np.sqrt(squares / np.maximum(count - 1, 1))
    return Comparison(mean, spread, count, np.bincount(inverse, diverged) > 0, first)


def winning_setting(comparison: Comparison, l2, learning_rate, *, larger_wins=False, rule="best"):
    """The number of the winning group, or None where every one diverged.

    rule 'best': the best mean; ties go to the larger l2, then to the smaller learning rate.
    rule 'one_se': the simplest group (largest l2, then smallest learning rate) whose mean is
    within one standard error (of the best group) of the best mean; it needs at least two seeds or
    folds. l2, learning_rate: arrays [G]. Raises ValueError for an unknown rule, or no spread.

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


def edge_hints(axes, chosen, num_examples=2**53):
    """Hints where the winner lies at the end of a swept axis: the optimum may be beyond.

    axes: {name: array [G]}; chosen: the winning setting. The ends of a hyperparameter's range are
    no hint, nor are two values of an axis that is not crossed with the others: an off and an on.
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


def check_selection(selection: Selection):
    """Raises ValueError for what `Result.best` will not take: before the training, not after."""
    check_metric(selection.metric)
    if selection.epoch not in ("last", "best"):
        raise ValueError(f"The epoch must be 'last' or 'best'; it is {selection.epoch!r}.")
    if selection.rule not in SELECTION_RULES:
        raise ValueError(f"The rule must be one of {SELECTION_RULES}; it is {selection.rule!r}.")


def check_metric(name):
    """Raises ValueError for a name that is not one of the `validation_metrics`."""
    if name not in validation_metrics():
        raise ValueError(f"No metric {name!r}; there are: {', '.join(validation_metrics())}.")


def validation_metrics():
    """The names of the validation metrics."""
    return [f"val_{name}" for name in ("loss", *measures.METRICS)]


class Selected(NamedTuple):
    """The chosen trial: its settings and figures at the chosen epoch, why, and its classifier.

    `hints` say what may be wrong with the choice (a grid too small, an optimum not reached);
    `refit` is true where the classifier was trained anew on all training examples with the chosen
    settings.
    """

    trial: int
    epoch: int
    hyperparameters: dict
    metrics: dict
    why: str
    hints: list
    classifier: Classifier
    refit: bool = False

    def __repr__(self):
        return (
            f"<Selected trial {self.trial}, epoch {self.epoch}: {self.why}{_texts(self.metrics)}>"
        )

    def _repr_html_(self):
        return html_table([{"trial": self.trial, **self.hyperparameters, **self.metrics}])


@dataclass(frozen=True)
class Result:
    """metrics {name: [T, E]} by trial and epoch; params and best_params stacked [T, ...].

    reached [T, E]: the epoch at which each figure was measured; a trial that ended before others
    keeps its last figures. best_epoch [T]: 0 where none was kept. facts {name: [T]}: what else is
    known of each trial.
    """

    run: Run
    metrics: dict
    reached: np.ndarray
    params: dict
    best_params: dict
    best_epoch: np.ndarray
    facts: dict
    refit: Selected | None = None

    def __repr__(self):
        trials, settings = len(self.best_epoch), len(np.unique(self.run.trials.setting))
        diverged = int((self.diverged > 0).sum())
        last = {name: values[:, -1] for name, values in self.metrics.items()}
        ranges = "".join(f"\n  {name} {v.min():.4g} to {v.max():.4g}" for name, v in last.items())
        return (
            f"<Result of {trials:,} trials of {settings:,} settings, {diverged:,} diverged, "
            f"{self.reached.max()} epochs; at the last epoch:{ranges}>"
        )

    def _repr_html_(self):
        rows = self.by_setting()
        by = next(f"{name}_mean" for name in ("val_loss", "train_loss") if name in self.metrics)
        return html_table(sorted(rows, key=lambda row: row[by])[:_SHOWN_SETTINGS])

    @property
    def diverged(self):
        """The epoch [T] in which a loss of the trial stopped being finite; 0: it did not."""
        losses = [values for name, values in self.metrics.items() if name.endswith("_loss")]
        finite = np.isfinite(losses).all(0)
        first = self.reached[np.arange(len(finite)), finite.argmin(1)]
        return np.where(finite.all(1), 0, first)

    def table(self) -> list[dict]:
        """A row per trial: its settings, its figures at the last and at its best epoch."""
        return trial_rows(self)

    def by_setting(self, epoch="last") -> list[dict]:
        """A row per setting: mean and standard deviation of its figures over seeds and folds."""
        return setting_rows(self, epoch)

    def curves(self) -> dict:
        """{name: [T, E]}: every figure of every trial by epoch."""
        return self.metrics

    def values(self, metric="val_loss", epoch="last"):
        """The figure [T] of each trial at its last epoch, or at its best one (see `epochs`)."""
        return self.metrics[metric][np.arange(len(self.best_epoch)), self._columns(epoch)]

    @property
    def has_winner(self):
        """Whether there is a setting of which no trial diverged."""
        group = self.run.trials.setting
        return len(np.unique(group[self.diverged > 0])) < len(np.unique(group))

    def best(self, metric="val_loss", epoch="last", rule="best") -> Selected:
        """The winning setting by its mean over seeds and folds, as its first trial.

        metric: any name in `curves()`; epoch: 'last', or 'best' (each trial at its own best
        epoch, by the `best_by` of the sweep); rule: 'best' or 'one_se', see `winning_setting`.
        Raises ValueError for a metric that was not measured, or by which no best epoch was kept,
        and where every setting has a diverged trial.
        """
        if metric not in self.metrics:
            raise ValueError(f"No metric {metric!r}; there are: {', '.join(self.metrics)}.")
        if epoch == "best" and metric != self.run.best_by and self.best_epoch.any():
            raise ValueError(
                f"The best epochs were kept by {self.run.best_by}: run with best_by={metric!r}."
            )
        trials, figures = self.run.trials, self.values(metric, epoch)
        groups = compare_settings(trials.setting, figures, self.diverged > 0)
        columns = trials.columns()
        axes = {name: column[groups.first] for name, column in columns.items()}
        chosen = winning_setting(
            groups,
            axes["l2"],
            axes["learning_rate"],
            larger_wins=not metric.endswith("loss"),
            rule=rule,
        )
        if chosen is None:
            raise ValueError("Every setting has a diverged trial: try a smaller learning rate.")
        early = " (with early stopping the best)" if axes["patience"].any() else ""
        why = _why(metric, f"{epoch} epoch{early}", rule, groups, chosen)
        trial, edges = int(groups.first[chosen]), edge_hints(axes, chosen, self.run.num_examples)
        hints = [f"The winner lies at the edge of the grid: {edge}." for edge in edges]
        return self._select(trial, epoch, why, hints + self._doubts(trial))

    def classifier(self, trial, epoch="last") -> Classifier:
        """The trial's model at its last or its best epoch; with early stopping, at its best."""
        kept = self.epochs(epoch)[trial] == self.best_epoch[trial]
        stacked = self.best_params if kept else self.params
        W, b = self.run.model.weights(jax.tree.map(lambda leaf: leaf[trial], stacked))
        mean, scale = self.run.mean, self.run.scale
        if np.ndim(scale) == 2:
            fold = self.run.trials.fold[trial]
            mean, scale = mean[fold], scale[fold]
        return Classifier(np.asarray(W), np.asarray(b), mean, scale, self.run.label_names)

    def predict(self, x):
        """Classes [N] by the refitted model if there is one, else by `best()` with its defaults.

        For another choice: `best('val_accuracy').classifier.predict(x)`.
        """
        return self._selected.classifier.predict(x)

    def predict_proba(self, x):
        """Probabilities [N, C] by the same model as `predict`."""
        return self._selected.classifier.predict_proba(x)

    def test(self, test) -> dict:
        """Loss and accuracy on a test set, with intervals, of the same model as `predict`."""
        return self._selected.classifier.test(test)

    @property
    def _selected(self):
        if not self.refit and "val_loss" not in self.metrics:
            raise ValueError("Nothing was validated, so nothing is selected: classifier(trial).")
        return self.refit or self.best()

    def epochs(self, epoch):
        """The number [T] of the epoch meant by 'last' or 'best', for each trial.

        A trial with early stopping ends with the parameters of its best epoch: for it they are one.
        """
        if epoch not in ("last", "best"):
            raise ValueError(f"The epoch must be 'last' or 'best'; it is {epoch!r}.")
        best = (epoch == "best") | (self.run.trials.hyperparameters.patience > 0)
        return np.where(best & (self.best_epoch > 0), self.best_epoch, self.reached[:, -1])

    def _columns(self, epoch):
        """Where in `metrics` [T, E] the figures of that epoch stand, for each trial."""
        return (self.reached == self.epochs(epoch)[:, None]).argmax(1)

    def _doubts(self, trial):
        """What is wrong where the solver did not converge."""
        facts = {name: values[trial] for name, values in self.facts.items()}
        if facts.get("separable", False):
            return [
                "The classes are separable and l2 is 0: the optimum is at infinity, and the "
                "weights are only the first that tell all training examples apart. Try an l2 "
                "above 0."
            ]
        if not facts.get("converged", True):
            return [
                f"The winner had not converged after {facts['iterations']} iterations: raise "
                "num_epochs or tolerance, standardize the features, or take float64."
            ]
        return []

    def _select(self, trial, epoch, why, hints):
        number = int(self.epochs(epoch)[trial])
        metrics = {name: shortest(self.values(name, epoch)[trial]) for name in self.metrics}
        settings = self.run.trials.row(trial)
        return Selected(trial, number, settings, metrics, why, hints, self.classifier(trial, epoch))


def _texts(metrics):
    return "".join(f"\n  {name} {value:.4f}" for name, value in metrics.items())


def _why(metric, when, rule, groups, chosen):
    if len(groups.mean) == 1:
        return "the only setting"
    order = "largest" if not metric.endswith("loss") else "smallest"
    what = f"{order} {metric} at the {when}"
    if rule == "one_se":
        what = f"simplest setting within one standard error of the {what}"
    mean, spread, count = groups.mean[chosen], groups.spread[chosen], groups.count[chosen]
    over = f" ± {spread:.4f} (mean and standard deviation of {count} trials)" if count > 1 else ""
    return f"{what} of {len(groups.mean)} settings: {mean:.4f}{over}"


def trial_rows(result) -> list[dict]:
    """A row per trial: its settings, its figures at the last and at its best epoch."""
    figures = {name: values[:, -1] for name, values in result.metrics.items()}
    facts = result.facts | {"diverged": result.diverged > 0}
    if result.best_epoch.any():
        figures |= {f"best_{name}": result.values(name, "best") for name in result.metrics}
        facts = {"best_epoch": result.epochs("best")} | facts
    return [
        {"trial": trial}
        | result.run.trials.row(trial)
        | {name: shortest(values[trial]) for name, values in figures.items()}
        | {name: values[trial].item() for name, values in facts.items()}
        for trial in range(len(result.best_epoch))
    ]


def setting_rows(result, epoch="last") -> list[dict]:
    """A row per setting and batch size: mean and standard deviation of each figure.

    They run over the setting's trials, which differ in seed and fold only; `epoch` as in
    `Result.figures`.
    """
    trials, diverged = result.run.trials, result.diverged > 0
    compared = {
        name: compare_settings(trials.setting, result.values(name, epoch), diverged)
        for name in result.metrics
    }
    groups = next(iter(compared.values()))
    number_diverged = np.bincount(trials.setting, diverged)
    rows = []
    for group, first in enumerate(groups.first):
        row = {"setting": group} | trials.row(first)
        row = {name: value for name, value in row.items() if name not in ("seed", "fold")}
        row |= {"trials": int(groups.count[group]), "diverged": int(number_diverged[group])}
        for name, figures in compared.items():
            row[f"{name}_mean"] = round(float(figures.mean[group]), 6)
            row[f"{name}_sd"] = round(float(figures.spread[group]), 6)
        rows.append(row)
    return rows


def spread(result, selected, metric="val_loss", epoch="last") -> dict:
    """A figure of the selected setting over its trials: mean, sd, and central 95 % interval.

    For bootstrap draws the interval is the percentile interval of the out-of-bag figure. Source:
    Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13.
    """
    group = result.run.trials.setting
    own = result.values(metric, epoch)[group == group[selected.trial]].astype(np.float64)
    return {
        "mean": float(own.mean()),
        "sd": float(own.std(ddof=len(own) > 1)),
        "interval": [float(bound) for bound in np.quantile(own, (0.025, 0.975))],
    }


def collect(epochs: Iterable) -> Result:
    """Drains the generator `sweep.epochs` (or one that passes its epochs on) into a `Result`."""
    collection = None
    for epoch in epochs:
        collection = collection or Collection(epoch.run)
        collection.add(epoch)
    return collection.result()


class Collection:
    """What the epochs so far have brought, by the number of the trial.

    reached [T, E]: the epochs at which a trial was measured, as far as `count` [T] says ·
    metrics, facts: {name: [T, E]}, {name: [T]} · last, best: parameters [T, ...] of the trials
    that have ended · best_epoch [T] · log: the trials in order of arrival.
    """

    def __init__(self, run):
        num_trials = len(run.trials.setting)
        self.run = run
        self.count = np.zeros(num_trials, np.int64)
        self.reached = np.zeros((num_trials, run.num_epochs), np.int32)
        self.metrics, self.facts = {}, {}
        self.last, self.best = None, None
        self.best_epoch = np.zeros(num_trials, np.int32)
        self.log = []

    def add(self, epoch):
        """Takes what an `Epoch` brought."""
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
        """The `Result`; a trial that ended before others keeps its last figures."""
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

    def arrays(self) -> dict:
        """All of it as arrays by name, for `restored`."""
        length = self.count.max()
        kept = {"count": self.count, "reached": self.reached[:, :length], "facts": self.facts}
        kept["metrics"] = {name: values[:, :length] for name, values in self.metrics.items()}
        kept |= {"best_epoch": self.best_epoch, "log": np.concatenate(self.log or [[]])}
        if self.last is not None:
            kept |= {"last": self.last, "best": self.best}
        return traverse_util.flatten_dict(kept, sep="/")

    @classmethod
    def restored(cls, run, arrays):
        """The collection of this run that had these `arrays`."""
        kept = traverse_util.unflatten_dict(arrays, sep="/")
        collection = cls(run)
        length = kept["reached"].shape[1]
        collection.count, collection.facts = kept["count"], kept.get("facts", {})
        collection.reached[:, :length] = kept["reached"]
        for name, values in kept.get("metrics", {}).items():
            collection._metric(name, values.dtype)[:, :length] = values
        collection.last, collection.best = kept.get("last"), kept.get("best")
        collection.best_epoch, collection.log = kept["best_epoch"], [kept["log"].astype(np.int32)]
        return collection

    def lines(self) -> Iterator[dict]:
        """What was measured, a dictionary per trial and epoch, in the order of the log."""
        heard = np.zeros_like(self.count)
        for trial in np.concatenate(self.log or [[]]).astype(int):
            column = heard[trial]
            heard[trial] += 1
            figures = {name: values[trial, column] for name, values in self.metrics.items()}
            yield {"trial": trial, "epoch": self.reached[trial, column]} | figures

    def _metric(self, name, dtype):
        return self.metrics.setdefault(name, np.zeros(self.reached.shape, dtype))


def _write_rows(collected, piece_values, chunk, num_trials):
    """Writes the chunk's arrays [S, K, ...] into the rows of its trials of arrays [T, ...]."""
    real = slice(chunk.num_real)  # the padding goes no further
    numbers = chunk.trials[:, real]
    if collected is None:
        collected = jax.tree.map(
            lambda leaf: np.zeros((num_trials, *leaf.shape[2:]), leaf.dtype), piece_values
        )

    def write(whole, part):
        whole[numbers] = part[:, real]
        return whole

    return jax.tree.map(write, collected, piece_values)
