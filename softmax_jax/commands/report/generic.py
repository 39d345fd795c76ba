"""Whatever else summary.json holds: a table, a matrix or a line, by the shape of the value."""

from softmax_jax.commands.report.facts import finite
from softmax_jax.commands.report.markup import tag
from softmax_jax.commands.report.tables import heat_map, number, side_by_side, sortable

_MOST_VALUES = 50  # of a list in one line
_DEEPEST = 4
_MOST_CELLS = 10_000


def show(value, label_names=(), depth=0):
    """A value of JSON; a list of as many items as there are classes is told by their names."""
    if isinstance(value, dict) and depth < _DEEPEST:
        return _dictionary(value, label_names, depth)
    if isinstance(value, list) and value and depth < _DEEPEST:
        return _list(value, label_names, depth)
    if isinstance(value, dict | list):
        return "…" if value else "–"
    return number(value)


def _dictionary(value, label_names, depth):
    columns = list(value.values())
    lengths = {len(column) if _is_line(column) else 0 for column in columns}
    if len(lengths) == 1 and 0 < (length := max(lengths)) * len(columns) <= _MOST_CELLS:
        # Lists of equal length: a row per item.
        items = zip(_names(length, label_names), zip(*columns, strict=True), strict=True)
        rows = {name: [number(item) for item in row] for name, row in items}
        return side_by_side(list(value), rows)
    rows = {name: [show(item, label_names, depth + 1)] for name, item in value.items()}
    return side_by_side([], rows)


def _list(value, label_names, depth):
    if all(_is_line(row) and len(row) == len(value[0]) for row in value):
        return _matrix(value, label_names)
    if all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value):
        if value[0] and len(value) > 1:
            return sortable([{key: number(v) for key, v in row.items()} for row in value])
    if _is_line(value):
        more = ", …" if len(value) > _MOST_VALUES else ""
        return ", ".join(map(number, value[:_MOST_VALUES])) + more
    parts = [tag("li", show(item, label_names, depth + 1)) for item in value[:_MOST_VALUES]]
    return tag("ol", parts)


def _matrix(rows, label_names):
    """Shaded by the share of each row's sum, as a confusion matrix is read."""
    if len(rows) * len(rows[0]) > _MOST_CELLS:
        return f"a matrix of {len(rows)} × {len(rows[0])}"
    exact = [[finite(value) or 0.0 for value in row] for row in rows]
    sums = [sum(map(abs, row)) or 1.0 for row in exact]
    shares = [[abs(v) / total for v in row] for row, total in zip(exact, sums, strict=True)]
    names = _names(len(rows), label_names), _names(len(rows[0]), label_names)
    return heat_map(*names, rows, shares)


def _names(length, label_names):
    return label_names if length == len(label_names) else [str(k) for k in range(length)]


def _is_line(value):
    return isinstance(value, list) and value and not any(isinstance(v, list | dict) for v in value)
