"""Eight devices find what one does, and none of them holds more than its share.

The devices are parts of this machine's processor. `tests/job/processes_test.py` has the processes.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
# Of each mesh some cases of `on_devices.py`; of the default one all.
MESHES = {
    "-1,1": "",
    "4,2": ":seeds:folds apart:optimum",
    "1,-1": ":folds:optimum",
    "1,1,8": ":words:sampled words:all logits",
    "2,2,2": ":words:sampled words:all logits",
}
SHARES = {"-1,1": 8, "4,2": 4, "1,-1": 1, "1,1,8": 8, "2,2,2": 4}


@pytest.fixture(scope="module")
def sweeps(environment, tmp_path_factory):
    """{mesh: (arrays by name, what its devices held)}; 'one' is that of a single device."""

    def run(meshes, **variables):
        folder = tmp_path_factory.mktemp("sweeps")
        texts = [mesh + cases for mesh, cases in meshes.items()]
        done = subprocess.run(
            [sys.executable, "tests/on_devices.py", folder, *texts],
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT)} | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        told = map(json.loads, done.stdout.splitlines())
        return {
            mesh: (dict(np.load(folder / f"{mesh}.npz")), facts)
            for mesh, facts in zip(meshes, told, strict=True)
        }

    return {"one": run({"1,1": ""})["1,1"]} | run(MESHES, **EIGHT)


@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_find_what_one_does(sweeps, mesh):
    """Rounding decides where an optimum is left within its tolerance, but not how good it is."""
    expected, found = sweeps["one"][0], sweeps[mesh][0]
    assert len(found) > 20 and found.keys() <= expected.keys()
    for name, array in found.items():
        case, metric = name.split("/", 1)
        if case.startswith("optimum") and metric != "objective":
            continue
        assert array.shape == expected[name].shape, name
        difference = np.abs(array - expected[name].astype(np.float64)).max()
        assert difference <= 1e-6 * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("mesh", MESHES)
def test_devices_hold_even_shares_of_trials_and_classes(sweeps, mesh):
    one, found = sweeps["one"][1], sweeps[mesh][1]
    for case, facts in found.items():
        for what in ("progress", "models"):
            whole, here = facts[what]
            assert whole <= here * SHARES[mesh] <= 1.01 * whole, (case, what)
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
            if (case, name, mesh) == ("all logits", "train_epoch", "2,2,2"):
                allowed.add("collective-permute")  # of the batch's labels, to weigh their classes
            assert kinds <= allowed, (case, name, program["communication"])
    both = sweeps["4,2"][1]["seeds"]["programs"]
    assert both["train_epoch"]["communication"] and both["evaluate"]["communication"]


def test_batch_axis_divides_the_examples_of_the_optimum(sweeps):
    for what in ("arguments", "temporary"):
        one, eight = (
            sweeps[mesh][1]["optimum"]["programs"]["start_divided"][what]
            for mesh in ("one", "1,-1")
        )
        assert eight < one / 2


def test_vocabulary_over_eight_devices_is_trained_by_the_same_command(main, environment, tmp_path):
    """To the same model and metrics, and the config says how the devices were used."""
    small = ("--config.dataset=bigram:400", "--config.train_split=train[:2000]")
    small += ("--config.num_samples=50", "--config.learning_rate=3.0", "--config.num_epochs=2")
    meshes = {"one": ("--config.mesh.classes=1", {}), "eight": ("--config.mesh.classes=-1", EIGHT)}
    for name, (mesh, variables) in meshes.items():
        done = main(
            "--config=configs/large_vocabulary.py",
            *(*small, "--config.mesh.trials=1", mesh, f"--workdir={tmp_path / name}"),
            env=environment | variables,
        )
        assert done.returncode == 0, done.stderr
    one, eight = (np.load(tmp_path / name / "params.npz") for name in meshes)
    for name in ("W", "b"):
        difference = np.abs(eight[name] - one[name]).max()
        assert difference <= 1e-6 * np.abs(one[name]).max()
    one, eight = (
        json.loads((tmp_path / name / "summary.json").read_text())["language"] for name in meshes
    )
    assert eight == pytest.approx(one, rel=1e-6) and 0 < one["kl"] < 3
    config = json.loads((tmp_path / "eight" / "config.json").read_text())
    assert config["mesh"] == {"trials": 1, "batch": 1, "classes": 8}
