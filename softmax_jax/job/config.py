"""The rules of a config's fields, the problems of a config, and the flags that set its fields.

All problems are found before anything is compiled, and reported in one message with exit code 2.
"""

import difflib
import math
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from absl import flags
from ml_collections import ConfigDict

from softmax_jax import losses, model, train, vocabulary
from softmax_jax.data.dataset import Splits
from softmax_jax.host import USAGE, JobError
from softmax_jax.hyperparameters import TABLE, TRACED
from softmax_jax.sweep import result, settings


class Rule(NamedTuple):
    """What a field may hold: accepts(value) -> bool, and the end of 'FIELD must be ...'."""

    accepts: Callable[[Any], Any]
    text: str


def _number(accepts, text):
    def check(value):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and accepts(value)

    return Rule(check, f"a finite number {text}")


def _whole(low, high=2**63 - 1):
    def check(value):
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Rule(check, f"a whole number from {low}" + (f" to {high}" if high < 2**40 else ""))


def _in_range(row):
    def check(value):
        kind = int if row.range.whole else int | float
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        return is_number and bool(row.range.accepts(value))

    return Rule(check, str(row.range))


def _one_of(names):
    return Rule(lambda value: value in names, "one of " + ", ".join(map(repr, names)))


def _class_weight(value):
    if value is None or value == "balanced":
        return True
    positive = _number(lambda v: v >= 0, "").accepts
    return isinstance(value, tuple | list) and all(map(positive, value)) and sum(value) > 0


def _sizes(value):
    return isinstance(value, tuple | list) and all(map(_whole(1).accepts, value))


_TEXT = Rule(lambda value: isinstance(value, str), "text")
_YES_OR_NO = Rule(lambda value: isinstance(value, bool), "True or False")
_DEVICES = Rule(lambda v: v == -1 or _whole(1).accepts(v), "-1 or a whole number from 1")
_SPLIT = Rule(lambda value: isinstance(value, str) and value, "a split such as 'train[:80%]'")

# 'cross_entropy' computes the logits; the exact loss without them has another name.
WITHOUT_LOGITS = {"linear_cross_entropy": vocabulary.EXACT} | {
    name: name for name in vocabulary.OBJECTIVES if name != vocabulary.EXACT
}
LOSSES = (*losses.FROM_LOGITS, *WITHOUT_LOGITS)

RULES = {
    "dataset": Rule(lambda value: isinstance(value, str) and value, "the name of a dataset"),
    "dataset_fallback": _one_of(("digits", "")),
    "data_dir": _TEXT,
    "standardize": _YES_OR_NO,
    "train_split": _SPLIT,
    "val_split": _SPLIT,
    "test_split": _TEXT,
    "model": _one_of(tuple(model.MODELS)),
    "loss": _one_of(LOSSES),
    "precision": _one_of(model.PRECISIONS),
    "num_epochs": _whole(1),
    "optimizer": _one_of(("sgd", "lbfgs")),
    "tolerance": _number(lambda v: 0 < v < 1, "between 0 and 1"),
    "l2_path": _whole(0),
    "schedule": _one_of(train.SCHEDULES),
    "class_weight": Rule(_class_weight, "None, 'balanced' or a number of 0 or more per class"),
    "combine": _one_of(("product", "zip")),
    "folds": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "outer_folds": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "bootstraps": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "chunk": _whole(0),
    "select": _one_of(settings.SELECTION_RULES),
    "select_metric": _one_of(tuple(result.validation_metrics())),
    "select_epoch": _one_of(("last", "best")),
    "refit": _YES_OR_NO,
    "predictions": _YES_OR_NO,
    "learning_curve.sizes": Rule(_sizes, "a tuple of whole numbers from 1"),
    "learning_curve.seeds": _whole(1),
    "audit_folds": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "cost_matrix": Rule(lambda v: isinstance(v, tuple | list), "a row of costs per class, or ()"),
    "tensorboard": _YES_OR_NO,
    "keep": _whole(1),
    "checkpoint_seconds": _number(lambda v: v >= 0, "of 0 or more"),
    "mesh.trials": _DEVICES,
    "mesh.batch": _DEVICES,
    "mesh.classes": _DEVICES,
} | {row.config_field: _in_range(row) for row in TABLE}
# The config's field of each axis of a sweep.
AXES = {row.name: row.config_field for row in TABLE}


def field_value(config: ConfigDict, name: str) -> Any:
    """The value of a field, a dot leading into a field of fields; None where it is missing."""
    value: Any = config
    for part in name.split("."):
        value = value[part] if part in value else None
    return value


def axis_values(config: ConfigDict, name: str) -> tuple:
    """The values of an axis: those of the sweep, or the single one of the scalar field."""
    return tuple(config.sweep[name]) or (field_value(config, AXES[name]),)


