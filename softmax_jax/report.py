"""`python -m softmax_jax report`: one self-contained HTML page about one run or several.

The functions turn each `runs.Run` into the blocks that `templates/report.html` renders:
dictionaries with a `kind`.
"""

import base64
import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from softmax_jax import charts
from softmax_jax.host import WORKDIR, JobError, replacing, shown
from softmax_jax.plots import Line
from softmax_jax.runs import (
    ROLES,
    Run,
    chosen_trial,
    configuration,
    differences,
    final_metrics,
    finite,
    flat_fields,
    interval_of,
    metric_cell,
    notices,
    number,
    on_same_data,
    read,
    section,
    select_metric,
    status,
)

_LARGER_IS_BETTER = ("accuracy", "top5")
_ROUNDED = ("train_", "val_", "test_", "best_")  # so begin the columns that are rounded
_LONG = 8  # characters: columns with longer numbers are rounded, too
_MAX_NAMES = 30  # classes that are listed
_MAX_FAINT_TRIALS = 100  # curves besides the chosen one: an even sample
_MAX_FAINT_SETTINGS = 150  # lines in a panel of a sweep
_MAX_HEAT_CELLS, _MAX_MATRIX_CELLS = 400, 10_000
_MAX_ROWS, _MAX_VALUES, _MAX_DEPTH = 1000, 50, 4
_SHOWN_AS_CHARTS = ("curves.png", "sweep.png")
_SHOWN_ELSEWHERE = {
    *("dataset", "num_examples", "val_is_test", "trials", "diverged", "selected", "nested", "test"),
    *("seconds", "hyperparameters", "hints", "loss_interval", "accuracy_interval", "classes"),
}


def report(folders: list[Path], target: Path) -> None:
    """Writes the page about the runs in `folders`, whole or not at all.

    Raises:
      DataError: a folder holds no run, or a file in it is damaged.
      JobError: `target` cannot be written (exit code 3).
    """
    content = render([read(folder) for folder in folders]).encode("utf-8", "replace")
    try:
        with replacing(target) as file:
            file.write(content)
    except OSError as error:
        message = f"{target} cannot be written: {error.strerror or error}."
        raise JobError(message, WORKDIR) from error


