"""What a job promises when its machine fails, tried on the real program (docs/reliability.md).

The parts have their own tests; here is what they promise together.
"""

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs import default
from softmax_jax.job import checkpoint, run, workdir
from tests import programs

ROOT = Path(__file__).parents[1]
SGD = (
    "--config=configs/digits.py",
    "--config.num_epochs=100",
    "--config.sweep.learning_rate=0.01,0.1",
    "--config.sweep.seed=0,1",
    "--config.chunk=2",
    "--config.checkpoint_seconds=0",
)
OPTIMUM = (
    "--config=configs/probe.py",
    "--config.dataset=digits",
    "--config.l2_path=0",
    "--config.sweep.l2=1e-6,1e-5,1e-4,1e-3",
    "--config.folds=2",
    "--config.tolerance=1e-6",
    "--config.checkpoint_seconds=0",
)
slow = pytest.mark.slow
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def survive(environment):
    """survive(folder, *arguments, kills=0): runs a job to its end. See lives.py."""

    def run(folder, *arguments, env=environment, **options):
        command = {"arguments": [*arguments, f"--workdir={folder}"], "folder": str(folder)}
        done = programs.lives(env, **command, **options)
        *lines, last = done.stdout.splitlines()
        return SimpleNamespace(**json.loads(last), stdout="\n".join(lines), stderr=done.stderr)

    return run


@contextlib.contextmanager
def started(environment, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE):
    """`python main.py`, running; killed at the end of the block, if it still runs."""
    command = [sys.executable, "main.py", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr, text=True
    ) as job:
        try:
            yield job
        finally:
            job.kill()


def until(condition, seconds=120):
    """Waits for a condition, polling often enough to catch a process in the middle of a save."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(1e-4)


def lines(folder):
    with contextlib.suppress(FileNotFoundError):
        return (folder / "metrics.jsonl").read_text().count("\n")
    return 0


def results(folder):
    """{name: content} of all that a job leaves, without what depends on the clock."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    summary = json.loads(found["summary.json"])
    del summary["seconds"], found[".lock"]
    return found | {"summary.json": summary}


def digest(folder):
    job = json.loads((folder / "config.json").read_text())["job"]
    return workdir.digest(workdir.without_length(job))


def assert_ends_well(job):
    assert job.code == 0, job.stderr
    assert "Traceback" not in job.stderr


def assert_stopped(job, code, *texts):
    """It ends with this code and one message on the standard error."""
    errors = job.communicate(timeout=60)[1]
    assert job.returncode == code, errors
    assert "Traceback" not in errors and errors.count("main.py: ") == 1
    for text in texts:
        assert text in errors


@pytest.fixture(scope="module")
def undisturbed(survive, tmp_path_factory):
    """The folder of the SGD job without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert_ends_well(survive(folder, *SGD))
    assert lines(folder) == 400
    return folder


@pytest.fixture(scope="module")
def interrupted(environment, tmp_path_factory):
    """The folder of the SGD job that got a SIGTERM in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("interrupted")
    with started(environment, *SGD, f"--workdir={folder}") as job:
        until(lambda: lines(folder) > 30)
        job.send_signal(signal.SIGTERM)
        assert_stopped(job, 143, "stopped by SIGTERM; the same command resumes it.")
    assert 30 < lines(folder) < 400
    return folder


