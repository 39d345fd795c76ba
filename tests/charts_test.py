"""Charts of the report: inline SVG whose ticks, marks and bands stand where their values belong."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_jax import charts
from softmax_jax.plots import Line

few = settings(max_examples=25, deadline=None, derandomize=True)


class Chart:
    """A parsed SVG: its elements, texts and marks, in units of its viewBox."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg.encode("utf-8", "replace"))
        self.titles = [e.text for e in self.root.iter("title")]

    def with_class(self, name):
        return [e for e in self.root.iter("g") if name in (e.get("class") or "").split()]

    def path(self, name):
        """The points [n, 2] of the only path of that class."""
        (path,) = self.with_class(name)[0].iter("path")
        return np.array(re.findall(r"[ML] (\S+) (\S+)", path.get("d")), float)

    def marks(self, name="mark"):
        uses = [use for group in self.with_class(name) for use in group.iter("use")]
        return np.array([[float(use.get("x")), float(use.get("y"))] for use in uses])

    def ticks(self, axis):
        """(values, places) of the texts along an axis."""
        anchor, texts = {"x": "middle", "y": "end"}[axis], list(self.root.iter("text"))
        style = f"font-size: 12px; text-anchor: {anchor}"
        shown = [e for e in texts if e.get("style").startswith(style)]
        values = [float(e.text.replace("−", "-")) for e in shown]
        return np.array(values), np.array([float(e.get(axis)) for e in shown])


def curve_chart(x, y, what="accuracy", **options):
    line = Line("val", x, y, look="c1", **options)
    return Chart(charts.curve_chart([line], [line], what, "a-"))


def sweep_chart(values, y, metric="val_loss", winner=None):
    line = Line("val", values, y, look="c1")
    return Chart(charts.sweep_chart([line], "l2", values, metric, winner, "a-"))


NUMBERS = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@few
@given(st.lists(NUMBERS, min_size=2, max_size=20).filter(lambda v: max(v) - min(v) > 0.01))
def test_axis_ticks_align_with_points_of_the_same_value(y):
    """To the right and upwards values grow, by the same scale for ticks and for points."""
    x = range(1, len(y) + 1)
    chart = curve_chart(x, y)
    marks, (values, places) = chart.marks(), chart.ticks("x")
    assert (np.diff(places) > 0).all() and (np.diff(values) > 0).all()
    np.testing.assert_allclose(np.interp(values, x, marks[:, 0]), places, atol=0.01)
    values, places = chart.ticks("y")
    assert 2 <= len(values) <= 8
    order = np.argsort(values)
    assert (np.diff(places[order]) < 0).all()
    low, high = int(np.argmin(y)), int(np.argmax(y))
    scale = (marks[high, 1] - marks[low, 1]) / (y[high] - y[low])
    assert scale < 0
    baselines = places - (marks[low, 1] + scale * (values - y[low]))  # texts hang a bit lower
    np.testing.assert_allclose(baselines, 4, atol=1.5)


@few
@given(st.lists(st.integers(-6, 3).map(lambda k: 10.0**k), min_size=2, max_size=6, unique=True))
def test_sweep_axis_has_its_values_as_ticks_in_order(values):
    values = [0.0, *sorted(values)]
    chart = sweep_chart(values, np.arange(len(values)), "val_accuracy")
    shown, places = chart.ticks("x")
    assert set(shown) <= set(values)
    assert (np.diff(shown) > 0).all() and (np.diff(places) > 0).all()
    found = dict(zip(values, chart.marks()[:, 0], strict=True))
    np.testing.assert_allclose([found[value] for value in shown], places, atol=0.01)
    assert (np.diff(chart.marks()[:, 1]) < 0).all()
    shown, places = chart.ticks("y")
    assert (np.diff(places[np.argsort(shown)]) < 0).all()


def test_sweep_axis_has_equal_steps_for_equal_ratios():
    chart = sweep_chart([0, 0.001, 0.01, 0.1], [1, 2, 3, 4])
    steps = np.diff(chart.ticks("x")[1])
    assert steps[1] == pytest.approx(steps[2], abs=0.01) and steps[0] > 0
    steps = np.diff(sweep_chart([1, 2, 3], [1, 2, 3]).ticks("x")[1])
    assert steps[0] == pytest.approx(steps[1], abs=0.01)


def test_sweep_axis_labels_do_not_overlap():
    values = np.geomspace(1e-3, 1, 200)
    _, places = sweep_chart(values, values).ticks("x")
    assert 2 <= len(places) <= 15 and np.diff(places).min() > 20


@pytest.mark.parametrize("epochs", [10, 3, 1, 237])
def test_epoch_axis_has_whole_numbers(epochs):
    values, _ = curve_chart(range(1, epochs + 1), np.linspace(0, 1, epochs)).ticks("x")
    assert values.size and (values == values.round()).all()


