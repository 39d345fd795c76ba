"""The record of the machine is of this machine, and compiled programs outlive a process."""

import jax
import numpy as np
import pytest

from softmax_jax.job import processes


def test_versions_and_devices_are_those_in_use():
    assert processes.versions()["jax"] == jax.__version__
    assert processes.versions()["numpy"] == np.__version__
    assert processes.devices() == {
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": len(jax.devices()),
    }


@pytest.mark.slow
def test_a_run_leaves_compiled_programs_for_the_next(main, environment, tmp_path):
    cache = tmp_path / "cache"
    arguments = ("--config=configs/digits.py", "--config.num_epochs=1")
    env = environment | {"XDG_CACHE_HOME": str(cache)}
    assert main(*arguments, f"--workdir={tmp_path / 'a'}", env=env).returncode == 0
    programs = set((cache / "softmax_jax" / "xla").iterdir())
    assert programs
    assert main(*arguments, f"--workdir={tmp_path / 'b'}", env=env).returncode == 0
    compiled = {path for path in programs if path.name.endswith("-cache")}
    again = set((cache / "softmax_jax" / "xla").glob("*-cache"))
    assert again == compiled
