"""Kills a job at random moments, again and again, until it has ended: python lives.py JSON

JSON: {"arguments": those of main.py, "folder": its --workdir, "most": kills, "seed": of the
moments, "clock_runs_back": whether the time of day does}. Prints JSON: the exit code, the number of
kills and how many of them left a checkpoint half written. Each life is a process of its own, forked
from one that has imported everything: so it is over in a fraction of a second.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot  # noqa: F401
import sklearn.datasets  # noqa: F401
from absl import app

import main
from softmax_jax.job import command_line


def live(arguments, clock_runs_back):
    """The program itself; does not return."""
    if clock_runs_back:
        time.time = lambda: 2e9 - 1000 * time.monotonic()
        time.time_ns = lambda: int(1e9 * time.time())
    code = 1
    try:
        sys.argv = ["main.py", *arguments]
        app.run(main.main, flags_parser=command_line.parse)
    except SystemExit as exit:
        code = exit.code or 0
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def checkpoints(folder):
    """(the number of the newest, whether one is half written)."""
    names = os.listdir(folder) if folder.is_dir() else []
    done = [int(name[:8]) for name in names if name.endswith(".npz")]
    return max(done, default=0), any(name.endswith(".tmp") for name in names)


def fate(rng, folder, start):
    """A function that tells whether the moment has come to be killed.

    In the first `start` seconds, in which the program gets ready; after a few more checkpoints and
    a few milliseconds; or in the middle of a save.
    """
    kind, began = rng.choice(("early", "late", "late", "saving")), time.monotonic()
    first, more, delay = checkpoints(folder)[0], rng.randint(1, 6), rng.uniform(0, 0.01)
    moment = began + rng.uniform(0, start)

    def has_come():
        nonlocal moment
        if kind == "early":
            return time.monotonic() > moment
        newest, half = checkpoints(folder)
        if kind == "saving":
            return half and newest >= first + more
        if newest < first + more:
            moment = time.monotonic() + delay
        return time.monotonic() > moment

    return has_come


def run(arguments, folder, most, seed, clock_runs_back=False):
    """One life after the other."""
    rng, kills, halves, start = random.Random(seed), 0, 0, 0.5
    folder = Path(folder) / "checkpoints"
    while True:
        has_come = fate(rng, folder, start) if kills < most else lambda: False
        began, child = time.monotonic(), os.fork()
        if child == 0:
            live(arguments, clock_runs_back)
        while True:
            gone, status = os.waitpid(child, os.WNOHANG)
            if gone:
                code = os.waitstatus_to_exitcode(status)
                return {"code": code, "kills": kills, "halves": halves}
            if has_come():
                break
            time.sleep(1e-4)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        halves += checkpoints(folder)[1]


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
    print(json.dumps(run(**json.loads(sys.argv[1]))))
