"""The head of the page: a card per run with its state, its data and its headline figures."""

from softmax_jax.commands.report import facts
from softmax_jax.commands.report.comparison import interval
from softmax_jax.commands.report.curves import colour
from softmax_jax.commands.report.markup import tag
from softmax_jax.commands.report.tables import number
from softmax_jax.commands.run import Run

_MOST_NAMES = 30  # classes that are listed


def cards(runs: list[Run]):
    """For each run its state, its data, its headline figures, and what to think of them."""
    return tag("div", [_card(number, run, runs) for number, run in enumerate(runs)], class_="cards")


def _card(place, run, runs):
    word, look = facts.status(run)
    mark = tag("i", class_=f"swatch {colour(place)}") if len(runs) > 1 else None
    name = run.name if len(runs) > 1 else None  # the title of the page says it already
    head = tag("h2", tag("span", word, class_=f"badge {look}"), mark, name)
    notices = [tag("li", text) for text in facts.notices(run)]
    return tag(
        "article",
        head,
        tag("div", _headlines(run), class_="headlines"),
        tag("dl", [[tag("dt", name), tag("dd", text)] for name, text in _lines(run)]),
        tag("ul", notices, class_="alert") if notices else None,
        class_="card",
    )


def _headlines(run):
    """The test figures where there are some, else those of validation, else those of training."""
    found = facts.figures(run)
    for role in ("test", "val", "train"):
        names = [f"{role}_{what}" for what in ("accuracy", "loss") if f"{role}_{what}" in found]
        if names:
            return [_headline(name, found[name]) for name in names]
    return []


def _headline(name, figure):
    low_high = tag("small", interval(figure)) if figure.interval else None
    label = tag("span", name.replace("_", " "))
    return tag("p", label, tag("strong", number(figure.value)), low_high, class_="headline")


def _lines(run):
    examples = facts.section(run.summary, "num_examples")
    counts = [f"{number(count)} {role}" for role, count in examples.items() if count]
    yield "data", facts.dataset(run) + (f" · {', '.join(counts)}" if counts else "")
    names = run.label_names
    if names:
        more = f", and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
        yield f"{len(names):,} classes", ", ".join(names[:_MOST_NAMES]) + more
    selected = facts.section(run.summary, "selected")
    if selected:
        yield (
            "selected",
            f"trial {selected.get('trial')} of {run.summary.get('trials')}, "
            f"epoch {selected.get('epoch')}: {selected.get('why')}",
        )
    elif not run.finished:
        yield "so far", facts.progress(run)
        if len(run.metrics) > 1:
            yield "best so far", f"trial {facts.chosen_trial(run)}"
    chosen = facts.fields(facts.section(selected, "hyperparameters"))
    if chosen.get("fold") == "-1":  # there were no folds
        del chosen["fold"]
    if chosen:
        yield "with", ", ".join(f"{name} {value}" for name, value in chosen.items())
