"""What a job shows while it runs: a progress bar or a log, and event files for TensorBoard."""

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import absl.logging
import numpy as np
from tqdm import tqdm

from softmax_jax import host
from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import processes
from softmax_jax.job.workdir import own_folder
from softmax_jax.sweep.chunks import Epoch

_BAR = "{desc} |{bar:20}| {percentage:3.0f}%{postfix} [{elapsed}<{remaining}]"

_FIRST_LINES, _SECONDS_BETWEEN = 100, 0.5


def say(text: str = "") -> None:
    """Prints a line on the standard output and flushes it.

    Where the reader has gone (`| head`) or the log's disk is full, the job continues without
    output. Of several processes only the first prints.
    """
    if processes.is_first():
        _write(text, sys.stdout)


def warn(text: str) -> None:
    """Prints a conspicuous warning on the standard error."""
    rule = "!" * 88
    if processes.is_first():
        complain(f"{rule}\nWARNING: {host.message(text)}\n{rule}")


def complain(text: str) -> None:
    """Prints lines on the standard error, from any process."""
    _write(text, sys.stderr)


def warn_if(text: str) -> None:
    """Prints the warning if it is not empty."""
    if text:
        warn(text)


def quieten() -> None:
    """Limits the libraries' log to warnings, without absl's prefix."""
    absl.logging.set_verbosity(absl.logging.WARNING)
    absl.logging.get_absl_handler().setFormatter(_Shown("%(message)s"))
    own = logging.getLogger("softmax_jax")
    own.setLevel(logging.INFO)


