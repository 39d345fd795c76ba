"""The folder of a job: made, checked and written; every file appears whole or not at all."""

import contextlib
import csv
import io
import json
import math
import time
from pathlib import Path

import jax
import numpy as np

from softmax_jax.data.files import replacing
from softmax_jax.job.errors import WORKDIR, JobError


class Workdir:
    """A folder for the results of one job; `''` is a new one under runs/.

    Only the first process writes. Raises JobError (exit code 3) where the folder cannot be used.
    """

    def __init__(self, folder=""):
        self.path = Path(folder) if folder else None

    def open(self):
        """Makes the folder, if it is not there."""
        path = self.path or Path("runs")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.path = self.path or _fresh(path)
        except OSError as error:
            raise unusable(path, error) from error

    def write_bytes(self, name, content: bytes):
        """A file that appears whole or not at all."""
        if not is_writer():
            return
        try:
            with replacing(self.path / name) as file:
                file.write(content)
        except OSError as error:
            raise unusable(self.path / name, error) from error

    def write_json(self, name, value):
        """Indented JSON; a number that is not finite becomes null."""
        self.write_bytes(name, (json.dumps(_plain(value), indent=2) + "\n").encode())

    def write_csv(self, name, rows: list[dict]):
        """A table with a header, from rows with equal keys."""
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_bytes(name, text.getvalue().encode())

    def write_npz(self, name, **arrays):
        """Arrays by name; strings are stored as fixed-width text, never as pickles."""
        content = io.BytesIO()
        np.savez(content, **arrays)
        self.write_bytes(name, content.getvalue())

    def write_figure(self, name, figure):
        """A picture as PNG."""
        content = io.BytesIO()
        figure.savefig(content, format="png")
        self.write_bytes(name, content.getvalue())

    def write_metrics(self, lines):
        """metrics.jsonl from its start, as the checkpoint has it: nothing doubled, lost or torn."""
        self.write_bytes("metrics.jsonl", "".join(map(_line, lines)).encode())

    def append_metrics(self, epoch):
        """A line per trial of this epoch to metrics.jsonl, readable at once."""
        lines = [
            {"trial": trial, "epoch": epoch.reached[row]}
            | {name: values[row] for name, values in epoch.metrics.items()}
            for row, trial in enumerate(epoch.trials)
        ]
        if not is_writer():
            return
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write("".join(map(_line, lines)))
        except OSError as error:
            raise unusable(self.path / "metrics.jsonl", error) from error


def is_writer():
    """Whether this process writes: of several, only the first does."""
    return jax.process_index() == 0


def _line(values):
    return json.dumps(_plain(values)) + "\n"


def _fresh(parent):
    """A new folder named after the time; two jobs that start at once get one each."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for name in (stamp, *(f"{stamp}_{n}" for n in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            (parent / name).mkdir()
            return parent / name
    raise FileExistsError(f"{parent} has a thousand runs of this second")


def unusable(path, error) -> JobError:
    """What to raise where the operating system refuses to have something written."""
    reason = error.strerror or error
    return JobError(
        f"{path} cannot be written: {reason}. Choose another --workdir, or mend that.", WORKDIR
    )


def _plain(value):
    """Only what JSON has: no NumPy types, no tuples, null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(str(value)) if math.isfinite(value) else None  # np.float32: shortest text
    return value.item() if isinstance(value, np.generic) else value