@pytest.fixture
def begun(interrupted, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(interrupted, tmp_path / "begun")


@slow
def test_job_killed_at_24_random_moments_matches_an_undisturbed_one(survive, undisturbed, tmp_path):
    job = survive(tmp_path, *SGD, kills=24, apart=4)
    assert_ends_well(job)
    assert job.kills >= 20 and job.halves >= 2  # killed while they saved
    assert job.stdout.count("Resuming after") >= 12
    assert results(tmp_path) == results(undisturbed)


@slow
def test_killed_search_for_the_optimum_matches_an_undisturbed_one(survive, tmp_path):
    assert_ends_well(survive(tmp_path / "whole", *OPTIMUM))
    job = survive(tmp_path / "killed", *OPTIMUM, kills=6, apart=2)
    assert_ends_well(job)
    assert job.kills >= 3 and "Resuming after" in job.stdout
    found = results(tmp_path / "killed")
    assert found == results(tmp_path / "whole") and "predictions.npz" in found


@slow
def test_sigterm_in_every_phase_ends_the_job_cleanly(survive, environment, undisturbed, begun):
    """While compiling, saving and drawing, one after the other in one job."""
    command, saved = (*SGD, f"--workdir={begun}"), begun / "checkpoints"
    cold = environment | {"JAX_LOG_COMPILES": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    with started(cold, *command) as job:
        for line in job.stderr:
            if "Compiling" in line and "train_epoch" in line:
                break
        before = lines(begun)
        job.send_signal(signal.SIGTERM)
        assert_stopped(job, 143, "the same command resumes it")
    assert lines(begun) == before + 2  # the epoch under way, of two trials
    with started(environment, *command) as job:
        number = int(checkpoint.saved_files(saved)[-1].stem)
        until(lambda: list(saved.glob(f"{number + 9:08d}.npz.*.tmp")))
        job.send_signal(signal.SIGTERM)
        assert_stopped(job, 143, "the same command resumes it")
    assert not list(saved.glob("*.tmp")) and lines(begun) < 400
    with started(environment, *command) as job:
        until((begun / "params.npz").exists)
        job.send_signal(signal.SIGTERM)
        assert_stopped(job, 143, "the same command resumes it")
    assert not (begun / "summary.json").exists()
    assert_ends_well(survive(begun, *SGD))
    assert results(begun) == results(undisturbed)


@slow
def test_sigterm_while_the_data_are_read_leaves_no_files(environment, tmp_path):
    x = np.random.default_rng(0).integers(0, 9, (20_000, 400)).astype(np.float32)
    np.savez_compressed(tmp_path / "x.npz", x_train=x, y_train=x[:, 0].astype(int))
    splits = ("--config.train_split=train[:80%]", "--config.val_split=train[80%:]")
    data = f"--config.dataset={tmp_path / 'x.npz'}"
    command = ("--config=configs/default.py", data, *splits, f"--workdir={tmp_path / 'w'}")
    with started(environment, *command) as job:
        files = Path(f"/proc/{job.pid}/fd")
        until(lambda: str(tmp_path / "x.npz") in opened(files))
        job.send_signal(signal.SIGTERM)
        assert_stopped(job, 143, "stopped by SIGTERM")
    assert os.listdir(tmp_path) == ["x.npz"]


def opened(files):
    """The paths of the files that a process has open (some may be closed meanwhile)."""
    paths = []
    for link in files.iterdir():
        with contextlib.suppress(FileNotFoundError):
            paths.append(os.readlink(link))
    return paths


@slow
def test_damaged_checkpoint_is_reported_and_the_one_before_it_used(survive, undisturbed, begun):
    *_, newest = checkpoint.saved_files(begun / "checkpoints")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    job = survive(begun, *SGD)
    assert_ends_well(job)
    assert f"{newest} is damaged: its SHA-256" in job.stderr and "Resuming" in job.stdout
    assert results(begun) == results(undisturbed)


@slow
def test_clock_that_runs_backwards_changes_nothing(survive, undisturbed, begun):
    """Nor do checkpoints whose modification times are in the wrong order."""
    saved = checkpoint.saved_files(begun / "checkpoints")
    for age, path in enumerate(saved):
        os.utime(path, (4e9 - 1e9 * age,) * 2)
    found, _ = checkpoint.restore(begun / "checkpoints", digest(begun))
    assert f"{found.number:08d}.npz" == max(path.name for path in saved)
    job = survive(begun, *SGD, kills=3, clock_runs_back=True)
    assert_ends_well(job)
    assert job.kills >= 1
    assert results(begun) == results(undisturbed)


@slow
def test_job_resumes_in_smaller_chunks(survive, undisturbed, begun):
    """Equal to within rounding: the programs are different."""
    job = survive(begun, *(f.replace("chunk=2", "chunk=1") for f in SGD))
    assert_ends_well(job)
    losses = [
        {(line["trial"], line["epoch"]): line["val_loss"] for line in read_lines(folder)}
        for folder in (begun, undisturbed)
    ]
    assert losses[0].keys() == losses[1].keys()
    assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-6)
    with np.load(begun / "params.npz") as ours, np.load(undisturbed / "params.npz") as theirs:
        np.testing.assert_allclose(ours["W"], theirs["W"], rtol=1e-4, atol=1e-6)


def read_lines(folder):
    return map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())


@slow
def test_second_job_in_the_folder_is_refused_while_the_first_lives(
    survive, main, environment, undisturbed, tmp_path
):
    with started(environment, *SGD, f"--workdir={tmp_path}") as job:
        until(lambda: lines(tmp_path) > 0)
        job.send_signal(signal.SIGSTOP)
        for more in ((), ("--overwrite",)):
            refused = main(*SGD, f"--workdir={tmp_path}", *more)
            programs.assert_one_message(refused, 3, f"is in use by process {job.pid} on")
    assert job.returncode == -signal.SIGKILL
    assert_ends_well(survive(tmp_path, *SGD))
    assert results(tmp_path) == results(undisturbed)


