"""The folder of a run: reading it, and the values that the report shows of it.

Any JSON content is accepted: of an unfinished run, of an older or a newer version of this program.
"""

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from softmax_jax.classifier import load
from softmax_jax.host import DataError, open_regular, read_json, reading, require_memory

ROLES = ("train", "val", "nested", "test")
_COPIES = 10  # times its size: what the content of a file takes as objects


class Run(NamedTuple):
    """What a run has left in its folder so far.

    Attributes:
      name: the folder's.
      config, summary: config.json and summary.json, {} while there is none.
      metrics: {trial: {epoch: {metric: value}}}, NaN for a value that was not finite.
      trials, settings: the rows of the tables, as text.
      label_names: () before there is a model.
      figures: {file name: PNG}.
      weights: the rows of weights.csv, as text, where the features have names.
    """

    name: str
    config: dict
    summary: dict
    metrics: dict[int, dict[int, dict[str, float]]]
    trials: list[dict[str, str]]
    settings: list[dict[str, str]]
    label_names: tuple
    figures: dict[str, bytes]
    weights: Sequence[dict[str, str]] = ()

    @property
    def finished(self) -> bool:
        """Whether the run has ended: all numbers are written before summary.json."""
        return bool(self.summary)


def read(folder: Path) -> Run:
    """Reads the folder of a run. Only config.json, which a run writes first, must exist.

    Raises:
      DataError: it holds no run, or a file in it is damaged.
    """
    if not os.path.lexists(folder / "config.json"):
        raise DataError(
            f"{folder} holds no run: there is no config.json in it. Give the folder that main.py "
            "wrote to (--workdir, or one under runs/)."
        )
    has_model = os.path.lexists(folder / "params.npz")
    return Run(
        name=folder.resolve().name,
        config=_read_object(folder / "config.json"),
        summary=_read_object(folder / "summary.json"),
        metrics=_read_metrics(folder / "metrics.jsonl"),
        trials=_read_rows(folder / "trials.csv"),
        settings=_read_rows(folder / "settings.csv"),
        label_names=load(folder).label_names if has_model else (),
        figures={path.name: _read_png(path) for path in sorted(folder.glob("*.png"))},
        weights=_read_rows(folder / "weights.csv"),
    )


def _read_object(path):
    """A JSON object; {} if there is no such file."""
    if not os.path.lexists(path):
        return {}
    with reading(path):
        value = read_json(path)
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
        return value


def _content(path):
    """The bytes of a file of the folder, which is no link and fits into memory."""
    with open_regular(path, follow=False) as file:
        size = os.fstat(file.fileno()).st_size
        require_memory(_COPIES * size, f"What is in {path}", "Show another run.")
        return file.read(size)


def _read_metrics(path):
    """The lines of metrics.jsonl by trial and epoch, without a torn last one."""
    metrics: dict[int, dict[int, dict[str, float]]] = {}
    if not os.path.lexists(path):
        return metrics
    with reading(path):
        lines = _content(path).split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            try:
                trial, epoch, values = _parse_line(json.loads(line))
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                raise ValueError(f"line {number} does not hold the metrics of a trial") from error
            metrics.setdefault(trial, {})[epoch] = values
    return metrics


def _parse_line(line):
    trial, epoch = line["trial"], line["epoch"]
    if not all(type(value) is int and 0 <= value < 2**53 for value in (trial, epoch)):
        raise ValueError
    values = {
        name: math.nan if value is None else float(value)
        for name, value in line.items()
        if name not in ("trial", "epoch") and (value is None or isinstance(value, int | float))
    }
    return trial, epoch, values


def _read_rows(path):
    """The rows of a table; [] if there is no such file."""
    if not os.path.lexists(path):
        return []
    with reading(path):
        text = io.StringIO(_content(path).decode("utf-8"), newline="")
        header, *rows = csv.reader(text, strict=True)
        for number, row in enumerate(rows, 2):
            if len(row) != len(header):
                raise ValueError(f"line {number} has {len(row)} fields instead of {len(header)}")
        return [dict(zip(header, row, strict=True)) for row in rows]


def _read_png(path):
    with reading(path):
        content = _content(path)
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError("it is not a PNG")
        return content


