"""What a job shows while it runs: a progress bar or a log, and TensorBoard's event files."""

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import absl.logging
import numpy as np
from tqdm import tqdm

from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import processes

_BAR = "{desc} |{bar:20}| {percentage:3.0f}%{postfix} [{elapsed}<{remaining}]"

_ALL_OF_THEM, _SECONDS_BETWEEN = 100, 0.5


def say(text=""):
    """A line on the standard output, at once (a log that is being followed shows it).

    Where nobody reads any more (`| head`), or the log's disk is full, the job goes on without it.
    Of several processes only the first says anything.
    """
    if processes.is_first():
        _write(text, sys.stdout)


def warn(text):
    """A warning that nobody overlooks, on the standard error."""
    rule = "!" * 88
    if processes.is_first():
        complain(f"{rule}\nWARNING: {text}\n{rule}")


def complain(text):
    """Lines on the standard error."""
    _write(text, sys.stderr)


def warn_if(text):
    """`warn`, where there is something to warn of."""
    if text:
        warn(text)


def quieten():
    """Leaves the log to the job: of the libraries only warnings, without absl's prefix."""
    absl.logging.set_verbosity(absl.logging.WARNING)
    absl.logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))
    own = logging.getLogger("softmax_jax")
    own.setLevel(logging.INFO)


def watch(epochs, num_examples) -> Iterator:
    """Passes the epochs of a sweep on, and shows each: the best trial of those that it trained.

    num_examples: of the training split, for the rate. On a terminal a bar, elsewhere a line each:
    all of the first 100, then two a second, and the last one.
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
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Pace:
    """How fast it goes: passes over the data, all trials taken together."""

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
        self.bar.set_postfix_str(_figures(epoch, rate), refresh=False)
        self.bar.update(passes)
        self.bar.refresh()


class _Lines:
    def __init__(self, pace):
        self.pace, self.count, self.shown = pace, 0, -math.inf

    def __call__(self, epoch):
        _, rate, left = self.pace.step(epoch)
        last, since = epoch.ends and not epoch.pending, time.perf_counter() - self.shown
        if self.count < _ALL_OF_THEM or last or since >= _SECONDS_BETWEEN:
            ahead = "" if last else f"  {left:,.0f} s left"
            name = f"epoch {epoch.epoch:3d}/{epoch.run.num_epochs}{_which(epoch)}"
            say(f"{name}  {_figures(epoch, rate)}{ahead}")
            self.count, self.shown = self.count + 1, time.perf_counter()

    def close(self):
        """There is nothing to be tidied up."""


def _figures(epoch, rate):
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


def record_events(epochs, folder: Path):
    """Passes the epochs of a sweep on, each written first for TensorBoard: a run per trial.

    The files lie under `folder`/tensorboard/trial_N. The tags put train and val side by side:
    train_loss is loss/train, val_top5 is top5/val. A resumed job starts files of its own, and
    TensorBoard then drops what the earlier ones hold of the epochs that come again. Without
    tensorboardX it warns, and only passes the epochs on.

    Raises:
      JobError: the folder cannot be written (exit code 3).
    """
    try:
        from tensorboardX.record_writer import register_writer_factory
    except ImportError:
        warn("No files for TensorBoard, as tensorboardX is not installed.")
        return epochs
    register_writer_factory("append", _Appending)
    return _record(epochs, Path(folder) / "tensorboard")


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
    """The events that a file begins with: its version, and that older files end before `step`."""
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
    """Adds events to a file that is open only for so long: a sweep has thousands of them.

    By tensorboardX's `RecordWriter`, not its `SummaryWriter`: that one takes a thread and three
    descriptors for each trial, names its files by the second (a second writer of that second
    replaces the file of the first), and waits forever once its thread has died of a full disk.
    """
    from tensorboardX.record_writer import RecordWriter

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(RecordWriter(f"append:{path}")) as file:
            for event in events:
                file.write(event.SerializeToString())
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror or error}.", WORKDIR) from error


class _Appending:
    """How tensorboardX opens a file named append:PATH (its own way empties a file that exists)."""

    @staticmethod
    def open(path):
        return open(path.removeprefix("append:"), "ab")
