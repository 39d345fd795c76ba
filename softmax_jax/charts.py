"""The charts of the report: inline SVG in the colours of its style sheet, drawn by Matplotlib."""

import io
import json
import re
import warnings
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float

from softmax_jax import host
from softmax_jax.plots import (
    Line,
    draw_line,
    group_id,
    make_logarithmic,
    plain_text,
    scale_loss,
    scale_swept,
)

LOOKS = 8  # colours of lines in the style sheet: c0 to c7
_WIDTH, _HEIGHT = 460, 280  # units of the SVG; an SVG of Matplotlib has 72 of them in an inch
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 44
_MAX_POINTS = 300  # of a line
_LARGEST = 1e100  # values are limited to this and its inverse: ratios and squares stay finite
# Matplotlib draws in reserved colours, which properties of the style sheet then replace.
_PROPERTIES = ("muted", "rule", "ink", "star", *(f"c{k}" for k in range(LOOKS)))
_PAGE = {name: f"#0102{number:02x}" for number, name in enumerate(_PROPERTIES)}


def curve_chart(lines: list[Line], focus: list[Line], what: str, prefix: str) -> str | None:
    """A metric by epoch as SVG.

    Args:
      lines: the first at the bottom.
      focus: those of them that the axes must show.
      what: the metric.
      prefix: makes the ids of this chart unique on the page.

    Returns:
      The SVG element; None without a finite value in `focus`.
    """
    lines, focus = [_bounded(line) for line in lines], [_bounded(line) for line in focus]
    own, everything = _finite(focus), _finite(lines)
    if not own.size:
        return None
    room = (own.max() - own.min()) or abs(own.max()) or 1.0
    low = max(everything.min(), own.min() - room)
    high = min(everything.max(), own.max() + room)
    figure, axes = _chart("epoch", what)
    for line in lines:
        draw_line(axes, line, hover=True)
    if what == "loss" and 0 < 30 * low < high:
        axes.set_ylim(low, high)
        make_logarithmic(axes)
    elif high > low:
        pad = 0.03 * (high - low)
        axes.set_ylim(low - pad, high + pad)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return _svg(figure, f"{what} against epoch", prefix)


def sweep_chart(
    lines: list[Line],
    name: str,
    values: Sequence | Float[np.ndarray, " n"],
    metric: str,
    winner: tuple[float | int, float | int] | None,
    prefix: str,
) -> str:
    """A metric against a swept hyperparameter as SVG.

    Args:
      lines: the first at the bottom.
      name: the hyperparameter.
      values: all that it has in the sweep.
      metric: such as 'val_loss'.
      winner: the point (x, y) of the selected setting, or None.
      prefix: makes the ids of this chart unique on the page.
    """
    what = metric.removeprefix("val_").replace("_", " ")
    figure, axes = _chart(name, what)
    lines = [_bounded(line) for line in lines]
    for line in lines:
        draw_line(axes, line, hover=True)
    finite = _finite(lines)
    if winner:
        x, y = _bound(winner)
        gid = group_id("star", f"selected: {name} {winner[0]:g}, {what} {winner[1]:.4f}")
        ring = {"markersize": 14, "markeredgewidth": 2.5, "markeredgecolor": _PAGE["star"]}
        axes.plot(x, y, "o", fillstyle="none", clip_on=False, gid=gid, **ring)
    scale_swept(axes, name, values := np.unique(_bound(values)))
    scale_loss(axes, metric, finite, y if winner else finite.min(initial=np.inf))
    _mark_swept(axes, values)
    return _svg(figure, f"{what} against {name}", prefix)


def page_look(number: int) -> str:
    """The CSS classes of run `number` in every chart and legend of a page."""
    return f"c{number % LOOKS}" + (" dashed" if number >= LOOKS else "")


def _bound(values):
    values = np.clip(np.asarray(values, float), -_LARGEST, _LARGEST)
    return np.where(np.abs(values) < 1 / _LARGEST, 0.0, values)


