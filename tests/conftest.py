"""What tests of several rooms share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fashion_mnist_dir() -> Path:
    """The TFDS data folder that holds Fashion-MNIST; the test is skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "tensorflow_datasets"
    for folder in (os.environ.get("TFDS_DATA_DIR"), beside):
        if folder and (Path(folder) / "fashion_mnist").is_dir():
            return Path(folder)
    pytest.skip("Fashion-MNIST is not prepared here: set TFDS_DATA_DIR to the folder that holds it")


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict:
    """The environment of the programs that tests start: caches of their own, for this session."""
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def offline(environment, tmp_path) -> dict:
    """No prepared dataset, and a network that refuses at once: its proxy is a closed port."""
    hidden = {"HOME": str(tmp_path), "http_proxy": "http://127.0.0.1:9", "TFDS_DATA_DIR": ""}
    return environment | hidden | {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture(scope="session")
def main(environment):
    """main(*arguments, env=...) runs `python main.py` and returns the finished process."""

    def run(*arguments, env=environment):
        command = [sys.executable, "main.py", *arguments]
        root = Path(__file__).parents[1]
        return subprocess.run(
            command, cwd=root, env=env, capture_output=True, text=True, timeout=300, check=False
        )

    return run
