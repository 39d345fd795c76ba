"""Pictures show the numbers that they are of, where they belong, and text as text."""

import dataclasses
import io
import math
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st

from softmax_jax import charts, data, plots, sweep
from softmax_jax.data import DataError
from softmax_jax.plots import Line
from softmax_jax.sweep.settings import trial_table

few = checked(max_examples=25, deadline=None, derandomize=True)


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def changed(result, trial, values):
    metrics = {name: metric.copy() for name, metric in result.metrics.items()}
    metrics["val_loss"][trial] = values
    return dataclasses.replace(result, metrics=metrics)


def fit(splits, settings=None, **options):
    options = {"num_epochs": 1, "batch_size": 256} | options
    return sweep.fit(splits.train, splits.val, settings, **options)


# Figures of the work folder.


def test_curves_show_the_selected_trial_by_epoch(result):
    selected = result.best()
    figure = plots.curves(result, selected, "digits")
    for axes, what in zip(figure.axes, ("loss", "accuracy"), strict=True):
        for name in (f"train_{what}", f"val_{what}"):
            line = lines_of(axes)[name.replace("_", " ")]
            assert line.get_xdata().tolist() == [1, 2, 3]
            np.testing.assert_array_equal(line.get_ydata(), result.metrics[name][selected.trial])
        assert len(axes.get_lines()) == 2 * len(result.best_epoch)
    assert figure.get_suptitle() == "digits"


def test_curves_are_not_flattened_by_a_trial_that_blew_up(result):
    worst = 0 if result.best().trial else 1
    figure = plots.curves(changed(result, worst, (10.0, 1e6, np.nan)), result.best(), "")
    assert figure.axes[0].get_ylim()[1] < 10


def test_confusion_counts_every_example_once():
    labels, predictions = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 0])
    (axes,) = plots.confusion(labels, predictions, ("a", "b", "c"), "").axes
    cells = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert cells == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "1", (2, 0): "1"}
    assert axes.get_xlabel() == "predicted" and axes.get_ylabel() == "true"
    np.testing.assert_allclose(axes.images[0].get_array().sum(1), 1)


def test_mistakes_come_most_confident_first_and_name_both_labels(splits):
    val, (first, second) = splits.val, (7, 3)
    probabilities = np.full((len(val.y), 10), 0.01)
    probabilities[np.arange(len(val.y)), val.y] = 0.9
    for row, confidence in ((first, 0.99), (second, 0.95)):
        probabilities[row, (val.y[row] + 1) % 10] = confidence
    figure = plots.mistakes(val, probabilities, "digits")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"{val.y[row]}\n{(val.y[row] + 1) % 10}" for row in (first, second)]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), val.x[first])


def test_weights_are_drawn_class_by_class_around_zero(result):
    classifier = result.best().classifier
    figure = plots.weights(classifier, (8, 8), "")
    for label in range(10):
        image = figure.axes[label].images[0]
        np.testing.assert_array_equal(image.get_array().ravel(), classifier.W[:, label])
        low, high = image.get_clim()
        assert low == -high


def test_features_have_no_pictures_of_images(result, splits):
    flat, classifier = (
        dataclasses.replace(splits.val, x=splits.val.x.reshape(-1, 64)),
        result.best(),
    )
    assert set(plots.of_classifier(classifier.classifier, flat, "")) == {"confusion.png"}
    assert set(plots.of_classifier(classifier.classifier, splits.val, "")) == {
        *("confusion.png", "weights.png", "mistakes.png")
    }


def test_grid_holds_the_means_and_spreads_of_the_settings(result):
    grid = plots.lay_out(result, result.best(), "val_loss", "last")
    assert {name: len(values) for name, values in grid.axes.items()} == {
        **{"learning_rate": 2, "l2": 2}
    }
    for row in result.by_setting():
        at = tuple(int(np.argmin(np.abs(v - row[name]))) for name, v in grid.axes.items())
        found = grid.val[at], grid.val_spread[at], grid.train[at]
        wanted = [row[name] for name in ("val_loss_mean", "val_loss_sd", "train_loss_mean")]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert grid.val[grid.winner] == grid.val.min()


def test_sweep_has_a_panel_per_axis_and_a_heat_map_with_the_winner_framed(result):
    grid = plots.lay_out(result, result.best(), "val_loss", "last")
    rates, penalties, heat, _ = plots.sweep(grid, "digits").axes
    assert (rates.get_xlabel(), penalties.get_xlabel()) == ("learning_rate", "l2")
    np.testing.assert_array_equal(heat.images[0].get_array(), grid.val)
    (frame,) = heat.patches
    assert (frame.get_y() + 0.5, frame.get_x() + 0.5) == grid.winner


