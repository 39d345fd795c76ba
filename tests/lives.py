"""Runs main.py in forks of one process that has imported everything: python lives.py JSON

So each of them starts in a fraction of a second. JSON has the options of `run`, which kills a job
at random moments until it has ended, or those of `run_each`; what these return is printed as JSON.
"""

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import matplotlib.pyplot  # noqa: F401
import sklearn.datasets  # noqa: F401

import softmax_jax.job.run  # noqa: F401
from softmax_jax.__main__ import train


def live(arguments, clock_runs_back=False):
    """The program itself; does not return."""
    if clock_runs_back:
        time.time = lambda: 2e9 - 1000 * time.monotonic()
        time.time_ns = lambda: int(1e9 * time.time())
    code = 1
    try:
        sys.argv = ["main.py", *arguments]
        code = train(sys.argv)
    except SystemExit as exit:
        code = exit.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def checkpoints(folder):
    """(the number of the newest, whether one is half written)."""
    names = os.listdir(folder) if folder.is_dir() else []
    done = [int(name[:8]) for name in names if name.endswith(".npz")]
    return max(done, default=0), any(name.endswith(".tmp") for name in names)


def fate(rng, folder, apart):
    """A function that tells whether it is time to kill the program.

    Early, while it starts; after a few more checkpoints and a few milliseconds; or in the middle of
    a save.
    """
    kind, moment = rng.choice(("early", "late", "late", "saving")), time.monotonic() + rng.random()
    wanted, delay = checkpoints(folder)[0] + rng.randint(1, apart), rng.uniform(0, 0.01)

    def is_time():
        nonlocal moment
        newest, half = checkpoints(folder)
        if kind == "early":
            return time.monotonic() > moment or newest > wanted
        if kind == "saving":
            return half and newest >= wanted
        if newest < wanted:
            moment = time.monotonic() + delay
        return time.monotonic() > moment

    return is_time


def watch(child, is_time):
    """The exit code of the child, or None: it was killed, as it was time."""
    while True:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        if is_time():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(1e-4)


def run(arguments, folder, kills=0, apart=6, clock_runs_back=False):
    """Runs a job again and again until it ends by itself.

    kills: how often it is killed at most; apart: after how many more checkpoints at most;
    clock_runs_back: whether the time of day does. Returns the exit code, the number of kills, and
    how many of them left a checkpoint half written.
    """
    rng, killed, halves = random.Random(0), 0, 0
    folder = Path(folder) / "checkpoints"
    while True:
        is_time = fate(rng, folder, apart) if killed < kills else lambda: False
        child = os.fork()
        if child == 0:
            live(arguments, clock_runs_back)
        code = watch(child, is_time)
        if code is not None:
            return {"code": code, "kills": killed, "halves": halves}
        killed += 1
        halves += checkpoints(folder)[1]


def run_each(commands):
    """Exit code and output of main.py with each list of arguments, one after the other."""
    found = []
    for arguments in commands:
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            child = os.fork()
            if child == 0:
                os.dup2(stdout.fileno(), 1)
                os.dup2(stderr.fileno(), 2)
                live(arguments)
            _, status = os.waitpid(child, 0)
            texts = {}
            for name, file in (("stdout", stdout), ("stderr", stderr)):
                file.seek(0)
                texts[name] = file.read()
        found.append({"returncode": os.waitstatus_to_exitcode(status)} | texts)
    return found


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
    options = json.loads(sys.argv[1])
    print(json.dumps((run_each if "commands" in options else run)(**options)))