def cost_problems(cost_matrix: Any, label_names: Sequence[str]) -> list[str]:
    """The problems of a cost matrix for these classes, a line each."""
    form = f"cost_matrix must have a row of costs for each of the {len(label_names)} classes"
    rows = cost_matrix if isinstance(cost_matrix, tuple | list) else ()
    if len(rows) != len(label_names) or not all(isinstance(row, tuple | list) for row in rows):
        return [f"{form}; it is {cost_matrix!r}"]
    lengths = [len(row) for row in rows]
    if min(lengths) < 1 or max(lengths) > min(lengths):
        return [f"{form}, and each row one for each action; the rows have {lengths} costs"]
    wrong = [cost for row in rows for cost in row if not _is_finite_cost(cost)]
    return [f"each cost in cost_matrix must be a finite number; one is {cost!r}" for cost in wrong]


def _is_finite_cost(cost):
    return isinstance(cost, int | float) and not isinstance(cost, bool) and math.isfinite(cost)


_DATA_FIELDS = ("dataset", "dataset_fallback", "data_dir", "train_split", "val_split", "test_split")


def config_problems(config: ConfigDict) -> list[str]:
    """Every problem of the config that can be found without its data, a line each."""
    found = _unknown(config) + _out_of_range(config) + _sweep_problems(config)
    return found or _contradictions(config)


def problems_with(config: ConfigDict, splits: Splits) -> list[str]:
    """The problems of the config with these data, a line each."""
    if _unknown(config) or not isinstance(config.sweep.batch_size, tuple | list):
        return []
    found = cost_problems(config.cost_matrix, splits.label_names) if config.cost_matrix else []
    if config.refit and splits.val_is_test:
        found.append(
            f"refit trains on val as well, and val_split = {config.val_split!r} shares examples "
            f"with test_split = {config.test_split!r}: the test metrics would be those of examples "
            "trained on. Change one of the two, or set refit to False"
        )
    if config.optimizer == "lbfgs":  # the batch is full
        return found
    num_examples = len(splits.train.y)
    return found + [
        f"batch_size must be at most the {num_examples} training examples; it is {size}"
        for size in axis_values(config, "batch_size")
        if RULES["batch_size"].accepts(size) and size > num_examples
    ]


def names_data(config: ConfigDict) -> bool:
    """Whether the fields that name the data are all there and in range."""
    return all(name in config and bool(RULES[name].accepts(config[name])) for name in _DATA_FIELDS)


def refuse(problems: Sequence[str]) -> None:
    """Raises one JobError (exit code 2) that names all problems, if there are any."""
    if problems:
        raise JobError("The config cannot be run:\n" + "\n".join(f"  {line}" for line in problems))


def _unknown(config):
    known, names = {*RULES, "sweep"}, set(_field_names(config))
    problems = [_misspelt("config", name, known) for name in sorted(names - known)]
    problems += [f"config.{name} is missing" for name in sorted(known - names)]
    if "sweep" in config:
        problems += [
            _misspelt("config.sweep", name, AXES) for name in config.sweep if name not in AXES
        ]
        problems += [f"config.sweep.{name} is missing" for name in AXES if name not in config.sweep]
    return problems


def _field_names(config):
    """The names of the fields, those within a field after a dot."""
    for name, held in config.items():
        if isinstance(held, ConfigDict) and name != "sweep":
            yield from (f"{name}.{inner}" for inner in held)
        else:
            yield name


def _misspelt(where, name, known):
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
    return f"{where} has no field {name}; {hint}"


def _out_of_range(config):
    names = set(_field_names(config))
    return [
        f"{name} must be {rule.text}; it is {field_value(config, name)!r}"
        for name, rule in RULES.items()
        if name in names and not rule.accepts(field_value(config, name))
    ]


def _sweep_problems(config):
    problems = []
    for name, field in AXES.items():
        values = config.sweep[name] if _has_axis(config, name) else ()
        if not isinstance(values, tuple | list):
            problems.append(f"sweep.{name} must be a tuple; it is {values!r}")
            continue
        wrong = [value for value in values if not RULES[field].accepts(value)]
        problems += [
            f"each of sweep.{name} must be {RULES[field].text}; one is {v!r}" for v in wrong
        ]
        zipped = field_value(config, "combine") == "zip" and name in TRACED
        if not wrong and not zipped and len(set(values)) < len(values):
            problems.append(f"sweep.{name} has a value twice: {tuple(values)}")
    return problems


def _has_axis(config, name):
    return "sweep" in config and name in config.sweep


def _contradictions(config):
    found = []
    if config.folds and config.bootstraps:
        found.append("folds and bootstraps exclude each other; set one of them to 0")
    if config.outer_folds and not config.folds:
        found.append("outer_folds are those around the folds; set folds, too")
    resampled, metric = config.folds or config.bootstraps, config.select_metric
    if config.select == "one_se" and not resampled and metric not in ("val_loss", "val_accuracy"):
        found.append(
            "select = 'one_se' needs folds or bootstraps, or select_metric = 'val_loss' or "
            f"'val_accuracy', whose error is known; it is {metric!r}"
        )
    early = config.select_epoch == "best" or max(axis_values(config, "patience")) > 0
    if resampled and config.cost_matrix and early:
        found.append(
            "cost_matrix with folds or bootstraps needs select_epoch = 'last' and no early "
            "stopping: only the last models of all of them are kept"
        )
    if config.l2_path and config.sweep.l2:
        found.append("l2_path and sweep.l2 exclude each other; set l2_path to 0, or sweep.l2 to ()")
    found += _zip_problems(config) if config.combine == "zip" else []
    found += _loss_problems(config)
    return found + (_not_for_the_optimum(config) if config.optimizer == "lbfgs" else [])


