"""Loss and accuracy by epoch: of one run with all its trials, and of several runs overlaid."""

import math

from softmax_jax.commands.report import charts, scales
from softmax_jax.commands.report.charts import Line
from softmax_jax.commands.report.facts import chosen_trial
from softmax_jax.commands.report.markup import tag
from softmax_jax.commands.run import Run

COLOURS = 8  # of the style sheet, c0 to c7
_FIGURES = ("loss", "accuracy")
_MOST_OTHERS = 100  # trials drawn besides the chosen one: an even sample


def of_run(run: Run):
    """Two charts: the chosen trial's train and val figures, and faintly those of the others."""
    trial = chosen_trial(run)
    if trial is None:
        return tag("p", "No epoch has been finished yet.", class_="note")
    rest = [number for number in sorted(run.metrics) if number != trial]
    others = rest[:: -(-len(rest) // _MOST_OTHERS) or 1]
    drawn = [_chart(run, what, trial, others) for what in _FIGURES]
    which = f" of trial {trial}" if rest else ""
    entries = [("c0", f"train{which}"), ("c1", f"val{which}")]
    number = len(rest) if len(rest) == len(others) else f"{len(others)} of {len(rest):,}"
    entries += [("faint", f"{number} other trials")] if rest else []
    return tag("div", charts.legend(entries), tag("div", drawn, class_="pair"))


def overlaid(runs: list[Run]):
    """Two charts with a line per run: the chosen trial's figure on validation data, or on train."""
    drawn = [_overlay(runs, what) for what in _FIGURES]
    entries = [(colour(number), run.name) for number, run in enumerate(runs)]
    what = "The selected trial of each run on validation data, or without any on train."
    note = tag("p", what, class_="note")
    return tag("div", charts.legend(entries), note, tag("div", drawn, class_="pair"))


def colour(number: int) -> str:
    """The look of a run in all charts."""
    return f"c{number % COLOURS}" + (" dashed" if number >= COLOURS else "")


def _chart(run, what, trial, others):
    shown = f"val_{what}" if any(f"val_{what}" in f for f in run.metrics[trial].values()) else None
    background = [
        _line(run, number, shown or f"train_{what}", f"trial {number}", "faint", marks=False)
        for number in others
    ]
    own = [_line(run, trial, f"train_{what}", f"train {what}", "c0")]
    own += [_line(run, trial, shown, f"val {what}", "c1")] if shown else []
    return _framed(background + own, own, what)


def _overlay(runs, what):
    lines = []
    for number, run in enumerate(runs):
        trial = chosen_trial(run)
        if trial is not None:
            name = f"val_{what}"
            if not any(name in figures for figures in run.metrics[trial].values()):
                name = f"train_{what}"
            label = f"{run.name}, {name.replace('_', ' ')}"
            lines.append(_line(run, trial, name, label, colour(number)))
    return _framed(lines, lines, what)


def _line(run, trial, name, label, look, marks=True):
    epochs = sorted(run.metrics[trial])
    values = [run.metrics[trial][epoch].get(name, math.nan) for epoch in epochs]
    return Line(label, epochs, values, look, marks)


def _framed(lines, focus, what):
    """The chart, with the view on the `focus`: a line that blew up must not flatten it."""
    values = _finite(focus)
    epochs = [epoch for line in lines for epoch in line.x]
    if not values or not epochs:
        return tag("p", f"There is no finite {what} to draw.", class_="note")
    low, high = min(values), max(values)
    room = (high - low) or abs(high) or 1.0
    everything = _finite(lines)
    low, high = max(min(everything), low - room), min(max(everything), high + room)
    if what == "loss" and low > 0 and high > 30 * low:
        y = scales.logarithmic(low, high)
    else:
        y = scales.linear(low - 0.03 * (high - low), high + 0.03 * (high - low))
    x = scales.linear(min(epochs), max(epochs), whole=True)
    return charts.chart(lines, x, y, "epoch", what)


def _finite(lines):
    return [value for line in lines for value in line.y if math.isfinite(value)]
