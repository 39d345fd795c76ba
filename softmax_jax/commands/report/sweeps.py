"""A sweep: its metric against every swept axis, and a heat map where there are two of them."""

import math
from typing import NamedTuple

from softmax_jax.commands.report import charts, facts, scales, tables
from softmax_jax.commands.report.charts import Line
from softmax_jax.commands.report.markup import tag
from softmax_jax.commands.run import Run

_MOST_LINES = 150
_MOST_CELLS = 400


class Sweep(NamedTuple):
    """settings: {values of the axes: (val figure, its sd, train figure)}; winner: such values."""

    metric: str
    axes: dict
    settings: dict
    winner: tuple | None


def of_run(run: Run):
    """The charts of a run's sweep; None if it has none, or is not that far yet."""
    sweep = lay_out(run)
    if sweep is None:
        return None
    drawn = [_panel(sweep, name) for name in sweep.axes]
    cells = math.prod(len(values) for values in sweep.axes.values())
    if len(sweep.axes) == 2 and cells <= _MOST_CELLS:
        drawn.append(_heat_map(sweep))
    label = sweep.metric.replace("_", " ")
    entries = [("c1", label), ("c0 dashed", label.replace("val", "train"))]
    entries += [("faint", "other combinations")] if len(sweep.axes) > 1 else []
    entries += [("star", "selected")] if sweep.winner else []
    return tag("div", charts.legend(entries), tag("div", drawn, class_="pair"))


def lay_out(run: Run) -> Sweep | None:
    """settings.csv by its axes: the fields of config.sweep in which the settings differ."""
    rows, metric = run.settings, facts.metric(run)
    if not rows or f"{metric}_mean" not in rows[0]:
        return None
    swept = [name for name in facts.section(run.config, "config", "sweep") if name in rows[0]]
    columns = {name: [facts.finite(row[name]) for row in rows] for name in swept}
    columns = {
        name: values
        for name, values in columns.items()
        if None not in values and len(set(values)) > 1
    }
    if not columns:
        return None
    names = [f"{metric}_mean", f"{metric}_sd", f"{metric.replace('val_', 'train_')}_mean"]
    figures = [tuple(_float(row.get(name)) for name in names) for row in rows]
    settings = dict(zip(zip(*columns.values(), strict=True), figures, strict=True))
    chosen = facts.section(run.summary, "selected", "hyperparameters")
    winner = tuple(facts.finite(chosen.get(name)) for name in columns)
    axes = {name: sorted(set(values)) for name, values in columns.items()}
    return Sweep(metric, axes, settings, winner if winner in settings else None)


def _panel(sweep, name):
    """The metric against one axis: a line for every combination of the others, the winner's bold.

    Without a winner (every trial diverged) all are faint.
    """
    place = list(sweep.axes).index(name)
    lines = {}
    for values, figures in sorted(sweep.settings.items()):
        lines.setdefault(values[:place] + values[place + 1 :], []).append((values[place], *figures))
    own = None if sweep.winner is None else sweep.winner[:place] + sweep.winner[place + 1 :]
    best = lines.pop(own, [])
    names = [other for other in sweep.axes if other != name]
    faint = [
        _line(_named(names, others), rows, "faint")
        for others, rows in list(lines.items())[:: -(-len(lines) // _MOST_LINES) or 1]
    ]
    bold = []
    if best:
        x, y, spread, train = (list(column) for column in zip(*best, strict=True))
        band = spread if any(value > 0 for value in spread) else None
        bold = [Line("train", x, train, "c0 dashed"), Line("val", x, y, "c1", spread=band)]
    drawn = faint + bold
    star = None if sweep.winner is None else (sweep.winner[place], sweep.settings[sweep.winner][0])
    y = _figure_scale(sweep, [value for line in drawn for value in line.y])
    return charts.chart(drawn, scales.through(sweep.axes[name]), y, name, _words(sweep), star)


def _line(name, rows, look):
    return Line(name, [row[0] for row in rows], [row[1] for row in rows], look, marks=False)


def _named(names, values):
    return ", ".join(f"{name} {value:g}" for name, value in zip(names, values, strict=True))


def _figure_scale(sweep, values):
    """Logarithmic, up to a limit, for a loss that blows up within the sweep."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if sweep.metric.endswith("loss") and 0 < low and high > 4 * low:
        return scales.logarithmic(low * 0.95, min(high * 1.05, 100 * low))
    margin = 0.04 * (high - low)
    return scales.linear(low - margin, high + margin)


def _heat_map(sweep):
    (row_name, rows), (column_name, columns) = sweep.axes.items()
    nothing = (math.nan,)
    values = [[sweep.settings.get((r, c), nothing)[0] for c in columns] for r in rows]
    finite = [value for row in values for value in row if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    smaller_wins = sweep.metric.endswith("loss")
    high = min(high, 1.25 * low) if smaller_wins and low > 0 else high

    def share(value):
        if not math.isfinite(value) or high == low:
            return 0.0
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return 1 - part if smaller_wins else part

    shares = [[share(value) for value in row] for row in values]
    winner = sweep.winner and (rows.index(sweep.winner[0]), columns.index(sweep.winner[1]))
    corner = f"{row_name} ↓ {column_name} →"
    names = [[f"{value:g}" for value in axis] for axis in (rows, columns)]
    return tables.heat_map(*names, values, shares, corner, winner)


def _words(sweep):
    return sweep.metric.removeprefix("val_").replace("_", " ")


def _float(text):
    value = facts.finite(text)
    return math.nan if value is None else value
