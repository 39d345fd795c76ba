"""The checks of a sweep's options: at the edge, before anything is compiled."""

import jax
import numpy as np

from softmax_jax import metrics, schedules
from softmax_jax.sweep import resampling, selection
from softmax_jax.sweep.settings import OFF, in_use

OPTIMIZERS = ("sgd", "lbfgs")


def options(train, val, num_epochs, sizes, seeds, resamples, best_by, chunk):
    """Raises one ValueError that names every option of `sweep.epochs` that is out of range."""
    num_examples = len(train.y)
    wrong = {
        f"num_epochs must be a whole number from 1; it is {num_epochs}": not _whole(num_epochs, 1),
        f"batch_size must be from 1 to the {num_examples} training examples; it is {sizes}": (
            not sizes or not all(_whole(size, 1, num_examples) for size in sizes)
        ),
        f"batch_size has a value twice: {sizes}": len(set(sizes)) < len(sizes),
        f"seeds must be distinct whole numbers from 0; they are {seeds}": not _are_seeds(seeds),
        f"chunk must be a whole number from 0; it is {chunk}": not _whole(chunk, 0),
        f"best_by must be one of {', '.join(figures())}; it is {best_by!r}": (
            best_by not in figures()
        ),
        "resamples hold out their own examples: val must be None": (
            val is not None and resamples is not None
        ),
    }
    problems = [text for text, is_wrong in wrong.items() if is_wrong]
    if problems:
        raise ValueError("; ".join(problems) + ".")
    if resamples is not None:
        resampling.check(resamples, num_examples)


def resident(optimizer, train):
    """Raises ValueError for a training set that is read in parts where all of it is needed."""
    if optimizer == "lbfgs" and train.part_size is not None:
        raise ValueError(
            "'lbfgs' needs all training examples in memory, and they are read in parts: take "
            "'sgd', fewer examples, or features of a smaller type."
        )


def classes(placement, optimizer, num_classes):
    """Raises ValueError where the devices cannot share the classes."""
    devices = placement.size("classes")
    if devices > 1 and optimizer != "sgd":
        raise ValueError("mesh.classes above 1 is for 'sgd': 'lbfgs' shares trials and examples.")
    if num_classes % devices:
        raise ValueError(
            f"mesh.classes must divide the number of classes; it is {devices}, of {num_classes:,} "
            "classes."
        )


def optimizer(name, settings, seeds, tolerance, dtype):
    """Raises ValueError for an unknown optimizer, and for what the optimum does not depend on."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {OPTIMIZERS}; it is {name!r}.")
    if dtype != np.float32 and not jax.config.jax_enable_x64:
        raise ValueError("float64 needs jax.config.update('jax_enable_x64', True) at the start.")
    if name == "sgd":
        return
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1; it is {tolerance}.")
    idle = [name for name, column in settings._asdict().items() if name != "l2" and _varies(column)]
    idle += ["seeds"] if len(seeds) > 1 else []
    if idle:
        raise ValueError(
            f"The optimum depends on l2 alone: {', '.join(idle)} cannot vary with 'lbfgs'."
        )


def cures(settings, schedule, optimizer, validated):
    """Raises ValueError for a schedule that is none, and for cures that have nothing to act on."""
    if schedule not in schedules.SCHEDULES:
        raise ValueError(f"schedule must be one of {schedules.SCHEDULES}; it is {schedule!r}.")
    used = [name for name in OFF if getattr(in_use(settings), name) is not None]
    wrong = {
        f"{', '.join(used)} cannot be had with 'lbfgs'": used and optimizer == "lbfgs",
        "a final_rate below 1 needs a schedule, 'cosine' or 'exponential'": (
            "final_rate" in used and schedule == "constant"
        ),
        f"schedule {schedule!r} decays to final_rate, which is 1 throughout: give one below 1": (
            "final_rate" not in used and schedule != "constant"
        ),
        "an exponential decay never arrives at 0: give a final_rate above 0": (
            schedule == "exponential" and not settings.final_rate.all()
        ),
        "patience waits for a validation figure: give val, or resamples": (
            "patience" in used and not validated
        ),
    }
    problems = [text for text, is_wrong in wrong.items() if is_wrong]
    if problems:
        raise ValueError("; ".join(problems) + ".")


def choice(metric, epoch, rule):
    """Raises ValueError for what `Result.best` will not take: before the training, not after."""
    if metric not in figures():
        raise ValueError(f"No metric {metric!r}; there are: {', '.join(figures())}.")
    if epoch not in ("last", "best"):
        raise ValueError(f"The epoch must be 'last' or 'best'; it is {epoch!r}.")
    if rule not in selection.RULES:
        raise ValueError(f"The rule must be one of {selection.RULES}; it is {rule!r}.")


def figures():
    """The names of the validation figures."""
    return [f"val_{name}" for name in ("loss", *metrics.METRICS)]


def _varies(column):
    return len(np.unique(column)) > 1


def _whole(value, low, high=2**63):
    return isinstance(value, int) and low <= value <= high


def _are_seeds(seeds):
    if not hasattr(seeds, "__len__"):
        return False
    seeds = [getattr(seed, "item", lambda seed=seed: seed)() for seed in seeds]
    return 0 < len(seeds) == len(set(seeds)) and all(_whole(s, 0, 2**32 - 1) for s in seeds)