@pytest.fixture
def mounted(tmp_path):
    """mounted(*arguments): a folder on which that is mounted; skipped where mounting fails."""
    folders = []

    def mount(*arguments):
        folder = tmp_path / f"mounted_{len(folders)}"
        folder.mkdir()
        try:
            subprocess.run(["mount", *arguments, str(folder)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("nothing can be mounted here")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


@slow
def test_disk_that_fills_up_loses_nothing_that_was_saved(
    survive, environment, undisturbed, mounted
):
    """The log lies on the same disk."""
    disk = mounted("-t", "tmpfs", "-o", "size=2m", "tmpfs")
    folder = disk / "w"
    with (
        open(disk / "log", "w") as log,
        started(environment, *SGD, f"--workdir={folder}", stdout=log) as job,
    ):
        until(lambda: lines(folder) > 20)
        job.send_signal(signal.SIGSTOP)
        with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        job.send_signal(signal.SIGCONT)
        assert_stopped(job, 3, "cannot be written: No space left on device")
    whole, warnings = checkpoint.restore(folder / "checkpoints", digest(folder))
    assert whole.number >= 10 and warnings == []
    assert not list(folder.rglob("*.tmp"))
    (disk / "ballast").unlink()
    assert_ends_well(survive(folder, *SGD))
    assert results(folder) == results(undisturbed)


@slow
def test_read_only_folder_is_an_error_unless_its_job_has_ended(main, undisturbed, begun, mounted):
    full = mounted("--bind", "-o", "ro", str(undisturbed))
    done = main(*SGD, f"--workdir={full}")
    assert (done.returncode, done.stderr) == (0, "") and "Nothing is left to do" in done.stdout
    for folder in (
        mounted("-t", "tmpfs", "-o", "ro", "tmpfs"),
        mounted("--bind", "-o", "ro", begun),
    ):
        done = main(*SGD, f"--workdir={folder}")
        programs.assert_one_message(done, 3, "Read-only file system")
        assert "epoch" not in done.stdout


@pytest.fixture
def alone(environment, tmp_path):
    """The environment of a machine without prepared data, in a network that refuses at once."""
    hidden = {"HOME": str(tmp_path), "TFDS_DATA_DIR": "", "http_proxy": "http://127.0.0.1:9"}
    return environment | hidden


def write_fashion_mnist(folder):
    """The four files of a very small one."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for prefix, n in (("train", 80), ("t10k", 20)):
        x, y = rng.integers(0, 256, (n, 4, 5), np.uint8), np.arange(n, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())


@slow
def test_job_needs_its_own_data_to_resume(survive, alone, tmp_path):
    here, there, folder = tmp_path / "here", tmp_path / "there", tmp_path / "w"
    write_fashion_mnist(here)
    command = ("--config=configs/default.py", "--config.num_epochs=2", "--config.batch_size=16")
    assert_ends_well(survive(folder, *command, f"--config.data_dir={here}", env=alone))
    whole = results(folder)
    (folder / "summary.json").unlink()  # as if it had been killed just before the end
    here.rename(there)
    job = survive(folder, *command, f"--config.data_dir={here}", env=alone)
    assert job.code == 2 and "Fashion-MNIST" in job.stderr and "DIGITS" not in job.stderr
    assert_ends_well(survive(folder, *command, f"--config.data_dir={there}", env=alone))
    assert results(folder) == whole and whole["summary.json"]["dataset"] == "fashion_mnist"


@slow
def test_job_begun_on_the_fallback_resumes_on_it(survive, alone, tmp_path):
    command = ("--config=configs/default.py", "--config.num_epochs=2")
    job = survive(tmp_path / "w", *command, env=alone)
    assert job.code == 0 and "TRAINING ON DIGITS INSTEAD" in job.stderr
    whole = results(tmp_path / "w")
    (tmp_path / "w" / "summary.json").unlink()
    write_fashion_mnist(tmp_path / "here")
    assert_ends_well(
        survive(tmp_path / "w", *command, f"--config.data_dir={tmp_path / 'here'}", env=alone)
    )
    assert results(tmp_path / "w") == whole and whole["summary.json"]["dataset"] == "digits"


@pytest.fixture
def stalling():
    """A proxy that sends the first 16 KiB of whatever is asked for, and then nothing more."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(1 << 14))
            self.wfile.flush()
            over.wait(60)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        over.set()
        server.shutdown()


@slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 2)])
def test_interrupted_or_stalled_download_leaves_no_file(alone, stalling, tmp_path, number, code):
    cache = tmp_path / "cache"
    env = alone | {"http_proxy": stalling, "XDG_CACHE_HOME": str(cache)}
    fallback, folder = "--config.dataset_fallback=", f"--workdir={tmp_path / 'w'}"
    with started(env, "--config=configs/default.py", fallback, folder) as job:
        until(lambda: list(cache.rglob("*.tmp")))
        began = time.monotonic()
        if number:
            job.send_signal(number)
        assert_stopped(job, code, f"stopped by {number.name}" if number else "within 5 seconds")
    assert time.monotonic() - began < 15
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@slow
def test_billion_trials_are_refused_with_the_memory_they_need(environment, tmp_path):
    (tmp_path / "billion.py").write_text(
        "from configs import digits\n"
        "def get_config():\n"
        "    config = digits.get_config()\n"
        "    config.sweep.learning_rate = tuple(n / 1e4 for n in range(1, 1001))\n"
        "    config.sweep.l2 = tuple(n / 1e4 for n in range(1000))\n"
        "    config.sweep.seed = tuple(range(1000))\n"
        "    return config\n"
    )
    command = (f"--config={tmp_path / 'billion.py'}", f"--workdir={tmp_path / 'w'}")
    with_its_peak = (  # of a small parent: a child's peak is at least its parent's at the fork
        "import resource, subprocess, sys\n"
        "code = subprocess.call(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(code)\n"
    )
    job = subprocess.run(
        [sys.executable, "-c", with_its_peak, sys.executable, "main.py", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert job.returncode == 2
    assert "1,000,000,000 trials of 64 × 10 parameters need" in job.stderr
    assert "GiB, more than the" in job.stderr and "Traceback" not in job.stderr
    assert int(job.stdout.split()[-1]) < 1 << 20  # KiB
    assert os.listdir(tmp_path / "w") == [".lock"]


X, Y = np.random.default_rng(0).random((60, 3)).astype(np.float32), np.arange(60) % 3
WITH_NAN, WITH_INF = (np.where(np.eye(60, 3) == 1, value, X) for value in (np.nan, np.inf))


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"y_val": np.where(Y == 0, -1, Y)}, "val: label '-1' of example 0 does not occur"),
        ({"y_val": Y + 1}, "val: label '3' of example 2 does not occur in train"),
        ({"y_val": np.where(Y == 0, 2**40, Y)}, "val: label '1099511627776' of example 0"),
        ({"y_train": Y.astype(float)}, "train: labels must be integers or text, and are float64"),
        ({"y_val": np.where(Y == 0, np.nan, Y)}, "val: the label of example 0 is NaN"),
        ({"y_train": Y.astype(object)}, "y_train holds pickled Python objects"),
        ({"y_train": 0 * Y, "y_val": 0 * Y}, "class"),
        ({"x_train": WITH_NAN}, "train: feature nan in row 0, column 0"),
        ({"x_val": WITH_INF}, "val: feature inf in row 0, column 0"),
        ({"x_train": X.astype(np.float64) * 1e300}, "train: feature inf in row 0, column 0"),
        ({"x_val": X[:, :2]}, "train is float32 of shape (3,), and one in val is float32 of shape"),
        ({"x_val": X[:50]}, "y_val has shape (60,), and /x.npz: x_val has shape (50, 3)"),
        ({"x_train": X[:, :0], "x_val": X[:, :0]}, "train: x has shape (60, 0)"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "train: The split 'train' is empty"),
    ],
)
def test_invalid_data_are_refused_before_anything_is_written(tmp_path, capsys, changes, text):
    arrays = {"x_train": X, "y_train": Y, "x_val": X, "y_val": Y} | changes
    np.savez(tmp_path / "x.npz", **arrays)
    config = default.get_config()
    config.dataset, config.val_split, config.batch_size = str(tmp_path / "x.npz"), "val", 8
    assert run.main(config, tmp_path / "w") == 2
    said = capsys.readouterr().err.replace(str(tmp_path), "")
    assert said.count("main.py: ") == 1 and text in said
    assert not (tmp_path / "w").exists()


def test_every_test_named_in_the_document_exists():
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"`(\w+_test): (\w+)`", text)
    assert len(named) > 50
    for file, words in named:
        texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob(f"{file}.py")]
        assert re.search(rf"def test_\w*{words}", "".join(texts)), (file, words)
