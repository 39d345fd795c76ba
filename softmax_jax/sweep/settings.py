"""Settings of the hyperparameters: made, listed as trials, and compared: which of them wins."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int, Integer, Num, Shaped

from softmax_jax.hyperparameters import (
    OFF,
    ROWS,
    TRACED,
    Hyperparameters,
    nearest,
    of_optimizer,
)
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
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"uniform needs low ≤ high, both finite; it got {low} and {high}.")
    return Distribution(lambda rng, n: rng.uniform(low, high, n))


def log_uniform(low: Number, high: Number) -> Distribution:
    """Uniform in the logarithm, on [low, high): as many draws in 0.001..0.01 as in 0.01..0.1."""
    if not 0 < low < high < math.inf:
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
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
        raise ValueError(f"A random search needs n of at least 1 settings; it got {n!r}.")
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
            if values.dtype.kind in "bcUS":
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
    shown: tuple[str, ...] = (*of_optimizer("sgd"), "seed", "batch_size")

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
    optimizer: str = "sgd",
) -> Trials:
    """All trials of settings × seeds × resamples × batch sizes × numbers of samples."""
    settings = as_arrays(settings)
    num_settings, folds = len(settings.l2), max(num_resamples, 1)
    shape = (len(batch_sizes), len(num_samples), len(seeds), num_settings, folds)
    size, sample, seed, setting, fold = (index.ravel() for index in np.indices(shape))
    shown = (*of_optimizer(optimizer), "seed", "batch_size", *["num_samples"] * any(num_samples))
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


SELECTION_RULES = ("best", "one_se")


class Comparison(NamedTuple):
    """The G settings, in the order of their index; their trials differ in seed and fold only.

    Attributes:
      mean: of the metric over the trials of each setting.
      spread: its standard deviation over these.
      error: the standard error of the mean, over folds or bootstrap draws; NaN without these.
      count: the number of trials.
      excluded: whether it cannot be selected: one of them diverged, or was stopped by halving.
      first: the number of the first of them.
    """

    mean: Float[np.ndarray, " G"]
    spread: Float[np.ndarray, " G"]
    error: Float[np.ndarray, " G"]
    count: Int[np.ndarray, " G"]  # type: ignore[assignment]  # hides tuple.count
    excluded: Bool[np.ndarray, " G"]
    first: Int[np.ndarray, " G"]


def compare_settings(
    setting: Int[np.ndarray, " T"],
    values: Num[np.ndarray, " T"],
    excluded: Bool[np.ndarray, " T"],
    fold: Int[np.ndarray, " T"] | None = None,
    error_factor: float = math.nan,
) -> Comparison:
    """Summarises the values of a metric by the setting of each trial.

    Args:
      setting: of each trial.
      values: of the metric.
      excluded: whether the trial, and so its setting, cannot be selected.
      fold: of each trial; None: there are no resamples.
      error_factor: see `Resamples.error_factor`; it multiplies the deviation of the means of the
        folds, since the seeds of one fold share their examples.
    """
    _, first, inverse, count = np.unique(
        setting, return_index=True, return_inverse=True, return_counts=True
    )
    mean = np.bincount(inverse, values) / count
    with np.errstate(invalid="ignore"):  # those of diverged trials may be infinite
        squares = np.bincount(inverse, np.square(values - mean[inverse]))
    spread = np.sqrt(squares / np.maximum(count - 1, 1))
    error = np.full(len(mean), math.nan)
    if fold is not None:
        error = error_factor * _deviation_of_folds(inverse, values, fold)
    return Comparison(mean, spread, error, count, np.bincount(inverse, excluded) > 0, first)


def _deviation_of_folds(setting, values, fold):
    """The standard deviation over the folds of the means over seeds, of each setting [G]."""
    _, column = np.unique(fold, return_inverse=True)
    shape = setting.max() + 1, column.max() + 1
    cells = np.ravel_multi_index((setting, column), shape)
    sums, counts = (np.bincount(cells, w, math.prod(shape)) for w in (values, None))
    with np.errstate(invalid="ignore"):
        means = (sums / np.maximum(counts, 1)).reshape(shape)
        return means.std(1, ddof=min(1, shape[1] - 1))


def winning_setting(
    comparison: Comparison,
    l2: Num[np.ndarray, " G"],
    learning_rate: Num[np.ndarray, " G"],
    *,
    sparse: Num[np.ndarray, " G"] | float = 0.0,
    larger_wins: bool = False,
    rule: str = "best",
    errors: Float[np.ndarray, " G"] | None = None,
) -> int | None:
    """The index of the winning setting, or None where none can be selected.

    Args:
      comparison: of the settings.
      l2, learning_rate: of each setting.
      sparse: l1 + l1_group of each setting: what makes it simplest, before l2.
      larger_wins: whether the metric is one of which more is better.
      rule: 'best': the best mean; ties go to the simplest setting: the largest l1 + l1_group, then
        the largest l2, then the smallest learning rate. 'one_se': the simplest setting whose mean
        is within one standard error of the best mean.
      errors: for 'one_se', the standard error of each setting's difference from the best one; None:
        that of the best one's mean serves for all.

    Raises:
      ValueError: an unknown rule; or 'one_se' without a standard error.
    """
    if rule not in SELECTION_RULES:
        raise ValueError(f"The rule must be one of {SELECTION_RULES}; it is {rule!r}.")
    cost = np.where(
        comparison.excluded, np.inf, -comparison.mean if larger_wins else comparison.mean
    )
    if not np.isfinite(cost).any():
        return None
    sparse = np.broadcast_to(sparse, cost.shape)
    best = np.lexsort((learning_rate, -np.asarray(l2), -sparse, cost))[0]
    if rule == "best":
        return int(best)
    error = comparison.error[best] if errors is None else errors
    if np.isnan(error).all():
        raise ValueError("The rule 'one_se' needs a standard error: folds or bootstrap draws.")
    within = np.flatnonzero(cost <= cost[best] + np.nan_to_num(error))
    keys = cost[within], learning_rate[within], -l2[within], -sparse[within]
    simplest = np.lexsort(keys)[0]
    return int(within[simplest])


def edge_hints(
    axes: dict[str, Num[np.ndarray, " G"]],
    chosen: int,
    num_examples: int = 2**53,
    *,
    helpless: str = "",
) -> list[str]:
    """Hints where the winner is at the end of a swept axis: the optimum may be beyond.

    There is no hint at the end of a hyperparameter's range, nor for an axis of two values, off and
    on, that is not crossed with the others.

    Args:
      axes: of the settings, by name.
      chosen: the index of the winning setting.
      num_examples: to train on, the largest batch size.
      helpless: what to say of the largest l2 instead where the features do not help.
    """
    hints, lengths = [], [len(np.unique(values)) for values in axes.values()]
    crossed = math.prod(lengths) == len(next(iter(axes.values())))
    for name, values in axes.items():
        tried, limits = np.unique(values), ROWS[name].range
        high = num_examples if name == "batch_size" else limits.high
        if len(tried) < (2 if crossed else 3):
            continue
        if values[chosen] == tried[-1] < high:
            means = helpless if name == "l2" and helpless else f": extend {name} upwards"
            hints.append(f"{name} = {tried[-1]:g} is the largest tried{means}")
        elif values[chosen] == tried[0] > limits.low:
            hints.append(f"{name} = {tried[0]:g} is the smallest tried: extend {name} downwards")
    return hints
