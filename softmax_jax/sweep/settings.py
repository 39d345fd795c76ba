"""What a sweep compares: settings of the hyperparameters, and the trials made of them."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int, Integer, Shaped

from softmax_jax.hyperparameters import OFF, ROWS, TRACED, Hyperparameters, nearest
from softmax_jax.sweep import mesh

Axis: TypeAlias = ArrayLike | Sequence | None  # a number or several; None: the default
Number: TypeAlias = int | float


def grid(**axes: Axis) -> Hyperparameters:
    """Every combination of the values given: the Cartesian product, the last axis fastest.

    Axes are named after the fields of `Hyperparameters`, each a number or a sequence of distinct
    numbers; a hyperparameter that is not named keeps its default.

    Raises:
      ValueError: an unknown axis, an empty one, a value twice, a value out of range, or a grid too
        large to be listed.

    >>> print(grid(learning_rate=(0.1, 0.3), l2=(0.0, 1e-4)).learning_rate)
    [0.1 0.1 0.3 0.3]
    """
    values = {name: _axis(name, value) for name, value in _complete("grid", axes).items()}
    mesh.check_table(math.prod(len(axis) for axis in values.values()))
    columns = (column.ravel() for column in np.meshgrid(*values.values(), indexing="ij"))
    return Hyperparameters(**dict(zip(values, columns, strict=True)))


def zipped(**axes: Axis) -> Hyperparameters:
    """One setting after the other: the i-th takes the i-th value of every axis.

    The axes are those of `grid`, but all of one length (a number counts for all), and may repeat
    values.

    Raises:
      ValueError: see `grid`; axes of two lengths; or a setting twice.

    >>> settings = zipped(l2=(0.0, 1e-2, 0.0), averaging=(0.0, 0.0, 0.5))  # each on its own
    >>> settings.l2.shape, settings.averaging.tolist()
    ((3,), [0.0, 0.0, 0.5])
    """
    settings = as_arrays(Hyperparameters(**_complete("zipped", axes)))
    if len(np.unique(np.stack(settings, axis=1), axis=0)) < len(settings.l2):
        raise ValueError("The axes make a setting twice.")
    return settings


class Distribution(NamedTuple):
    """A distribution to draw a hyperparameter from: draw(rng, n) -> array [n]."""

    draw: Callable[[np.random.Generator, int], Float[np.ndarray, " n"]]


def uniform(low: Number, high: Number) -> Distribution:
    """Uniform on [low, high)."""
    return Distribution(lambda rng, n: rng.uniform(low, high, n))


def log_uniform(low: Number, high: Number) -> Distribution:
    """Uniform in the logarithm, on [low, high): as many draws in 0.001..0.01 as in 0.01..0.1."""
    if not 0 < low < high:
        raise ValueError(f"log_uniform needs 0 < low < high; it got {low} and {high}.")
    return Distribution(lambda rng, n: np.exp(rng.uniform(np.log(low), np.log(high), n)))


def random(n: int, seed: int, **axes: Distribution | Axis) -> Hyperparameters:
    """n settings drawn independently; an axis is a `Distribution` or one fixed number.

    Raises:
      ValueError: n below 1, an unknown axis, or a value out of range.

    >>> drawn = random(3, seed=0, learning_rate=log_uniform(1e-3, 1), l2=1e-4)
    >>> drawn.learning_rate.shape, drawn.l2.tolist() == [np.float32(1e-4)] * 3
    ((3,), True)
    """
    if n < 1:
        raise ValueError(f"A random search needs n of at least 1 settings; it got {n}.")
    rng = np.random.default_rng(seed)
    columns = {}
    for name, axis in _complete("random", axes).items():
        column = axis.draw(rng, n) if isinstance(axis, Distribution) else np.full(n, axis)
        columns[name] = _check_range(name, _numbers(name, column))
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
        **{name: _check_range(name, np.broadcast_to(column, n)) for name, column in columns.items()}
    )


def in_use(settings: Hyperparameters) -> Hyperparameters:
    """The settings as the program wants them: None for what is off in all of them."""
    idle = {name: None for name, off in OFF.items() if (getattr(settings, name) == off).all()}
    return settings._replace(**idle)


def _complete(function, axes):
    """The axes and the defaults of all others, by name."""
    for name in axes:
        if name not in TRACED:
            near = nearest(name, TRACED)
            hint = f"did you mean {near}?" if near else f"there are: {', '.join(TRACED)}."
            raise ValueError(f"sweep.{function}() has no hyperparameter {name!r}; {hint}")
    every = Hyperparameters()._asdict() | axes
    return {name: axis for name, axis in every.items() if axis is not None}


def _axis(name, value):
    values = _numbers(name, value)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"The axis {name} is empty; give it at least one value.")
    if len(np.unique(values)) < len(values):
        raise ValueError(f"The axis {name} has a value twice: {tuple(values.tolist())}.")
    return _check_range(name, values)


def _numbers(name, value):
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported so
            values = np.atleast_1d(np.asarray(value))
            if values.dtype.kind in "bc":
                raise TypeError
            return values.astype(np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a real number or several; it is {value!r}.") from None


def _check_range(name, values):
    wrong = values[~ROWS[name].range.accepts(values)]
    if wrong.size:
        raise ValueError(f"{name} must be {ROWS[name].range}; it is {wrong[0]:g}.")
    return values


class Trials(NamedTuple):
    """A row per trial, in the order of their numbers.

    Of batch size, number of samples, seed, setting and fold, the last varies fastest.

    Attributes:
      hyperparameters: columns [T].
      batch_size: of the minibatches.
      seed: of the initial weights and of the order of the examples.
      fold: the column of the resamples; -1: there are none.
      setting: the index of what a selection compares: hyperparameters with their sizes.
      num_samples: the classes that a loss draws for a batch; 0: it draws none.
      shown: the names of the columns that matter.
    """

    hyperparameters: Hyperparameters
    batch_size: Int[np.ndarray, " T"]
    seed: Int[np.ndarray, " T"]
    fold: Int[np.ndarray, " T"]
    setting: Int[np.ndarray, " T"]
    num_samples: Int[np.ndarray, " T"]
    shown: tuple[str, ...] = (*TRACED, "seed", "batch_size")

    def row(self, trial: int | np.integer) -> dict:
        """The trial's settings by their config names, as plain numbers."""
        values = {name: shortest(column[trial]) for name, column in self.axes().items()}
        sizes = ("seed", "fold", "batch_size", "num_samples")
        values |= {name: int(getattr(self, name)[trial]) for name in sizes}
        return {name: value for name, value in values.items() if name in (*self.shown, "fold")}

    def take(self, rows: Int[np.ndarray, " n"] | Bool[np.ndarray, " T"]) -> "Trials":
        """The table of these trials."""
        return _by_column(lambda column: column[rows], self)

    def axes(self) -> dict[str, Shaped[np.ndarray, " T"]]:
        """The hyperparameters by name."""
        return self.hyperparameters._asdict()

    def columns(self) -> dict[str, Shaped[np.ndarray, " T"]]:
        """What a selection chooses among, by name: hyperparameters and sizes."""
        return self.axes() | {"batch_size": self.batch_size, "num_samples": self.num_samples}


