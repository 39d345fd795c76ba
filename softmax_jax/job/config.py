"""A config's fields: their rules and meanings, the problems of a config, the flags that set them.

All problems are found before anything is compiled, and reported in one message with exit code 2.
"""

import ast
import difflib
import functools
import importlib
import itertools
import math
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import absl.logging
from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import RequiredValueError

from softmax_jax import losses, model, train, vocabulary
from softmax_jax.data.dataset import Splits
from softmax_jax.host import (
    DONE,
    USAGE,
    JobError,
    brief,
    cut,
    message,
    open_regular,
    program,
    write_line,
)
from softmax_jax.hyperparameters import ROWS, SPARSE, TABLE, TRACED, nearest, of_optimizer
from softmax_jax.sweep import result, settings


class Rule(NamedTuple):
    """What a field may hold: accepts(value) -> bool, and the end of 'FIELD must be ...'."""

    accepts: Callable[[Any], Any]
    text: str


def _number(accepts, text):
    def check(value):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(float(value)) and accepts(value)

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


_LARGEST_WEIGHT = 1e30  # of a class: float32 holds it, and float64 the sum over all examples


def _class_weight(value):
    if value is None or value == "balanced":
        return True
    positive = _number(lambda v: v >= 0, "").accepts
    if not isinstance(value, tuple | list) or not all(map(positive, value)):
        return False
    return 0 < sum(value) and max(value) <= _LARGEST_WEIGHT


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
    "label_column": _TEXT,
    "group_column": _TEXT,
    "standardize": _YES_OR_NO,
    "train_split": _SPLIT,
    "val_split": _SPLIT,
    "test_split": _TEXT,
    "model": _one_of(tuple(model.MODELS)),
    "loss": _one_of(LOSSES),
    "precision": _one_of(model.PRECISIONS),
    "num_epochs": _whole(1),
    "optimizer": _one_of((*train.OPTIMIZERS, "lbfgs")),
    "tolerance": _number(lambda v: 0 < v < 1, "between 0 and 1"),
    "l2_path": _whole(0),
    "l1_path": _whole(0),
    "l1_group_path": _whole(0),
    "schedule": _one_of(train.SCHEDULES),
    "class_weight": Rule(
        _class_weight, "None, 'balanced' or a number per class, from 0 to 1e30 and not all 0"
    ),
    "combine": _one_of(("product", "zip")),
    "folds": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "outer_folds": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "halving.factor": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "halving.min_epochs": _whole(1),
    "stratify": _YES_OR_NO,
    "bootstraps": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "chunk": _whole(0),
    "select": _one_of(settings.SELECTION_RULES),
    "select_metric": _one_of(tuple(result.validation_metrics())),
    "select_epoch": _one_of(("last", "best")),
    "refit": _YES_OR_NO,
    "out_of_fold": _YES_OR_NO,
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
_FIELDS = (*RULES, *(f"sweep.{name}" for name in AXES))


class Field(NamedTuple):
    """A field of the config as people read of it: its default as text, and its meaning."""

    default: str
    meaning: str


@functools.cache
def described_fields() -> dict[str, Field]:
    """Every field of configs/default.py, in its order; the hyperparameters are where it has them.

    A field's meaning is the comment behind it, or without one the comment above it.
    """
    found: dict[str, Field] = {}
    above: list[str] = []
    for line in map(str.strip, (_SHIPPED / "default.py").read_text("utf-8").splitlines()):
        field = re.fullmatch(r"config\.([\w.]+) = (.+?)(?:  # (.*))?", line)
        if line == "config.update(config_defaults())":
            found |= {row.config_field: Field(f"{row.config_value:g}", row.doc) for row in TABLE}
        elif field and field[1] in RULES:
            value = re.sub(r"config_dict\.placeholder\(.*\)", "None", field[2]).strip("\"'")
            found[field[1]] = Field(value, field[3] or " ".join(above))
        above = [*above, line.lstrip("# ")] if line.startswith("#") else []
    return found


