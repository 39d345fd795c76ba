"""Where a value lies on an axis, and which values are written beside it."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_MOST_TICKS = 6


class Scale(NamedTuple):
    """place(value) is 0 at the start of the axis and 1 at its end; ticks are values with texts."""

    place: Callable
    ticks: list


def linear(low: float, high: float, whole=False) -> Scale:
    """An even scale with round ticks; `whole`: at whole numbers only.

    >>> [text for _, text in linear(0.0, 1.0).ticks]
    ['0', '0.2', '0.4', '0.6', '0.8', '1']
    """
    span = high - low or abs(high) or 1.0
    high = low + span
    step = _round_step(span / (_MOST_TICKS - 1))
    step = max(1.0, math.ceil(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [(k * step, f"{k * step:.6g}") for k in range(first, last + 1)]
    return Scale(lambda value: (value - low) / span, ticks)


def logarithmic(low: float, high: float) -> Scale:
    """A logarithmic scale for 0 < low <= high, with ticks at 1, 2 and 5 times powers of ten."""
    place = _log_place(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [step * 10.0**power for power in powers for step in steps]
        ticks = [(v, f"{v:g}") for v in values if low * 0.999 <= v <= high * 1.001]
        if len(ticks) <= _MOST_TICKS + 2:
            break
    return Scale(place, ticks[:: 1 + len(ticks) // 10])


def through(values: Sequence[float]) -> Scale:
    """The scale of a swept axis: its ticks are its own values, as many as have room.

    Logarithmic where the values span a decade; a zero among them is then one step further left.
    """
    values = sorted(set(values))
    positive = [value for value in values if value > 0]
    if values[0] < 0 or len(positive) < 2 or positive[-1] < 10 * positive[0]:
        place = linear(values[0], values[-1]).place
    else:
        step = (positive[-1] / positive[0]) ** (1 / (len(positive) - 1))
        zero = positive[0] / step
        along = _log_place(zero if values[0] == 0 else positive[0], positive[-1])
        place = lambda value: along(max(value, zero))  # noqa: E731
    ticks, room = [], 0.0
    for value in values:
        if not ticks or place(value) >= room:
            ticks.append((value, f"{value:g}"))
            room = place(value) + 0.03 + 0.018 * len(ticks[-1][1])
    return Scale(place, ticks)


def _log_place(low, high):
    span = math.log(high / low) or 1.0
    return lambda value: math.log(value / low) / span


def _round_step(step):
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))
