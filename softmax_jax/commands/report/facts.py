"""What a run says of itself, whatever its JSON holds: unfinished, older or newer than this code."""

import math
from typing import NamedTuple

from softmax_jax.commands.run import Run

ROLES = ("train", "val", "test")
_PREFIXES = tuple(f"{role}_" for role in ROLES)


class Figure(NamedTuple):
    """A number, with its 95 % interval if it has one."""

    value: float
    interval: tuple | None = None


def section(values, *names) -> dict:
    """A dictionary inside another; {} where there is none."""
    for name in names:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def finite(value) -> float | None:
    """The value as a float, or None if it is no finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def status(run: Run) -> tuple[str, str]:
    """How the run stands, and a word for the style sheet."""
    if section(run.summary, "selected"):
        return "finished", "good"
    if run.finished:
        return "every trial diverged", "bad"
    return "unfinished", "warning"


def progress(run: Run) -> str:
    """How far an unfinished run has come."""
    reached = max((max(epochs) for epochs in run.metrics.values()), default=0)
    planned = section(run.config, "config").get("num_epochs", "?")
    trials = f" of {len(run.metrics):,} trials" if len(run.metrics) > 1 else ""
    return f"epoch {reached} of {planned}{trials}"


def dataset(run: Run) -> str:
    """The name of the dataset really used."""
    return str(run.config.get("dataset", "unknown"))


def metric(run: Run) -> str:
    """The figure that the settings are compared by, such as 'val_loss'."""
    return str(section(run.config, "config").get("select_metric", "val_loss"))


def chosen_trial(run: Run) -> int | None:
    """The selected trial; of an unfinished run the best by its last loss; None without figures."""
    trial = section(run.summary, "selected").get("trial")
    if isinstance(trial, int) and trial in run.metrics:
        return trial
    return min(run.metrics, key=lambda number: _last_loss(run, number), default=None)


def figures(run: Run) -> dict[str, Figure]:
    """{'val_loss': ..., 'test_accuracy': ...} of the selected trial, or of the best one so far."""
    selected, test = section(run.summary, "selected"), section(run.summary, "test")
    trial = chosen_trial(run)
    if not selected and trial is not None:
        epochs = run.metrics[trial]
        selected = epochs[max(epochs)]
    given = selected | {f"test_{name}": value for name, value in test.items()}
    found = {
        name: Figure(value, _interval(given.get(f"{name}_interval")))
        for name, value in given.items()
        if name.startswith(_PREFIXES) and _is_number(value) and finite(value) is not None
    }
    return dict(sorted(found.items(), key=lambda item: ROLES.index(item[0].split("_")[0])))


def notices(run: Run) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    config, used = section(run.config, "config"), dataset(run)
    if used == config.get("dataset_fallback") != config.get("dataset"):
        found.append(f"Trained on {used}: {config.get('dataset')} was not to be had.")
    selected = section(run.summary, "selected")
    if run.summary.get("val_is_test") and run.summary.get("test") and not selected.get("refit"):
        found.append("Validation and test share examples: the test figures are optimistic.")
    if finite(run.summary.get("diverged")):
        diverged, trials = run.summary["diverged"], run.summary.get("trials")
        found.append(f"{diverged} of {trials} trials diverged.")
    hints = selected.get("hints")
    return found + [str(hint) for hint in hints if hint] if isinstance(hints, list) else found


def fields(values: dict, prefix="") -> dict[str, str]:
    """A nested dictionary as {'sweep.l2': text}; what is empty stays out."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict) and prefix.count(".") < 4:
            flat |= fields(value, f"{prefix}{name}.")
        elif value not in ([], {}, "", None):
            is_list = isinstance(value, list)
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) if is_list else str(value)
    return flat


def _last_loss(run, trial):
    epochs = run.metrics[trial]
    last = epochs[max(epochs)]
    loss = finite(last.get("val_loss", last.get("train_loss")))
    return math.inf if loss is None else loss


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _interval(value):
    ends = [finite(end) for end in value] if isinstance(value, list) else []
    return tuple(ends) if len(ends) == 2 and None not in ends else None
