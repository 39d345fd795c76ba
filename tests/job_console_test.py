"""A log has lines, a terminal a bar, TensorBoard its files; the epochs pass through unchanged."""

import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from softmax_jax import sweep
from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import console


def start(splits, num_epochs=1, rates=0.1):
    settings = sweep.grid(learning_rate=rates)
    return sweep.epochs(splits.train, splits.val, settings, num_epochs=num_epochs, batch_size=256)


def test_log_has_a_line_per_epoch(splits, capsys):
    seen = [epoch.metrics["val_loss"][0] for epoch in console.watch(start(splits, 2), 1437)]
    lines = capsys.readouterr().out.splitlines()
    assert len(seen) == len(lines) == 2
    for number, (line, loss) in enumerate(zip(lines, seen, strict=True), 1):
        assert line.startswith(f"epoch   {number}/2") and f"val loss {loss:.4f}" in line
        assert "train loss" in line and "val accuracy" in line and "examples/s" in line


def test_log_of_many_trials_shows_the_best(splits, capsys):
    (epoch,) = console.watch(start(splits, rates=(1e-4, 0.3)), 1437)
    said = capsys.readouterr().out
    assert "trials 0-1, best:" in said
    assert f"val loss {epoch.metrics['val_loss'].min():.4f}" in said


def test_log_of_l_bfgs_counts_trials_and_estimates_by_the_gap(splits, capsys):
    """Not by the limit of its iterations, of which a hundred million take longer than a minute."""
    settings, solver = sweep.grid(l2=(1e-3, 1.0)), sweep.LBFGS(1e-6)
    sizes = {"num_epochs": 10**8, "solver": solver}
    epochs = sweep.epochs(splits.train, splits.val, settings, **sizes)
    list(console.watch(epochs, 1437, 1e-6))
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("iteration  ") and "of 2 trials done" in first
    assert "gap " in first and "(ends at 1e-06)" in first and "left" not in first
    assert "2 of 2 trials done" in last and "left" not in last


def test_time_left_of_a_resumed_job_counts_what_is_done_here(splits, monkeypatch):
    """Each epoch takes ten seconds: after the first one here, the fourth of five, ten are left."""
    passes, now = console._Passes(start(splits, 5).run, 1437), iter((10.0, 20.0))
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(now))
    for epoch, left, advance in ((4, 10, 4), (5, 0, 1)):
        run = SimpleNamespace(num_epochs=5, trials=SimpleNamespace(setting=np.zeros(1)))
        seen = {"trials": np.zeros(1, int), "reached": np.array([epoch]), "run": run}
        metrics = {"train_loss": np.ones(1)}
        found = passes.step(SimpleNamespace(epoch=epoch, metrics=metrics, **seen))
        assert (found[0], round(found[3])) == (advance, left)


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_iterations_to_go_follow_from_the_gap(rate):
    """A gap that shrinks by e^-rate in each iteration reaches the tolerance when that says."""
    run = SimpleNamespace(trials=SimpleNamespace(setting=np.zeros(1)), num_epochs=1000)
    proofs, found = console._Proofs(run, 1e-6), []
    for iteration in (2, 4, 6):
        gap = np.exp(-rate * np.array([iteration], float))
        metrics = {"gap_bound": gap, "objective": np.ones(1)}
        facts = {"converged": np.zeros(1, bool)}
        epoch = SimpleNamespace(
            trials=np.zeros(1, int),
            reached=np.array([iteration]),
            metrics=metrics,
            facts=facts,
            run=run,
        )
        found.append(proofs._look(epoch)[1])
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], [np.log(1e6) / rate - n for n in (4, 6)])


def test_warning_stands_between_rules_on_stderr(capsys):
    console.warn("mind this")
    captured = capsys.readouterr()
    assert captured.out == "" and "WARNING: mind this" in captured.err
    assert captured.err.count("!" * 40) >= 2


@pytest.mark.parametrize("name, speak", [("stdout", console.say), ("stderr", console.warn)])
def test_full_disk_under_the_log_or_a_closed_pipe_is_no_error(monkeypatch, name, speak):
    reader, writer = os.pipe()
    os.close(reader)
    for broken in (open("/dev/full", "w"), open(writer, "w")):
        with broken:
            monkeypatch.setattr(sys, name, broken)
            speak("once")
            speak("twice")
            assert os.path.samestat(os.fstat(broken.fileno()), os.stat(os.devnull))


