"""The plain parts of a page: tables of the run, pictures, times, and whatever else there is."""

import base64

from softmax_jax.commands.report import curves, facts, generic, tables
from softmax_jax.commands.report.markup import tag
from softmax_jax.commands.run import Run

_DRAWN_ANEW = ("curves.png", "sweep.png")
_SHOWN_ELSEWHERE = {
    *("dataset", "num_examples", "val_is_test", "trials", "diverged", "selected", "test"),
    *("seconds", "hyperparameters", "hints", "loss_interval", "accuracy_interval"),
}


def trials(run: Run):
    """trials.csv, in the order of the metric, the selected one marked."""
    selected = facts.section(run.summary, "selected")
    return _table(run, run.trials, "", {"trial": selected.get("trial")} if selected else {})


def settings(run: Run):
    """settings.csv, in the order of the metric's mean, the selected one marked."""
    chosen = facts.section(run.summary, "selected", "hyperparameters")
    return _table(run, run.settings, "_mean", chosen)


def _table(run, rows, suffix, chosen):
    if len(rows) < 2:
        return None
    metric = facts.metric(run)
    wanted = {name: facts.finite(value) for name, value in chosen.items() if name in rows[0]}

    def is_chosen(row):
        return bool(wanted) and all(facts.finite(row[name]) == wanted[name] for name in wanted)

    return tables.sortable(rows, metric + suffix, not metric.endswith("loss"), is_chosen)


def rest(run: Run):
    """What summary.json holds besides: figures by class, over resamples, of decisions."""
    found = {name: value for name, value in run.summary.items() if value}
    for part in ("selected", "test"):
        for name, value in facts.section(run.summary, part).items():
            if isinstance(value, dict | list) and value and name not in _SHOWN_ELSEWHERE:
                found[f"{part}: {name}"] = value
    return [
        [tag("h4", name.replace("_", " ")), generic.show(value, run.label_names)]
        for name, value in found.items()
        if name not in _SHOWN_ELSEWHERE
    ]


def pictures(runs: list[Run]):
    """Each kind of picture of all runs next to each other, less those that are drawn anew."""
    names = dict.fromkeys(name for run in runs for name in run.pictures)
    return [
        tag("div", [_picture(run, name) for run in runs if name in run.pictures], class_="pictures")
        for name in names
        if name not in _DRAWN_ANEW
    ]


def _picture(run, name):
    content = base64.b64encode(run.pictures[name]).decode()
    caption = f"{run.name}: {name.removesuffix('.png').replace('_', ' ')}"
    image = tag("img", src=f"data:image/png;base64,{content}", alt=caption)
    return tag("figure", tag("div", image, class_="paper"), tag("figcaption", caption))


def seconds(runs: list[Run]):
    """A bar per run, a stretch per phase, all on one scale."""
    spent = [facts.section(run.summary, "seconds") for run in runs]
    spent = [{k: max(facts.finite(v) or 0.0, 0.0) for k, v in phases.items()} for phases in spent]
    longest = max(sum(phases.values()) for phases in spent)
    if longest == 0:
        return None
    phases = dict.fromkeys(name for found in spent for name in found)
    looks = {name: f"c{number % curves.COLOURS}" for number, name in enumerate(phases)}
    return [_bar(run, found, longest, looks) for run, found in zip(runs, spent, strict=True)]


def _bar(run, found, longest, looks):
    stretches = [
        tag("i", class_=looks[name], style=f"width:{100 * value / longest:.2f}%", title=name)
        for name, value in found.items()
    ]
    entries = [
        tag("li", tag("i", class_=f"swatch {looks[name]}"), f"{name} {value:.2f} s")
        for name, value in found.items()
    ]
    total = tag("h3", f"{run.name}: {sum(found.values()):.1f} s")
    return [total, tag("div", stretches, class_="bar"), tag("ul", entries, class_="legend")]
