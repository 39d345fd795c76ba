"""Settings: the choices of hyperparameters that a sweep compares, as arrays [T]."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_jax.sweep import memory
from softmax_jax.train import Hyperparameters

NAMES = Hyperparameters._fields
# What None means in numbers: in tables, and beside settings that do have it.
OFF = {"label_smoothing": 0.0, "warmup": 0.0, "final_rate": 1.0, "averaging": 0.0, "patience": 0.0}
# Ends of a range, beyond 0, that no better value lies behind.
BOUNDS = {"final_rate": (0, 1), "averaging": (0, 1)}

_RULES = {
    "learning_rate": (lambda v: v > 0, "greater than 0"),
    "momentum": (lambda v: (v >= 0) & (v < 1), "in [0, 1)"),
    "l2": (lambda v: v >= 0, "0 or greater"),
    "init_scale": (lambda v: v >= 0, "0 or greater"),
    "label_smoothing": (lambda v: (v >= 0) & (v < 1), "in [0, 1)"),
    "warmup": (lambda v: (v >= 0) & (v < 1), "in [0, 1)"),
    "final_rate": (lambda v: (v >= 0) & (v <= 1), "in [0, 1]"),
    "averaging": (lambda v: (v >= 0) & (v <= 1), "in [0, 1]"),
    "patience": (lambda v: (v >= 0) & (v == np.floor(v)), "a whole number from 0"),
}


def grid(**axes) -> Hyperparameters:
    """Every combination of the values given: the Cartesian product, the last axis fastest.

    Axes are named after the fields of `Hyperparameters`, each a number or a sequence of distinct
    numbers; a hyperparameter that is not named keeps its default. Raises ValueError for an unknown
    axis, an empty one, a value twice, a value out of range, and a grid too large to be listed.

    >>> print(grid(learning_rate=(0.1, 0.3), l2=(0.0, 1e-4)).learning_rate)
    [0.1 0.1 0.3 0.3]
    """
    values = {name: _axis(name, value) for name, value in _complete(axes).items()}
    memory.check_table(math.prod(len(axis) for axis in values.values()))
    columns = (column.ravel() for column in np.meshgrid(*values.values(), indexing="ij"))
    return Hyperparameters(**dict(zip(values, columns, strict=True)))


def zipped(**axes) -> Hyperparameters:
    """One setting after the other: the i-th takes the i-th value of every axis.

    Axes as those of `grid`, but all of one length (a number counts for all), and with values that
    may come again. Raises ValueError for what `grid` refuses, and for a setting twice.

    >>> settings = zipped(l2=(0.0, 1e-2, 0.0), averaging=(0.0, 0.0, 0.5))  # each cure on its own
    >>> settings.l2.shape, settings.averaging.tolist()
    ((3,), [0.0, 0.0, 0.5])
    """
    settings = as_arrays(Hyperparameters(**_complete(axes)))
    if len(np.unique(np.stack(settings, axis=1), axis=0)) < len(settings.l2):
        raise ValueError("The axes make a setting twice.")
    return settings


class Distribution(NamedTuple):
    """A distribution to draw a hyperparameter from: draw(rng, n) -> array [n]."""

    draw: Callable


def uniform(low, high) -> Distribution:
    """Uniform on [low, high)."""
    return Distribution(lambda rng, n: rng.uniform(low, high, n))


def log_uniform(low, high) -> Distribution:
    """Uniform in the logarithm, on [low, high): as many draws in 0.001..0.01 as in 0.01..0.1."""
    if not 0 < low < high:
        raise ValueError(f"log_uniform needs 0 < low < high; it got {low} and {high}.")
    return Distribution(lambda rng, n: np.exp(rng.uniform(np.log(low), np.log(high), n)))


def random(n, seed, **axes) -> Hyperparameters:
    """n settings drawn independently; an axis is a `Distribution` or one fixed number.

    >>> drawn = random(3, seed=0, learning_rate=log_uniform(1e-3, 1), l2=1e-4)
    >>> drawn.learning_rate.shape, drawn.l2.tolist() == [np.float32(1e-4)] * 3
    ((3,), True)
    """
    if n < 1:
        raise ValueError(f"A random search needs n of at least 1 settings; it got {n}.")
    rng = np.random.default_rng(seed)
    columns = {}
    for name, axis in _complete(axes).items():
        column = axis.draw(rng, n) if isinstance(axis, Distribution) else np.full(n, axis)
        columns[name] = _check(name, _numbers(name, column))
    return Hyperparameters(**columns)


def as_arrays(settings: Hyperparameters) -> Hyperparameters:
    """The settings as checked float32 arrays of one common length (a number counts for all)."""
    columns = {
        name: _numbers(name, OFF[name] if column is None else column)
        for name, column in settings._asdict().items()
    }
    lengths = {len(column) for column in columns.values() if len(column) != 1}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"Settings must have one common length; it got {sorted(lengths)}.")
    n = max(lengths, default=1)
    return Hyperparameters(
        **{name: _check(name, np.broadcast_to(column, n)) for name, column in columns.items()}
    )


def in_use(settings: Hyperparameters) -> Hyperparameters:
    """The settings as the program wants them: None for what is off in all of them."""
    idle = {name: None for name, off in OFF.items() if (getattr(settings, name) == off).all()}
    return settings._replace(**idle)


def _complete(axes):
    unknown = sorted(set(axes) - set(NAMES))
    if unknown:
        raise ValueError(f"No hyperparameter {unknown[0]!r}; there are: {', '.join(NAMES)}.")
    every = Hyperparameters()._asdict() | axes
    return {name: axis for name, axis in every.items() if axis is not None}


def _axis(name, value):
    values = _numbers(name, value)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"The axis {name} is empty; give it at least one value.")
    if len(np.unique(values)) < len(values):
        raise ValueError(f"The axis {name} has a value twice: {tuple(values.tolist())}.")
    return _check(name, values)


def _numbers(name, value):
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported so
            return np.atleast_1d(np.asarray(value).astype(np.float32))
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number or numbers; it got {value!r}.") from None


def _check(name, values):
    in_range, rule = _RULES[name]
    wrong = values[~(np.isfinite(values) & in_range(values))]
    if wrong.size:
        raise ValueError(f"{name} must be finite and {rule}; it got {wrong[0]:g}.")
    return values
