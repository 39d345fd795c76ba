"""A result as rows: one per trial, or one per setting. `pandas.DataFrame(rows)` just works."""

import numpy as np

from softmax_jax.sweep import selection
from softmax_jax.sweep.trials import shortest


def by_trial(result) -> list[dict]:
    """A row per trial: its settings, its figures at the last and at its best epoch."""
    figures = {name: values[:, -1] for name, values in result.metrics.items()}
    facts = result.facts | {"diverged": result.diverged > 0}
    if result.best_epoch.any():
        figures |= {f"best_{name}": result.figures(name, "best") for name in result.metrics}
        facts = {"best_epoch": result.epochs("best")} | facts
    return [
        {"trial": trial}
        | result.run.trials.row(trial)
        | {name: shortest(values[trial]) for name, values in figures.items()}
        | {name: values[trial].item() for name, values in facts.items()}
        for trial in range(len(result.best_epoch))
    ]


def by_setting(result, epoch="last") -> list[dict]:
    """A row per setting and batch size: mean and standard deviation of each figure.

    They run over the setting's trials, which differ in seed and fold only; `epoch` as in
    `Result.figures`.
    """
    trials, diverged = result.run.trials, result.diverged > 0
    compared = {
        name: selection.compare(trials.group, result.figures(name, epoch), diverged)
        for name in result.metrics
    }
    groups = next(iter(compared.values()))
    number_diverged = np.bincount(trials.group, diverged)
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
    group = result.run.trials.group
    own = result.figures(metric, epoch)[group == group[selected.trial]].astype(np.float64)
    return {
        "mean": float(own.mean()),
        "sd": float(own.std(ddof=len(own) > 1)),
        "interval": [float(bound) for bound in np.quantile(own, (0.025, 0.975))],
    }