def joined(one: Trials, other: Trials) -> Trials:
    """The trials of one table, then those of the other."""
    return _by_column(lambda *columns: np.concatenate(columns), one, other)


def _by_column(function, *tables):
    """The table whose columns are those of a function of the columns of tables."""
    columns = jax.tree.map(function, *(table._replace(shown=()) for table in tables))
    return columns._replace(shown=tables[0].shown)


def trial_table(
    settings: Hyperparameters,
    *,
    seeds: Sequence[int] | Integer[np.ndarray, " S"] = (0,),
    batch_sizes: Sequence[int] = (256,),
    num_samples: Sequence[int] = (0,),
    num_resamples: int = 0,
) -> Trials:
    """All trials of settings × seeds × resamples × batch sizes × numbers of samples."""
    settings = as_arrays(settings)
    num_settings, folds = len(settings.l2), max(num_resamples, 1)
    shape = (len(batch_sizes), len(num_samples), len(seeds), num_settings, folds)
    size, sample, seed, setting, fold = (index.ravel() for index in np.indices(shape))
    shown = Trials._field_defaults["shown"] + (("num_samples",) if any(num_samples) else ())
    return Trials(
        hyperparameters=Hyperparameters(*(column[setting] for column in settings)),
        batch_size=np.asarray(batch_sizes, np.int64)[size],
        seed=np.asarray(seeds, np.int64)[seed],
        fold=fold if num_resamples else np.full_like(fold, -1),
        setting=(size * len(num_samples) + sample) * num_settings + setting,
        num_samples=np.asarray(num_samples, np.int64)[sample],
        shown=shown,
    )


def _in_order(values):
    return list(dict.fromkeys(values.tolist()))


def shortest(value: np.number | Number) -> float:
    """The shortest float that rounds to a NumPy number: 0.1, not 0.10000000149011612."""
    return float(str(value))