def test_sweep_over_decades_and_a_loss_that_blows_up_are_logarithmic(splits):
    result = fit(splits, sweep.grid(learning_rate=(0.001, 0.1, 1e3)), batch_size=64)
    grid = plots.lay_out(result, result.best(), "val_loss", "last")
    (axes,) = plots.sweep(grid, "").axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert np.nanmax(grid.val) > 5 * grid.val.min()
    assert axes.get_ylim()[1] <= 100.001 * grid.val.min()


def test_sweep_with_a_diverged_trial_has_a_gap(result):
    broken = changed(result, (result.best().trial + 1) % 8, np.nan)
    grid = plots.lay_out(broken, broken.best(), "val_loss", "last")
    assert np.isnan(grid.val).sum() == 1
    assert len(plots.sweep(grid, "").axes) == 4


def test_sweep_needs_axes_that_are_crossed(splits):
    single = fit(splits, seeds=(0, 1))
    uncrossed = fit(splits, sweep.zipped(l2=(0.0, 0.1, 0.0), averaging=(0.0, 0.0, 0.5)))
    for result in single, uncrossed:
        assert plots.lay_out(result, result.best(), "val_loss", "last") is None


@pytest.mark.parametrize(
    "settings, options, names",
    [
        (
            sweep.zipped(l2=(0.0, 0.01, 0.0), patience=(0, 0, 5)),
            {"seeds": (0, 1)},
            ["baseline", "l2 0.01", "patience 5"],
        ),
        (
            sweep.zipped(l2=(0.0, 0.01, 0.0, 0.01), averaging=(0.0, 0.0, 0.5, 0.5)),
            {},
            [f"l2 {l2}, averaging {a}" for a in ("0", "0.5") for l2 in ("0", "0.01")],
        ),
        (sweep.grid(), {"batch_sizes": (8, 64)}, ["batch_size 8", "batch_size 64"]),
    ],
)
def test_setting_names_hold_what_sets_them_apart(settings, options, names):
    assert plots.setting_names(trial_table(settings, **options)) == names


def test_settings_show_means_of_trials_and_a_dot_at_the_model_that_counts(splits):
    settings = sweep.grid(learning_rate=20.0, patience=(0, 1))
    result = fit(splits, settings, num_epochs=6, batch_size=64, seeds=(0, 1))
    figure = plots.settings(result, "digits")
    names = ["train loss", "val loss", "train accuracy", "val accuracy"]
    assert [axes.get_ylabel() for axes in figure.axes] == names
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["patience 0", "patience 1"]
    for name, axes in zip(names, figure.axes, strict=True):
        values = result.metrics[name.replace(" ", "_")]
        for setting in 0, 1:
            curve, dot = axes.get_lines()[2 * setting : 2 * setting + 2]
            np.testing.assert_allclose(curve.get_ydata(), values[setting::2].mean(0), rtol=1e-6)
            judged = result.epochs("last")[setting::2]
            assert dot.get_xdata() == judged.mean()
            at = [values[2 * seed + setting, judged[seed] - 1] for seed in (0, 1)]
            assert dot.get_ydata() == pytest.approx(np.mean(at))
    curve = figure.axes[0].get_lines()[2]
    assert curve.get_xdata().max() == result.facts["stopped_epoch"].max() < 6


def test_settings_are_not_flattened_by_one_that_blew_up(splits):
    result = fit(splits, sweep.grid(learning_rate=(0.1, 1e4)), num_epochs=3, batch_size=64)
    low, high = plots.settings(result, "").axes[0].get_ylim()
    worst = result.metrics["train_loss"][1].max()
    assert low < result.metrics["train_loss"][0, -1] < high < worst / 2


def test_settings_are_two_to_ten(result, splits):
    assert plots.settings(fit(splits, seeds=(0, 1)), "") is None
    assert plots.settings(result, "") is not None
    assert plots.settings(fit(splits, sweep.grid(l2=np.linspace(0, 1, 11))), "") is None


@pytest.mark.parametrize("shape, grey", [((4, 5), True), ((4, 5, 1), True), ((4, 5, 3), False)])
def test_show_images_puts_every_image_under_its_title(shape, grey):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    figure = data.show_images(images, [f"title {i}" for i in range(5)], num_columns=3)
    assert [axes.get_title() for axes in figure.axes] == [f"title {i}" for i in range(5)]
    for axes, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image.squeeze())
        assert not axes.axison
    content = io.BytesIO()
    figure.savefig(content, format="rgba", dpi=40)
    pixels = np.frombuffer(content.getvalue(), np.uint8).reshape(-1, 4)[:, :3]
    assert grey == bool((pixels == pixels[:, :1]).all())


