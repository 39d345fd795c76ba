"""The pictures of the work folder, and what they share with the charts of the report.

A picture is a `matplotlib.figure.Figure`, never pyplot's: no global state, no window system.
Matplotlib is imported by the functions that draw, so that importing this module is cheap.
"""

import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int, Num

from softmax_jax import host
from softmax_jax.host import DataError, LiveOutput, cut, shown
from softmax_jax.metrics import confusion_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from softmax_jax.classifier import Classifier
    from softmax_jax.data.dataset import Dataset
    from softmax_jax.studies import PowerLaw, Suspects
    from softmax_jax.sweep.chunks import Epoch
    from softmax_jax.sweep.result import Result, Selected
    from softmax_jax.sweep.settings import Trials
else:  # they take long to import, or import this
    Axes = Figure = Classifier = Dataset = PowerLaw = Suspects = Any
    Epoch = Result = Selected = Trials = Any

Values: TypeAlias = Sequence[float] | np.ndarray

_COLOURS = {"train": "tab:blue", "val": "tab:orange"}
_MEASURED = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
_FAINT = "0.8"
_MAX_CONFUSION_CLASSES = 100  # a larger confusion matrix is not legible
_MAX_NUMBERED_CLASSES = 20  # with counts in the cells
_MAX_MARKED_EPOCHS = 50  # more markers hide the line
_MAX_COLOURED_LINES = 10  # beyond, only the line through the winner is coloured
_MOST_NORMS = 200  # lines in a picture of a path: those of the features with the largest weights
_MAX_SETTINGS = 10  # curves whose colours can be told apart
_LONGEST_NAME = 30  # characters of the name of a class
_MAX_IMAGES = 36  # in the galleries of mistakes and of suspects
OVERHANG = 8  # units outside the frame at which lines are cut off
_MAX_HOVER_MARKS = 60
_MOST_OF_A_LOSS = 100  # times the best one: a loss beyond is that of a diverged setting
_MOST_REDRAWN = 50  # times that live curves are redrawn while one chunk of trials is trained
_EXTRAPOLATED = 10  # the power law is drawn up to so many times the examples


class Line(NamedTuple):
    """A curve through the points (x, y); a value that is not finite leaves a gap.

    Attributes:
      name: shown on hover, or in a legend.
      x, y: of the points [n].
      style: Matplotlib's options for a line.
      look: its classes in the report's style sheet, from which `charts` makes the style.
      spread: standard deviations of y [n], drawn as a band.
    """

    name: str
    x: Values
    y: Values
    style: dict | None = None
    look: str = ""
    spread: Values | None = None


def curves(result: "Result", selected: "Selected", title: str) -> "Figure":
    """Loss and accuracy by epoch: the selected trial bold, the next best thin, the rest faint."""
    figure = _figure((9, 3.6), title)
    near, far = _other_trials(result, selected)
    reached = result.reached[selected.trial]
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        shown = [name for name in (f"train_{what}", f"val_{what}") if name in result.metrics]
        for name in shown:
            colour = _COLOURS[name.split("_")[0]]
            faint: dict[str, Any] = {"color": colour, "alpha": 0.12, "linewidth": 0.7}
            thin: dict[str, Any] = {"color": colour, "alpha": 0.55, "linewidth": 0.8}
            marker = "." if len(np.unique(reached)) <= _MAX_MARKED_EPOCHS else None
            label = name.replace("_", " ")
            bold: dict[str, Any] = {"color": colour, "marker": marker, "label": label}
            styles = [(trial, faint) for trial in far] + [(trial, thin) for trial in near]
            for trial, style in [*styles, (selected.trial, bold)]:
                draw_line(
                    axes, Line(name, result.reached[trial], result.metrics[name][trial], style)
                )
            for trial in np.intersect1d([*near, *far], np.flatnonzero(result.halved)).astype(int):
                end = result.halved[trial], result.metrics[name][trial, -1]
                axes.plot(*end, "x", color=colour, alpha=0.5, markersize=4)
        # Others must not flatten the selected one: they are seen as far as its own range again.
        own = np.concatenate([result.metrics[name][selected.trial] for name in shown])
        own = own[np.isfinite(own)]
        if own.size and (room := np.ptp(own)) > 0:
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, own.min() - room), min(high, own.max() + room))
        if result.full_batch:  # trials that take longer go on beyond
            axes.set_xlim(0, 1.05 * reached[-1])
        others = ((near, 0.55, "the next best"), (far, 0.25, "other trials"))
        more = [
            _key(label, color="0.3", alpha=a, linewidth=0.8) for t, a, label in others if len(t)
        ]
        axes.set(xlabel="iteration" if result.full_batch else "epoch", ylabel=what)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if result.halved.any():
            more.append(_key("stopped by halving", color="0.3", marker="x", linestyle="none"))
        axes.legend(handles=[*axes.get_legend_handles_labels()[0], *more], fontsize=8)
        axes.grid(alpha=0.3)
    return figure


