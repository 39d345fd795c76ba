"""The first answer: whole processes from their start to their end, in turn with scikit-learn's.

    python -m benchmarks.first_answer [--repeats=5] [--tol=1e-4] [--output=FILE.json]
    python -m benchmarks.first_answer --job          # also `main.py --config=configs/default.py`

From the root of the repository; nothing beside the requirements is needed. The data are
scikit-learn's digits, their pixels divided by 16. `warm`: the process finds its compiled programs
in a folder that an earlier one has filled; `cold`: it keeps and finds none. `compiled`: the second
fit of a process, by its own clock. `CPU s`: of all processors, for the whole process; on a busy
machine the better figure. With --tol a further line asks this project for that relative gap,
instead of 1e-6.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import timing
from benchmarks.timing import Contender

_OURS, _THEIRS = "softmax_jax.SoftmaxRegression", "sklearn.linear_model.LogisticRegression"
# Fits twice, or once; the last line of the output is the seconds of the last fit.
_PROGRAM = """
import importlib, json, sys, time, warnings
from sklearn.datasets import load_digits
warnings.simplefilter("ignore")  # scikit-learn's solver stops before it has converged
name, options, fits = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
module, _, name = name.rpartition(".")
x, y = load_digits(return_X_y=True)
make = getattr(importlib.import_module(module), name)
for _ in range(fits):
    start = time.perf_counter()
    make(**options).fit(x / 16, y)
print(time.perf_counter() - start)
"""


def main():
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tol", type=float, help="a further line, with this tolerance")
    parser.add_argument("--job", action="store_true", help="also the command of the default config")
    parser.add_argument("--output", default="", help="a JSON file")
    options = parser.parse_args()
    facts = timing.machine()
    timing.print_machine(facts)
    results = {"machine": facts, "options": vars(options)}
    with tempfile.TemporaryDirectory() as folder:
        for title, contenders in _tables(options, Path(folder)).items():
            rows = timing.measure(contenders, options.repeats)
            print(f"\n{title}", timing.compare(rows, {"CPU s": _cpu}), sep="\n", flush=True)
            results[title] = rows
    timing.write(options.output, results)


def _tables(options, folder):
    """{title: contenders}."""
    path = {"Cs": 10, "cv": 5}
    finer = [] if options.tol is None else [(f"this project, tol={options.tol:g}", options.tol)]
    tables = {
        "SoftmaxRegression().fit, the whole process": [
            _fit("this project, warm", folder, _OURS, {}),
            _fit("this project, cold", None, _OURS, {}),
            _fit("scikit-learn", None, _THEIRS, {}),
        ],
        "SoftmaxRegressionCV(Cs=10, cv=5).fit, the whole process": [
            _fit("this project, warm", folder, f"{_OURS}CV", path),
            _fit("scikit-learn", None, f"{_THEIRS}CV", path),
        ],
        "SoftmaxRegressionCV(Cs=10, cv=5).fit, compiled": [
            _fit("this project", folder, f"{_OURS}CV", path, fits=2),
            *(_fit(name, folder, f"{_OURS}CV", path | {"tol": t}, fits=2) for name, t in finer),
            _fit("scikit-learn", None, f"{_THEIRS}CV", path, fits=2),
        ],
    }
    if options.job:
        command = "main.py", "--config=configs/default.py", "--overwrite", f"--workdir={folder}/job"
        run = _process(command, folder)
        tables["main.py --config=configs/default.py"] = [Contender("warm", run, run)]
    return tables


def _fit(name, folder, estimator, options, fits=1):
    run = _process(("-c", _PROGRAM, estimator, json.dumps(options), str(fits)), folder, fits > 1)
    return Contender(name, run, run)


def _process(arguments, folder, by_its_own_clock=False):
    """A function that runs Python with these arguments, its caches in `folder` (None: without)."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("JAX_")}
    cache = {"SOFTMAX_JAX_CACHE": "off" if folder is None else ""}
    own = cache | ({} if folder is None else {"XDG_CACHE_HOME": str(folder)})

    def run():
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, *arguments]
        done = subprocess.run(command, env=environment | own, stdout=subprocess.PIPE, check=True)
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"seconds": float(done.stdout) if by_its_own_clock else seconds, "cpu": cpu}

    return run


def _cpu(row):
    return f"{row['figures']['cpu']:.2f}"


if __name__ == "__main__":
    main()