def field_lines() -> list[str]:
    """Every field of the config as `--config.FIELD=DEFAULT`, with its meaning beside it."""
    fields = described_fields().items()
    return _two_columns({f"--config.{name}={value}": text for name, (value, text) in fields})


_COLUMN, _WIDTH = 36, 100  # of the help: where the meanings begin, and where its lines end


def _two_columns(meanings):
    lines = []
    for head, meaning in meanings.items():
        first, *more = textwrap.wrap(meaning, _WIDTH - _COLUMN) or [""]
        head = f"  {head}".ljust(_COLUMN - 1)
        lines += [f"{head} {first}"] if len(head) < _COLUMN else [head, " " * _COLUMN + first]
        lines += [" " * _COLUMN + line for line in more]
    return [line.rstrip() for line in lines]


def field_value(config: ConfigDict, name: str) -> Any:
    """The value of a field, a dot leading into a field of fields; None where it is missing."""
    value: Any = config
    for part in name.split("."):
        value = value[part] if isinstance(value, ConfigDict) and part in value else None
    return value


def obeys(rule: Rule, value: Any) -> bool:
    """Whether the rule accepts the value, which may be anything: a config file is a program."""
    try:
        return bool(rule.accepts(value))
    except Exception:  # an array has no truth, a whole number is larger than every float, ...
        return False


def axis_values(config: ConfigDict, name: str) -> tuple:
    """The values of an axis: those of the sweep, or the single one of the scalar field."""
    return tuple(config.sweep[name]) or (field_value(config, AXES[name]),)


def cost_problems(cost_matrix: Any, label_names: Sequence[str]) -> list[str]:
    """The problems of a cost matrix for these classes, a line each."""
    form = f"cost_matrix must have a row of costs for each of the {len(label_names)} classes"
    rows = cost_matrix if isinstance(cost_matrix, tuple | list) else ()
    if len(rows) != len(label_names) or not all(isinstance(row, tuple | list) for row in rows):
        return [f"{form}; it is {brief(cost_matrix)}"]
    lengths = [len(row) for row in rows]
    if min(lengths) < 1 or max(lengths) > min(lengths):
        return [f"{form}, and each row one for each action; the rows have {brief(lengths)} costs"]
    wrong = [cost for row in rows for cost in row if not obeys(_COST, cost)]
    text = f"each cost in cost_matrix must be {_COST.text}; one is"
    return [f"{text} {brief(cost)}" for cost in wrong[:_MOST_NAMED]]


_LARGEST_COST = 1e100  # sums and squares of costs stay finite
_COST = _number(lambda v: abs(v) <= _LARGEST_COST, "of at most 1e100")
_MOST_NAMED = 5  # wrong values of one field


_DATA_FIELDS = (
    *("dataset", "dataset_fallback", "data_dir", "train_split", "val_split", "test_split"),
    *("label_column", "group_column"),
)


def config_problems(config: ConfigDict) -> list[str]:
    """Every problem of the config that can be found without its data, a line each."""
    found = _unknown(config) + _out_of_range(config) + _sweep_problems(config)
    return found or _contradictions(config)


def problems_with(config: ConfigDict, splits: Splits) -> list[str]:
    """The problems of the config with these data, a line each."""
    if _unknown(config) or not isinstance(config.sweep.batch_size, tuple | list):
        return []
    given = config.cost_matrix
    wanted = obeys(RULES["cost_matrix"], given) and len(given) > 0
    found = cost_problems(given, splits.label_names) if wanted else []
    if config.refit is True and splits.val_is_test:
        found.append(
            f"refit trains on val as well, and val_split = {config.val_split!r} shares examples "
            f"with test_split = {config.test_split!r}: the test metrics would be those of examples "
            "trained on. Change one of the two, or set refit to False"
        )
    return found