class LiveCurves:
    """Loss and accuracy by epoch, redrawn in one output of a notebook while a sweep trains.

    It passes the epochs on: a loop over it is a loop over `sweep.epochs`, and

        epochs = sweep.epochs(train, val, settings, num_epochs=10)
        result = sweep.collect(plots.LiveCurves(epochs, "clothes"))

    trains, draws after every epoch (every second of 100, every tenth of 500, and the last one), and
    keeps the result. Jupyter, VS Code and Colab show the picture, a terminal a line of text for it.
    The best trial so far is bold; of up to ten settings each has its colour.

    Args:
      epochs: of `sweep.epochs`, or what passes them on.
      title: above the curves.
    """

    def __init__(self, epochs: Iterable["Epoch"], title: str = "") -> None:
        self._epochs, self._title = epochs, title
        self._trials: Any = None
        self._names: list[str] = []  # of the settings
        self._diverged: set[int] = set()  # trials
        self._ends: int | None = None  # the x axis, where it is known how far the training goes
        self._seen: dict[str, dict[int, tuple[list, list]]] = {}  # metric: {trial: epochs, values}

    def __iter__(self) -> "Iterator[Epoch]":
        output, epoch, is_drawn = LiveOutput(), None, True
        try:
            for epoch in self._epochs:
                self._add(epoch)
                every = -(-epoch.run.num_epochs // _MOST_REDRAWN)
                is_drawn = not epoch.metrics  # a segment of an epoch has none
                if epoch.metrics and (epoch.ends or epoch.epoch % every == 0):
                    output.show(self._png, self._line(epoch))
                    is_drawn = True
                yield epoch
        finally:
            if not is_drawn:  # the loop was left
                output.show(self._png, self._line(epoch))

    def figure(self) -> "Figure":
        """The curves so far."""
        figure = _figure((9, 3.6), self._title)
        best = self._best()
        for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            top = 0.0
            for name in (f"train_{what}", f"val_{what}"):
                for trial, (x, y) in self._seen.get(name, {}).items():
                    draw_line(axes, Line(name, x, y, self._style(name, trial, best)))
                    top = max([top, *y]) if trial == best else top
            if axes.get_ylim()[1] > 2.5 * top > 0:  # a diverging trial must not flatten the others
                axes.set_ylim(0, 2.5 * top)
            explained = " (val solid, train dashed)" if self._has_colours() else ""
            axes.set(xlabel="epoch", ylabel=what + explained)
            if self._ends:
                axes.set_xlim(1 - 0.03 * self._ends, 1.03 * self._ends)
            handles, labels = axes.get_legend_handles_labels()
            named = dict(zip(labels, handles, strict=True))  # of trials alike, one
            axes.legend(named.values(), named.keys(), fontsize=9)
            axes.grid(alpha=0.3)
        return figure

    def _has_colours(self):
        """Whether the settings have a colour each."""
        return 2 <= len(self._names) <= _MAX_SETTINGS

    def _add(self, epoch):
        if self._trials is None:
            self._trials, self._names = epoch.run.trials, setting_names(epoch.run.trials)
        # An iteration of L-BFGS is an epoch, and how many it takes is not known.
        self._ends = None if "converged" in epoch.facts else epoch.run.num_epochs
        for name, values in epoch.metrics.items():
            for trial, reached, value in zip(epoch.trials, epoch.reached, values, strict=True):
                if np.isfinite(value):
                    x, y = self._seen.setdefault(name, {}).setdefault(int(trial), ([], []))
                    x.append(int(reached))
                    y.append(float(value))
                elif name.endswith("loss"):
                    self._diverged.add(int(trial))

    def _best(self):
        """The trial with the smallest loss so far; None: each has diverged."""
        losses = self._seen.get("val_loss") or self._seen.get("train_loss") or {}
        there = [trial for trial in losses if trial not in self._diverged]
        return min(there, key=lambda trial: losses[trial][1][-1], default=None)

    def _style(self, name, trial, best):
        split = name.split("_")[0]
        style: dict[str, Any] = {"color": _COLOURS[split], "label": name.replace("_", " ")}
        if self._has_colours():
            setting = self._trials.setting[trial]
            style = {"color": f"C{setting}", "label": self._names[setting]}
            if split == "train":
                style |= {"linestyle": "--", "label": None}
        if trial == best:
            marker = "." if len(self._seen[name][trial][0]) <= _MAX_MARKED_EPOCHS else None
            return style | {"linewidth": 2, "marker": marker, "zorder": 3}
        many = len(self._trials.setting) > _MAX_COLOURED_LINES
        return style | {"linewidth": 1, "alpha": 0.2 if many else 0.7}

    def _png(self):
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png")
        return buffer.getvalue()

    def _line(self, epoch):
        best, count = self._best(), len(self._trials.setting)
        found = {name: seen[best][1][-1] for name, seen in self._seen.items() if best in seen}
        named = (
            f"{name.replace('_', ' ')} {found[name]:.3f}" for name in _MEASURED if name in found
        )
        which = f", the best of {count} trials" if count > 1 else ""
        return f"epoch {epoch.epoch} of {epoch.run.num_epochs}{which}: {', '.join(named)}"


def of_classifier(
    classifier: "Classifier", dataset: "Dataset", title: str, of_weights: str = ""
) -> dict[str, Callable[[], "Figure"]]:
    """{file name: what draws it} of the classifier's predictions, as the kind of dataset allows.

    title: names the examples that are predicted; of_weights: the title of the weights, if another.
    """
    if dataset.num_classes > _MAX_CONFUSION_CLASSES and not dataset.is_image:
        return {}
    probabilities, labels = classifier.weighted_proba(dataset.x), np.asarray(dataset.y)
    figures: dict[str, Callable[[], Figure]] = {}
    predicted, names = probabilities.argmax(-1), dataset.label_names
    if dataset.num_classes <= _MAX_CONFUSION_CLASSES:
        figures["confusion.png"] = lambda: confusion(
            labels, predicted, names, title, dataset.weights
        )
    if dataset.is_image:
        figures["weights.png"] = lambda: weights(
            classifier, dataset.x.shape[1:], of_weights or title
        )
        if (predicted != labels).any():
            figures["mistakes.png"] = lambda: mistakes(dataset, probabilities, title)
    return figures


def confusion(
    labels: Int[np.ndarray, " N"],
    predictions: Int[np.ndarray, " N"],
    label_names: Sequence[str],
    title: str,
    example_weights: Float[np.ndarray, " N"] | None = None,
) -> "Figure":
    """True labels by row, predictions by column; counts, shaded by their fraction of the row.

    An example counts as often as its weight says, once without weights.
    """
    num_classes = len(label_names)
    counts = confusion_matrix(labels, predictions, num_classes, weights=example_weights)
    sums = counts.sum(1, keepdims=True)
    fractions = counts / np.where(sums > 0, sums, 1)
    side = min(3 + 0.42 * num_classes, 14)
    figure = _figure((side, side))
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=plain_text(title))
    ticks, names = np.arange(num_classes), [plain_text(name, _LONGEST_NAME) for name in label_names]
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    if num_classes <= _MAX_NUMBERED_CLASSES:
        for row, column in np.argwhere(counts):
            shade = "white" if fractions[row, column] > 0.5 else "black"
            text = f"{counts[row, column]:.10g}"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=8)
    return figure


