"""Kills a job at random moments, again and again, until it has ended: python lives.py JSON

JSON: {"arguments": those of main.py, "folder": its --workdir, "kills": how many at most, "apart":
checkpoints between two of them at most, "clock_runs_back": whether the time of day does}. Prints
JSON: the exit code, the number of kills and how many of them left a checkpoint half written. Each
life is a process of its own, forked from one that has imported everything: so it takes a fraction
of a second to get going.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import matplotlib.pyplot  # noqa: F401
import sklearn.datasets  # noqa: F401
from absl import app

import main
from softmax_jax.job import config


def live(arguments, clock_runs_back):
    """The program itself; does not return."""
    if clock_runs_back:
        time.time = lambda: 2e9 - 1000 * time.monotonic()
        time.time_ns = lambda: int(1e9 * time.time())
    code = 1
    try:
        sys.argv = ["main.py", *arguments]
        app.run(main.main, flags_parser=config.parse_flags)
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
    """A function that tells whether the moment has come to be killed.

    Early, when the program is still getting ready or has just got going; after a few more
    checkpoints and a few milliseconds; or in the middle of a save.
    """
    kind, moment = rng.choice(("early", "late", "late", "saving")), time.monotonic() + rng.random()
    wanted, delay = checkpoints(folder)[0] + rng.randint(1, apart), rng.uniform(0, 0.01)

    def has_come():
        nonlocal moment
        newest, half = checkpoints(folder)
        if kind == "early":
            return time.monotonic() > moment or newest > wanted
        if kind == "saving":
            return half and newest >= wanted
        if newest < wanted:
            moment = time.monotonic() + delay
        return time.monotonic() > moment

    return has_come


def watch(child, has_come):
    """The exit code of the child, or None: it was killed when its moment had come."""
    while True:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        if has_come():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(1e-4)


def run(arguments, folder, kills=0, apart=6, clock_runs_back=False):
    """One life after the other."""
    rng, killed, halves = random.Random(0), 0, 0
    folder = Path(folder) / "checkpoints"
    while True:
        has_come = fate(rng, folder, apart) if killed < kills else lambda: False
        child = os.fork()
        if child == 0:
            live(arguments, clock_runs_back)
        code = watch(child, has_come)
        if code is not None:
            return {"code": code, "kills": killed, "halves": halves}
        killed += 1
        halves += checkpoints(folder)[1]


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
    print(json.dumps(run(**json.loads(sys.argv[1]))))
