"""Every script runs as its first lines say, prints a table and leaves the pictures it names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.stem for path in (ROOT / "examples").glob("*.py") if "__main__" in path.read_text("utf-8")
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_says_how_it_is_run(name):
    assert f"python -m examples.{name}" in (ROOT / "examples" / f"{name}.py").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_runs(environment, tmp_path, request, name):
    docstring = (ROOT / "examples" / f"{name}.py").read_text("utf-8").split('"""')[1]
    if "Fashion-MNIST" in docstring:
        prepared = request.getfixturevalue("fashion_mnist_dir")
        environment = environment | {"TFDS_DATA_DIR": str(prepared)}
    arguments = [f"--output={tmp_path}"] if "--output" in docstring else []
    command = [sys.executable, "-m", f"examples.{name}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| --- |" in done.stdout
    pictures = {path.name for path in tmp_path.iterdir()}
    assert pictures == set(re.findall(r"\w+\.png", docstring))
