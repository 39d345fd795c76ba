import math
import re

import numpy as np
import pytest

from softmax_jax.commands.report import charts, scales
from softmax_jax.commands.report.charts import Line

X, Y = scales.linear(0, 10), scales.linear(0, 1)


def chart(*lines, **options):
    return charts.chart(list(lines), X, Y, "epoch", "loss", **options)


def path_of(parsed):
    (path,) = [attributes["d"] for name, attributes in parsed.elements if name == "path"]
    return path


def points_of(path):
    return np.array([float(part) for part in re.findall(r"-?[\d.]+", path)]).reshape(-1, 2)


def test_a_line_goes_through_its_points_in_the_scale_of_the_axes(parse):
    x, y = np.array([0.0, 2, 5, 10]), np.array([0.1, 0.9, 0.5, 0.3])
    points = points_of(path_of(parse(chart(Line("a", x.tolist(), y.tolist(), "c0")))))
    across = np.polyfit(x, points[:, 0], 1)
    down = np.polyfit(y, points[:, 1], 1)
    np.testing.assert_allclose(np.polyval(across, x), points[:, 0], atol=0.1)
    np.testing.assert_allclose(np.polyval(down, y), points[:, 1], atol=0.1)
    assert across[0] > 0 > down[0]  # to the right, and upwards


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_value_that_is_not_finite_leaves_a_gap(parse, missing):
    parsed = parse(chart(Line("a", [0, 1, 2, 3, 4], [0.1, 0.2, missing, 0.3, 0.4], "c0")))
    assert path_of(parsed).count("M") == 2
    assert len(points_of(path_of(parsed))) == len(parsed.with_class("mark")) == 4


def test_marks_say_their_values(parse):
    parsed = parse(chart(Line("val loss", [3], [0.12345], "c0"), star=(3, 0.12345)))
    assert "val loss: 0.1235 at 3" in parsed.texts
    assert "selected: epoch 3, loss 0.1235" in parsed.texts


def test_a_long_line_is_thinned_and_keeps_its_ends(parse):
    x = np.linspace(0, 10, 5001)
    points = points_of(path_of(parse(chart(Line("a", x.tolist(), (x / 10).tolist(), "c0")))))
    assert 100 < len(points) <= 302
    assert points[0].tolist() == [0, 224]
    assert points[-1].tolist() == [380, 0]


def test_a_band_runs_along_the_line_above_and_below(parse):
    parsed = parse(chart(Line("a", [0, 10], [0.5, 0.5], "c0", spread=[0.1, 0.25])))
    band = next(attributes["d"] for name, attributes in parsed.with_class("band"))
    assert points_of(band)[:, 1].tolist() == pytest.approx(
        [0.4 * 224, 0.25 * 224, 0.75 * 224, 0.6 * 224], abs=0.1
    )


def test_a_point_far_outside_stays_a_number_that_browsers_read(parse):
    parsed = parse(chart(Line("a", [0, 1], [0.5, 1e300], "c0")))
    assert np.abs(points_of(path_of(parsed))).max() <= 1e4


def test_a_legend_names_every_look(parse):
    parsed = parse(charts.legend([("c0", "train"), ("faint", "<other>")]))
    assert parsed.texts == ["train", "<other>"]
    assert [e[1]["class"] for e in parsed.with_class("swatch")] == ["swatch c0", "swatch faint"]