def test_show_images_fills_rows_from_the_top_left_without_overlaps():
    figure = data.show_images(np.zeros((5, 4, 4)), ["true\npredicted"] * 5, num_columns=3)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox().frozen() for axes in figure.axes]
    assert len({round(box.y0) for box in boxes[:3]}) == 1
    assert boxes[0].x0 < boxes[1].x0 < boxes[2].x0
    assert boxes[3].x0 == boxes[0].x0 and boxes[3].y1 < boxes[0].y0
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_show_images_size_follows_the_images():
    width, height = data.show_images(np.zeros((18, 2, 2)), ["a"] * 18, scale=2.0).get_size_inches()
    assert width == 18.0 and 4.0 < height < 5.0
    assert data.show_images(np.zeros((2, 2, 2)), "ab", scale=2.0).get_size_inches()[0] == 4.0


@pytest.mark.parametrize(
    "shape, titles, why",
    [
        ((2, 4, 4), ["a"], "2 images and 1 titles"),
        ((0, 4, 4), [], "at least one image"),
        ((2, 16), ["a", "b"], "reshape"),
        ((2, 4, 4, 2), ["a", "b"], r"not \(2, 4, 4, 2\)"),
    ],
)
def test_show_images_refuses_what_is_no_image(shape, titles, why):
    with pytest.raises(DataError, match=why):
        data.show_images(np.zeros(shape), titles)


def test_data_has_no_other_lazy_names():
    with pytest.raises(AttributeError, match="no attribute 'show_image'"):
        _ = data.show_image


ODD = ["$5 and $6", r"$\frac{", "50% $x", "half \ud800", "bell \x07", "_hidden"]


def test_text_from_data_is_drawn_as_text():
    """Nothing in a label is read as mathematics, and none stops a picture."""
    numbers = np.arange(len(ODD))
    images = np.zeros((len(ODD), 2, 2))
    model = type("Model", (), {"W": np.ones((4, len(ODD))), "label_names": ODD})
    figures = [
        plots.confusion(numbers, numbers, ODD, ODD[0]),
        plots.show_images(images, ODD, heading=ODD[0]),
        plots.weights(model, (2, 2), ODD[0]),
    ]
    for figure in figures:
        content = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            figure.savefig(content, format="svg")
        texts = [e.text for e in ElementTree.fromstring(content.getvalue()).iter() if e.text]
        assert {"$5 and $6", r"$\frac{", "50% $x", "half \ufffd", "bell \ufffd"} <= set(texts)
        assert texts.count("$5 and $6") >= 2


# Charts of the report.


class Chart:
    """An SVG taken apart: its elements, texts and marks, in units of its viewBox."""

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
def test_axis_ticks_stand_where_points_of_their_values_are_drawn(y):
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
def test_axis_of_a_sweep_has_its_values_as_ticks_in_their_order(values):
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


def test_axis_of_a_sweep_has_equal_steps_for_equal_ratios():
    chart = sweep_chart([0, 0.001, 0.01, 0.1], [1, 2, 3, 4])
    steps = np.diff(chart.ticks("x")[1])
    assert steps[1] == pytest.approx(steps[2], abs=0.01) and steps[0] > 0
    steps = np.diff(sweep_chart([1, 2, 3], [1, 2, 3]).ticks("x")[1])
    assert steps[0] == pytest.approx(steps[1], abs=0.01)


def test_axis_of_a_sweep_leaves_room_for_its_texts():
    values = np.geomspace(1e-3, 1, 200)
    _, places = sweep_chart(values, values).ticks("x")
    assert 2 <= len(places) <= 15 and np.diff(places).min() > 20


@pytest.mark.parametrize("epochs", [10, 3, 1, 237])
def test_axis_of_epochs_has_whole_numbers(epochs):
    values, _ = curve_chart(range(1, epochs + 1), np.linspace(0, 1, epochs)).ticks("x")
    assert values.size and (values == values.round()).all()


@pytest.mark.parametrize("largest, logarithmic", [(1.7, False), (90.0, True)])
def test_axis_of_a_loss_that_blows_up_is_logarithmic(largest, logarithmic):
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


def test_charts_tell_values_on_hovering():
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


def test_charts_repeat_and_share_no_ids():
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
def test_charts_of_curves_survive_any_values(points, is_loss):
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
def test_charts_of_sweeps_survive_any_values(points, metric):
    x, y = zip(*sorted(points), strict=True)
    line = Line("a", x, y, look="c1", spread=np.abs(y))
    winner = (x[0], y[0]) if math.isfinite(y[0]) else None
    Chart(charts.sweep_chart([line], "<$x$\ud800", x, metric, winner, ""))
