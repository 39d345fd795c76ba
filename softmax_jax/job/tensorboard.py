"""Event files for TensorBoard: a run per trial, a point per epoch, written by tensorboardX.

Its `RecordWriter`, not its `SummaryWriter`: that one takes a thread and three descriptors for each
trial, names its files by the second (a second writer of that second replaces the file of the
first), and waits forever once its thread has died of a full disk.
"""

import contextlib
import time
from pathlib import Path

from softmax_jax.job import console
from softmax_jax.job.workdir import unusable


def recorded(epochs, folder: Path):
    """Passes the epochs of a sweep on, each written first under `folder`/tensorboard/trial_N.

    The tags put train and val side by side: train_loss is loss/train, val_top5 is top5/val. A
    resumed job starts files of its own, and TensorBoard then drops what the earlier ones hold of
    the epochs that come again. Without tensorboardX it warns, and only passes the epochs on.

    Raises:
      JobError: the folder cannot be written (exit code 3).
    """
    try:
        from tensorboardX.record_writer import register_writer_factory
    except ImportError:
        console.warn("No files for TensorBoard, as tensorboardX is not installed.")
        return epochs
    register_writer_factory("append", _Appending)
    return _recorded(epochs, Path(folder) / "tensorboard")


def _recorded(epochs, folder):
    name = f"events.out.tfevents.{time.time_ns()}.softmax_jax"
    begun = set()
    for epoch in epochs:
        for row, trial in enumerate(epoch.trials.tolist()):
            path, step = folder / f"trial_{trial}" / name, int(epoch.reached[row])
            events = [] if trial in begun else _start(step)
            begun.add(trial)
            metrics = {name: values[row].item() for name, values in epoch.metrics.items()}
            _append(path, [*events, _scalars(step, metrics)])
        yield epoch


def _start(step):
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
    """Adds events to a file that is open only for so long: a sweep has thousands of them."""
    from tensorboardX.record_writer import RecordWriter

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(RecordWriter(f"append:{path}")) as file:
            for event in events:
                file.write(event.SerializeToString())
    except OSError as error:
        raise unusable(path, error) from error


class _Appending:
    """How tensorboardX opens a file named append:PATH (its own way empties a file that exists)."""

    @staticmethod
    def open(path):
        return open(path.removeprefix("append:"), "ab")