class _Shown(logging.Formatter):
    """Without control characters: messages of libraries hold names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return host.message(super().format(record))


def watch(epochs: Iterable[Epoch], num_examples: int) -> Iterator[Epoch]:
    """Yields the epochs of a sweep unchanged, and shows each: the best of its trials.

    On a terminal as a bar, elsewhere as a line: all of the first 100, then two a second, and the
    last one.

    Args:
      epochs: of `sweep.epochs`.
      num_examples: of the training split, for the examples per second.
    """
    show, began = None, time.perf_counter()
    for epoch in epochs:
        if show is None:
            pace = _Pace(len(epoch.run.trials.setting) * epoch.run.num_epochs, num_examples, began)
            on_terminal = sys.stderr.isatty() and processes.is_first()
            show = _Bar(pace) if on_terminal else _Lines(pace)
        if not epoch.segment:
            show(epoch)
        yield epoch
    if show is not None:
        show.close()


def _write(text, stream):
    with tqdm.external_write_mode(file=stream):
        host.write_line(text, stream)


class _Pace:
    """The speed: passes over the data, summed over all trials."""

    def __init__(self, total, num_examples, began):
        self.total, self.num_examples = total, num_examples
        self.done, self.reached = 0, {}
        self.began = self.before = began

    def step(self, epoch):
        """(passes since the last step, examples per second, seconds left)."""
        now = dict(zip(epoch.trials.tolist(), epoch.reached.tolist(), strict=True))
        passes = sum(now.values()) - sum(self.reached.get(trial, 0) for trial in now)
        self.reached.update(now)
        self.done += passes
        present = time.perf_counter()
        rate = self.num_examples * passes / (present - self.before)
        self.before = present
        return passes, rate, (self.total / max(self.done, 1) - 1) * (present - self.began)


class _Bar:
    def __init__(self, pace):
        self.pace, self.bar = pace, tqdm(total=pace.total, bar_format=_BAR)
        self.close = self.bar.close

    def __call__(self, epoch):
        passes, rate, _ = self.pace.step(epoch)
        self.bar.set_description(f"epoch {epoch.epoch}/{epoch.run.num_epochs}", refresh=False)
        self.bar.set_postfix_str(_metric_text(epoch, rate), refresh=False)
        self.bar.update(passes)
        self.bar.refresh()


class _Lines:
    def __init__(self, pace):
        self.pace, self.count, self.shown = pace, 0, -math.inf

    def __call__(self, epoch):
        _, rate, remaining = self.pace.step(epoch)
        last, since = epoch.ends and not epoch.pending, time.perf_counter() - self.shown
        if self.count < _FIRST_LINES or last or since >= _SECONDS_BETWEEN:
            eta = "" if last else f"  {remaining:,.0f} s left"
            name = f"epoch {epoch.epoch:3d}/{epoch.run.num_epochs}{_which(epoch)}"
            say(f"{name}  {_metric_text(epoch, rate)}{eta}")
            self.count, self.shown = self.count + 1, time.perf_counter()

    def close(self):
        """Lines leave nothing open."""


def _metric_text(epoch, rate):
    """'train loss .., val loss .., val accuracy .., examples/s' of the best trial by val loss."""
    shown = ["train_loss"] + [
        name for name in ("val_loss", "val_accuracy") if name in epoch.metrics
    ]
    by = epoch.metrics[shown[1] if len(shown) > 1 else "train_loss"]
    best = int(np.nanargmin(by)) if np.isfinite(by).any() else 0
    texts = [f"{name.replace('_', ' ')} {epoch.metrics[name][best]:.4f}" for name in shown]
    return "  ".join([*texts, f"{rate:,.0f} examples/s"])


def _which(epoch):
    if len(epoch.run.trials.setting) == 1:
        return ""
    first, last = epoch.trials.min(), epoch.trials.max()
    return f"  trials {first}-{last}, best:"


def record_events(epochs: Iterable[Epoch], folder: Path) -> Iterable[Epoch]:
    """Yields the epochs of a sweep unchanged, after writing each for TensorBoard: a run per trial.

    The files are `folder`/tensorboard/trial_N. The tags put train and val side by side: train_loss
    is loss/train, val_top5 is top5/val. A resumed job starts new files, and TensorBoard then drops
    repeated epochs from the earlier ones. Without tensorboardX it only warns.

    Raises:
      JobError: the folder cannot be written (exit code 3).
    """
    try:
        from tensorboardX.record_writer import register_writer_factory
    except ImportError:
        warn("No files for TensorBoard, as tensorboardX is not installed: pip install tensorboardX")
        return epochs
    register_writer_factory("append", _Appending)
    return _record(epochs, own_folder(Path(folder) / "tensorboard"))


def _record(epochs, folder):
    name = f"events.out.tfevents.{time.time_ns()}.softmax_jax"
    begun = set()
    for epoch in epochs:
        for row, trial in enumerate(epoch.trials.tolist()):
            path, step = folder / f"trial_{trial}" / name, int(epoch.reached[row])
            events = [] if trial in begun else _first_events(step)
            begun.add(trial)
            metrics = {name: values[row].item() for name, values in epoch.metrics.items()}
            _append(path, [*events, _scalars(step, metrics)])
        yield epoch


def _first_events(step):
    """The events that begin a file: its version, and that older files end before `step`."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    return [
        Event(wall_time=time.time(), file_version="brain.Event:2"),
        Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)),
    ]


def _scalars(step, metrics):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=_tag(name), simple_value=x) for name, x in metrics.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _tag(name):
    role, _, what = name.partition("_")
    return f"{what}/{role}" if role in ("train", "val") else name


def _append(path, events):
    """Appends events to a file that is open only meanwhile: a sweep has thousands of them.

    With tensorboardX's `RecordWriter` instead of its `SummaryWriter`, which takes a thread and
    three descriptors for each trial, names its files by the second (so that two may have one name),
    and waits forever once a full disk has ended its thread.
    """
    from tensorboardX.record_writer import RecordWriter

    try:
        own_folder(path.parent).mkdir(parents=True, exist_ok=True)
        with contextlib.closing(RecordWriter(f"append:{path}")) as file:
            for event in events:
                file.write(event.SerializeToString())
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror or error}.", WORKDIR) from error


class _Appending:
    """Opens append:PATH for tensorboardX, whose own way truncates an existing file."""

    @staticmethod
    def open(path):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return os.fdopen(os.open(path.removeprefix("append:"), flags, 0o666), "ab")
