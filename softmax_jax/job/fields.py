"""The fields of a config: what each may hold, and which of them may be swept."""

import math
from collections.abc import Callable
from typing import NamedTuple

from softmax_jax import losses, models, schedules, vocabulary
from softmax_jax.sweep import checks, selection, settings


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


def _sizes(value):
    return isinstance(value, tuple | list) and all(map(_whole(1).accepts, value))


_TEXT = Rule(lambda value: isinstance(value, str), "text")
_YES_OR_NO = Rule(lambda value: isinstance(value, bool), "True or False")
_DEVICES = Rule(lambda v: v == -1 or _whole(1).accepts(v), "-1 or a whole number from 1")
_SPLIT = Rule(lambda value: isinstance(value, str) and value, "a split such as 'train[:80%]'")

# 'cross_entropy' goes by way of the logits; the exact loss without them has a name of its own.
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
    "model": _one_of(tuple(models.MODELS)),
    "loss": _one_of(LOSSES),
    "num_samples": _whole(0),
    "init_scale": _number(lambda v: v >= 0, "of 0 or more"),
    "precision": _one_of(models.PRECISIONS),
    "batch_size": _whole(1),
    "num_epochs": _whole(1),
    "optimizer": _one_of(checks.OPTIMIZERS),
    "tolerance": _number(lambda v: 0 < v < 1, "between 0 and 1"),
    "l2_path": _whole(0),
    "learning_rate": _number(lambda v: v > 0, "greater than 0"),
    "momentum": _number(lambda v: 0 <= v < 1, "from 0 to below 1"),
    "schedule": _one_of(schedules.SCHEDULES),
    "warmup": _number(lambda v: 0 <= v < 1, "from 0 to below 1"),
    "final_rate": _number(lambda v: 0 <= v <= 1, "from 0 to 1"),
    "l2": _number(lambda v: v >= 0, "of 0 or more"),
    "label_smoothing": _number(lambda v: 0 <= v < 1, "from 0 to below 1"),
    "averaging": _number(lambda v: 0 <= v <= 1, "from 0 to 1"),
    "early_stopping.patience": _whole(0),
    "class_weight": Rule(_class_weight, "None, 'balanced' or a number of 0 or more per class"),
    "seed": _whole(0, 2**32 - 1),
    "combine": _one_of(("product", "zip")),
    "folds": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "bootstraps": Rule(lambda v: v == 0 or _whole(2).accepts(v), "0 or a whole number from 2"),
    "chunk": _whole(0),
    "select": _one_of(selection.RULES),
    "select_metric": _one_of(tuple(checks.figures())),
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
}
# {axis: field}; the axes are named after hyperparameters.
AXES = {name: name for name in (*settings.NAMES, "batch_size", "num_samples", "seed")}
AXES["patience"] = "early_stopping.patience"


def value(config, name):
    """The field of that name, a dot leading into a field of fields; None where it is missing."""
    for part in name.split("."):
        config = config[part] if part in config else None
    return config


def axis(config, name) -> tuple:
    """The values of an axis: those of the sweep, or the single one of the scalar field."""
    return tuple(config.sweep[name]) or (value(config, AXES[name]),)