def render(runs: list[Run]) -> str:
    """The page about one run, or about several side by side. It loads nothing else."""
    environment = _environment()
    style, script = (
        Markup(environment.loader.get_source(environment, f"report.{kind}")[0])
        for kind in ("css", "js")
    )
    return environment.get_template("report.html").render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared",
        cards=[_card(number, run, len(runs) > 1) for number, run in enumerate(runs)],
        topics=[(name, content) for name, content in _topics(runs) if content],
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@functools.cache
def _environment():
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("softmax_jax"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = number
    environment.finalize = lambda value: shown(value) if type(value) is str else value
    return environment


def _card(place, run, several):
    """A run's status, its data and its headline metrics: of test, else of val, else of train."""
    found, word_and_look = final_metrics(run), status(run)
    names = ([f"{role}_{what}" for what in ("accuracy", "loss")] for role in reversed(ROLES))
    names = ([name for name in pair if name in found] for pair in names)
    return {
        "word": word_and_look[0],
        "badge": word_and_look[1],
        "look": charts.page_look(place) if several else None,
        "name": run.name if several else "",  # the title of the page has it already
        "headlines": [(_words(n), found[n]) for n in next(filter(None, names), [])],
        "lines": list(_card_lines(run)),
        "notices": notices(run),
    }


def _card_lines(run):
    examples = section(run.summary, "num_examples")
    counts = ", ".join(f"{number(count)} {role}" for role, count in examples.items() if count)
    dataset = str(run.config.get("dataset", "unknown"))
    yield "data", f"{dataset} · {counts}" if counts else dataset
    if names := run.label_names:
        more = f", and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
        yield f"{len(names):,} classes", ", ".join(names[:_MAX_NAMES]) + more
    if selected := section(run.summary, "selected"):
        trial = f"trial {selected.get('trial')} of {run.summary.get('trials')}"
        yield "selected", f"{trial}, epoch {selected.get('epoch')}: {selected.get('why')}"
    elif not run.finished:
        reached = max((max(epochs) for epochs in run.metrics.values()), default=0)
        planned = section(run.config, "config").get("num_epochs", "?")
        several = len(run.metrics) > 1
        of = f" of {len(run.metrics):,} trials" if several else ""
        yield "so far", f"epoch {reached} of {planned}{of}"
        if several:
            yield "best so far", f"trial {chosen_trial(run)}"
    chosen = flat_fields(section(selected, "hyperparameters"))
    if chosen.get("fold") == "-1":  # there were no folds
        del chosen["fold"]
    if chosen:
        yield "with", ", ".join(f"{name} {value}" for name, value in chosen.items())


def _topics(runs):
    """(heading, blocks) of every section, the most important first."""
    names, fields = [run.name for run in runs], configuration(runs)
    differing = differences(fields)
    yield "What differs", differing and [_table(names, differing)]
    yield "Metrics", _metrics_compared(runs)
    yield "Curves compared", _curves_overlaid(runs) if len(runs) > 1 else None
    yield "Curves", _by_run(runs, _curves)
    yield "Sweep", _by_run(runs, _sweep)
    yield "Classes", _by_run(runs, _classes)
    yield "Figures", _figures(runs)
    yield "Weights", _by_run(runs, _weights)
    yield "More metrics", _by_run(runs, _more_metrics)
    yield "Settings", _by_run(runs, _settings)
    yield "Trials", _by_run(runs, _trials)
    yield "Time", _times(runs)
    yield "Configuration", [_table(names, fields, set(differing))]


def _by_run(runs, make):
    """The blocks that `make` returns for each run, under the run's name if there are several."""
    blocks = []
    for place, run in enumerate(runs):
        if made := make(run, place):
            title = {"kind": "title", "text": run.name, "look": charts.page_look(place)}
            blocks.append({"kind": "part", "blocks": [title] * (len(runs) > 1) + made})
    return blocks


def _metrics_compared(runs):
    """For one run a row per metric and a column per split; for several a column per run.

    The best run is marked if all were measured on the same examples.
    """
    by_run = [final_metrics(run) for run in runs]
    names = list(dict.fromkeys(name for found in by_run for name in found))
    if not names:
        return [_note("There are no metrics yet.")]
    if len(runs) == 1:
        roles, kinds = (dict.fromkeys(name.split("_", 1)[k] for name in names) for k in (0, 1))
        rows = {
            _words(kind): [by_run[0].get(f"{role}_{kind}", "–") for role in roles] for kind in kinds
        }
        return [_table(list(roles), rows)]
    rows, alike = {}, len(on_same_data(runs)) == 1
    for name in sorted(names, key=lambda name: ROLES.index(name.split("_")[0])):
        best = _best(name, [found[name] for found in by_run if name in found]) if alike else None
        cells = [found.get(name, "–") for found in by_run]
        rows[_words(name)] = [cell | {"best": True} if cell is best else cell for cell in cells]
    table = _table([run.name for run in runs], rows)
    text = "The runs were not measured on the same examples: their metrics do not compare."
    return [table] if alike else [table, _note(text, "alert")]


def _best(name, metrics):
    if name.endswith("loss"):
        return min(metrics, key=lambda metric: metric["value"])
    if name.endswith(_LARGER_IS_BETTER):
        return max(metrics, key=lambda metric: metric["value"])
    return None


def _curves(run, place):
    """Two charts: the chosen trial's train and val metrics, faintly those of the others."""
    trial = chosen_trial(run)
    if trial is None:
        return [_note("No epoch has been finished yet.")]
    rest = [other for other in sorted(run.metrics) if other != trial]
    others = rest[:: -(-len(rest) // _MAX_FAINT_TRIALS) or 1]
    which = f" of trial {trial}" if rest else ""
    entries = [("c0", f"train{which}"), ("c1", f"val{which}")]
    count = len(rest) if len(rest) == len(others) else f"{len(others)} of {len(rest):,}"
    entries += [("faint", f"{count} other trials")] if rest else []
    drawn = []
    for what in ("loss", "accuracy"):
        has_val = _has(run, trial, f"val_{what}")
        shown = f"val_{what}" if has_val else f"train_{what}"
        faint = [_curve(run, other, shown, f"trial {other}", "faint") for other in others]
        bold = [_curve(run, trial, f"train_{what}", f"train {what}", "c0")]
        bold += [_curve(run, trial, shown, f"val {what}", "c1")] if has_val else []
        drawn.append(_curve_chart(faint + bold, bold, what, f"curves{place}-{what}-"))
    return [_legend(entries), _charts(drawn)]


def _curves_overlaid(runs):
    """Two charts with a line per run, for every set of runs on the same data.

    The chosen trial's metric on val, or without it on train.
    """
    together = [places for places in on_same_data(runs) if len(places) > 1]
    blocks = []
    for group, places in enumerate(together):
        drawn = []
        for what in ("loss", "accuracy"):
            lines, sound = [], []
            for place in places:
                run = runs[place]
                if (trial := chosen_trial(run)) is not None:
                    role = "val" if _has(run, trial, f"val_{what}") else "train"
                    label, look = f"{run.name}, {role} {what}", charts.page_look(place)
                    lines.append(_curve(run, trial, f"{role}_{what}", label, look))
                    sound += lines[-1:] if status(run)[1] != "bad" else []
            drawn.append(_curve_chart(lines, sound or lines, what, f"compared{group}-{what}-"))
        entries = [(charts.page_look(place), runs[place].name) for place in places]
        blocks += [_legend(entries), _charts(drawn)]
    text = "The selected trial of each run on validation data, or without any on train."
    if len(together) > 1 or sum(map(len, together)) < len(runs):
        text += " Only runs on the same data share axes."
    return [_note(text), *blocks] if blocks else None


def _has(run, trial, name):
    return any(name in values for values in run.metrics[trial].values())


def _curve(run, trial, name, label, look):
    epochs = sorted(run.metrics[trial])
    values = [run.metrics[trial][epoch].get(name, math.nan) for epoch in epochs]
    return Line(label, epochs, values, look=look)


def _curve_chart(lines, focus, what, prefix):
    drawn = charts.curve_chart(lines, focus, what, prefix)
    return Markup(drawn) if drawn else _note(f"There is no finite {what} to draw.")


class Sweep(NamedTuple):
    """The settings of a sweep by their axes.

    Attributes:
      metric: by which they are compared.
      axes: {name: its values, ascending}.
      settings: {values of the axes: (val metric, its sd, train metric)}.
      winner: the values of the selected setting.
    """

    metric: str
    axes: dict[str, list[float]]
    settings: dict[tuple, tuple[float, float, float]]
    winner: tuple | None


def lay_out(run: Run) -> Sweep | None:
    """settings.csv by its axes: the fields of config.sweep in which the settings differ.

    None where nothing was swept, or the table does not exist yet.
    """
    rows, metric = run.settings, select_metric(run)
    if not rows or f"{metric}_mean" not in rows[0]:
        return None
    swept = [name for name in section(run.config, "config", "sweep") if name in rows[0]]
    columns = {name: _numbers(rows, name) for name in swept}
    columns = {n: v for n, v in columns.items() if not np.isnan(v).any() and len(set(v)) > 1}
    if not columns:
        return None
    names = [f"{metric}_mean", f"{metric}_sd", f"{metric.replace('val_', 'train_')}_mean"]
    found = zip(*(_numbers(rows, name) for name in names), strict=True)
    settings = dict(zip(zip(*columns.values(), strict=True), found, strict=True))
    chosen = section(run.summary, "selected", "hyperparameters")
    winner = tuple(finite(chosen.get(name)) for name in columns)
    axes = {name: sorted(set(values)) for name, values in columns.items()}
    return Sweep(metric, axes, settings, winner if winner in settings else None)


def _numbers(rows, name):
    """A column of a table, NaN where it has no finite number."""
    values = [finite(row.get(name)) for row in rows]
    return [math.nan if value is None else value for value in values]


def _sweep(run, place):
    """The metric against every swept axis, and a heat map where there are two axes."""
    sweep = lay_out(run)
    if sweep is None:
        return None
    drawn = [_sweep_panel(sweep, k, f"sweep{place}-{k}-") for k in range(len(sweep.axes))]
    cells = math.prod(len(values) for values in sweep.axes.values())
    if len(sweep.axes) == 2 and cells <= _MAX_HEAT_CELLS:
        drawn.append(_sweep_heat(sweep))
    label = _words(sweep.metric)
    spreads = any(spread > 0 for _, spread, _ in sweep.settings.values())
    band = ", ± a standard deviation over seeds and folds" * spreads
    entries = [("c1", label + band), ("c0 dashed", label.replace("val", "train"))]
    entries += [("faint", "other combinations")] if len(sweep.axes) > 1 else []
    entries += [("star", "selected")] if sweep.winner else []
    return [_legend(entries), _charts(drawn)]


def _sweep_panel(sweep, axis, prefix):
    """A faint line for every combination of the other axes, but a bold one for the winner's.

    Without a winner (every setting diverged) all are faint.
    """
    name, winner = list(sweep.axes)[axis], sweep.winner
    others = [other for other in sweep.axes if other != name]
    by_others: dict[tuple, list] = {}
    for values, metrics in sorted(sweep.settings.items()):
        rest = values[:axis] + values[axis + 1 :]
        by_others.setdefault(rest, []).append((values[axis], *metrics))
    best = by_others.pop(winner and winner[:axis] + winner[axis + 1 :], [])
    lines = []
    for rest, rows in list(by_others.items())[:: -(-len(by_others) // _MAX_FAINT_SETTINGS) or 1]:
        label = ", ".join(f"{n} {value:g}" for n, value in zip(others, rest, strict=True))
        lines.append(Line(label, [row[0] for row in rows], [row[1] for row in rows], look="faint"))
    if best:
        x, val, spread, train = (list(column) for column in zip(*best, strict=True))
        spread = spread if any(value > 0 for value in spread) else None
        lines += [Line("train", x, train, look="c0 dashed")]
        lines += [Line("val", x, val, look="c1", spread=spread)]
    y = sweep.settings[winner][0] if winner else math.nan
    star = (winner[axis], y) if math.isfinite(y) else None
    return Markup(charts.sweep_chart(lines, name, sweep.axes[name], sweep.metric, star, prefix))


def _sweep_heat(sweep):
    """A cell per setting, the best one darkest."""
    (row_name, rows), (column_name, columns) = sweep.axes.items()
    values = [[sweep.settings.get((r, c), (math.nan,))[0] for c in columns] for r in rows]
    known = [value for row in values for value in row if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    smaller_wins = sweep.metric.endswith("loss")
    high = min(high, 1.25 * low) if smaller_wins and low > 0 else high

    def shade(value):
        if not math.isfinite(value) or high <= low:
            return 0.0
        # Divided one by one: the difference of two huge numbers may be infinite.
        width = high / 2 - low / 2
        part = min(max((value / 2 - low / 2) / width, 0.0), 1.0) if width else 0.0
        return 1 - part if smaller_wins else part

    chosen = sweep.winner and (rows.index(sweep.winner[0]), columns.index(sweep.winner[1]))
    across, down = ([f"{value:g}" for value in axis] for axis in (columns, rows))
    shades = [[shade(value) for value in row] for row in values]
    return _heat(down, across, values, shades, f"{row_name} ↓ {column_name} →", chosen)


def _classes(run, _):
    """The metrics by class with their intervals, and the confusion matrix, of one split."""
    found = section(run.summary, "classes")
    rows, on = section(found, "by_class"), str(found.get("on", "an unknown split"))
    if not rows:
        return None
    lines: dict[str, list] = {}
    for name, values in list(rows.items())[:_MAX_ROWS]:
        values = section(values)
        lines[name] = [number(values.get("examples"))]
        for metric in ("precision", "recall", "f1"):
            value = finite(values.get(metric))
            interval = interval_of(values, metric)
            lines[name].append("–" if value is None else metric_cell(value, interval))
        other, count = values.get("taken_for"), number(values.get("taken_for_examples"))
        lines[name].append("–" if other is None else f"{other} ({count})")
    heads = ["examples", "precision", "recall", "f1", "most often taken for"]
    blocks = [_subtitle(_on(found, on)), _table(heads, lines)]
    counts = found.get("confusion")
    if isinstance(counts, list) and counts and all(map(_is_flat, counts)):
        if len({len(row) for row in counts}) == 1:
            text = f"Confusion on {on}: the true class by rows, the predicted one by columns"
            blocks += [_subtitle(text), _matrix(counts, tuple(rows))]
    return blocks


def _on(found, on):
    if found.get("selected_on") is True:
        return f"On {on}, whose examples decided the choice: without intervals"
    return f"On {on}, with intervals of 95 %"


def _subtitle(text):
    return {"kind": "subtitle", "text": text}


def _figures(runs):
    """The figures by name, those of all runs side by side, without those drawn as charts."""
    names = dict.fromkeys(name for run in runs for name in run.figures)
    blocks = []
    for name in (name for name in names if name not in _SHOWN_AS_CHARTS):
        shown = [
            (
                base64.b64encode(run.figures[name]).decode(),
                f"{run.name}: {_words(name.removesuffix('.png'))}",
            )
            for run in runs
            if name in run.figures
        ]
        blocks.append({"kind": "figures", "shown": shown})
    return blocks


_MOST_FEATURES = 100  # in the table of weights: those of the largest weights


def _weights(run, _):
    """The weights of the features that matter most, by name."""
    if not run.weights:
        return []

    def largest(row):
        weights = (finite(value) for name, value in row.items() if name.startswith("W("))
        return max((abs(value) for value in weights if value is not None), default=0.0)

    rows = sorted(run.weights, key=largest, reverse=True)[:_MOST_FEATURES]
    kept = [{name: value for name, value in row.items() if name not in _MOMENTS} for row in rows]
    return [_sortable([{n: _weight(n, value) for n, value in row.items()} for row in kept])]


_MOMENTS = ("mean", "scale")


def _weight(name, value):
    exact = finite(value)
    return value if name == "feature" or exact is None else number(exact)


def _more_metrics(run, _):
    """The rest of summary.json: metrics by class, over resamples, of decisions."""
    found = {name: value for name, value in run.summary.items() if value}
    for part in ("selected", "test"):
        for name, value in section(run.summary, part).items():
            if isinstance(value, dict | list) and value and name not in _SHOWN_ELSEWHERE:
                found[f"{part}: {name}"] = value
    blocks = []
    for name, value in found.items():
        if name not in _SHOWN_ELSEWHERE:
            blocks += [_subtitle(_words(name)), show(value, run.label_names)]
    return blocks


def show(value: Any, label_names: Sequence[str] = (), depth: int = 0) -> str | dict:
    """A block for a JSON value: a table, a matrix, a list or a text, by its shape.

    Args:
      value: what `json.loads` returns.
      label_names: label a list of as many values.
      depth: of the value within others; deep ones are abbreviated.
    """
    if not isinstance(value, dict | list):
        return number(value)
    if not value or depth >= _MAX_DEPTH:
        return "…" if value else "–"
    if isinstance(value, dict):
        columns = list(value.values())
        lengths = {len(column) if _is_flat(column) else 0 for column in columns}
        if len(lengths) == 1 and 0 < (length := max(lengths)) * len(columns) <= _MAX_MATRIX_CELLS:
            names = _names(length, label_names)  # lists of equal length: a row per item
            items = zip(names, zip(*columns, strict=True), strict=True)
            return _table(list(value), {name: list(map(number, row)) for name, row in items})
        rows = {name: [show(item, label_names, depth + 1)] for name, item in value.items()}
        return _table([], rows)
    if all(_is_flat(row) and len(row) == len(value[0]) for row in value):
        return _matrix(value, label_names)
    if all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value):
        if value[0] and len(value) > 1:
            return _sortable([{key: number(item) for key, item in row.items()} for row in value])
    if _is_flat(value):
        return ", ".join(map(number, value[:_MAX_VALUES])) + ", …" * (len(value) > _MAX_VALUES)
    parts = [show(item, label_names, depth + 1) for item in value[:_MAX_VALUES]]
    return {"kind": "list", "parts": parts}


def _matrix(rows, label_names):
    """Shaded by the fraction of each row's sum, as a confusion matrix is read."""
    if len(rows) * len(rows[0]) > _MAX_MATRIX_CELLS:
        return f"a matrix of {len(rows)} × {len(rows[0])}"
    exact = [[abs(finite(value) or 0.0) for value in row] for row in rows]
    sums = [sum(row) or 1.0 for row in exact]
    shades = [[value / total for value in row] for row, total in zip(exact, sums, strict=True)]
    return _heat(_names(len(rows), label_names), _names(len(rows[0]), label_names), rows, shades)


def _names(length, label_names):
    return label_names if length == len(label_names) else [str(k) for k in range(length)]


def _is_flat(value):
    return isinstance(value, list) and value and not any(isinstance(v, list | dict) for v in value)


def _trials(run, _):
    """trials.csv, ordered by the metric, the selected trial marked."""
    selected = section(run.summary, "selected")
    return _ranked(run, run.trials, "", {"trial": selected.get("trial")} if selected else {})


def _settings(run, _):
    """settings.csv, ordered by the metric's mean, the selected setting marked."""
    return _ranked(run, run.settings, "_mean", section(run.summary, "selected", "hyperparameters"))


def _ranked(run, rows, suffix, chosen):
    if len(rows) < 2:
        return None
    metric = select_metric(run)
    wanted = {name: finite(value) for name, value in chosen.items() if name in rows[0]}

    def is_chosen(row):
        return bool(wanted) and all(finite(row[name]) == wanted[name] for name in wanted)

    return [_sortable(rows, metric + suffix, not metric.endswith("loss"), is_chosen)]


def _times(runs):
    """A bar per run with a segment per phase, all on one scale."""
    spent = [section(run.summary, "seconds") for run in runs]
    spent = [{k: max(finite(v) or 0.0, 0.0) for k, v in phases.items()} for phases in spent]
    longest = max(sum(phases.values()) for phases in spent)
    if not 0 < longest < math.inf:
        return None
    names = dict.fromkeys(name for phases in spent for name in phases)
    looks = {name: f"c{place % charts.LOOKS}" for place, name in enumerate(names)}
    blocks = []
    for run, phases in zip(runs, spent, strict=True):
        bar = [(looks[name], 100 * value / longest, name) for name, value in phases.items()]
        entries = [(looks[name], f"{name} {value:.2f} s") for name, value in phases.items()]
        title = {"kind": "title", "text": f"{run.name}: {sum(phases.values()):.1f} s", "look": ""}
        blocks += [title, {"kind": "bar", "stretches": bar}, _legend(entries)]
    return blocks


def _sortable(rows, order_by=None, descending=False, chosen=None):
    """Rows of text that a click on a column's head sorts; columns of one value stand below.

    Shows the first 1,000 in the order of the column `order_by`; `chosen`(row) marks a row.
    """
    if order_by in rows[0]:
        sign = -1 if descending else 1
        ranks = [finite(row[order_by]) for row in rows]
        ranks = [math.inf if rank is None else sign * rank for rank in ranks]
        rows = [rows[k] for k in sorted(range(len(rows)), key=ranks.__getitem__)]
    shown = rows[:_MAX_ROWS]
    columns = []
    for name in (name for name in rows[0] if len({row[name] for row in rows}) > 1):
        columns.append(
            {
                "name": name,
                "order": ("descending" if descending else "ascending") * (name == order_by),
                "numeric": any(finite(row[name]) is not None for row in rows),
                "rounded": name.startswith(_ROUNDED)
                or max(len(row[name]) for row in shown) > _LONG,
            }
        )
    varying = {column["name"] for column in columns}
    same = [f"{name} {value or '–'}" for name, value in rows[0].items() if name not in varying]
    notes = [f"{len(shown):,} of {len(rows):,} rows are shown."] * (len(shown) < len(rows))
    notes += [f"The same in all rows: {', '.join(same)}."] * bool(same)
    lines = [
        (chosen is not None and chosen(row), [_cell(row[c["name"]], c["rounded"]) for c in columns])
        for row in shown
    ]
    return {"kind": "sortable", "columns": columns, "lines": lines, "notes": notes}


def _cell(text, rounded):
    """(text, the exact number or None)."""
    value = finite(text)
    whole = text.lstrip("-").isdigit()
    return number(value) if rounded and value is not None and not whole else text, value


def _heat(row_names, column_names, values, shades, corner="", chosen=None):
    """A matrix of numbers, each cell shaded by a fraction from 0 to 1; `chosen`: (row, column)."""
    lines = []
    for i, name in enumerate(row_names):
        cells = []
        for j, (value, shade) in enumerate(zip(values[i], shades[i], strict=True)):
            look = " ".join(["strong"] * (shade > 0.75) + ["chosen"] * ((i, j) == chosen))
            cells.append((number(value), f"{100 * shade:.0f}", look or "cell"))
        lines.append((name, cells))
    return {"kind": "heat", "corner": corner, "heads": column_names, "lines": lines}


def _table(heads, rows, differing=frozenset()):
    """A row per key of `rows` and a column per run; those in `differing` are marked."""
    return {"kind": "table", "heads": heads, "lines": rows, "differing": differing}


def _note(text, look="note"):
    return {"kind": "note", "text": text, "look": look}


def _legend(entries):
    return {"kind": "legend", "entries": entries}


def _charts(blocks):
    return {"kind": "charts", "blocks": blocks}


def _words(name):
    return name.replace("_", " ")
