import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from softmax_jax import sweep
from softmax_jax.host import USAGE, WORKDIR, JobError
from softmax_jax.job import tensorboard
from tests import flat

INSTALLED = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")
RATES = (0.05, 0.1)


def start(splits, num_epochs=3):
    settings = sweep.grid(learning_rate=RATES)
    return flat.epochs(splits.train, splits.val, settings, num_epochs=num_epochs, batch_size=256)


def crc32c(data):
    """Castagnoli's checksum by its definition, bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data):
    """A checksum as TFRecord stores it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def events_of(path):
    """The events of a file, each record with its two checksums verified."""
    content, events = path.read_bytes(), []
    while content:
        length, crc = struct.unpack("<QI", content[:12])
        data = content[12 : 12 + length]
        assert crc == masked(content[:8])
        assert struct.unpack("<I", content[12 + length : 16 + length]) == (masked(data),)
        events.append(INSTALLED.Event.FromString(data))
        content = content[16 + length :]
    return events


def scalars(folder):
    """{tag: {step: value}} of the event files in a folder, older files first."""
    found = {}
    for path in sorted(folder.iterdir()):
        for event in events_of(path):
            if event.session_log.status == INSTALLED.SessionLog.START:
                for values in found.values():  # as TensorBoard does it
                    for step in [step for step in values if step >= event.step]:
                        del values[step]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_what_is_read_back_is_what_was_passed_on(splits, tmp_path):
    epochs = list(tensorboard.recorded(start(splits), tmp_path))
    folder = tmp_path / "tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == ["trial_0", "trial_1"]
    for trial in (0, 1):
        found = scalars(folder / f"trial_{trial}")
        for epoch in epochs:
            for name, values in epoch.metrics.items():
                role, what = name.split("_", 1)
                assert found[f"{what}/{role}"][epoch.epoch] == values[trial]
        assert {"loss/train", "loss/val", "accuracy/val"} <= set(found)


def test_a_file_says_first_that_it_is_one(splits, tmp_path):
    list(tensorboard.recorded(start(splits, 1), tmp_path))
    (path,) = (tmp_path / "tensorboard" / "trial_1").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    version, begin, *_ = events_of(path)
    assert version.file_version == "brain.Event:2"
    assert begin.session_log.status == INSTALLED.SessionLog.START


def test_an_epoch_is_on_disk_before_it_is_passed_on(splits, tmp_path):
    for epoch in tensorboard.recorded(start(splits), tmp_path):
        steps = scalars(tmp_path / "tensorboard" / "trial_0")["loss/train"]
        assert list(steps) == list(range(1, epoch.epoch + 1))


def one_epoch(number, loss):
    figures = {"train_loss": np.float32([loss]), "bound": np.float32([np.nan])}
    trials, reached = np.array([7]), np.array([number])
    return SimpleNamespace(epoch=number, trials=trials, reached=reached, metrics=figures)


def test_a_job_that_goes_on_replaces_the_epochs_that_come_again(tmp_path):
    for losses in ({1: 0.5, 2: 0.25, 3: 0.125}, {2: 0.5, 3: 0.75}):
        epochs = [one_epoch(number, loss) for number, loss in losses.items()]
        assert list(tensorboard.recorded(epochs, tmp_path)) == epochs
    found = scalars(tmp_path / "tensorboard" / "trial_7")
    assert found["loss/train"] == {1: 0.5, 2: 0.5, 3: 0.75}
    assert all(np.isnan(list(found["bound"].values())))


def test_without_the_library_it_ends_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.event_pb2", None)
    with pytest.raises(JobError, match="needs tensorboardX. Install it") as caught:
        tensorboard.recorded([], tmp_path)
    assert caught.value.exit_code == USAGE


def test_a_folder_that_cannot_be_written_is_a_job_error(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(JobError, match="cannot be written") as caught:
        list(tensorboard.recorded([one_epoch(1, 0.5)], tmp_path))
    assert caught.value.exit_code == WORKDIR