def mistakes(dataset: "Dataset", probabilities: Float[np.ndarray, "N C"], title: str) -> "Figure":
    """Misclassified images, the most confident first: the true label over the predicted one.

    The predicted one has its probability.
    """
    labels, predictions = np.asarray(dataset.y), probabilities.argmax(-1)
    wrong = np.flatnonzero(predictions != labels)
    confidence = probabilities[wrong, predictions[wrong]]
    shown = wrong[np.argsort(-confidence, kind="stable")[:_MAX_IMAGES]]
    names = dataset.text_labels(labels[shown]), dataset.text_labels(predictions[shown])
    # Cut, not rounded: a probability below 1 is none of 100 %.
    percents = np.floor(1000 * probabilities[shown, predictions[shown]]) / 10
    titles = [
        f"{true}\n{cut(predicted, _LONGEST_NAME - 8)} {percent:.1f} %"
        for true, predicted, percent in zip(*names, percents, strict=True)
    ]
    heading = (
        f"{title}\nthe {len(shown)} most confident of {len(wrong):,} mistakes: the true label over "
        "the predicted one with its probability"
    )
    return show_images(np.asarray(dataset.x)[shown], titles, heading=heading)


def suspects(dataset: "Dataset", found: "Suspects", title: str) -> "Figure":
    """The images with the least probable labels: the given label over the predicted one."""
    rows = found.table(dataset.label_names)[:_MAX_IMAGES]
    titles = [f"{row['given']}?\n{row['predicted']}" for row in rows]
    heading = f"{title}\nthe {len(rows)} least probable labels, over the predicted class"
    return show_images(np.asarray(dataset.x)[found.row[:_MAX_IMAGES]], titles, heading=heading)


