import numpy as np
import pytest

from softmax_jax.commands.report import scales

RANGES = [
    (low, low + span)
    for low, span in np.random.default_rng(0).normal(size=(60, 2)) * [[10, 1]]
    if span > 0
]


@pytest.mark.parametrize("low, high", [*RANGES, (0, 1e-9), (1e9, 1e9 + 1), (-5, 5), (0.1, 3e7)])
def test_a_linear_scale_is_even_and_its_ticks_are_few_and_inside(low, high):
    scale = scales.linear(low, high)
    assert (scale.place(low), scale.place(high)) == pytest.approx((0, 1))
    assert scale.place((low + high) / 2) == pytest.approx(0.5, abs=1e-6)
    assert 2 <= len(scale.ticks) <= 12
    steps = np.diff([value for value, _ in scale.ticks])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-5)
    assert all(-1e-6 <= scale.place(value) <= 1 + 1e-6 for value, _ in scale.ticks)


@pytest.mark.parametrize("low, high", [(1, 10), (1, 3), (1, 1), (1, 237)])
def test_epochs_are_counted_in_whole_numbers(low, high):
    ticks = scales.linear(low, high, whole=True).ticks
    assert ticks
    assert all(text.isdigit() for _, text in ticks)


def test_a_range_of_one_value_is_still_a_scale():
    for value in (0.0, 3.0, -3.0):
        for scale in (scales.linear(value, value), scales.through([value])):
            assert 0 <= scale.place(value) <= 1
    assert scales.logarithmic(2.0, 2.0).place(2.0) == 0


@pytest.mark.parametrize("low, high", [(0.02, 0.9), (1, 1e6), (0.43, 0.62), (3e-8, 2e5)])
def test_a_logarithmic_scale_has_equal_steps_for_equal_ratios(low, high):
    scale = scales.logarithmic(low, high)
    assert (scale.place(low), scale.place(high)) == pytest.approx((0, 1))
    assert scale.place((low * high) ** 0.5) == pytest.approx(0.5)
    assert 1 <= len(scale.ticks) <= 10
    assert all(-0.01 <= scale.place(value) <= 1.01 for value, _ in scale.ticks)


def test_a_swept_axis_is_logarithmic_where_it_spans_a_decade_with_zero_one_step_before():
    scale = scales.through([0.1, 0, 0.001, 0.01])
    places = [scale.place(value) for value in (0, 0.001, 0.01, 0.1)]
    assert places == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [text for _, text in scale.ticks] == ["0", "0.001", "0.01", "0.1"]
    assert scales.through([1, 2, 3]).place(2) == pytest.approx(0.5)
    assert scales.through([-1, 1, 100]).place(1) == pytest.approx(2 / 101)


def test_the_ticks_of_many_values_leave_room_for_their_texts():
    scale = scales.through(np.geomspace(1e-3, 1, 200).tolist())
    places = [scale.place(value) for value, _ in scale.ticks]
    assert 2 <= len(places) <= 15
    assert np.diff(places).min() > 0.05
