import numpy as np
import pytest

from examples import numerics, survey, survey_pictures

SWEEPS = {"float32": np.arange(-120, 121, 20.0)}


@pytest.fixture(scope="module")
def found():
    return survey.survey(SWEEPS)


def test_the_table_has_a_row_for_the_forms_that_share_their_borders(found):
    lines = numerics.table(found).splitlines()
    assert lines[0] == "| largest logit m | right | silently wrong | infinite or NaN |"
    stable = "softmax, log_softmax, cross_entropy"
    assert f"| float32: value of {stable} | -120 to 120 |  |  |" in lines
    naive = "naive_softmax, cross_entropy_from_probabilities, cross_entropy_by_definition"
    assert f"| float32: value of {naive} | -80 to 80 |  | -120 to -100, 100 to 120 |" in lines


def test_the_map_has_a_bar_for_every_span(found):
    figure = survey_pictures.verdict_map(found, SWEEPS)
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == ["float32: value", "float32: gradient"]
    spans = [sum(len(found[key][index]) for key in found) for index in range(2)]
    assert [len(axes.collections) for axes in panels] == spans


def test_the_edges_show_what_naive_softmax_returns():
    low, high, wide = survey_pictures.edges().axes
    drawn = high.get_lines()[survey.LABEL].get_ydata()
    assert drawn[0] == pytest.approx(0.665, abs=1e-3) and (drawn[-60:] != drawn[0]).all()
    assert low.patches and len(wide.get_lines()) == 2