def weights(classifier: "Classifier", image_shape: tuple[int, ...], title: str) -> "Figure":
    """Each class's weights as an image: red raises the class's score, blue lowers it."""
    num_classes = len(classifier.label_names)
    columns = min(num_classes, 5)
    rows = -(-num_classes // columns)
    figure = _figure((1.7 * columns + 0.6, 1.9 * rows + 0.4), title)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    images = classifier.W.T.reshape(num_classes, *image_shape)
    images = images.mean(-1) if images.ndim == 4 else images
    limit = np.abs(images).max() or 1.0
    for axes in grid:
        axes.set_axis_off()
    for axes, image, name in zip(grid, images, classifier.label_names, strict=False):
        shown = axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(plain_text(name, _LONGEST_NAME), fontsize=9, y=1.0)  # see `show_images`
    figure.colorbar(shown, ax=grid.tolist(), shrink=0.8)
    return figure


def show_images(
    images: Sequence | np.ndarray,
    titles: Sequence[str],
    num_columns: int = 9,
    scale: float = 1.5,
    heading: str = "",
) -> "Figure":
    """Draws images in rows, each under its title.

    `show_images(train.x[:18], train.text_labels(train.y[:18]))` shows the first eighteen.

    Args:
      images: n images: [H, W] or [H, W, 1] in shades of grey, each from its darkest value to its
        brightest; or [H, W, 3] in colour, uint8 or floats in 0..1.
      titles: n texts; each may have several lines.
      num_columns: images in a row.
      scale: width and height of a cell, in inches.
      heading: a line, or several, above all images.

    Returns:
      A figure; `figure.savefig(path)` writes it, and a notebook shows it after
      `%matplotlib inline`.

    Raises:
      DataError: there are no images, the numbers of images and titles differ, or the shape is that
        of no images.
    """
    Figure = host.require("matplotlib.figure", "plots").Figure
    array = _check_images(np.asarray(images), titles)
    num_columns = min(num_columns, len(array))
    num_rows = -(-len(array) // num_columns)
    lines = max(str(title).count("\n") + 1 for title in titles)
    height = scale + 0.17 * lines  # inches: an image and its title
    top = num_rows * height  # where the images end and the heading begins
    above = heading.count("\n") + 2 if heading else 0  # lines of the heading, and one between
    figure = Figure(figsize=(num_columns * scale, top + 0.2 * above))
    width, total = figure.get_size_inches()
    figure.suptitle(plain_text(heading), y=1 - 0.1 / total, va="top", fontsize=11)
    for index, (image, title) in enumerate(zip(array, titles, strict=True)):
        row, column = divmod(index, num_columns)
        left, bottom = (column + 0.05) * scale / width, (top - (row + 0.95) * height) / total
        axes = figure.add_axes((left, bottom, 0.9 * scale / width, 0.9 * scale / total))
        axes.imshow(image, cmap="gray")
        axes.set_axis_off()
        # With y=None Matplotlib would lay out the ticks that are not shown: half of the time.
        axes.set_title(plain_text(title, _LONGEST_NAME), fontsize=9, pad=3, y=1.0)
    return figure


class Grid(NamedTuple):
    """A sweep laid out by its axes.

    Attributes:
      metric: that the arrays hold.
      axes: {name: its values, ascending}.
      val, train: means over seeds and folds, an array dimension per axis.
      val_spread: standard deviations of val.
      winner: the index of the selected setting in the arrays.
      stopped: the epoch at which halving stopped each setting; 0: it was trained to the end.
    """

    metric: str
    axes: dict[str, np.ndarray]
    val: np.ndarray
    val_spread: np.ndarray
    train: np.ndarray
    winner: tuple[int, ...]
    stopped: np.ndarray


def lay_out(result: "Result", selected: "Selected", metric: str, epoch: str) -> Grid | None:
    """A result as a grid over its swept axes; None without any, or if they are not crossed."""
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
    val, spread = _average(result.values(metric, epoch), index, shape)
    train = np.full(shape, np.nan)
    if train_metric in result.metrics:
        train, _ = _average(result.values(train_metric, epoch), index, shape)
    winner = tuple(int(place[selected.trial]) for place in index)
    stopped = np.zeros(shape, int)
    stopped[index] = result.halved
    return Grid(metric, axes, val, spread, train, winner, stopped)


def sweep(grid: Grid, title: str) -> "Figure":
    """A panel per axis: val solid with its spread as a band, train dashed; then the heat map."""
    panels = len(grid.axes) + (len(grid.axes) == 2)
    figure = _figure((max(5.5 * panels, 7), 4.4), title)
    all_axes = figure.subplots(1, panels, squeeze=False)[0]
    for axes, name in zip(all_axes, grid.axes, strict=False):
        _sweep_panel(axes, grid, name)
    if panels > len(grid.axes):
        _heat_map(figure, all_axes[-1], grid)
    return figure


def path(result: "Result", selected: "Selected", metric: str, title: str) -> "Figure | None":
    """Along l1 or l1_group: the norm of each feature's weights, their number, the metric.

    All are means over the folds, of the settings that differ from the selected one in that penalty
    alone. The band is one standard error of the metric; a dashed line marks the selected penalty.
    None where neither penalty has several values.
    """
    trials, comparison = result.run.trials, result.compared(result.values(metric))
    first, axes = comparison.first, trials.axes()
    name = max(("l1", "l1_group"), key=lambda name: len(np.unique(axes[name])))
    others = [column[first] == column[selected.trial] for n, column in axes.items() if n != name]
    chosen = np.flatnonzero(np.all(others, 0))
    chosen = chosen[np.argsort(axes[name][first[chosen]])]
    penalties = axes[name][first[chosen]]
    if len(np.unique(penalties)) < 2:
        return None
    norms, counts = [], []
    for number in trials.setting[first[chosen]]:
        own = np.flatnonzero(trials.setting == number)
        each = np.stack([np.linalg.norm(result.classifier(t).W, axis=1) for t in own])
        norms.append(each.mean(0))
        counts.append((each > 0).sum(1).mean())
    figure = _figure((15, 4.4), title)
    left, middle, right = figure.subplots(1, 3)
    largest = np.argsort(-np.max(norms, 0), kind="stable")[:_MOST_NORMS]
    left.plot(penalties, np.stack(norms)[:, largest], linewidth=0.9)
    left.set_ylabel("norm of the weights of each feature")
    middle.plot(penalties, counts, color="C0")
    middle.set_ylabel("number of features")
    mean, error = comparison.mean[chosen], comparison.error[chosen]
    right.plot(penalties, mean, color="C0")
    if np.isfinite(error).all():
        band = "± one standard error"
        right.fill_between(penalties, mean - error, mean + error, color="C0", alpha=0.2, label=band)
    right.set_ylabel(metric.replace("_", " "))
    for panel in (left, middle, right):
        scale_swept(panel, name, penalties)
        at = axes[name][selected.trial]
        panel.axvline(at, color="crimson", linestyle="--", linewidth=1, label="selected")
        panel.grid(alpha=0.3)
    right.legend(fontsize="small")
    return figure


def settings(result: "Result", title: str, epoch: str = "last") -> "Figure | None":
    """Loss and accuracy by epoch, train and validation: a curve per setting, its trials' mean.

    A dot marks the epoch of the model ('last' or 'best', as in `Result.epochs`). None where there
    are fewer than two settings, or more than can be distinguished.
    """
    names = setting_names(result.run.trials)
    if not 2 <= len(names) <= _MAX_SETTINGS:
        return None
    measured = [name for name in _MEASURED if name in result.metrics]
    rows = -(-len(measured) // 2)
    count = len(result.run.trials.setting) // len(names)
    title = f"{title}, means of {count} trials" if count > 1 else title
    figure = _figure((10, 0.8 + 3.4 * rows), title)
    for axes, name in zip(figure.subplots(rows, 2).ravel(), measured, strict=False):
        _settings_panel(axes, result, name, names, epoch)
    compared = f"the model that is compared ({epoch} epoch)"
    dot = _key(compared, color="0.3", marker="o", linestyle="none")
    handles = [*axes.get_legend_handles_labels()[0], dot]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=9
    )
    return figure


def setting_names(trials: "Trials") -> list[str]:
    """Each setting by its unusual values: 'l2 0.01', or 'baseline' if it has none.

    A value is usual if more than half of the settings have it.
    """
    _, first = np.unique(trials.setting, return_index=True)
    parts: list[list[str]] = [[] for _ in first]
    for name, column in trials.columns().items():
        values, which, counts = np.unique(column[first], return_inverse=True, return_counts=True)
        for setting, value in enumerate(which):
            if 2 * counts[value] <= len(first):
                parts[setting].append(f"{name} {values[value]:g}")
    return [", ".join(part) or "baseline" for part in parts]


def learning_curve(rows: list[dict], law: "PowerLaw | None", title: str) -> "Figure":
    """Validation error with its power law, and both losses: means and ranges over the seeds."""
    figure = _figure((9, 3.8), title)
    errors, losses = figure.subplots(1, 2)
    sizes = np.unique([row["size"] for row in rows])
    _range_over_seeds(errors, rows, sizes, lambda row: 1 - row["val_accuracy"], "val error")
    if law is not None:
        n = np.geomspace(sizes[0], _EXTRAPOLATED * sizes[-1], 200)
        text = f"{law.a:.3f} + {law.b:.2f} n^(−{law.c:.2f})"
        errors.plot(n, law(n), color="0.3", linestyle="--", linewidth=1, label=text)
        errors.axhline(law.a, color="0.3", linestyle=":", linewidth=1)
    _range_over_seeds(losses, rows, sizes, lambda row: row["train_loss"], "train loss")
    _range_over_seeds(losses, rows, sizes, lambda row: row["val_loss"], "val loss")
    errors.set(ylabel="error")
    losses.set(ylabel="loss", ylim=(0, None))
    for axes in errors, losses:
        axes.set(xlabel="training examples", xscale="log")
        axes.legend()
        axes.grid(alpha=0.3, which="both")
    return figure


# What the pictures share.


def _figure(size: tuple[float, float], title: str = "") -> "Figure":
    Figure = host.require("matplotlib.figure", "plots").Figure
    figure = Figure(layout="constrained", dpi=110, figsize=size)
    if title:
        figure.suptitle(plain_text(title), fontsize=11)
    return figure


def _key(label, **style):
    """An entry of a legend for what several lines have in common."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def plain_text(text: object, most: int = 100) -> str:
    """Text from data in a form that Matplotlib draws literally, cut to a number of characters.

    Matplotlib parses `$…$` as mathematics, and cannot draw control characters or halves of
    surrogate pairs.
    """
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(text))
    text = "\n".join(cut(line, most) for line in text.split("\n"))
    return text.replace("$", r"\$")


def draw_line(axes: "Axes", line: Line, hover: bool = False) -> None:
    """Draws a line over its band; with `hover`, each point is a mark with its own title."""
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    style: dict[str, Any] = {"gid": group_id(f"line {line.look}", line.name)}
    style |= line.style or {}
    artists: list[Any] = []
    if line.spread is not None:
        low, high = (y + sign * np.asarray(line.spread, float) for sign in (-1, 1))
        band = {"color": style["color"], "alpha": 0.2, "linewidth": 0, "gid": group_id("band")}
        artists.append(axes.fill_between(x, low, high, **band))
    artists += axes.plot(x, y, **style)
    finite = np.flatnonzero(np.isfinite(y))
    if hover and (len(x) <= _MAX_HOVER_MARKS and "faint" not in line.look or len(finite) == 1):
        marks = {"color": style["color"], "alpha": style.get("alpha"), "markersize": 5.2}
        for point in finite:
            gid = group_id(f"mark {line.look}", f"{line.name}: {y[point]:.4f} at {x[point]:g}")
            artists += axes.plot(x[point], y[point], "o", gid=gid, **marks)
    if hover:  # do not cut marks at the edge of the frame
        for artist in artists:
            artist.set_clip_box(axes.bbox.padded(OVERHANG))


def _check_images(images: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """The images as [n, H, W] or [n, H, W, 3]."""
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3 and not (images.ndim == 4 and images.shape[-1] == 3):
        raise DataError(
            f"Images of shape [n, H, W] or [n, H, W, 3] can be shown, not {images.shape}. "
            "Reshape them, as x.reshape(-1, height, width)."
        )
    if not 0 < len(images) == len(titles):
        raise DataError(
            f"Got {len(images)} images and {len(titles)} titles. Give at least one image, and "
            "one title to each."
        )
    return images


def _other_trials(result, selected, max_near=4, max_far=200):
    """The trials after the selected one by final loss, and an even sample of the rest."""
    name = "val_loss" if "val_loss" in result.metrics else "train_loss"
    order = np.argsort(result.metrics[name][:, -1], kind="stable")  # NaN comes last
    order = order[order != selected.trial]
    far = order[max_near:]
    return order[:max_near], far[:: max(1, -(-len(far) // max_far))]


def _average(values, index, shape):
    """Mean and standard deviation over the trials that share a cell (seeds and folds)."""
    count, total, squares = (np.zeros(shape) for _ in range(3))
    np.add.at(count, index, 1)
    np.add.at(total, index, values)
    mean = total / count
    with np.errstate(invalid="ignore"):  # metrics of diverged trials may be infinite
        np.add.at(squares, index, np.square(values - mean[index]))
    return mean, np.sqrt(squares / np.maximum(count - 1, 1))


def _sweep_panel(axes, grid, name):
    """The metric against one axis: a line for every combination of the others."""
    position = list(grid.axes).index(name)
    others = {other: values for other, values in grid.axes.items() if other != name}
    combinations = list(itertools.product(*(range(len(values)) for values in others.values())))
    colours = _line_colours(combinations, tuple(np.delete(grid.winner, position)))
    for combination in combinations:
        where = (*combination[:position], slice(None), *combination[position:])
        chosen = zip(others.items(), combination, strict=True)
        label = ", ".join(f"{other} {values[i]:g}" for (other, values), i in chosen)
        colour = colours[combination]
        style = {"color": colour, "linewidth": 1.2}
        label = label if colour != _FAINT else ""
        val = style | {"marker": ".", "label": label or "_other"}
        train = style | {"linestyle": "--", "alpha": 0.7}
        x, spread = grid.axes[name], grid.val_spread[where]
        draw_line(axes, Line(label, x, grid.val[where], val, spread=spread))
        draw_line(axes, Line(label, x, grid.train[where], train | {"label": "_train"}))
        for cell in np.flatnonzero(grid.stopped[where]):
            axes.plot(x[cell], grid.val[where][cell], "x", color=colour, markersize=6)
    star = {"marker": "*", "markersize": 14, "color": "crimson", "linestyle": "none", "zorder": 5}
    x, y = grid.axes[name][grid.winner[position]], grid.val[grid.winner]
    axes.plot(x, y, label="selected", **star)
    scale_swept(axes, name, grid.axes[name])
    scale_loss(axes, grid.metric, np.concatenate([grid.val, grid.train], None), y)
    axes.set_ylabel(grid.metric.removeprefix("val_") + " (val solid, train dashed)")
    handles = axes.get_legend_handles_labels()[0]
    if (grid.val_spread > 0).any():
        band = "± a standard deviation over seeds and folds"
        handles.append(_key(band, color="0.5", alpha=0.3, linewidth=7))
    if grid.stopped.any():
        handles.append(_key("stopped by halving", color="0.3", marker="x", linestyle="none"))
    if len(combinations) > _MAX_COLOURED_LINES:
        handles.append(_key("other combinations", color=_FAINT))
    axes.legend(handles=handles, fontsize=7)
    axes.grid(alpha=0.3)


def _line_colours(combinations, winner):
    from matplotlib import colormaps

    if len(combinations) > _MAX_COLOURED_LINES:
        return {c: "tab:orange" if c == winner else _FAINT for c in combinations}
    if len(combinations) == 1:
        return {combinations[0]: "tab:orange"}
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(combinations)))
    return dict(zip(combinations, map(tuple, shades), strict=True))


def scale_swept(axes: "Axes", name: str, values: Num[np.ndarray, " n"]) -> None:
    """Makes the x axis logarithmic if the values span a decade; linear from a zero to the next."""
    positive = values[values > 0]
    if values[0] >= 0 and len(positive) > 1 and positive[-1] >= 10 * positive[0]:
        if values[0] > 0:
            axes.set_xscale("log", base=2 if name == "batch_size" else 10)
        else:
            axes.set_xscale("symlog", linthresh=positive[0])
    axes.set_xlabel(plain_text(name))


def scale_loss(axes: "Axes", metric: str, values: Float[np.ndarray, " n"], best: float) -> None:
    """Makes the y axis logarithmic, up to a limit, for a loss that diverges within the sweep."""
    finite = values[np.isfinite(values)]
    if metric.endswith("loss") and finite.size and finite.max() > 5 * best > 0:
        axes.set_ylim(min(finite.min(), best) * 0.8, min(finite.max() * 1.2, 100 * best))
        make_logarithmic(axes)


def make_logarithmic(axes: "Axes") -> None:
    """Makes the y axis logarithmic, with ticks at 1, 2 and 5 times the powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
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
            when = f"\nstopped at {stop}" if (stop := grid.stopped[row, column]) else ""
            axes.text(column, row, f"{value:.3f}{when}", **marks)
    corner = grid.winner[1] - 0.5, grid.winner[0] - 0.5
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="crimson", linewidth=2.5))
    figure.colorbar(image, ax=axes)


