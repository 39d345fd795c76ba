"""The page: one HTML file by topics, each with a part per run. It loads nothing from anywhere."""

import base64
import hashlib
from importlib import resources

from softmax_jax.commands.report import comparison, curves, overview, parts, sweeps
from softmax_jax.commands.report.markup import raw, tag
from softmax_jax.commands.report.tables import side_by_side
from softmax_jax.commands.run import Run


def render(runs: list[Run]) -> str:
    """The report of one run, or of several side by side."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    topics = {name: content for name, content in _topics(runs) if content}
    links = [tag("a", name, href=f"#{_anchor(name)}") for name in topics]
    sections = [
        tag("section", tag("h2", name), content, id=_anchor(name))
        for name, content in topics.items()
    ]
    header = tag("header", tag("h1", title), tag("nav", links))
    main = tag("main", overview.cards(runs), sections)
    script = tag("script", raw(_file("page.js")))
    html = tag("html", _head(title), tag("body", header, main, script), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def _topics(runs):
    """(heading, content) of every section, from what decides to what is looked up."""
    names = [run.name for run in runs]
    differing = comparison.differences(runs)
    yield "What differs", differing and side_by_side(names, differing)
    yield "Figures", comparison.figures(runs)
    yield "Curves compared", curves.overlaid(runs) if len(runs) > 1 else None
    yield "Curves", _by_run(runs, curves.of_run)
    yield "Sweep", _by_run(runs, sweeps.of_run)
    yield "Pictures", parts.pictures(runs)
    yield "More figures", _by_run(runs, parts.rest)
    yield "Settings", _by_run(runs, parts.settings)
    yield "Trials", _by_run(runs, parts.trials)
    yield "Time", parts.seconds(runs)
    yield "Configuration", side_by_side(names, comparison.settings(runs), differing)


def _by_run(runs, make):
    """What `make` returns for each run, under the run's name if there are several."""
    made = [(number, run, make(run)) for number, run in enumerate(runs)]
    return [
        tag("div", _run_name(number, run) if len(runs) > 1 else None, content, class_="part")
        for number, run, content in made
        if content
    ]


def _run_name(number, run):
    return tag("h3", tag("i", class_=f"swatch {curves.colour(number)}"), run.name)


def _head(title):
    """With a policy that lets a browser load nothing, and run the script of this page alone."""
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{_digest(_file('page.js'))}'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", raw(_file("page.css"))),
    )


def _digest(script):
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _file(name):
    return (resources.files(__package__) / name).read_text("utf-8")


def _anchor(name):
    return name.lower().replace(" ", "-")
