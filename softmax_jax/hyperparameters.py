"""The one table of what may differ between trials: names, defaults, ranges, documentation.

The config and its checks, `sweep.grid`, the messages and the columns of trials.csv are made from
it; a test holds the table in docs/conventions.md equal to it. To add a hyperparameter, add a row
here and use it in `train.train_step`.
"""

import collections
import difflib
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

_LARGEST_WHOLE = 2**53  # floats represent every whole number up to here
_LONGEST_NAME = 100  # characters of a name that another one is looked for by


class Range(NamedTuple):
    """The finite numbers from low to high, without the ends that are open; or the whole ones."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    whole: bool = False

    def accepts(
        self, values: np.ndarray | np.number | Sequence | int | float
    ) -> np.ndarray | np.bool_:
        """Whether each of the values is in the range: numbers [...] -> booleans [...]."""
        try:
            values = np.asarray(values, np.float64)
        except OverflowError:  # a whole number larger than every float
            return np.bool_(False)
        inside = np.isfinite(values)
        inside &= values > self.low if self.low_open else values >= self.low
        inside &= values < self.high if self.high_open else values <= self.high
        return inside & (values == np.floor(values)) if self.whole else inside

    def __str__(self) -> str:
        """The end of the sentence 'it must be ...'.

        >>> print(Range(0, 1, high_open=True), "·", Range(0, low_open=True))
        a finite number from 0 to below 1 · a finite number greater than 0
        """
        kind = "a whole number" if self.whole else "a finite number"
        start = f"greater than {self.low:g}" if self.low_open else f"from {self.low:g}"
        if self.high >= _LARGEST_WHOLE:
            return f"{kind} {start}"
        return f"{kind} {start} to {'below ' * self.high_open}{self.high:.12g}"


class Hyperparameter(NamedTuple):
    """A row of the table.

    Attributes:
      name: of the axis in `sweep.grid` and config.sweep, and of the column in trials.csv.
      default: where it is not given.
      range: the values that it may have.
      doc: one line of documentation.
      off: the value at which the compiled program leaves it out; None: it is never left out.
      traced: whether it is a traced number of the step, in `Hyperparameters`. The others (sizes and
        seeds) are axes of the trials too, but each size is compiled as a program of its own.
      field: the config's field for its single value; '': the field has the same name.
      config_default: the default of that field, where it differs from `default`.
      optimizers: those that it is for, of `train.OPTIMIZERS` and 'lbfgs'; (): every
        minibatch optimiser.
    """

    name: str
    default: float
    range: Range
    doc: str
    off: float | None = None
    traced: bool = True
    field: str = ""
    config_default: float | None = None
    optimizers: tuple[str, ...] = ()

    @property
    def config_field(self) -> str:
        """The config's field, with a dot for a nested one."""
        return self.field or self.name

    @property
    def config_value(self) -> float | int:
        """The config's default, an int where the range is whole."""
        value = self.default if self.config_default is None else self.config_default
        return int(value) if self.range.whole else value


_UNIT = Range(0, 1)
_BELOW_1 = Range(0, 1, high_open=True)
_WHOLE = Range(0, _LARGEST_WHOLE, whole=True)

TABLE = (
    Hyperparameter(
        name="learning_rate",
        default=0.1,
        range=Range(0, low_open=True),
        doc="of minibatch optimisers: the size of a step",
    ),
    Hyperparameter(
        name="momentum",
        default=0.0,
        range=_BELOW_1,
        doc="of sgd and nesterov: the fraction of the previous update that is kept",
        off=0.0,
        optimizers=("sgd", "nesterov"),
    ),
    Hyperparameter(
        name="beta1",
        default=0.9,
        range=_BELOW_1,
        doc="of Adam: the fraction of the mean gradient so far that is kept in each step",
        off=0.9,
        optimizers=("adam", "adamw"),
    ),
    Hyperparameter(
        name="beta2",
        default=0.999,
        range=_BELOW_1,
        doc="of Adam: the same of the mean squared gradient",
        off=0.999,
        optimizers=("adam", "adamw"),
    ),
    Hyperparameter(
        name="l2",
        default=0.0,
        range=Range(0),
        doc="the objective is loss + l2/2 · ‖W‖²; the bias is not penalised",
    ),
    Hyperparameter(
        name="l1",
        default=0.0,
        range=Range(0),
        doc="of LBFGS: the objective gains l1 · ‖W‖₁, which makes weights exactly zero",
        off=0.0,
        optimizers=("lbfgs",),
    ),
    Hyperparameter(
        name="l1_group",
        default=0.0,
        range=Range(0),
        doc="of LBFGS: it gains l1_group · Σ_d ‖W_d‖₂, which makes features zero in all classes",
        off=0.0,
        optimizers=("lbfgs",),
    ),
    Hyperparameter(
        name="weight_decay",
        default=0.0,
        range=Range(0),
        doc="of AdamW: a step takes this much of W, times the rate, beside Adam's own; not of b",
        off=0.0,
        config_default=0.01,
        optimizers=("adamw",),
    ),
    Hyperparameter(
        name="init_scale",
        default=0.01,
        range=Range(0),
        doc="standard deviation of the initial weights; biases start at 0",
    ),
    Hyperparameter(
        name="label_smoothing",
        default=0.0,
        range=_BELOW_1,
        doc="s: a label gets 1 - s on itself, and s/C on every class",
        off=0.0,
    ),
    Hyperparameter(
        name="warmup",
        default=0.0,
        range=_BELOW_1,
        doc="fraction of training in which the rate rises from 0, under any schedule",
        off=0.0,
    ),
    Hyperparameter(
        name="final_rate",
        default=1.0,
        range=_UNIT,
        doc="of a schedule that decays: the last rate as a fraction of the learning rate",
        off=1.0,
        config_default=0.01,
    ),
    Hyperparameter(
        name="averaging",
        default=0.0,
        range=_UNIT,
        doc="fraction of training, at its end, over which the weights are averaged",
        off=0.0,
    ),
    Hyperparameter(
        name="patience",
        default=0.0,
        range=_WHOLE,
        doc="epochs without improvement after which a trial stops, at its best epoch; 0: never",
        off=0.0,
        field="early_stopping.patience",
    ),
    Hyperparameter(
        name="batch_size",
        default=256,
        range=Range(1, _LARGEST_WHOLE, whole=True),
        doc="examples in a minibatch",
        traced=False,
    ),
    Hyperparameter(
        name="num_samples",
        default=0,
        range=_WHOLE,
        doc="classes that a sampled loss draws for a batch; 0: none",
        traced=False,
    ),
    Hyperparameter(
        name="seed",
        default=0,
        range=Range(0, 2**32 - 1, whole=True),
        doc="of the initial weights and of the order of the examples",
        traced=False,
    ),
)

