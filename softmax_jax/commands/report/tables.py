"""Tables: sortable ones of many rows, one with a column per run, and matrices as heat maps."""

import math

from softmax_jax.commands.report.facts import finite
from softmax_jax.commands.report.markup import join, tag

_MOST_ROWS = 1000
_FIGURES = ("train_", "val_", "test_", "best_")  # so begin the columns that are rounded
_LONG = 8  # characters: columns with longer numbers are rounded, too


def number(value) -> str:
    """A number for reading: four decimals, or three digits where it is very large or small.

    >>> number(0.48321), number(0.00001234), number(1437), number(None)
    ('0.4832', '1.23e-05', '1,437', '–')
    """
    if isinstance(value, bool) or isinstance(value, str):
        return str(value)
    exact = finite(value)
    if exact is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}" if abs(exact) < 1e15 else f"{exact:.3g}"
    return f"{exact:.4f}" if 1e-3 <= abs(exact) < 1e5 else f"{exact:.3g}"


def sortable(rows: list[dict], order_by=None, descending=False, chosen=None):
    """Rows of text, sorted by a click on a column's head; below it, what is the same in all.

    Shown are the first 1,000 in the order of the column `order_by`; `chosen`(row) marks a row.
    """
    order_by = order_by if rows and order_by in rows[0] else None
    if order_by:
        sign = -1 if descending else 1
        rows = sorted(rows, key=lambda row: _rank(row[order_by], sign))
    columns = [name for name in rows[0] if len({row[name] for row in rows}) > 1]
    arrow = {order_by: "descending" if descending else "ascending"}
    head = [
        tag(
            "th",  # a span, because a button would not be printed on the pages that follow
            tag("span", _broken(name), role="button", tabindex="0"),
            aria_sort=arrow.get(name, "none"),
            class_="n" if any(finite(row[name]) is not None for row in rows) else None,
        )
        for name in columns
    ]
    shown = rows[:_MOST_ROWS]
    rounded = {name for name in columns if _is_rounded(name, shown)}
    body = [
        tag(
            "tr", [_cell(row[name], name in rounded) for name in columns], class_=_mark(row, chosen)
        )
        for row in shown
    ]
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", body), class_="sortable")
    return join(
        [tag("div", table, class_="scroll tall", tabindex="0"), _notes(rows, columns, shown)]
    )


def side_by_side(heads: list, rows: dict, differing=frozenset()):
    """A row per key of `rows` and a column per run; the rows in `differing` are marked."""
    head = tag("tr", tag("td"), [tag("th", text, scope="col") for text in heads]) if heads else None
    body = [
        tag(
            "tr",
            tag("th", label, scope="row"),
            [tag("td", cell) for cell in cells],
            class_="differs" if label in differing else None,
        )
        for label, cells in rows.items()
    ]
    table = tag("table", head and tag("thead", head), tag("tbody", body), class_="side")
    return tag("div", table, class_="scroll", tabindex="0")


def heat_map(row_names, column_names, values, shares, corner="", chosen=None):
    """A matrix of numbers, each cell shaded by its share in 0..1; `chosen` is (row, column)."""
    head = tag("tr", tag("th", corner), [tag("th", name, scope="col") for name in column_names])
    body = []
    for i, name in enumerate(row_names):
        cells = [
            tag(
                "td",
                number(value),
                style=f"--share:{100 * share:.0f}%",
                class_=" ".join(
                    ["strong"] * (share > 0.75) + ["chosen"] * ((i, j) == chosen) or ["cell"]
                ),
            )
            for j, (value, share) in enumerate(zip(values[i], shares[i], strict=True))
        ]
        body.append(tag("tr", tag("th", name, scope="row"), cells))
    table = tag("table", tag("thead", head), tag("tbody", body), class_="heat")
    return tag("div", table, class_="scroll", tabindex="0")


def _rank(text, sign):
    value = finite(text)
    return math.inf if value is None else sign * value


def _is_rounded(name, rows):
    """Whether a column is of figures, or of settings with more digits than can be read."""
    return name.startswith(_FIGURES) or max(len(row[name]) for row in rows) > _LONG


def _cell(text, rounded):
    value = finite(text)
    if value is None:
        return tag("td", text)
    whole = text.lstrip("-").isdigit()
    return tag("td", number(value) if rounded and not whole else text, data_v=value, class_="n")


def _broken(name):
    """A column's name that may be broken after its underscores."""
    return [part if k == 0 else ["_", tag("wbr"), part] for k, part in enumerate(name.split("_"))]


def _mark(row, chosen):
    return "chosen" if chosen and chosen(row) else None


def _notes(rows, columns, shown):
    same = [f"{name} {value or '–'}" for name, value in rows[0].items() if name not in columns]
    return [
        tag("p", f"{len(shown):,} of {len(rows):,} rows are shown.", class_="note")
        if len(shown) < len(rows)
        else None,
        tag("p", "The same in all rows: ", ", ".join(same), ".", class_="note") if same else None,
    ]
