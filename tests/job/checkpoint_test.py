"""Whatever happens to a job or its disk, its newest checkpoint that is whole is found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import checkpoint
from softmax_jax.job.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]


def state(number, job="job"):
    return Checkpoint(number, job, {"W": np.full(50, number)}, {"epoch": number})


def run(script, folder):
    """Runs a script (which has `folder`, `state` and `checkpoint`) in a process of its own."""
    prelude = """
import os, sys, json, numpy as np
from pathlib import Path
from softmax_jax.job import checkpoint
from softmax_jax.job.errors import JobError
from softmax_jax.job.sealed import Checkpoint
folder = Path(sys.argv[1])
def state(number, size=50):
    return Checkpoint(number, "job", {"W": np.full(size, number)}, {"epoch": number})
"""
    return subprocess.run(
        [sys.executable, "-c", prelude + script, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def restored(folder):
    found, warnings = checkpoint.restore(folder, "job")
    assert (found.arrays["W"] == found.number).all() and found.facts == {"epoch": found.number}
    return found.number, warnings


def names(folder):
    return sorted(os.listdir(folder))


def test_the_last_ones_are_kept_and_the_newest_is_restored(tmp_path):
    for number in (7, 8, 99, 100):
        checkpoint.save(tmp_path / "c", state(number), keep=2)
    assert names(tmp_path / "c") == ["00000099.npz", "00000100.npz"]
    assert restored(tmp_path / "c") == (100, [])


def test_the_order_is_that_of_the_numbers_even_where_names_grow(tmp_path):
    for number in (10**8 - 1, 10**8, 2):
        checkpoint.save(tmp_path, state(number), keep=9)
    assert [int(path.stem) for path in checkpoint.saved_files(tmp_path)] == [2, 10**8 - 1, 10**8]


def test_without_checkpoints_there_is_nothing_to_restore(tmp_path):
    assert checkpoint.restore(tmp_path / "missing", "job") == (None, [])
    assert checkpoint.restore(tmp_path, "job") == (None, [])


def test_other_files_are_left_alone_and_what_a_killed_process_began_is_deleted(tmp_path):
    for name in ("notes.txt", "model.npz", "00000009.npz.damaged", "00000009.npz.ab.tmp"):
        (tmp_path / name).write_bytes(b"?")
    assert checkpoint.restore(tmp_path, "job") == (None, [])
    checkpoint.save(tmp_path, state(1), keep=1)
    assert names(tmp_path) == ["00000001.npz", "00000009.npz.damaged", "model.npz", "notes.txt"]


def test_damaged_ones_are_set_aside_with_a_warning_and_the_one_before_is_used(tmp_path):
    for number in (1, 2, 3):
        checkpoint.save(tmp_path, state(number), keep=3)
    damaged = bytearray((tmp_path / "00000003.npz").read_bytes())
    damaged[700] ^= 4
    (tmp_path / "00000003.npz").write_bytes(damaged)
    np.savez(tmp_path / "00000002.npz", W=np.zeros(3))
    number, warnings = restored(tmp_path)
    assert number == 1
    assert [warning.split(": ")[0][-24:] for warning in warnings] == [
        "/00000003.npz is damaged",
        "/00000002.npz is damaged",
    ]
    assert "SHA-256" in warnings[0] and "00000003.npz.damaged" in warnings[0]
    assert (tmp_path / "00000003.npz.damaged").read_bytes() == damaged
    assert restored(tmp_path) == (1, [])


def test_where_all_are_damaged_none_is_restored(tmp_path):
    checkpoint.save(tmp_path, state(1), keep=1)
    os.truncate(tmp_path / "00000001.npz", 100)
    found, warnings = checkpoint.restore(tmp_path, "job")
    assert found is None and len(warnings) == 1


def test_a_checkpoint_under_a_wrong_number_is_not_used(tmp_path):
    checkpoint.save(tmp_path, state(1), keep=1)
    (tmp_path / "00000005.npz").write_bytes((tmp_path / "00000001.npz").read_bytes())
    number, warnings = restored(tmp_path)
    assert number == 1 and "it holds checkpoint 1" in warnings[0]


def test_another_job_s_checkpoint_is_refused_and_stays(tmp_path):
    checkpoint.save(tmp_path, state(1, "theirs"), keep=1)
    with pytest.raises(JobError, match="belongs to another job") as error:
        checkpoint.restore(tmp_path, "job")
    assert error.value.exit_code == WORKDIR
    assert names(tmp_path) == ["00000001.npz"]


def test_killed_at_any_moment_a_job_has_a_whole_checkpoint_that_is_no_older_than_it_said(tmp_path):
    """25 processes that do nothing but save are killed; most of them in the middle of it."""
    script = """
