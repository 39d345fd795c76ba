"""All figures of the runs side by side, and what the runs differ in."""

from softmax_jax.commands.report import facts
from softmax_jax.commands.report.markup import tag
from softmax_jax.commands.report.tables import number, side_by_side
from softmax_jax.commands.run import Run

_LARGER_IS_BETTER = ("accuracy", "top5")


def figures(runs: list[Run]):
    """Of one run a row per figure and a column per split; of several a column per run.

    The best of several is marked, where they were measured on the same examples.
    """
    by_run = [facts.figures(run) for run in runs]
    if not any(by_run):
        return tag("p", "There are no figures yet.", class_="note")
    return _by_split(*by_run) if len(runs) == 1 else _by_run(runs, by_run)


def _by_split(found):
    splits = dict.fromkeys(_split(name)[0] for name in found)
    names = dict.fromkeys(_split(name)[1] for name in found)
    rows = {
        name.replace("_", " "): [_figure(found.get(f"{split}_{name}")) for split in splits]
        for name in names
    }
    return side_by_side(list(splits), rows)


def _by_run(runs, by_run):
    names = list(dict.fromkeys(name for found in by_run for name in found))
    names.sort(key=lambda name: facts.ROLES.index(_split(name)[0]))
    rows = {}
    for name in names:
        column = [found.get(name) for found in by_run]
        best = _best(name, column) if alike(runs) else None
        rows[name.replace("_", " ")] = [_figure(figure, figure is best) for figure in column]
    table = side_by_side([run.name for run in runs], rows)
    if alike(runs):
        return table
    note = "The runs were not measured on the same examples: their figures do not compare."
    return [table, tag("p", note, class_="alert")]


def alike(runs: list[Run]) -> bool:
    """Whether all runs used the same examples, by the fingerprints of their data."""
    prints = [run.config.get("fingerprint") for run in runs]
    return prints[0] is not None and prints.count(prints[0]) == len(prints)


def interval(figure: facts.Figure) -> str:
    """'[0.8012, 0.8123]'."""
    low, high = figure.interval
    return f"[{number(low)}, {number(high)}]"


def differences(runs: list[Run]) -> dict:
    """{field: a text per run} of everything in the configs in which the runs differ."""
    rows = settings(runs)
    return {name: cells for name, cells in rows.items() if len(set(cells)) > 1}


def settings(runs: list[Run]) -> dict:
    """{field: a text per run} of all in config.json."""
    flat = [_config_fields(run.config) for run in runs]
    names = dict.fromkeys(name for found in flat for name in found)
    return {name: [found.get(name, "–") for found in flat] for name in names}


def _config_fields(config):
    own = facts.section(config, "config")
    used = {"dataset used": str(config.get("dataset", "–"))}
    rest = {name: value for name, value in config.items() if name not in ("config", "dataset")}
    return facts.fields(own) | used | facts.fields(rest)


def _split(name):
    """'val_top5' -> ('val', 'top5')."""
    role, _, what = name.partition("_")
    return role, what


def _figure(figure, best=False):
    if figure is None:
        return "–"
    text = [tag("strong" if best else "span", number(figure.value))]
    return text + [" ", tag("small", interval(figure))] if figure.interval else text


def _best(name, column):
    there = [figure for figure in column if figure is not None]
    if name.endswith("loss"):
        return min(there, key=lambda figure: figure.value)
    if name.endswith(_LARGER_IS_BETTER):
        return max(there, key=lambda figure: figure.value)
    return None
