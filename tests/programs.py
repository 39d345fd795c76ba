"""Starts the program in processes of its own, as a batch system does."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[1]


def lives(environment, **options):
    """The finished process of `lives.py` under these options."""
    return subprocess.run(
        [sys.executable, "tests/lives.py", json.dumps(options)],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )


def run_each(environment, commands):
    """Runs main.py with each list of arguments, forked from one process that has imported it all.

    Returns a namespace each, with the `returncode`, `stdout` and `stderr` of a process.
    """
    last = lives(environment, commands=[list(map(str, command)) for command in commands])
    return [SimpleNamespace(**found) for found in json.loads(last.stdout.splitlines()[-1])]


def assert_one_message(done, code, *texts):
    """It ended with this code and one message on the standard error, which holds these texts."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("main.py: ") == 1, done.stderr
    for text in texts:
        assert text in done.stderr
