"""The folder of a run as one value: finished, still going on, or broken off."""

import csv
import json
import math
from pathlib import Path
from typing import NamedTuple

from softmax_jax import classifier
from softmax_jax.data import DataError
from softmax_jax.host import reading


class Run(NamedTuple):
    """What a run has left in its folder so far.

    name: the folder's. config, summary: config.json and summary.json ({} while there is none).
    metrics: {trial: {epoch: {figure: value}}}, NaN for a value that was not finite. trials,
    settings: the rows of the tables, as text. label_names: () before there is a model.
    pictures: {file name: PNG}.
    """

    name: str
    config: dict
    summary: dict
    metrics: dict
    trials: list
    settings: list
    label_names: tuple
    pictures: dict

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: summary.json is the last file that it writes."""
        return bool(self.summary)


def read(folder: Path) -> Run:
    """Reads the folder of a run. Only config.json must be there: a run writes it first.

    Raises:
      DataError: it is not the folder of a run, or a file in it is damaged.
    """
    if not (folder / "config.json").is_file():
        raise DataError(
            f"{folder} holds no run: there is no config.json in it. Give the folder that main.py "
            "wrote to (--workdir, or one under runs/)."
        )
    has_model = (folder / "params.npz").is_file()
    return Run(
        name=folder.resolve().name,
        config=_object(folder / "config.json"),
        summary=_object(folder / "summary.json"),
        metrics=_metrics(folder / "metrics.jsonl"),
        trials=_rows(folder / "trials.csv"),
        settings=_rows(folder / "settings.csv"),
        label_names=classifier.load(folder).label_names if has_model else (),
        pictures={path.name: _picture(path) for path in sorted(folder.glob("*.png"))},
    )


def _object(path):
    """A JSON object; {} if there is no such file."""
    if not path.exists():
        return {}
    with reading(path):
        value = json.loads(path.read_text("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
        _check_depth(value)
        return value


def _check_depth(value, room=20):
    if isinstance(value, dict | list):
        if room == 0:
            raise ValueError("it is nested too deeply")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, room - 1)


def _metrics(path):
    """The lines of metrics.jsonl by trial and epoch. A torn last line has not been written yet."""
    metrics = {}
    if not path.exists():
        return metrics
    with reading(path):
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            try:
                trial, epoch, figures = _line(json.loads(line))
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                raise ValueError(f"line {number} is not the figures of a trial") from error
            metrics.setdefault(trial, {})[epoch] = figures
    return metrics


def _line(line):
    trial, epoch = line["trial"], line["epoch"]
    if not all(type(value) is int and 0 <= value < 2**53 for value in (trial, epoch)):
        raise ValueError
    figures = {
        name: math.nan if value is None else float(value)
        for name, value in line.items()
        if name not in ("trial", "epoch") and (value is None or isinstance(value, int | float))
    }
    return trial, epoch, figures


def _rows(path):
    """The rows of a table; [] if there is no such file."""
    if not path.exists():
        return []
    with reading(path), open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, strict=True)
        for number, row in enumerate(rows, 2):
            if len(row) != len(header):
                raise ValueError(f"line {number} has {len(row)} fields instead of {len(header)}")
        return [dict(zip(header, row, strict=True)) for row in rows]


def _picture(path):
    with reading(path):
        content = path.read_bytes()
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError("it is not a PNG")
        return content
