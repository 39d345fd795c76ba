"""A log has lines and no control characters; a terminal has a bar; the epochs pass through."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from softmax_jax import sweep
from softmax_jax.job import console
from tests import flat


def test_epochs_pass_through_and_leave_a_line_each(splits, capsys):
    epochs = flat.epochs(splits.train, splits.val, num_epochs=2, batch_size=256)
    seen = [epoch.metrics["val_loss"][0] for epoch in console.watch(epochs, 1437)]
    lines = capsys.readouterr().out.splitlines()
    assert len(seen) == len(lines) == 2
    for number, (line, loss) in enumerate(zip(lines, seen, strict=True), 1):
        assert line.startswith(f"epoch   {number}/2") and f"val loss {loss:.4f}" in line
        assert "train loss" in line and "val accuracy" in line and "examples/s" in line


def test_with_many_trials_the_line_is_of_the_best(splits, capsys):
    settings = sweep.grid(learning_rate=(1e-4, 0.3))
    epochs = flat.epochs(splits.train, splits.val, settings, num_epochs=1, batch_size=256)
    ((epoch),) = list(console.watch(epochs, 1437))
    said = capsys.readouterr().out
    assert "trials 0-1, best:" in said
    assert f"val loss {epoch.metrics['val_loss'].min():.4f}" in said


def test_a_warning_stands_between_rules_on_the_standard_error(capsys):
    console.warn("mind this")
    captured = capsys.readouterr()
    assert captured.out == "" and "WARNING: mind this" in captured.err
    assert captured.err.count("!" * 40) >= 2


@pytest.mark.parametrize("name, speak", [("stdout", console.say), ("stderr", console.warn)])
def test_a_full_disk_under_the_log_or_nobody_who_reads_it_is_no_error(monkeypatch, name, speak):
    reader, writer = os.pipe()
    os.close(reader)
    for broken in (open("/dev/full", "w"), open(writer, "w")):
        with broken:
            monkeypatch.setattr(sys, name, broken)
            speak("once")
            speak("twice")
            assert os.path.samestat(os.fstat(broken.fileno()), os.stat(os.devnull))


def test_on_a_terminal_there_is_a_progress_bar(tmp_path, environment):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    command = [sys.executable, "main.py", "--config=configs/digits.py", f"--workdir={tmp_path}"]
    job = subprocess.Popen(
        [*command, "--config.num_epochs=3"],
        cwd=Path(__file__).parents[2],
        env=environment | {"TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 4096)
        except OSError:  # the other end is closed: the program has ended
            break
    os.close(ours)
    assert job.wait(timeout=60) == 0
    assert b"epoch 3/3" in said and b"100%" in said and b"val accuracy" in said
    assert b"epoch   1/3" not in said