import random, signal, time
for attempt in range(25):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in range(1000 * attempt + 1, 1000 * (attempt + 1)):
                checkpoint.save(folder, state(number, 400_000), keep=2)
                os.write(writer, number.to_bytes(4, "big"))
        finally:
            os._exit(1)
    os.close(writer)
    said = os.read(reader, 4)
    time.sleep(random.Random(attempt).uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said += os.read(reader, 40_000)
    halves = len(list(folder.glob("*.tmp")))
    found, warnings = checkpoint.restore(folder, "job")
    whole = bool((found.arrays["W"] == found.number).all()) and not warnings
    ahead = found.number - int.from_bytes(said[-4:], "big")
    print(json.dumps([halves, whole, ahead]))
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    halves, whole, ahead = zip(*map(json.loads, done.stdout.splitlines()), strict=True)
    assert len(whole) == 25 and all(whole)
    assert set(ahead) <= {0, 1}
    assert sum(halves) >= 5, "too few were killed in the middle of a save to tell"


SAVE_TOO_MUCH = """
try:
    checkpoint.save(folder, state(2, 100_000), keep=1)
except JobError as error:
    print(error, error.exit_code)
"""


def test_a_limit_on_the_size_of_files_leaves_the_earlier_checkpoint_whole(tmp_path):
    checkpoint.save(tmp_path, state(1), keep=1)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    done = run(limit + SAVE_TOO_MUCH, tmp_path)
    assert "cannot be written: File too large" in done.stdout and done.stdout.endswith("3\n")
    assert names(tmp_path) == ["00000001.npz"] and restored(tmp_path) == (1, [])


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 KiB; the test is skipped where none can be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(disk):
    checkpoint.save(disk, state(1), keep=1)
    done = run(SAVE_TOO_MUCH, disk)
    assert "cannot be written: No space left on device" in done.stdout
    assert done.stdout.endswith("3\n")
    assert names(disk) == ["00000001.npz"] and restored(disk) == (1, [])


def test_a_disk_that_becomes_read_only_leaves_the_earlier_checkpoint_whole(disk):
    checkpoint.save(disk, state(1), keep=1)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(JobError, match="Read-only file system") as error:
        checkpoint.save(disk, state(2), keep=1)
    assert error.value.exit_code == WORKDIR and restored(disk) == (1, [])


def test_permission_lost_in_mid_run_leaves_the_earlier_checkpoint_whole(tmp_path):
    """Root may write everywhere, so the process becomes somebody else in the midst of it."""
    script = (
        """
os.chdir(folder)  # a relative path from here on: the way to it is root's alone
folder = Path(".")
checkpoint.save(folder, state(1), keep=1)
if os.geteuid() == 0:
    os.setuid(65534)
else:
    os.chmod(folder, 0o555)
"""
        + SAVE_TOO_MUCH
    )
    done = run(script, tmp_path)
    os.chmod(tmp_path, 0o755)
    assert "cannot be written: Permission denied" in done.stdout and done.stdout.endswith("3\n")
    assert names(tmp_path) == ["00000001.npz"] and restored(tmp_path) == (1, [])
