"""A result as rows: one per trial, or one per setting. `pandas.DataFrame(rows)` just works."""

import numpy as np

from softmax_jax.sweep.trials import shortest


def by_trial(result) -> list[dict]:
    """A row per trial: its settings, its figures at the last and at its best epoch."""
    return [_trial_row(result, trial) for trial in range(len(result.best_epoch))]


def by_setting(result, epoch="last") -> list[dict]:
    """A row per setting and batch size: mean and standard deviation of each figure.

    They run over the setting's trials, which differ in seed and fold only; `epoch` as in
    `Result.figures`.
    """
    group = result.run.trials.group
    figures = {name: result.figures(name, epoch).astype(np.float64) for name in result.metrics}
    rows = []
    for number in np.unique(group):
        own = np.flatnonzero(group == number)
        row = {"setting": int(number)} | result.run.trials.row(own[0])
        del row["seed"], row["fold"]
        row |= {"trials": len(own), "diverged": int((result.diverged[own] > 0).sum())}
        for name, values in figures.items():
            row[f"{name}_mean"] = round(float(values[own].mean()), 6)
            row[f"{name}_sd"] = round(float(values[own].std(ddof=len(own) > 1)), 6)
        rows.append(row)
    return rows


def _trial_row(result, trial):
    row = {"trial": trial} | result.run.trials.row(trial)
    for prefix, epoch in (("", "last"), ("best_", "best")):
        number = result.epochs(epoch)[trial]
        if prefix:
            row["best_epoch"] = int(number)
        row |= {
            f"{prefix}{name}": shortest(values[trial, number - 1])
            for name, values in result.metrics.items()
        }
    return row | {"diverged": bool(result.diverged[trial])}
