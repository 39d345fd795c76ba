"""Two jobs never share a folder, and a job that was killed keeps nobody out."""

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import workdir

HOLD = """
import sys, time
from pathlib import Path
from softmax_jax.job import lock
with workdir.locked(Path(sys.argv[1])) as warning:
    print("held", warning, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the folder."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held \n"
            yield process
        finally:
            process.kill()


def test_a_second_job_is_refused_until_the_first_is_dead(tmp_path, holder):
    with pytest.raises(JobError) as error, workdir.locked(tmp_path):
        pass
    assert error.value.exit_code == WORKDIR
    host = re.escape(socket.gethostname())
    assert re.search(f"in use by process {holder.pid} on {host} since 20", str(error.value))
    holder.kill()
    holder.wait()
    with workdir.locked(tmp_path) as warning:
        assert warning == ""


def test_it_is_free_after_the_block_however_that_ends(tmp_path):
    with pytest.raises(KeyError), workdir.locked(tmp_path):
        with pytest.raises(JobError, match=f"process {os.getpid()} "), workdir.locked(tmp_path):
            pass
        raise KeyError
    with workdir.locked(tmp_path):
        assert (tmp_path / ".lock").read_text().count("\n") == 1


def test_folders_do_not_disturb_each_other(tmp_path):
    (tmp_path / "a").mkdir()
    with workdir.locked(tmp_path) as one, workdir.locked(tmp_path / "a") as other:
        assert one == other == ""


def test_a_folder_that_cannot_be_written_is_a_job_error(tmp_path):
    with (
        pytest.raises(JobError, match="cannot be locked") as error,
        workdir.locked(tmp_path / "missing"),
    ):
        pass
    assert error.value.exit_code == WORKDIR


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    """Simulated: no such file system can be counted on where tests run."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with workdir.locked(tmp_path) as warning:
        assert "has no locks (No locks available)" in warning