def unreadable_fields(config: ConfigDict) -> list[str]:
    """The fields that nothing can be asked of: of other names than text, or required and not given.

    The library sorts the names and raises an error for a value that is not given, so they come
    before all other problems.
    """
    found = []
    for name in vars(config).get("_fields", {}):
        if not isinstance(name, str):
            found.append(f"the name of each field must be text; one is {brief(name)}")
            continue
        try:
            value = config[name]
        except RequiredValueError:
            found.append(f"config.{name} is required: give it, as in --config.{name}=VALUE")
            continue
        if isinstance(value, ConfigDict) and value is not config:
            found += unreadable_fields(value)
    return found


def names_data(config: ConfigDict) -> bool:
    """Whether the fields that name the data are all there and in range."""
    return all(name in config and obeys(RULES[name], config[name]) for name in _DATA_FIELDS)


def refuse(problems: Sequence[str]) -> None:
    """Raises one JobError (exit code 2) that names all problems, if there are any."""
    if problems:
        raise JobError("The config cannot be run:\n" + "\n".join(f"  {line}" for line in problems))


def _unknown(config):
    known, names = {*RULES, "sweep"}, set(_field_names(config))
    problems = [_misspelt("config", name, known) for name in sorted(names - known)]
    problems += [f"config.{name} is missing" for name in sorted(known - names)]
    if "sweep" in config and not isinstance(config.sweep, ConfigDict):
        problems.append(f"config.sweep must have a field per axis; it is {brief(config.sweep)}")
    elif "sweep" in config:
        problems += [
            _misspelt("config.sweep", str(name), AXES) for name in config.sweep if name not in AXES
        ]
        problems += [f"config.sweep.{name} is missing" for name in AXES if name not in config.sweep]
    return problems


def _field_names(config):
    """The names of the fields, those within a field after a dot."""
    for name, held in config.items():
        if isinstance(held, ConfigDict) and name != "sweep":
            yield from (f"{name}.{inner}" for inner in held)
        else:
            yield str(name)


def _misspelt(where, name, known):
    near = _nearest_field(name, known)
    hint = f"did you mean {near}" if near else f"there are: {', '.join(sorted(known))}"
    return f"{where} has no field {cut(name, 100)}; {hint}"


def _nearest_field(name: str, known: Collection[str]) -> str | None:
    """'FIELD? (its meaning)' of the field that was probably meant, or None.

    A bare name is looked for among the bare names, then among the last parts of those with a dot
    (patience for early_stopping.patience); lr is learning_rate here, and sweep.learning_rate there.
    """
    whole, last = name.rpartition(".")[0], name.rpartition(".")[2]
    outer = [
        field for field in known if "." in field and field.startswith(f"{whole}." * bool(whole))
    ]
    inside = {field.rpartition(".")[2]: field for field in reversed(outer)}
    if whole:
        found = inside.get(nearest(last, inside) or "") or nearest(name, known)
    else:
        bare = [field for field in known if "." not in field]
        found = nearest(name, bare) or inside.get(nearest(last, inside) or "")
    if found is None:
        return None
    field = AXES.get(found.removeprefix("sweep."), found)
    meaning = described_fields().get(field)
    return f"{found}?" + (f" ({meaning.meaning})" if meaning else "")


def _out_of_range(config):
    names = set(_field_names(config))
    return [
        f"{name} must be {rule.text}; it is {brief(field_value(config, name))}"
        for name, rule in RULES.items()
        if name in names and not obeys(rule, field_value(config, name))
    ]


def _sweep_problems(config):
    problems = []
    for name, field in AXES.items():
        values = config.sweep[name] if _has_axis(config, name) else ()
        if not isinstance(values, tuple | list):
            problems.append(f"sweep.{name} must be a tuple; it is {brief(values)}")
            continue
        wrong = [value for value in values if not obeys(RULES[field], value)]
        problems += [
            f"each of sweep.{name} must be {RULES[field].text}; one is {brief(value)}"
            for value in wrong[:_MOST_NAMED]
        ]
        zipped = name in TRACED and obeys(_one_of(("zip",)), field_value(config, "combine"))
        if not wrong and not zipped and len(set(values)) < len(values):
            problems.append(f"sweep.{name} has a value twice: {brief(tuple(values))}")
    return problems


