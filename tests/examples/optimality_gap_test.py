import numpy as np
import pytest

from examples import optimality_gap
from softmax_jax import data

RATES = (1.0, 2.0)


@pytest.fixture(scope="module")
def gaps():
    train = data.load("digits").train
    return optimality_gap.measure(train, rates=RATES, seeds=(0,))


def test_averaging_and_decay_come_to_the_optimum_in_the_time_of_the_constant_run(gaps):
    """Within 1e-3 of the certified minimum, where a constant rate stays at its own noise."""
    at_the_end = dict(zip(optimality_gap.WAYS, gaps.relative[-1, ..., 0], strict=True))
    assert gaps.epochs[-1] == 500
    assert (at_the_end["constant"] > 3e-3).all()
    for way in "average of the last half", "cosine to 1 %":
        assert (at_the_end[way] < 1e-3).all(), way
    assert at_the_end["average of the last half"][0] < 5e-4
    assert at_the_end["average of all"][1] < 1e-3
    assert at_the_end["cosine to 1 %"][1] < 1e-4


def test_no_gap_is_below_what_is_proved_of_the_minimum(gaps):
    assert gaps.bound < 1e-5
    assert (gaps.relative > -gaps.bound).all()
    assert (gaps.relative[0] > 0.5).all()


def test_the_table_and_the_picture_show_the_gaps(gaps):
    lines = optimality_gap.table(gaps, RATES).splitlines()
    assert lines[0] == "| learning rate | 1 | 2 |"
    assert lines[2].split(" | ")[1] == f"{gaps.relative[-1, 0, 0, 0]:.1e}"
    (axes,) = optimality_gap.draw(gaps, 2.0, RATES).axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    np.testing.assert_allclose(drawn["cosine to 1 %"], gaps.relative[:, 3, 1, 0])
