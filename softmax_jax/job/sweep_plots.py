"""The picture of a sweep: its metric against every swept axis, and a heat map for two of them."""

import itertools
from typing import NamedTuple

import numpy as np

_MOST_COLOURS = 10  # lines in colour; of more, only the one through the winner is


class Grid(NamedTuple):
    """A sweep laid out by its axes: mean and spread of val and train figures, shaped by `axes`.

    axes: {name: its values, ascending}; winner: the index of the selected setting in the grids.
    """

    metric: str
    axes: dict
    val: np.ndarray
    val_spread: np.ndarray
    train: np.ndarray
    winner: tuple


def lay_out(result, selected, metric, epoch) -> Grid | None:
    """The figures of a result as a grid over its swept axes.

    None where nothing is swept, or the axes are not crossed.
    """
    trials = result.run.trials
    columns = trials.columns()
    columns = {name: values for name, values in columns.items() if len(np.unique(values)) > 1}
    if not columns:
        return None
    axes = {name: np.unique(values) for name, values in columns.items()}
    index = tuple(np.searchsorted(axes[name], columns[name]) for name in axes)
    shape = tuple(len(values) for values in axes.values())
    if np.prod(shape) > len(np.unique(trials.setting)):
        return None
    train_metric = metric.replace("val_", "train_")
    grids = [
        _average(result.values(name, epoch), index, shape) if name in result.metrics else None
        for name in (metric, train_metric)
    ]
    blank = np.full(shape, np.nan)
    (val, spread), train = grids[0], (grids[1][0] if grids[1] else blank)
    winner = tuple(int(place[selected.trial]) for place in index)
    return Grid(metric, axes, val, spread, train, winner)


def sweep(grid: Grid, title):
    """A panel per axis: val solid with its spread as a band, train dashed; then the heat map."""
    from matplotlib.figure import Figure

    panels = len(grid.axes) + (len(grid.axes) == 2)
    figure = Figure(layout="constrained", dpi=110, figsize=(max(5.5 * panels, 7), 4.4))
    figure.suptitle(title, fontsize=11)
    all_axes = figure.subplots(1, panels, squeeze=False)[0]
    for axes, name in zip(all_axes, grid.axes, strict=False):
        _panel(axes, grid, name)
    if panels > len(grid.axes):
        _heat_map(figure, all_axes[-1], grid)
    return figure


def _average(figures, index, shape):
    """Mean and standard deviation over the trials that share a place (seeds and folds)."""
    count, total, squares = (np.zeros(shape) for _ in range(3))
    np.add.at(count, index, 1)
    np.add.at(total, index, figures)
    mean = total / count
    with np.errstate(invalid="ignore"):  # the figures of diverged trials may be infinite
        np.add.at(squares, index, np.square(figures - mean[index]))
    return mean, np.sqrt(squares / np.maximum(count - 1, 1))


def _panel(axes, grid, name):
    """The metric against one axis: a line for every combination of the others."""
    position = list(grid.axes).index(name)
    others = [values for other, values in grid.axes.items() if other != name]
    other_winner = tuple(np.delete(grid.winner, position))
    combinations = list(itertools.product(*(range(len(values)) for values in others)))
    colours = _colours(combinations, other_winner)
    for combination in combinations:
        where = (*combination[:position], slice(None), *combination[position:])
        names = [n for n in grid.axes if n != name]
        label = ", ".join(
            f"{n} {grid.axes[n][i]:g}" for n, i in zip(names, combination, strict=True)
        )
        x, colour = grid.axes[name], colours[combination]
        marks = {"color": colour, "linewidth": 1.2}
        low, high = (grid.val[where] + sign * grid.val_spread[where] for sign in (-1, 1))
        shown = label if colour != _FAINT else None
        axes.plot(x, grid.val[where], marker=".", label=f"val {shown or ''}".strip(), **marks)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, grid.train[where], linestyle="--", alpha=0.7, **marks)
    axes.plot(
        grid.axes[name][grid.winner[position]],
        grid.val[grid.winner],
        marker="*",
        markersize=14,
        color="crimson",
        linestyle="none",
        label="selected",
        zorder=5,
    )
    _scale(axes, name, grid.axes[name])
    _scale_loss(axes, grid)
    axes.set_ylabel(grid.metric.removeprefix("val_") + " (val solid, train dashed)")
    _legend(axes)
    axes.grid(alpha=0.3)


_FAINT = "0.8"


def _colours(combinations, winner):
    from matplotlib import colormaps

    if len(combinations) > _MOST_COLOURS:
        return {c: "tab:orange" if c == winner else _FAINT for c in combinations}
    if len(combinations) == 1:
        return {combinations[0]: "tab:orange"}
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(combinations)))
    return dict(zip(combinations, map(tuple, shades), strict=True))


def _legend(axes):
    handles, labels = axes.get_legend_handles_labels()
    named = {label: handle for handle, label in zip(handles, labels, strict=True) if label != "val"}
    axes.legend(named.values(), named.keys(), fontsize=7)


def _scale(axes, name, values):
    """Logarithmic where the values span a decade; with a zero among them, linear up to the rest."""
    positive = values[values > 0]
    if len(positive) > 1 and positive[-1] / positive[0] >= 10:
        if values[0] > 0:
            axes.set_xscale("log", base=2 if name == "batch_size" else 10)
        else:
            axes.set_xscale("symlog", linthresh=positive[0])
    axes.set_xlabel(name)


def _scale_loss(axes, grid):
    """A loss that blows up within the sweep is shown on a logarithmic scale, up to a limit."""
    from matplotlib.ticker import LogLocator, NullFormatter

    finite = np.concatenate([g[np.isfinite(g)] for g in (grid.val, grid.train)])
    best = grid.val[grid.winner]
    if grid.metric.endswith("loss") and finite.size and finite.max() > 5 * best > 0:
        axes.set_yscale("log")
        axes.set_ylim(min(finite.min(), best) * 0.8, min(finite.max() * 1.2, 100 * best))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _heat_map(figure, axes, grid):
    from matplotlib.patches import Rectangle

    (row_name, rows), (column_name, columns) = grid.axes.items()
    larger_wins = not grid.metric.endswith("loss")
    finite = grid.val[np.isfinite(grid.val)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    if not larger_wins:
        high = min(high, 1.5 * low)
    colours = "Blues" if larger_wins else "Blues_r"
    image = axes.imshow(grid.val, cmap=colours, vmin=low, vmax=high, aspect="auto", origin="lower")
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], rotation=45)
    axes.set(xlabel=column_name, ylabel=row_name, title=grid.metric)
    if grid.val.size <= 100:
        for (row, column), value in np.ndenumerate(grid.val):
            dark = (value > (low + high) / 2) == larger_wins
            marks = {"ha": "center", "va": "center", "fontsize": 7, "color": "w" if dark else "k"}
            axes.text(column, row, f"{value:.3f}", **marks)
    corner = grid.winner[1] - 0.5, grid.winner[0] - 0.5
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="crimson", linewidth=2.5))
    figure.colorbar(image, ax=axes)