def _has_axis(config, name):
    return isinstance(field_value(config, "sweep"), ConfigDict) and name in config.sweep


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
    if config.out_of_fold and not config.folds:
        found.append("out_of_fold needs folds: set folds, too")
    for name in ("cost_matrix", "out_of_fold"):
        if resampled and config[name] and early:
            found.append(
                f"{name} with folds or bootstraps needs select_epoch = 'last' and no early "
                "stopping: only the last models of all of them are kept"
            )
    for name in ("l2", *SPARSE):
        if config[f"{name}_path"] and config.sweep[name]:
            found.append(
                f"{name}_path and sweep.{name} exclude each other; set {name}_path to 0, or "
                f"sweep.{name} to ()"
            )
    found += _sparse_problems(config)
    found += _zip_problems(config) if config.combine == "zip" else []
    found += _loss_problems(config)
    found += _halving_problems(config) if config.halving.factor else []
    lbfgs = config.optimizer == "lbfgs"
    return found + (_not_for_the_optimum(config) if lbfgs else _optimizer_problems(config))


def _halving_problems(config):
    """What stands against comparing settings on the way."""
    found, first = [], config.halving.min_epochs
    if first >= config.num_epochs and config.optimizer != "lbfgs":
        found.append(
            f"halving.min_epochs must be below num_epochs = {config.num_epochs}; it is {first}"
        )
    if config.l2_path < 2 and all(len(axis_values(config, n)) == 1 for n in AXES if n != "seed"):
        found.append("halving compares settings, and there is only one; set halving.factor to 0")
    if config.optimizer == "lbfgs":
        found.append(
            "halving is for minibatch optimisers; with optimizer = 'lbfgs' set halving.factor to 0"
        )
    if max(axis_values(config, "patience")) > 0:
        found.append("halving and early_stopping.patience exclude each other; set one of them to 0")
    if config.outer_folds:
        found.append("halving and outer_folds exclude each other; set one of them to 0")
    return found


def _optimizer_problems(config):
    """What the optimiser needs, and what it does not have."""
    needed = {"nesterov": ("momentum", "sgd"), "adamw": ("weight_decay", "adam")}
    name, without = needed.get(config.optimizer, ("l2", ""))
    found = []
    if without and max(axis_values(config, name)) == 0:
        found.append(
            f"optimizer = {config.optimizer!r} needs a {name} above 0; without it is {without!r}"
        )
    for name in sorted({*TRACED} - {*of_optimizer(config.optimizer), *SPARSE}):
        if config.sweep[name] or field_value(config, AXES[name]) != ROWS[name].config_value:
            names = " or ".join(map(repr, ROWS[name].optimizers))
            found.append(f"{name} is for optimizer = {names}; it is {config.optimizer!r}")
    return found


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
    if config.precision == "tensorfloat32":
        found.append(f"loss = {config.loss!r} has no tensorfloat32; set precision to 'float32'")
    if max(axis_values(config, "label_smoothing")) > 0:
        found.append(f"loss = {config.loss!r} has no label_smoothing")
    if config.select_metric == "val_balanced_accuracy":
        found.append(f"loss = {config.loss!r} has no balanced accuracy to select by")
    return found


def _sparse_problems(config):
    """What penalties that make weights exactly zero need."""
    used = [n for n in SPARSE if config[f"{n}_path"] or max(axis_values(config, n)) > 0]
    if not used:
        return []
    found = []
    if config.optimizer != "lbfgs":
        found.append(
            f"{' and '.join(used)} above 0 need optimizer = 'lbfgs': SGD leaves no weight exactly "
            "zero"
        )
    if config.l1_path and config.l1_group_path:
        found.append("l1_path and l1_group_path exclude each other; set one of them to 0")
    if config.l2_path:
        found.append(f"l2_path and {used[0]} exclude each other; set l2_path to 0, or give one l2")
    studies = [n for n in ("learning_curve.sizes", "audit_folds") if field_value(config, n)]
    if studies:
        found.append(f"{' and '.join(studies)} are for models without l1 and l1_group; empty them")
    return found