@pytest.mark.parametrize("largest, logarithmic", [(1.7, False), (90.0, True)])
def test_axis_of_a_diverging_loss_is_logarithmic(largest, logarithmic):
    y = [0.4, 0.8, 1.6, largest]
    for chart in curve_chart([1, 2, 3, 4], y, "loss"), sweep_chart([1, 2, 3, 4], y):
        first, second = np.diff(chart.marks()[:3, 1])
        assert (first == pytest.approx(second, abs=0.01)) == logarithmic


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_charts_leave_a_gap_where_a_value_is_not_finite(missing):
    chart = curve_chart([0, 1, 2, 3, 4], [0.1, 0.2, missing, 0.3, 0.4])
    (path,) = chart.with_class("line")[0].iter("path")
    assert path.get("d").count("M") == 2
    assert len(chart.path("line")) == len(chart.marks()) == 4


def test_charts_without_a_finite_value_are_none():
    line = Line("a", [1], [math.nan], look="c0")
    assert charts.curve_chart([line], [line], "loss", "") is None


def test_charts_show_values_on_hover():
    chart = sweep_chart([3, 4], [0.12345, 1], winner=(3, 0.12345))
    assert {"val", "val: 0.1235 at 3", "selected: l2 3, loss 0.1235"} <= set(chart.titles)
    np.testing.assert_allclose(chart.marks("star")[0], chart.marks()[0], atol=0.01)
    assert (chart.root.get("role"), chart.root.get("aria-label")) == ("img", "loss against l2")
    assert [e.text for e in chart.root.iter("text")][-1] == "loss"


def test_charts_thin_long_lines_and_keep_their_ends():
    x = np.linspace(1, 5001, 5001)
    points = curve_chart(x, x % 7).path("line")
    assert 100 < len(points) <= 302
    assert points[0, 0] == 64 and points[-1, 0] == 444  # the frame


def test_charts_draw_a_band_above_and_below():
    chart = curve_chart([0, 1, 2], [0.5, 0, 1], spread=[0.1, 0.1, 0.25])
    band = chart.path("band")
    heights = band[band[:, 0] == 64, 1]  # where x is 0
    marks = chart.marks()
    unit = marks[1, 1] - marks[2, 1]
    assert (max(heights), min(heights)) == pytest.approx(
        (marks[0, 1] + 0.1 * unit, marks[0, 1] - 0.1 * unit), abs=0.01
    )


def test_charts_take_all_colours_and_fonts_from_the_style_sheet():
    lines = [Line("a", [1, 2], [1, 2], look=charts.page_look(k), spread=[1, 1]) for k in range(16)]
    svg = charts.curve_chart([*lines, Line("f", [1, 2], [2, 3], look="faint")], lines, "loss", "")
    assert set(re.findall(r"var\(--(\w+)\)", svg)) == {
        *("muted", "rule", "ink", *(f"c{k}" for k in range(8)))
    }
    assert not re.findall(r"#[0-9a-f]{6}|font-family|<style|<metadata|<\?xml|DOCTYPE|xmlns", svg)
    assert len({charts.page_look(k) for k in range(16)}) == 16


def test_charts_are_deterministic_and_share_no_ids():
    line = Line("a", [1, 2], [1, 2], look="c0")
    first, again = (charts.curve_chart([line], [line], "loss", "x-") for _ in range(2))
    other = charts.curve_chart([line], [line], "loss", "y-")
    assert first == again
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert {name.strip("#)") for name in re.findall(r"#[^\")]*", first)} == ids[0]


ANY = st.floats() | st.sampled_from([1e308, -1e308, 5e-324, 1e-300, 0.0, 1.0])


@few
@given(st.lists(st.tuples(st.integers(1, 2**53), ANY), min_size=1, max_size=5), st.booleans())
def test_curve_charts_accept_any_values(points, is_loss):
    x, y = zip(*sorted(points), strict=True)
    lines = [Line("a\ud800<$x$", x, y, look="c0"), Line("b", [1, 2], [y[0], 0.5], look="faint")]
    svg = charts.curve_chart(lines, lines[:1], "loss" if is_loss else "accuracy", "")
    assert (svg is None) == (not np.isfinite(y).any())


@few
@given(
    st.lists(
        st.tuples(ANY.filter(math.isfinite), ANY), min_size=2, max_size=5, unique_by=lambda p: p[0]
    ),
    st.sampled_from(["val_loss", "val_accuracy"]),
)
def test_sweep_charts_accept_any_values(points, metric):
    x, y = zip(*sorted(points), strict=True)
    line = Line("a", x, y, look="c1", spread=np.abs(y))
    winner = (x[0], y[0]) if math.isfinite(y[0]) else None
    Chart(charts.sweep_chart([line], "<$x$\ud800", x, metric, winner, ""))