def section(values: Any, *names: str) -> dict:
    """A dictionary inside another; {} where there is none."""
    for name in names:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def finite(value: Any) -> float | None:
    """The value as a float, or None if it is not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def number(value: Any) -> str:
    """A number as text: four decimals, or three digits where it is very large or small.

    >>> number(0.48321), number(0.00001234), number(1437), number(None)
    ('0.4832', '1.23e-05', '1,437', '–')
    """
    if isinstance(value, bool | str):
        return str(value)
    exact = finite(value)
    if exact is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}" if abs(exact) < 1e15 else f"{exact:.3g}"
    return f"{exact:.4f}" if 1e-3 <= abs(exact) < 1e5 else f"{exact:.3g}"


def status(run: Run) -> tuple[str, str]:
    """The status of the run, and its class in the style sheet."""
    if section(run.summary, "selected"):
        return "finished", "good"
    return ("every trial diverged", "bad") if run.finished else ("unfinished", "warning")


def select_metric(run: Run) -> str:
    """The metric that the settings are compared by, such as 'val_loss'."""
    return str(section(run.config, "config").get("select_metric", "val_loss"))


def chosen_trial(run: Run) -> int | None:
    """The selected trial; of an unfinished run the best by its last loss; None without metrics."""

    def last_loss(trial):
        last = run.metrics[trial][max(run.metrics[trial])]
        loss = finite(last.get("val_loss", last.get("train_loss")))
        return math.inf if loss is None else loss

    trial = section(run.summary, "selected").get("trial")
    if isinstance(trial, int) and trial in run.metrics:
        return trial
    return min(run.metrics, key=last_loss, default=None)


def final_metrics(run: Run) -> dict[str, dict]:
    """{'val_loss': a metric cell, ...} of the selected trial, or of the best one so far."""
    selected, trial = section(run.summary, "selected"), chosen_trial(run)
    measured = {role: section(run.summary, role) for role in ("nested", "test")}
    on = {"val": selected, **measured}
    if not selected and trial is not None:
        selected = run.metrics[trial][max(run.metrics[trial])]
    given = dict(selected)
    for role, values in measured.items():
        known = (name for name in values if name != "outer_folds")
        given |= {f"{role}_{name}": values[name] for name in known}
    found = {}
    for role in ROLES:
        for name, value in given.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if name.startswith(f"{role}_") and is_number and finite(value) is not None:
                interval = interval_of(given, name)
                chosen = on.get(role, {}).get("selected_on") is True
                found[name] = metric_cell(value, interval, "selected on" if chosen else None)
    return found


def interval_of(values: dict, name: str) -> list[float] | None:
    """The interval [lo, hi] that stands beside a metric of that name; None: there is none."""
    ends = values.get(f"{name}_interval")
    known = [finite(end) for end in ends] if isinstance(ends, list) else []
    sound = [end for end in known if end is not None]
    return sound if len(sound) == len(known) == 2 else None


def notices(run: Run) -> list[str]:
    """Warnings about the metrics."""
    found: list[str] = []
    config, used = section(run.config, "config"), str(run.config.get("dataset", "unknown"))
    asked = config.get("dataset")
    if used == config.get("dataset_fallback") != asked:
        found.append(f"Trained on {used}: {asked} was not found, and the download failed.")
    selected = section(run.summary, "selected")
    test = section(run.summary, "test")
    shared = run.summary.get("val_is_test") and not selected.get("refit")
    if test and test.get("selected_on", shared):
        found.append("Validation and test share examples: the test metrics are optimistic.")
    if finite(run.summary.get("diverged")):
        diverged, trials = run.summary["diverged"], run.summary.get("trials")
        found.append(f"{diverged} of {trials} trials diverged.")
    hints = selected.get("hints")
    return found + [str(hint) for hint in hints if hint] if isinstance(hints, list) else found


def flat_fields(values: dict, prefix: str = "") -> dict[str, str]:
    """A nested dictionary as {'sweep.l2': text}, without empty values."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict) and prefix.count(".") < 4:
            flat |= flat_fields(value, f"{prefix}{name}.")
        elif value not in ([], {}, "", None):
            is_list = isinstance(value, list)
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) if is_list else str(value)
    return flat


_TOLD = ("config", "dataset", "job")  # what config.json repeats, to identify the job


def configuration(runs: list[Run]) -> dict[str, list[str]]:
    """{field: a text per run} of every field in config.json."""
    by_run = []
    for run in runs:
        used = {"dataset used": str(run.config.get("dataset", "–"))}
        rest = {name: v for name, v in run.config.items() if name not in _TOLD}
        by_run.append(flat_fields(section(run.config, "config")) | used | flat_fields(rest))
    names = dict.fromkeys(name for found in by_run for name in found)
    return {name: [found.get(name, "–") for found in by_run] for name in names}


# What follows from other fields, and is no difference of its own where one of these differs.
_FOLLOWS = {
    "dataset used": ("dataset",),
    "fingerprint": ("dataset", "dataset used", "train_split", "val_split", "test_split"),
}


def differences(fields: dict[str, list[str]]) -> dict[str, list[str]]:
    """Those of the `configuration` that differ between runs, each difference once."""
    differing = {name: cells for name, cells in fields.items() if len(set(cells)) > 1}
    return {
        name: cells
        for name, cells in differing.items()
        if not any(cause in differing for cause in _FOLLOWS.get(name, ()))
    }


def on_same_data(runs: list[Run]) -> list[list[int]]:
    """The places of the runs, those on the same data together; unknown data are like no others."""
    by_print: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        known = run.config.get("fingerprint")
        by_print.setdefault(str(place) if known is None else f"= {known}", []).append(place)
    return list(by_print.values())


def metric_cell(
    value: float | int, interval: list[float] | None = None, mark: str | None = None
) -> dict[str, Any]:
    """A block of the report: a metric with its interval, or with a mark beside it."""
    text = f"[{number(interval[0])}, {number(interval[1])}]" if interval else mark
    return {"kind": "metric", "value": value, "interval": text, "best": False}