def _zip_problems(config):
    lengths = {name: len(config.sweep[name]) for name in TRACED if config.sweep[name]}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        return [f"combine = 'zip' needs axes of one length; they have {each}"]
    paths = [f"{name}_path" for name in ("l2", *SPARSE) if config[f"{name}_path"]]
    return [f"{name} needs combine = 'product'" for name in paths]


def _not_for_the_optimum(config):
    """The fields that the optimum does not depend on or does not support."""
    found = [
        f"sweep.{name} has no effect on the optimum that optimizer = 'lbfgs' finds; empty it"
        for name in AXES
        if name not in ("l2", *SPARSE) and len(config.sweep[name]) > 1
    ]
    for name, needed in (("loss", "cross_entropy"), ("select_epoch", "last")):
        if config[name] != needed:
            found.append(f"optimizer = 'lbfgs' needs {name} = {needed!r}; it is {config[name]!r}")
    if config.precision in ("bfloat16", "tensorfloat32"):
        found.append("optimizer = 'lbfgs' needs precision = 'float32' or 'float64'")
    return found


_SHIPPED = Path(__file__).parents[1] / "configs"


def shipped_configs() -> dict[str, Path]:
    """{name: file} of the configs that come with the package, in the order of their names."""
    found = {path.stem: path for path in sorted(_SHIPPED.glob("*.py"))}
    return {name: path for name, path in found.items() if "def get_config(" in path.read_text()}


def config_path(given: str) -> str:
    """The file that --config means: that of a shipped config for its name, else the path given.

    What follows a colon is kept: the config's own text.

    Raises:
      JobError: it has the form of a name, and neither a config nor a file is called so (exit
        code 2).
    """
    name, colon, text = given.partition(":")
    if not re.fullmatch(r"\w+", name) or os.path.isfile(name):
        return given
    there = shipped_configs()
    if name not in there and not os.path.exists(name):
        near = difflib.get_close_matches(name[:100], there, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(there)}."
        raise JobError(
            f"No config is called {cut(name, 100)}; {hint} One of your own is given by its path, "
            "as in --config=my.py."
        )
    return f"{there[name]}{colon}{text}" if name in there else given


def list_configs() -> str:
    """A line for each shipped config: its name and the first line of its lab note."""
    notes = {name: _lab_note(path).partition("\n")[0] for name, path in shipped_configs().items()}
    width = max(map(len, notes))
    return "\n".join(f"{name:{width}}  {note}" for name, note in notes.items())


def describe_config(name: str) -> str:
    """The lab note of a shipped config, and its fields with their values and meanings.

    Raises:
      JobError: there is no config of this name (exit code 2).
    """
    path = config_path(name)
    if name not in shipped_configs():
        raise JobError(f"{brief(name)} is not a config that ships. There are:\n{list_configs()}")
    module = importlib.import_module(f"softmax_jax.configs.{name}")
    return f"{_lab_note(Path(path))}\n{describe_fields(module.get_config())}"


def describe_fields(config: ConfigDict) -> str:
    """The fields of a config: value, default if it is another, meaning."""
    default = importlib.import_module("softmax_jax.configs.default").get_config()
    lines = [""]
    for name, field in described_fields().items():
        value, usual = field_value(config, name), field_value(default, name)
        other = "" if value == usual else f"  (default: {usual!r})"
        lines.append(f"  {name} = {value!r}{other}")
        indent = 6 * " "
        lines += textwrap.wrap(field.meaning, 96, initial_indent=indent, subsequent_indent=indent)
    axes = {name: values for name, values in config.sweep.items() if values}
    lines += ["", "Axes of a sweep: sweep.NAME for each of the hyperparameters above"]
    lines += [f"  sweep.{name} = {values!r}" for name, values in axes.items()]
    return "\n".join(lines)


