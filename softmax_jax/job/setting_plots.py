"""The picture of a few settings: a labelled curve for each, by epoch. Matplotlib figures."""

import numpy as np

_MOST = 10  # settings: more colours cannot be told apart
_FIGURES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")


def settings(result, title, epoch="last"):
    """Loss and accuracy by epoch, train and validation: a curve per setting, its trials' mean.

    A dot marks the epoch whose model counts ('last' or 'best', as in `Result.epochs`). None where
    there are fewer than two settings, or more than can be told apart.
    """
    from matplotlib.figure import Figure

    names = labels(result.run.trials)
    if not 2 <= len(names) <= _MOST:
        return None
    measured = [name for name in _FIGURES if name in result.metrics]
    rows = -(-len(measured) // 2)
    figure = Figure(layout="constrained", dpi=110, figsize=(10, 0.8 + 3.4 * rows))
    count = len(result.run.trials.setting) // len(names)
    figure.suptitle(f"{title}, means of {count} trials" if count > 1 else title, fontsize=11)
    for axes, name in zip(figure.subplots(rows, 2).ravel(), measured, strict=False):
        _panel(axes, result, name, names, epoch)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=min(len(names), 4), fontsize=9)
    return figure


def labels(trials) -> list[str]:
    """Each setting by what sets it apart: 'l2 0.01', or 'baseline' where it is as most others are.

    An axis is left out where the setting has the value that more than half of all have.
    """
    _, first = np.unique(trials.setting, return_index=True)
    columns = trials.columns()
    parts = [[] for _ in first]
    for name, column in columns.items():
        values, which, counts = np.unique(column[first], return_inverse=True, return_counts=True)
        for setting, value in enumerate(which):
            if 2 * counts[value] <= len(first):
                parts[setting].append(f"{name} {values[value]:g}")
    return [", ".join(part) or "baseline" for part in parts]


def _panel(axes, result, name, names, epoch):
    trials, marked = result.run.trials, result.values(name, epoch)
    judged, shown = result.epochs(epoch), []
    for group, label in enumerate(names):
        own = trials.setting == group
        reached, values = result.reached[own].max(0), result.metrics[name][own].mean(0)
        (line,) = axes.plot(reached, values, label=label, linewidth=1.1)
        axes.plot(judged[own].mean(), marked[own].mean(), "o", color=line.get_color(), zorder=3)
        shown.append(values[len(values) // 10 :])
    _zoom(axes, np.concatenate(shown))
    axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
    axes.grid(alpha=0.3)


def _zoom(axes, values):
    """Scales to what comes after the first tenth of training, in which all settings are alike."""
    finite = values[np.isfinite(values)]
    if finite.size:
        low, high = finite.min(), min(finite.max(), 3 * np.median(finite))
        pad = 0.05 * (high - low) or 0.01
        axes.set_ylim(low - pad, high + pad)
