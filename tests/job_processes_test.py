"""Several processes run one job as one process does, and end together.

They connect over this machine's loopback, started as Slurm would start them.
"""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from softmax_jax.data import DataError
from softmax_jax.host import DONE, USAGE, WORKDIR, JobError
from softmax_jax.job import processes, run

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[1]
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
MAIN = "main.py", "--config=configs/digits.py", "--config.learning_rate=0.05"
LONG = "--config.num_epochs=400", "--config.sweep.l2=0,1e-4,1e-2", "--config.checkpoint_seconds=0"


def test_single_process_agrees_with_itself():
    def fail():
        raise JobError("told", WORKDIR)

    assert processes.is_first() and not processes.are_several()
    assert processes.agreed(divmod, 7, 2) == processes.led(divmod, 7, 2) == (3, 1)
    for call in (processes.agreed, processes.led):
        with pytest.raises(JobError, match="told"):
            call(fail)
    assert processes.agree(15, True) == (15, True)
    assert processes.same(1, "number") is None
    assert not processes.is_loss(DataError("Gloo"))
    assert processes.leave(WORKDIR) == WORKDIR


def test_distributed_job_needs_a_folder_and_a_cluster(config, tmp_path, capsys, monkeypatch):
    assert run.main(config, distributed=True) == USAGE
    assert "--distributed needs --workdir" in capsys.readouterr().err
    assert run.main(config, tmp_path, distributed=True) == USAGE
    assert "found no cluster to join" in capsys.readouterr().err
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    assert run.main(config, tmp_path, distributed=True) == USAGE
    assert "'two'" in capsys.readouterr().err


def test_versions_and_devices_are_those_of_this_machine():
    assert processes.versions()["jax"] == jax.__version__
    assert processes.versions()["numpy"] == np.__version__
    assert processes.devices() == {
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": len(jax.devices()),
    }


def start(environment, *arguments, **variables):
    environment = environment | {"PYTHONPATH": str(ROOT)} | variables
    pipe = subprocess.PIPE
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def cluster(environment, *commands):
    """A process for each of the commands, started as Slurm starts them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1"}
    slurm |= {"SLURM_NTASKS": str(len(commands)), "JAX_COORDINATOR_PORT": str(port)}
    return [
        start(environment, *command, **slurm, SLURM_PROCID=str(i), SLURM_LOCALID=str(i))
        for i, command in enumerate(commands)
    ]


def ended(running, seconds=100):
    """[(exit code, standard output, standard error)], within so many seconds from now."""
    deadline = time.monotonic() + seconds
    try:
        said = [one.communicate(timeout=max(deadline - time.monotonic(), 0)) for one in running]
    finally:
        for one in running:
            one.kill()
    return [(one.returncode, *own) for one, own in zip(running, said, strict=True)]


def signalled(running, folder, which, number):
    """`ended`, if one of them gets a signal after its next checkpoint."""

    def newest():
        return max((path.name for path in folder.glob("checkpoints/*.npz")), default="")

    before, deadline = newest(), time.monotonic() + 100
    while newest() <= before:
        assert time.monotonic() < deadline and all(one.poll() is None for one in running)
        time.sleep(0.01)
    running[which].send_signal(number)
    return ended(running, 60)


@pytest.fixture(scope="module")
def alone(environment, tmp_path_factory):
    """alone(*arguments): the folder in which a job of these ran on one device."""
    folders = {}

    def run(*arguments):
        if arguments not in folders:
            folders[arguments] = tmp_path_factory.mktemp("alone")
            job = *MAIN, f"--workdir={folders[arguments]}", *arguments
            ((code, _, errors),) = ended([start(environment, *job)])
            assert code == DONE, errors
        return folders[arguments]

    return run


def assert_same(folder, expected, names=None):
    """Equal figures to a relative 1e-6: of these names, or all, and the parameters."""
    found, lines = (
        [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
        for one in (folder, expected)
    )
    for line, other in zip(found, lines, strict=True):
        assert line == pytest.approx(other, rel=1e-6) if names is None else True
        assert all(line[name] == pytest.approx(other[name], rel=1e-6) for name in names or ())
    if names is None:
        with np.load(folder / "params.npz") as one, np.load(expected / "params.npz") as other:
            np.testing.assert_allclose(one["W"], other["W"], atol=1e-6 * np.abs(other["W"]).max())


JOBS = {
    2: ["--config.optimizer=lbfgs", "--config.num_epochs=100", "--config.sweep.l2=0.03,0.1,1"]
    + ["--config.folds=3"],
    4: ["--config.num_epochs=3", "--config.sweep.seed=0,1,2", "--config.averaging=0.5"]
    + ["--config.momentum=0.0", "--config.early_stopping.patience=1"],
}
MESHES = {2: [], 4: ["--config.mesh.trials=2", "--config.mesh.batch=-1"]}


@pytest.mark.slow
@pytest.mark.parametrize("number", JOBS)
def test_processes_match_a_single_process(environment, alone, tmp_path, number):
    expected = alone(*JOBS[number])
    job = *MAIN, f"--workdir={tmp_path}", *JOBS[number], *MESHES[number], "--distributed"
    outputs = ended(cluster(environment, *[job] * number))
    assert [code for code, _, _ in outputs] == [DONE] * number, outputs
    assert "Written to" in outputs[0][1]
    assert not any("epoch" in said for _, said, _ in outputs[1:])
    names = [{path.name for path in folder.iterdir()} for folder in (tmp_path, expected)]
    assert names[0] == names[1]
    assert_same(tmp_path, expected, ["objective"] if number == 2 else None)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["device_count"] == number
    assert config["mesh"] == {"trials": 2, "batch": number // 2}


@pytest.mark.slow
def test_signal_to_one_process_stops_all_and_other_devices_resume(environment, alone, tmp_path):
    """First eight devices of one process, then two processes, then one device."""
    job = *MAIN, f"--workdir={tmp_path}", *LONG
    eight = [start(environment, *job, **EIGHT)]
    ((code, _, errors),) = signalled(eight, tmp_path, 0, signal.SIGINT)
    assert code == 130, errors
    two = cluster(environment, *[(*job, "--distributed")] * 2)
    outputs = signalled(two, tmp_path, 1, signal.SIGTERM)
    assert [code for code, _, _ in outputs] == [143, 143], outputs
    assert "Resuming after" in outputs[0][1] and outputs[1][2] == ""
    assert "stopped by SIGTERM; the same command resumes it" in outputs[0][2]
    ((code, said, errors),) = ended([start(environment, *job)])
    assert code == DONE and "Resuming after" in said, errors
    assert_same(tmp_path, alone(*LONG))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_loss_of_one_process_ends_the_other(environment, alone, tmp_path, victim):
    job = *MAIN, f"--workdir={tmp_path}", *LONG
    outputs = signalled(
        cluster(environment, *[(*job, "--distributed")] * 2), tmp_path, victim, signal.SIGKILL
    )
    assert outputs[victim][0] == -signal.SIGKILL
    code, _, errors = outputs[1 - victim]
    assert code in (134, -signal.SIGABRT) and "Traceback" not in errors
    assert "another process or a device is lost" in errors or "another task died" in errors
    if victim:  # and the remaining one can resume alone
        ((code, said, errors),) = ended([start(environment, *job)])
        assert code == DONE and "Resuming after" in said, errors
        assert_same(tmp_path, alone(*LONG))


@pytest.mark.slow
@pytest.mark.parametrize("difference", ["--config.l2=0.5", "--config.dataset=nothing"])
def test_processes_that_differ_end_with_one_message(environment, tmp_path, difference):
    job = *MAIN, f"--workdir={tmp_path / 'w'}", "--distributed"
    outputs = ended(cluster(environment, job, (*job, difference)))
    assert [code for code, _, _ in outputs] == [USAGE] * 2, outputs
    assert sum(errors.count("main.py: ") for _, _, errors in outputs) == 1
    assert not (tmp_path / "w").exists()


CONVERSATION = """
import jax, numpy as np
from softmax_jax.host import JobError
from softmax_jax.job import processes
from softmax_jax.sweep import mesh