def _loss_problems(config):
    """What a loss without logits needs, and what it does not support."""
    samples = WITHOUT_LOGITS.get(config.loss, vocabulary.EXACT) != vocabulary.EXACT
    drawn = axis_values(config, "num_samples")
    if samples and min(drawn) < 1:
        return [f"loss = {config.loss!r} needs num_samples from 1; it is {min(drawn)}"]
    if not samples and max(drawn) > 0:
        return [f"loss = {config.loss!r} draws no samples; set num_samples to 0"]
    if config.loss not in WITHOUT_LOGITS:
        return []
    found = []
    if max(axis_values(config, "label_smoothing")) > 0:
        found.append(f"loss = {config.loss!r} has no label_smoothing")
    if config.select_metric == "val_balanced_accuracy":
        found.append(f"loss = {config.loss!r} has no balanced accuracy to select by")
    return found


def _zip_problems(config):
    lengths = {name: len(config.sweep[name]) for name in TRACED if config.sweep[name]}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        return [f"combine = 'zip' needs axes of one length; they have {each}"]
    return ["l2_path needs combine = 'product'"] if config.l2_path else []


def _not_for_the_optimum(config):
    """The fields that the optimum does not depend on or does not support."""
    found = [
        f"sweep.{name} has no effect on the optimum that optimizer = 'lbfgs' finds; empty it"
        for name in AXES
        if name != "l2" and len(config.sweep[name]) > 1
    ]
    for name, needed in (("loss", "cross_entropy"), ("select_epoch", "last")):
        if config[name] != needed:
            found.append(f"optimizer = 'lbfgs' needs {name} = {needed!r}; it is {config[name]!r}")
    if config.precision == "bfloat16":
        found.append("optimizer = 'lbfgs' needs precision = 'float32' or 'float64'")
    return found


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags and the config file; for `absl.app.run(main, flags_parser=parse_flags)`.

    Returns:
      The arguments that are not flags: only the name of the program.

    Raises:
      SystemExit: a flag or the config file is wrong (exit code 2, after one message).
    """
    try:
        _check_fields(argv)
        rest = flags.FLAGS(argv)
        if flags.FLAGS.config is None:
            _exit_usage("--config is missing. Give one, as in --config=configs/default.py.")
        if len(rest) > 1:
            _exit_usage(f"{rest[1]!r} is not a flag. Settings are given as --config.FIELD=VALUE.")
        list(flags.FLAGS.config)  # raises the error of a file that could not be loaded
        if not isinstance(flags.FLAGS.config, ConfigDict):
            _exit_usage("The config file's get_config() must return an ml_collections ConfigDict.")
        return rest
    except flags.UnrecognizedFlagError as error:
        _exit_usage(
            f"There is no flag --{error.flagname}. There are --config, --config.FIELD, --workdir."
        )
    except flags.Error as error:
        _exit_usage(_in_config_file(error) if "config file" in str(error) else str(error))
    except Exception as error:  # a config file is a program: it may raise anything
        _exit_usage(_in_config_file(error))


def _check_fields(argv):
    """Finds misspelt fields before the library does, which does not name the nearest field."""
    fields = [*RULES, *(f"sweep.{name}" for name in AXES)]
    for argument in argv[1:]:
        match = re.match(r"--?config\.([\w.]+)", argument)
        if match and match[1] not in fields:
            _exit_usage(_no_field(match[1], fields))


def _no_field(name, fields):
    near = difflib.get_close_matches(name, fields, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(fields)}."
    return f"The config has no field {name}. {hint}"


def _in_config_file(error):
    """The error in the config file and its line, without the frames of the libraries."""
    chain = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for cause in chain:
        if isinstance(cause, OSError):
            return f"The config file cannot be read: {str(cause).splitlines()[-1].strip()}"
        if isinstance(cause, SyntaxError):
            where = f"{cause.filename}, line {cause.lineno}"
            return f"The config file has an error: {where}: {cause.msg}"
    # The library wraps the error: take the innermost one that passed through the file.
    located = [(cause, frame) for cause in chain if (frame := _frame_in_config(cause))]
    cause, frame = located[-1] if located else (error, None)
    at = f"{frame.filename}, line {frame.lineno}: " if frame else ""
    text = " ".join(str(cause).split()) or "no message"
    locked = re.search(r'Key "(\w+)" does not exist', text)
    if locked:
        text = _no_field(locked[1], [*RULES, *AXES])
    return f"The config file has an error: {at}{type(cause).__name__}: {text}"


def _frame_in_config(error):
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.name in ("get_config", "<module>") and not frame.filename.endswith("main.py")
    ]
    return frames[-1] if frames else None


def _exit_usage(message) -> NoReturn:
    print(f"main.py: {message}", file=sys.stderr)
    sys.exit(USAGE)
