"""The pictures of the studies of the data: the learning curve, and the labels to doubt."""

import numpy as np

from softmax_jax import data

_SHOWN = 36  # suspects
_FURTHER = 10  # times as many examples as there are: how far the power law is drawn


def learning_curve(rows, law, title):
    """Validation error with its power law, and both losses: means and ranges over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=11)
    errors, losses = figure.subplots(1, 2)
    sizes = np.unique([row["size"] for row in rows])
    _band(errors, rows, sizes, lambda row: 1 - row["val_accuracy"], "val error", "tab:orange")
    if law is not None:
        n = np.geomspace(sizes[0], _FURTHER * sizes[-1], 200)
        text = f"{law.a:.3f} + {law.b:.2f} n^(−{law.c:.2f})"
        errors.plot(n, law(n), color="0.3", linestyle="--", linewidth=1, label=text)
        errors.axhline(law.a, color="0.3", linestyle=":", linewidth=1)
    _band(losses, rows, sizes, lambda row: row["train_loss"], "train loss", "tab:blue")
    _band(losses, rows, sizes, lambda row: row["val_loss"], "val loss", "tab:orange")
    errors.set(ylabel="error")
    losses.set(ylabel="loss", ylim=(0, None))
    for axes in errors, losses:
        axes.set(xlabel="training examples", xscale="log")
        axes.legend()
        axes.grid(alpha=0.3, which="both")
    return figure


def suspects(dataset, found, title):
    """The images with the least probable labels: the given label over the predicted one."""
    rows = found.table(dataset.label_names)[:_SHOWN]
    titles = [f"{row['given']}?\n{row['predicted']}" for row in rows]
    heading = f"{title}: the {len(rows)} least probable labels, over the predicted class"
    return data.show_images(np.asarray(dataset.x)[found.row[:_SHOWN]], titles, heading=heading)


def _band(axes, rows, sizes, figure, label, colour):
    values = [[figure(row) for row in rows if row["size"] == size] for size in sizes]
    means, low, high = (np.array([f(v) for v in values]) for f in (np.mean, np.min, np.max))
    axes.plot(sizes, means, marker=".", color=colour, label=label)
    axes.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
