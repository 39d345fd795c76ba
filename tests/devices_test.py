"""Eight devices in one process, and several processes, find what one device does.

The devices are parts of this machine's processor; the processes meet on its loopback, started as
Slurm would start them.
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
# Of each mesh some cases of `on_devices.py`; of the default one all.
MESHES = {"-1,1": "", "4,2": ":cured:folds apart:optimum of folds", "1,-1": ":seeds:optimum"}
SHARES = {"-1,1": 8, "4,2": 4, "1,-1": 1}


def python(environment, *arguments, **variables):
    environment = environment | {"PYTHONPATH": str(ROOT)} | variables
    pipe = subprocess.PIPE
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def together(environment, number, *arguments, **variables):
    """So many processes of one program, started as Slurm starts them; all ended at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(number)}
    slurm["JAX_COORDINATOR_PORT"] = str(port)
    return [
        python(environment, *arguments, **slurm, SLURM_PROCID=i, SLURM_LOCALID=i, **variables)
        for i in map(str, range(number))
    ]


def ended(processes, seconds=200):
    """[(exit code, standard output, standard error)], within so many seconds from now."""
    deadline = time.monotonic() + seconds
    try:
        outputs = [
            process.communicate(timeout=deadline - time.monotonic()) for process in processes
        ]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, *output) for process, output in zip(processes, outputs, strict=True)
    ]


@pytest.fixture(scope="module")
def sweeps(environment, tmp_path_factory):
    """{mesh: (arrays by name, what its devices held)}; 'one' is that of a single device."""

    def run(meshes, **variables):
        folder = tmp_path_factory.mktemp("sweeps")
        texts = [mesh + cases for mesh, cases in meshes.items()]
        program = python(environment, "tests/on_devices.py", folder, *texts, **variables)
        ((code, output, errors),) = ended([program])
        assert code == 0, errors
        told = map(json.loads, output.splitlines())
        return {
            mesh: (dict(np.load(folder / f"{mesh}.npz")), facts)
            for mesh, facts in zip(meshes, told, strict=True)
        }

    return {"one": run({"1,1": ""})["1,1"]} | run(MESHES, **EIGHT)


@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_find_what_one_does(sweeps, mesh):
    """Where an optimum is left within its tolerance, rounding decides; how good it is, it does not."""
    expected, found = sweeps["one"][0], sweeps[mesh][0]
    assert len(found) > 20 and found.keys() <= expected.keys()
    for name, array in found.items():
        case, figure = name.split("/", 1)
        if case.startswith("optimum") and figure != "objective":
            continue
        assert array.shape == expected[name].shape, name
        difference = np.abs(array - expected[name].astype(np.float64)).max()
        assert difference <= 1e-6 * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("mesh", MESHES)
def test_no_device_has_more_than_its_share_of_the_trials(sweeps, mesh):
    one, found = sweeps["one"][1], sweeps[mesh][1]
    for case, facts in found.items():
        for what in ("progress", "models"):
            whole, here = facts[what]
            assert here * SHARES[mesh] == whole, (case, what)
            assert whole >= one[case][what][0] / 2  # nothing was left out
        for name, program in facts["programs"].items():
            alone = one[case]["programs"][name]
            if name in ("create", "start", "advance"):
                padding = facts["progress"][0] / one[case]["progress"][0]
                most = alone["results"] * max(padding, 1) / SHARES[mesh] * 1.1 + 1000
                assert program["results"] <= most, (case, name)


@pytest.mark.parametrize("mesh", MESHES)
def test_devices_exchange_sums_over_examples_and_nothing_else(sweeps, mesh):
    for case, facts in sweeps[mesh][1].items():
        for name, program in facts["programs"].items():
            kinds = set(program["communication"])
            allowed = set() if mesh == "-1,1" and name == "train_epoch" else {"all-reduce"}
            assert kinds <= allowed, (case, name, program["communication"])
    both = sweeps["4,2"][1]["cured"]["programs"]
    assert both["train_epoch"]["communication"] and both["evaluate"]["communication"]


def test_the_batch_axis_divides_the_examples_of_the_optimum(sweeps):
    for what in ("arguments", "temporary"):
        one, eight = (
            sweeps[mesh][1]["optimum"]["programs"]["start"][what] for mesh in ("one", "1,-1")
        )
        assert eight < one / 2
