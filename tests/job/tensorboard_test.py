import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from softmax_jax import sweep
from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import console

INSTALLED = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")
RATES = (0.05, 0.1)


def start(splits, num_epochs=3):
    settings = sweep.grid(learning_rate=RATES)
    return sweep.epochs(splits.train, splits.val, settings, num_epochs=num_epochs, batch_size=256)


def events_of(path):
    """The events of a file; each stands between its length with a checksum, and another one."""
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(INSTALLED.Event.FromString(content[12 : 12 + length]))
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
    epochs = list(console.record_events(start(splits), tmp_path))
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
    list(console.record_events(start(splits, 1), tmp_path))
    (path,) = (tmp_path / "tensorboard" / "trial_1").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    version, begin, *_ = events_of(path)
    assert version.file_version == "brain.Event:2"
    assert begin.session_log.status == INSTALLED.SessionLog.START


def test_an_epoch_is_on_disk_before_it_is_passed_on(splits, tmp_path):
    for epoch in console.record_events(start(splits), tmp_path):
        steps = scalars(tmp_path / "tensorboard" / "trial_0")["loss/train"]
        assert list(steps) == list(range(1, epoch.epoch + 1))


def one_epoch(number, loss):
    figures = {"train_loss": np.float32([loss]), "bound": np.float32([np.nan])}
    trials, reached = np.array([7]), np.array([number])
    return SimpleNamespace(epoch=number, trials=trials, reached=reached, metrics=figures)


def test_a_job_that_goes_on_replaces_the_epochs_that_come_again(tmp_path):
    for losses in ({1: 0.5, 2: 0.25, 3: 0.125}, {2: 0.5, 3: 0.75}):
        epochs = [one_epoch(number, loss) for number, loss in losses.items()]
        assert list(console.record_events(epochs, tmp_path)) == epochs
    found = scalars(tmp_path / "tensorboard" / "trial_7")
    assert found["loss/train"] == {1: 0.5, 2: 0.5, 3: 0.75}
    assert all(np.isnan(list(found["bound"].values())))


def test_without_the_library_the_job_goes_on_with_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX.record_writer", None)
    epochs = [one_epoch(1, 0.5)]
    assert list(console.record_events(epochs, tmp_path)) == epochs
    assert capsys.readouterr().err.count("tensorboardX is not installed") == 1
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_job_error(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(JobError, match="cannot be written") as caught:
        list(console.record_events([one_epoch(1, 0.5)], tmp_path))
    assert caught.value.exit_code == WORKDIR


def test_a_full_disk_is_a_job_error(tmp_path, monkeypatch):
    monkeypatch.setattr(console._Appending, "open", lambda _: open("/dev/full", "ab"))
    with pytest.raises(JobError, match="No space left") as caught:
        list(console.record_events([one_epoch(1, 0.5)], tmp_path))
    assert caught.value.exit_code == WORKDIR
