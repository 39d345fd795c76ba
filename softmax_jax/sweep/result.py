"""What a sweep leaves: figures of every trial and epoch, parameters, the best among them."""

from dataclasses import dataclass

import jax
import numpy as np

from softmax_jax.classifier import Classifier
from softmax_jax.sweep import selection, settings, tables
from softmax_jax.sweep.run import Run, Selected
from softmax_jax.sweep.trials import shortest


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

    @property
    def diverged(self):
        """The epoch [T] in which a loss of the trial stopped being finite; 0: it did not."""
        losses = [values for name, values in self.metrics.items() if name.endswith("_loss")]
        finite = np.isfinite(losses).all(0)
        first = self.reached[np.arange(len(finite)), finite.argmin(1)]
        return np.where(finite.all(1), 0, first)

    def table(self) -> list[dict]:
        """A row per trial: its settings, its figures at the last and at its best epoch."""
        return tables.by_trial(self)

    def by_setting(self, epoch="last") -> list[dict]:
        """A row per setting: mean and standard deviation of its figures over seeds and folds."""
        return tables.by_setting(self, epoch)

    def curves(self) -> dict:
        """{name: [T, E]}: every figure of every trial by epoch."""
        return self.metrics

    def figures(self, metric="val_loss", epoch="last"):
        """The figure [T] of each trial at its last epoch, or at its best one (see `epochs`)."""
        return self.metrics[metric][np.arange(len(self.best_epoch)), self._columns(epoch)]

    @property
    def has_winner(self):
        """Whether there is a setting of which no trial diverged."""
        group = self.run.trials.group
        return len(np.unique(group[self.diverged > 0])) < len(np.unique(group))

    def best(self, metric="val_loss", epoch="last", rule="best") -> Selected:
        """The winning setting by its mean over seeds and folds, as its first trial.

        metric: any name in `curves()`; epoch: 'last', or 'best' (each trial at its own best
        epoch, by the `best_by` of the sweep); rule: 'best' or 'one_se', see `selection.winner`.
        Raises ValueError for a metric that was not measured, or by which no best epoch was kept,
        and where every setting has a diverged trial.
        """
        if metric not in self.metrics:
            raise ValueError(f"No metric {metric!r}; there are: {', '.join(self.metrics)}.")
        if epoch == "best" and metric != self.run.best_by and self.best_epoch.any():
            raise ValueError(
                f"The best epochs were kept by {self.run.best_by}: run with best_by={metric!r}."
            )
        trials, figures = self.run.trials, self.figures(metric, epoch)
        groups = selection.compare(trials.group, figures, self.diverged > 0)
        columns = trials.columns()
        axes = {name: column[groups.first] for name, column in columns.items()}
        chosen = selection.winner(
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
        trial, bounds = int(groups.first[chosen]), {"batch_size": (1, self.run.num_examples)}
        edges = selection.edges(axes, chosen, bounds | settings.BOUNDS)
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
            raise ValueError(f"The epoch must be 'last' or 'best'; it got {epoch!r}.")
        best = (epoch == "best") | (self.run.trials.hyperparameters.patience > 0)
        return np.where(best & (self.best_epoch > 0), self.best_epoch, self.reached[:, -1])

    def _columns(self, epoch):
        """Where in `metrics` [T, E] the figures of that epoch stand, for each trial."""
        return (self.reached == self.epochs(epoch)[:, None]).argmax(1)

    def _doubts(self, trial):
        """What is wrong with an optimum that is none."""
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
        metrics = {name: shortest(self.figures(name, epoch)[trial]) for name in self.metrics}
        settings = self.run.trials.row(trial)
        return Selected(trial, number, settings, metrics, why, hints, self.classifier(trial, epoch))


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
