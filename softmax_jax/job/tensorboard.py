"""Event files for TensorBoard: a run per trial, a point per epoch. Needs tensorboardX."""

import importlib
import struct
import time
from pathlib import Path

from softmax_jax.host import WORKDIR, JobError


def recorded(epochs, folder: Path):
    """Passes the epochs of a sweep on, each written first under `folder`/tensorboard/trial_N.

    The tags put train and val side by side: train_loss is loss/train, val_top5 is top5/val. A job
    that goes on in a later process starts files of its own, and TensorBoard then drops what the
    earlier ones hold of the epochs that come again.

    Raises:
      JobError: at once if tensorboardX is not installed (exit code 2), and later if the folder
        cannot be written (3).
    """
    try:
        importlib.import_module("tensorboardX.proto.event_pb2")
    except ImportError as error:
        raise JobError(
            "config.tensorboard needs tensorboardX. Install it (pip install tensorboardX), or do "
            "without: --config.tensorboard=False."
        ) from error
    return _recorded(epochs, Path(folder) / "tensorboard")


def _recorded(epochs, folder):
    name = f"events.out.tfevents.{time.time_ns()}.softmax_jax"
    begun = set()
    for epoch in epochs:
        for row, trial in enumerate(epoch.trials.tolist()):
            path, step = folder / f"trial_{trial}" / name, int(epoch.reached[row])
            events = [] if trial in begun else _start(step)
            begun.add(trial)
            figures = {name: values[row].item() for name, values in epoch.metrics.items()}
            _append(path, [*events, _scalars(step, figures)])
        yield epoch


def _start(step):
    """The events that a file begins with: its version, and that older files end before `step`."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    return [
        Event(wall_time=time.time(), file_version="brain.Event:2"),
        Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)),
    ]


def _scalars(step, figures):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=_tag(name), simple_value=x) for name, x in figures.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _tag(name):
    role, _, what = name.partition("_")
    return f"{what}/{role}" if role in ("train", "val") else name


def _append(path, events):
    """Adds events to a file that is open only for so long: a sweep has thousands of them."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(b"".join(_record(event.SerializeToString()) for event in events))
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror or error}.", WORKDIR) from error


def _record(data):
    """A TFRecord: length, its checksum, the data, their checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checks[0] + data + checks[1]