def _bounded(line):
    """The line with fewer points, without values too large to draw, in the style of its look."""
    stride = -(-len(line.x) // _MAX_POINTS) or 1
    keep = np.zeros(0, int)
    if len(line.x):
        keep = np.unique([*range(0, len(line.x), stride), len(line.x) - 1])
    x, spread = _bound(line.x)[keep], None if line.spread is None else _bound(line.spread)[keep]
    y = np.where(np.isfinite(np.asarray(line.y, float)), _bound(line.y), np.nan)[keep]
    first = line.look.split()[0]
    style = {"color": _PAGE["muted"], "linewidth": 1, "alpha": 0.28}
    if first != "faint":
        style = {"color": _PAGE[first], "linewidth": 2, "solid_capstyle": "round"}
    if "dashed" in line.look:
        style["linestyle"] = (0, (2.5, 2))
    return line._replace(x=x, y=y, spread=spread, style=style)


def _finite(lines):
    values = np.concatenate([np.empty(0), *(line.y for line in lines)])
    return values[np.isfinite(values)]


def _chart(x_label, y_label):
    """An empty figure of the page and its axes: a spine at the bottom, horizontal rules."""
    Figure = host.require("matplotlib.figure", "plots").Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    box = _LEFT / _WIDTH, _BOTTOM / _HEIGHT, width / _WIDTH, height / _HEIGHT
    axes = figure.add_axes(box, axisbelow=True)
    axes.margins(x=0)
    axes.set_xlabel(plain_text(x_label), color=_PAGE["ink"], fontsize=12.5)
    axes.set_ylabel(plain_text(y_label), color=_PAGE["ink"], fontsize=12.5)
    centre = 0.5 + (_LEFT - _RIGHT) / 2 / _WIDTH, 0.5 + (_BOTTOM - _TOP) / 2 / _HEIGHT
    axes.xaxis.set_label_coords(centre[0], 18 / _HEIGHT, transform=figure.transFigure)
    axes.yaxis.set_label_coords(16 / _WIDTH, centre[1], transform=figure.transFigure)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(_PAGE["muted"])
    axes.tick_params(color=_PAGE["muted"], labelcolor=_PAGE["muted"], labelsize=12)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(axis="y", color=_PAGE["rule"], linewidth=1)
    for axis in axes.xaxis, axes.yaxis:
        axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
        axis.set_major_formatter(FuncFormatter(_tick_text))
    return figure, axes


def _tick_text(value, _position):
    return f"{value + 0.0:.6g}"  # a zero without a sign


def _mark_swept(axes, values):
    """Sets ticks at the values of the sweep, as many as fit without overlapping labels."""
    from matplotlib.ticker import NullLocator

    along = axes.xaxis.get_transform().transform
    low, high = along(np.array(axes.get_xlim()))
    ticks, free = [], -np.inf  # where the next text may begin, in widths of the frame
    for value, place in zip(values, (along(values) - low) / (high - low), strict=True):
        if place >= free:
            ticks.append(value)
            free = place + 0.03 + 0.018 * len(f"{value:g}")
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _svg(figure, label, prefix):
    """The figure as an SVG element for an HTML page, without colours or fonts of its own."""
    import matplotlib

    content = io.StringIO()
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": "softmax_jax"}  # text stays; ids repeat
    with matplotlib.rc_context(options), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about glyphs that Matplotlib's font lacks
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(content.getvalue())
    for parent in list(root.iter()):
        parent.tag = parent.tag.partition("}")[2]
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, prefix)
    root.attrib = {"viewBox": root.get("viewBox", ""), "class": "chart", "role": "img"}
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element, prefix):
    """Adapts an element of Matplotlib's SVG to the page."""
    given, element.attrib = element.attrib, {}
    element.text, element.tail = (element.text or "").strip(), None
    for name, value in given.items():
        name = name.partition("}")[2] or name  # href without its namespace
        if name == "id" and element.tag == "g":
            if value.startswith("["):
                look, title = json.loads(value)
                element.set("class", look)
                if title:
                    element.insert(0, ElementTree.Element("title"))
                    element[0].text = title
            continue
        if name == "style" and element.tag == "path" and "id" in given:
            continue  # a symbol: its style is that of the place of use
        if name == "style":
            value = re.sub(r"#0102(..)", lambda m: f"var(--{_PROPERTIES[int(m[1], 16)]})", value)
            value = re.sub(r"font-family: [^;]*(; )?", "", value)
        if name == "id":
            value = prefix + value
        elif name in ("href", "clip-path"):
            value = value.replace("#", f"#{prefix}")
        elif name == "d":
            value = " ".join(value.split())
        element.set(name, value)
