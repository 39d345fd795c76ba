"""A line chart as inline SVG: its colours come from the style sheet, for light, dark and print."""

import math
from typing import NamedTuple

from softmax_jax.commands.report.markup import join, tag
from softmax_jax.commands.report.scales import Scale

_WIDTH, _HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 44
_MOST_POINTS = 300  # of a line
_MOST_MARKS = 60


class Line(NamedTuple):
    """A line through (x, y); `look` are its classes in the style sheet, `spread` its sd.

    Values that are not finite leave a gap. With `marks` each point says on hovering what it is.
    """

    name: str
    x: list
    y: list
    look: str
    marks: bool = True
    spread: list | None = None


def chart(lines: list[Line], x: Scale, y: Scale, x_label: str, y_label: str, star=None):
    """The lines, the first at the bottom, in a frame with both axes; `star` is a point (x, y)."""
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(point):
        return x.place(point[0]) * width, (1 - y.place(point[1])) * height

    inside = [_draw(line, at) for line in lines]
    if star:
        across, down = at(star)
        title = tag("title", f"selected: {x_label} {star[0]:g}, {y_label} {star[1]:.4f}")
        inside.append(tag("circle", title, cx=_f(across), cy=_f(down), r=7, class_="star"))
    return tag(
        "svg",
        _axes(x, y, width, height, x_label, y_label),
        tag(
            "svg",
            tag("g", *inside, transform=f"translate({_MARGIN} {_MARGIN})"),
            x=_LEFT - _MARGIN,
            y=_TOP - _MARGIN,
            width=width + 2 * _MARGIN,
            height=height + 2 * _MARGIN,
        ),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        class_="chart",
        role="img",
        aria_label=f"{y_label} against {x_label}",
    )


_MARGIN = 8  # lines are cut off this far outside the frame, so that marks on its edge stay whole


def legend(entries: list[tuple[str, str]]):
    """(look, name) pairs as a list with a swatch each."""
    items = [
        tag("li", tag("i", class_=f"swatch {look}"), tag("span", name)) for look, name in entries
    ]
    return tag("ul", items, class_="legend")


def _axes(x, y, width, height, x_label, y_label):
    parts = []
    for value, text in y.ticks:
        down = _f(_TOP + (1 - y.place(value)) * height)
        parts.append(tag("line", x1=_LEFT, x2=_LEFT + width, y1=down, y2=down, class_="grid"))
        parts.append(tag("text", text, x=_LEFT - 8, y=down, class_="tick y"))
    for value, text in x.ticks:
        across = _f(_LEFT + x.place(value) * width)
        parts.append(tag("line", x1=across, x2=across, y1=_TOP + height, y2=_TOP + height + 4))
        parts.append(tag("text", text, x=across, y=_TOP + height + 17, class_="tick x"))
    bottom = _TOP + height
    parts.append(tag("line", x1=_LEFT, x2=_LEFT + width, y1=bottom, y2=bottom))
    parts.append(tag("text", x_label, x=_LEFT + width / 2, y=_HEIGHT - 5, class_="label x"))
    turn = f"translate(12 {_TOP + height / 2}) rotate(-90)"
    parts.append(tag("text", y_label, transform=turn, class_="label x"))
    return tag("g", parts, class_="axes")


def _draw(line, at):
    stride = -(-len(line.x) // _MOST_POINTS)
    points = list(zip(line.x, line.y, strict=True))
    points = points[:: stride or 1] + ([points[-1]] if stride > 1 else [])
    title = tag("title", line.name)
    parts = [_band(line, at)] if line.spread else []
    parts.append(tag("path", title, d=_path(points, at), class_=f"line {line.look}"))
    finite = [point for point in points if math.isfinite(point[1])]
    if (line.marks and len(points) <= _MOST_MARKS) or len(finite) == 1:
        parts += [_mark(line, point, at) for point in finite]
    return join(parts)


def _mark(line, point, at):
    across, down = at(point)
    title = tag("title", f"{line.name}: {point[1]:.4f} at {point[0]:g}")
    return tag("circle", title, cx=_f(across), cy=_f(down), r=2.6, class_=f"mark {line.look}")


def _band(line, at):
    """The area between y - spread and y + spread."""
    rows = zip(line.x, line.y, line.spread, strict=True)
    rows = [row for row in rows if math.isfinite(row[1]) and math.isfinite(row[2])]
    upper = [(x, y + spread) for x, y, spread in rows]
    lower = [(x, y - spread) for x, y, spread in reversed(rows)]
    return tag("path", d=_path(upper + lower, at), class_=f"band {line.look}")


def _path(points, at):
    steps, pen = [], "M"
    for point in points:
        if math.isfinite(point[1]):
            steps.append(f"{pen}{' '.join(map(_f, at(point)))}")
        pen = "L" if math.isfinite(point[1]) else "M"
    return "".join(steps)


def _f(value):
    """A coordinate to a tenth of a unit, and never so far out that a browser loses it."""
    return f"{min(max(value, -1e4), 1e4):.1f}".removesuffix(".0")