ROWS = {row.name: row for row in TABLE}
TRACED = tuple(row.name for row in TABLE if row.traced)


def of_optimizer(optimizer: str) -> tuple[str, ...]:
    """The names of the traced hyperparameters that an optimiser has.

    >>> "momentum" in of_optimizer("sgd"), "momentum" in of_optimizer("adam")
    (True, False)
    """
    return tuple(n for n in TRACED if not ROWS[n].optimizers or optimizer in ROWS[n].optimizers)


# The number that None stands for, in tables and among settings that do not leave it out.
OFF = {row.name: row.off for row in TABLE if row.traced and row.off is not None}

SPARSE = "l1", "l1_group"  # the penalties under which weights are exactly zero
# Float32 scalars, or arrays with one value per setting; the program leaves out what is None.
if TYPE_CHECKING:  # for tools that cannot know the fields, which are the rows of the table

    class Hyperparameters(tuple[Any, ...]):
        def __new__(cls, *values: Any, **named: Any) -> "Hyperparameters": ...
        def __getattr__(self, name: str) -> Any: ...
        def _asdict(self) -> dict[str, Any]: ...
        def _replace(self, **named: Any) -> "Hyperparameters": ...

else:
    Hyperparameters = collections.namedtuple(
        "Hyperparameters",
        TRACED,
        defaults=[None if name in OFF else ROWS[name].default for name in TRACED],
        module=__name__,
    )
Hyperparameters.__doc__ = "The traced hyperparameters of one model, or arrays of many. Fields:\n\n"
Hyperparameters.__doc__ += "\n".join(f"{row.name}: {row.doc}" for row in TABLE if row.traced)


def config_defaults() -> dict[str, Any]:
    """The config's fields with their defaults; a nested field is a dictionary."""
    fields: dict[str, Any] = {}
    for row in TABLE:
        *outer, name = row.config_field.split(".")
        nested = fields
        for outer_name in outer:
            nested = nested.setdefault(outer_name, {})
        nested[name] = row.config_value
    return fields


# Names in other libraries and other habits, for the hint in an error: what each may mean here.
_SYNONYMS = {
    "lr": ("learning_rate",),
    "eta": ("learning_rate",),
    "eta0": ("learning_rate",),
    "rate": ("learning_rate",),
    "step_size": ("learning_rate",),
    "alpha": ("l2",),
    "c": ("l2",),
    "lambda": ("l2",),
    "penalty": ("l2",),
    "wd": ("l2",),
    "lasso": ("l1",),
    "l1_ratio": ("l1",),
    "group_lasso": ("l1_group",),
    "b1": ("beta1",),
    "b2": ("beta2",),
    "smoothing": ("label_smoothing",),
    "epochs": ("num_epochs",),
    "epoch": ("num_epochs",),
    "max_epochs": ("num_epochs",),
    "max_iter": ("num_epochs",),
    "n_epochs": ("num_epochs",),
    "steps": ("num_epochs",),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "minibatch": ("batch_size",),
    "random_state": ("seeds", "seed"),
    "cv": ("folds",),
    "kfold": ("folds",),
    "tol": ("tolerance",),
    "solver": ("optimizer",),
    "data": ("dataset",),
    "metric": ("select_metric",),
    "scoring": ("select_metric",),
    "early_stopping": ("patience",),
}


def nearest(name: str, names: Collection[str]) -> str | None:
    """The one of the names that was probably meant, or None.

    >>> nearest("lr", TRACED), nearest("momentun", TRACED), nearest("colour", TRACED)
    ('learning_rate', 'momentum', None)
    """
    name = name[:_LONGEST_NAME]
    known = (meant for meant in _SYNONYMS.get(name.lower(), ()) if meant in names)
    return next(known, None) or next(iter(difflib.get_close_matches(name, names, n=1)), None)