def _settings_panel(axes, result, name, names, epoch):
    trials, marked = result.run.trials, result.values(name, epoch)
    judged, shown, ends = result.epochs(epoch), [], []
    for group, label in enumerate(names):
        own = trials.setting == group
        reached, values = result.reached[own].max(0), result.metrics[name][own].mean(0)
        (line,) = axes.plot(reached, values, label=label, linewidth=1.1)
        ends.append(marked[own].mean())
        axes.plot(judged[own].mean(), ends[-1], "o", color=line.get_color(), zorder=3)
        shown.append(values[len(values) // 10 :])  # in the first tenth all settings are similar
    _scale_settings(axes, name, np.concatenate(shown), np.array(ends))
    axes.set(xlabel="iteration" if result.full_batch else "epoch", ylabel=name.replace("_", " "))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)


def _scale_settings(axes, name, values, ends):
    """Shows every end but those of diverged settings; peaks on the way may leave the frame.

    A loss with ends more than five times apart has a logarithmic axis.
    """
    values, ends = values[np.isfinite(values)], ends[np.isfinite(ends)]
    if not (values.size and ends.size):
        return
    if name.endswith("loss"):
        ends = ends[ends <= _MOST_OF_A_LOSS * max(ends.min(), 1e-9)]
    low, high = values.min(), max(min(values.max(), 3 * np.median(values)), ends.max())
    if name.endswith("loss") and ends.max() > 5 * ends.min() > 0:
        axes.set_ylim(0.8 * max(low, ends.min() / 5), 1.25 * high)
        make_logarithmic(axes)
        return
    pad = 0.05 * (high - low) or 0.01
    axes.set_ylim(low - pad, high + pad)


def _range_over_seeds(axes, rows, sizes, value, label):
    values = [[value(row) for row in rows if row["size"] == size] for size in sizes]
    means, low, high = (np.array([f(v) for v in values]) for f in (np.mean, np.min, np.max))
    colour = _COLOURS[label.split()[0]]
    axes.plot(sizes, means, marker=".", color=colour, label=label)
    axes.fill_between(
        sizes, low, high, color=colour, alpha=0.2, linewidth=0, label=f"{label}, range of the seeds"
    )


def group_id(look: str, title: str | None = None) -> str:
    """An SVG id from which `charts` makes a class and a title: JSON, in ASCII."""
    return json.dumps([look.strip(), title and shown(title)])
