"""What a config may hold: every field's rule, checked before anything is compiled."""

import difflib
import math
from collections.abc import Callable
from typing import NamedTuple

from softmax_jax import losses, models
from softmax_jax.job.errors import JobError
from softmax_jax.sweep import checks, selection


class Rule(NamedTuple):
    """accepts(value) -> bool, and the end of the sentence 'FIELD must be ...'."""

    accepts: Callable
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


def _one_of(names):
    return Rule(lambda value: value in names, "one of " + ", ".join(map(repr, names)))


def _class_weight(value):
    if value is None or value == "balanced":
        return True
    positive = _number(lambda v: v >= 0, "").accepts
    return isinstance(value, tuple | list) and all(map(positive, value)) and sum(value) > 0


_TEXT = Rule(lambda value: isinstance(value, str), "text")
_SPLIT = Rule(lambda value: isinstance(value, str) and value, "a split such as 'train[:80%]'")

RULES = {
    "dataset": Rule(lambda value: isinstance(value, str) and value, "the name of a dataset"),
    "dataset_fallback": _one_of(("digits", "")),
    "data_dir": _TEXT,
    "train_split": _SPLIT,
    "val_split": _SPLIT,
    "test_split": _TEXT,
    "model": _one_of(tuple(models.MODELS)),
    "loss": _one_of(tuple(losses.FROM_LOGITS)),
    "init_scale": _number(lambda v: v >= 0, "of 0 or more"),
    "precision": _one_of(models.PRECISIONS),
    "batch_size": _whole(1),
    "num_epochs": _whole(1),
    "learning_rate": _number(lambda v: v > 0, "greater than 0"),
    "momentum": _number(lambda v: 0 <= v < 1, "from 0 to below 1"),
    "l2": _number(lambda v: v >= 0, "of 0 or more"),
    "class_weight": Rule(_class_weight, "None, 'balanced' or a number of 0 or more per class"),
    "seed": _whole(0, 2**32 - 1),
    "folds": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "bootstraps": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "chunk": _whole(0),
    "select": _one_of(selection.RULES),
    "select_metric": _one_of(tuple(checks.figures())),
    "select_epoch": _one_of(("last", "best")),
}
AXES = ("learning_rate", "momentum", "l2", "init_scale", "batch_size", "seed")
_DATA = ("dataset", "dataset_fallback", "data_dir", "train_split", "val_split", "test_split")


def problems(config) -> list[str]:
    """Every problem of the config that shows without its data, a line each."""
    found = _unknown(config) + _out_of_range(config) + _sweep_problems(config)
    return found or _contradictions(config)


def problems_with(config, num_examples) -> list[str]:
    """The problems that show once the training examples are counted."""
    if _unknown(config) or not isinstance(config.sweep.batch_size, tuple | list):
        return []
    return [
        f"batch_size must be at most the {num_examples} training examples; it is {size}"
        for size in axis(config, "batch_size")
        if RULES["batch_size"].accepts(size) and size > num_examples
    ]


def names_data(config):
    """Whether the fields that say which data to load are all there and in range."""
    return all(name in config and RULES[name].accepts(config[name]) for name in _DATA)


def refuse(problems):
    """Raises one JobError that names all problems, if there are any."""
    if problems:
        raise JobError("The config cannot be run:\n" + "\n".join(f"  {line}" for line in problems))


def axis(config, name) -> tuple:
    """The values of an axis: those of the sweep, or the single one of the scalar field."""
    return tuple(config.sweep[name]) or (config[name],)


def _unknown(config):
    known, problems = {*RULES, "sweep"}, []
    problems += [_misspelt("config", name, known) for name in config if name not in known]
    problems += [f"config.{name} is missing" for name in sorted(known - set(config))]
    if "sweep" in config:
        problems += [
            _misspelt("config.sweep", name, AXES) for name in config.sweep if name not in AXES
        ]
        problems += [f"config.sweep.{name} is missing" for name in AXES if name not in config.sweep]
    return problems


def _misspelt(where, name, known):
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
    return f"{where} has no field {name}; {hint}"


def _out_of_range(config):
    return [
        f"{name} must be {rule.text}; it is {config[name]!r}"
        for name, rule in RULES.items()
        if name in config and not rule.accepts(config[name])
    ]


def _sweep_problems(config):
    problems = []
    for name in AXES:
        values = config.sweep[name] if _has_axis(config, name) else ()
        if not isinstance(values, tuple | list):
            problems.append(f"sweep.{name} must be a tuple; it is {values!r}")
            continue
        wrong = [value for value in values if not RULES[name].accepts(value)]
        problems += [
            f"each of sweep.{name} must be {RULES[name].text}; one is {v!r}" for v in wrong
        ]
        if not wrong and len(set(values)) < len(values):
            problems.append(f"sweep.{name} has a value twice: {tuple(values)}")
    return problems


def _has_axis(config, name):
    return "sweep" in config and name in config.sweep


def _contradictions(config):
    found = []
    if config.folds and config.bootstraps:
        found.append("folds and bootstraps exclude each other; set one of them to 0")
    replicates = len(axis(config, "seed")) * max(config.folds, config.bootstraps, 1)
    if config.select == "one_se" and replicates < 2:
        found.append("select = 'one_se' needs a spread: two or more seeds, folds or bootstraps")
    return found