def _lab_note(path):
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


def define_flags() -> None:
    """Defines the flags of a job, --config, --workdir and the others, where they are not yet."""
    if "config" in flags.FLAGS:
        return
    _check_files(sys.argv[1:])
    text = "A config by its name (`softmax-jax configs` lists them), or the path of one of yours."
    try:
        config_flags.DEFINE_config_file("config", None, text)
    except flags.Error as error:  # it looks into a --flagfile at once
        _exit_usage(str(error).removeprefix("ERROR:: "))
    flags.DEFINE_string("workdir", "", "Folder for the results; '': a new one in runs/.")
    flags.DEFINE_bool("overwrite", False, "Replace the job that --workdir holds.")
    flags.DEFINE_enum("mode", "run", ["run", "check"], "'check' says what 'run' would do.")
    flags.DEFINE_bool("distributed", False, "Join the other processes of a cluster.")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags and the config file; for `absl.app.run(main, flags_parser=parse_flags)`.

    Returns:
      The arguments that are not flags: only the name of the program.

    Raises:
      SystemExit: a flag or the config file is wrong (exit code 2, after one message).
    """
    absl.logging.set_verbosity(absl.logging.ERROR)  # until the console is set up
    try:
        _check_fields(argv)
        rest = _parsed(argv)
        if flags.FLAGS.config is None:
            if flags.FLAGS["config"].present:
                _exit_usage("The config file's get_config() must return a ConfigDict, not None.")
            _exit_usage("--config is missing. Give one: --config=default, or configs/default.py.")
        if len(rest) > 1:
            _exit_usage(f"{rest[1]!r} is not a flag. Settings are given as --config.FIELD=VALUE.")
        getattr(flags.FLAGS.config, "lock", None)  # raises the error of a file that did not load
        if not isinstance(flags.FLAGS.config, ConfigDict):
            _exit_usage("The config file's get_config() must return an ml_collections ConfigDict.")
        refuse(unreadable_fields(flags.FLAGS.config))
        return rest
    except JobError as error:
        _exit_usage(str(error))
    except flags.UnrecognizedFlagError as error:
        _exit_usage(_no_flag(error.flagname))
    except flags.Error as error:
        text = str(error).removeprefix("ERROR:: ")
        _exit_usage(_in_config_file(error) if "config file" in text else text)
    except Exception as error:  # a config file is a program: it may raise anything
        _exit_usage(_in_config_file(error))


_MOST_TEXT = 1 << 20  # bytes of a config file, or of one of flags


def _check_files(arguments, seen=()):
    """Refuses config files and files of flags without an end: the libraries would read on."""
    for argument, following in itertools.pairwise([*arguments, ""]):
        match = re.match(r"\s*--?(config|flagfile)(?:=(.*))?$", argument, re.S)
        if match is None:
            continue
        value = (following if match[2] is None else match[2]).strip()
        path = os.path.expanduser(value.partition(":")[0] if match[1] == "config" else value)
        if path in seen or not os.path.exists(path) or os.path.isdir(path):
            continue  # the libraries have messages for these
        try:
            with open_regular(Path(path)) as file:
                text = file.read(_MOST_TEXT + 1)
        except OSError as error:
            _exit_usage(f"{path} cannot be read: {error.strerror or error}.")
        if len(text) > _MOST_TEXT:
            _exit_usage(f"{path} is larger than 1 MiB: it is neither a config nor a list of flags.")
        if match[1] == "flagfile":
            _check_files(text.decode("utf-8", "replace").splitlines(), (*seen, path))


_HELP = {f"{dashes}{name}" for dashes in ("-", "--") for name in ("help", "helpshort", "h", "?")}
_HELP_OF_LIBRARIES = ("--helpfull", "--helpxml")
_FLAGS = ("config", "workdir", "overwrite", "mode", "distributed")


def help_text() -> str:
    """What --help shows: the flags, and every field of the config with its default and meaning."""
    known = {f"--{name}": flags.FLAGS[name].help for name in _FLAGS if name in flags.FLAGS}
    return "\n".join(
        [
            "python main.py --config=configs/default.py --config.FIELD=VALUE --workdir=FOLDER",
            "",
            *_two_columns(known),
            "",
            "Fields of the config, with the defaults of configs/default.py; others change a few:",
            "",
            *field_lines(),
            "",
            "Several values of a hyperparameter are a sweep: --config.sweep.FIELD=VALUE,VALUE with",
            textwrap.fill(", ".join(AXES) + ".", _WIDTH),
        ]
    )


def _parsed(argv):
    """The arguments that are no flags; the help ends with 0, not with 1 as the library has it."""
    if _HELP & set(argv[1:]):
        write_line(help_text(), sys.stdout)
        sys.exit(DONE)
    try:
        return flags.FLAGS([*_with_paths(argv)])
    except SystemExit as left:
        if any(argument in _HELP_OF_LIBRARIES for argument in argv[1:]):
            sys.exit(DONE)
        _exit_usage(f"The config file ends the program (SystemExit: {brief(left.code)}).")


def _with_paths(argv):
    """The arguments, with the file of a shipped config for its name."""
    for before, argument in zip(["", *argv], argv, strict=False):
        flag, equals, value = argument.partition("=")
        if equals and flag.lstrip("-") == "config" and flag.startswith("-"):
            argument = f"{flag}={config_path(value)}"
        elif before in ("-config", "--config"):
            argument = config_path(argument)
        yield argument


def _check_fields(argv):
    """Finds misspelt fields before the library does, which does not name the nearest field."""
    for argument in argv[1:]:
        match = re.match(r"--?config\.([\w.]+)", argument)
        if match and match[1] not in _FIELDS:
            _exit_usage(_no_field(match[1], _FIELDS))


def _no_flag(name):
    near = _nearest_field(name, _FIELDS)
    hint = f"Did you mean --config.{near}" if near else "There are --config.FIELD, --workdir."
    return f"There is no flag --{name}. {hint} --help shows all flags and fields."


def _no_field(name, fields):
    near = _nearest_field(name, fields)
    hint = f"Did you mean {near}" if near else f"--help shows all; there are: {', '.join(fields)}."
    return f"The config has no field {cut(name, 100)}. {hint}"


_MOST_CAUSES = 20  # of an error, one behind the other


def _is_report(error):
    """Whether the library says with this error only that there was one."""
    return str(error).startswith("Configuration is not available because of an earlier failure")


def _in_config_file(error):
    """The error in the config file and its line, without the frames of the libraries."""
    if isinstance(error, RequiredValueError):
        return "The config file leaves a required value open (required_placeholder): set it there."
    chain = [error]
    while (chain[-1].__cause__ or chain[-1].__context__) and len(chain) < _MOST_CAUSES:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for cause in chain:
        if isinstance(cause, OSError) and str(cause).strip() and not _is_report(cause):
            return f"The config file cannot be read: {str(cause).strip().splitlines()[-1].strip()}"
        if isinstance(cause, SyntaxError):
            where = f"{cause.filename}, line {cause.lineno}"
            return f"The config file has an error: {where}: {cause.msg or 'no message'}"
    # The library wraps the error: take the innermost one that passed through the file.
    located = [(cause, frame) for cause in chain if (frame := _frame_in_config(cause))]
    cause, frame = located[-1] if located else (chain[-1], None)
    at = f"{frame.filename}, line {frame.lineno}: " if frame else ""
    text = " ".join(str(cause).split()) or "no message"
    if "get_config() takes" in text and frame is None:
        text += ". What follows the colon in --config=FILE:TEXT is given to get_config(TEXT)"
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


def _exit_usage(text) -> NoReturn:
    write_line(f"{program()}: {message(text)}", sys.stderr)
    sys.exit(USAGE)