processes.join_cluster("folder")
number, placement = jax.process_index(), mesh.place()
assert processes.are_several() and processes.is_first() == (number == 0)
assert mesh.device_bytes() > 2**20

def fails(function, *arguments):
    try:
        function(*arguments)
    except JobError as error:
        return error
    raise AssertionError("no error")

def fail_in_second():
    if number:
        raise JobError("told", 3)

assert processes.agreed(lambda: number) == number
for call in (processes.agreed, processes.led):
    error = fails(call, fail_in_second)
    assert error.exit_code == 3 and str(error) == ("told" if number else "")
assert processes.agree(15 * number, number == 0) == (15, True)
assert processes.agree(0, number == 1) == (0, False)
error = fails(processes.same, number, "sum")
assert str(error) == ("" if number else "Process 0 and process 1 differ in their sum.")

trees = {"float": np.float32([[1, -2, np.nan, 4]] * 3), "truth": np.array([[True, False]])}
trees["whole"] = np.arange(24, dtype=np.int32).reshape(3, 4, 2)
for mesh._WHOLE_BYTES in (2**28, 0):
    placed = placement.trials(trees)
    assert placed["float"].addressable_shards[0].data.shape == (3, 2)
    for name, array in placement.fetch(placed).items():
        np.testing.assert_array_equal(array, trees[name])
raise SystemExit(processes.leave(4))
"""


@pytest.mark.slow
def test_processes_agree_and_leave_together(environment):
    for code, _, errors in ended(cluster(environment, *[("-c", CONVERSATION)] * 2)):
        assert code == 4, errors


SILENCE = """
import os, signal
from softmax_jax.job import processes

processes.HEARTBEAT = 5
processes.join_cluster("folder")
if not processes.is_first():
    print("silent", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
processes.same(0, "number")
"""


@pytest.mark.slow
def test_silent_process_counts_as_lost(environment):
    """Its connections stay open: only the missing heartbeat shows the loss."""
    two = cluster(environment, *[("-c", SILENCE)] * 2)
    try:
        assert two[0].wait(60) == -signal.SIGABRT
    finally:
        two[1].kill()
    outputs = ended(two)
    assert "another task died" in outputs[0][2] and "silent" in outputs[1][1]