def test_terminal_shows_a_progress_bar(tmp_path, environment):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    command = [sys.executable, "main.py", "--config=configs/digits.py", f"--workdir={tmp_path}"]
    job = subprocess.Popen(
        [*command, "--config.num_epochs=3"],
        cwd=Path(__file__).parents[1],
        env=environment | {"TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 4096)
        except OSError:  # the other end is closed: the program has exited
            break
    os.close(ours)
    assert job.wait(timeout=60) == 0
    assert b"epoch 3/3" in said and b"100%" in said and b"val accuracy" in said
    assert b"epoch   1/3" not in said


# TensorBoard.


@pytest.fixture(scope="module")
def proto():
    """The protocol buffers of TensorBoard's files."""
    return pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")


def events_of(path, proto):
    """The events of a file; each stands between its length with a checksum, and another one."""
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(proto.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def scalars(folder, proto):
    """{tag: {step: value}} of the event files in a folder, older files first."""
    found = {}
    for path in sorted(folder.iterdir()):
        for event in events_of(path, proto):
            if event.session_log.status == proto.SessionLog.START:
                for values in found.values():  # as TensorBoard does
                    for step in [step for step in values if step >= event.step]:
                        del values[step]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_events_hold_every_metric_and_are_written_before_the_epoch_is_passed_on(
    splits, tmp_path, proto
):
    folder, epochs = tmp_path / "tensorboard", []
    for epoch in console.record_events(start(splits, 3, (0.05, 0.1)), tmp_path):
        epochs.append(epoch)
        steps = scalars(folder / "trial_0", proto)["loss/train"]
        assert list(steps) == list(range(1, epoch.epoch + 1))
    assert sorted(path.name for path in folder.iterdir()) == ["trial_0", "trial_1"]
    for trial in (0, 1):
        (path,) = (folder / f"trial_{trial}").iterdir()
        assert path.name.startswith("events.out.tfevents.")
        version, begin, *_ = events_of(path, proto)
        assert version.file_version == "brain.Event:2"
        assert begin.session_log.status == proto.SessionLog.START
        found = scalars(folder / f"trial_{trial}", proto)
        for epoch in epochs:
            for name, values in epoch.metrics.items():
                role, what = name.split("_", 1)
                assert found[f"{what}/{role}"][epoch.epoch] == values[trial]
        assert {"loss/train", "loss/val", "accuracy/val"} <= set(found)


def one_epoch(number, loss):
    metrics = {"train_loss": np.float32([loss]), "bound": np.float32([np.nan])}
    trials, reached = np.array([7]), np.array([number])
    return SimpleNamespace(epoch=number, trials=trials, reached=reached, metrics=metrics)


def test_events_of_a_resumed_job_replace_repeated_epochs(tmp_path, proto):
    for losses in ({1: 0.5, 2: 0.25, 3: 0.125}, {2: 0.5, 3: 0.75}):
        epochs = [one_epoch(number, loss) for number, loss in losses.items()]
        assert list(console.record_events(iter(epochs), tmp_path)) == epochs
    found = scalars(tmp_path / "tensorboard" / "trial_7", proto)
    assert found["loss/train"] == {1: 0.5, 2: 0.5, 3: 0.75}
    assert all(np.isnan(list(found["bound"].values())))


def test_events_without_tensorboardx_are_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX.record_writer", None)
    epochs = [one_epoch(1, 0.5)]
    assert list(console.record_events(iter(epochs), tmp_path)) == epochs
    assert capsys.readouterr().err.count("tensorboardX is not installed") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("proto")
def test_events_that_cannot_be_written_are_a_job_error(tmp_path, monkeypatch):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(JobError, match="tensorboard is no folder") as caught:
        list(console.record_events(iter([one_epoch(1, 0.5)]), tmp_path))
    assert caught.value.exit_code == WORKDIR
    (tmp_path / "tensorboard").unlink()
    monkeypatch.setattr(console._Appending, "open", lambda _: open("/dev/full", "ab"))
    with pytest.raises(JobError, match="No space left") as caught:
        list(console.record_events(iter([one_epoch(1, 0.5)]), tmp_path))
    assert caught.value.exit_code == WORKDIR
