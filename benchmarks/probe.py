"""The optimum for one penalty and for a path of them: the time to a relative gap, side by side.

    TFDS_DATA_DIR=... python -m benchmarks.probe [--repeats=3] [--limit=300] [--output=FILE.json]
    python -m benchmarks.probe --dataset=50000x768x1000 --l2 1e-4 --path 0      # embeddings
    python -m benchmarks.probe --dataset=digits                                 # runs anywhere

From the root of the repository; needs requirements-bench.txt (without PyTorch, or on an
accelerator, the rivals are left out). The objective is mean cross-entropy + l2/2 · ‖W‖² on all
training examples, its minimum that of this project in float64, with a certificate.

A rival has arrived at the first value of its own objective, accepted or only tried, that is within
the gap of the known minimum: it stops there at no cost. This project runs without that knowledge,
until its certificates prove the gap; a second line of it stops as the rivals do, at the ends of its
spans. `true gap` is the largest of the weights at the end, in float64. Rivals compute in float32
for gaps down to 1e-5 and in float64 below, where their line searches fail in float32; this project
always in float32. `evaluations` of objective and gradient: of this project's, the iterations.
`CPU s`: of all processors, in the last round; on a busy machine the better figure. A rival that has
not arrived after --limit seconds is stopped, and the note says how far it came: its time is then a
lower bound.

Contenders take turns, after a run that is not measured: of this project the whole, with compiling;
of a rival the first evaluation.
"""

import argparse
import functools

import numpy as np

from benchmarks import timing
from benchmarks.timing import Contender, Processes

_JAX, _RIVALS = "benchmarks.probe_in_jax", "benchmarks.probe_rivals"
_FLOAT64_BELOW = 1e-5
# Of newton-cholesky's Hessian, which has as many rows as there are parameters.
_MOST_PARAMETERS = 3000


def main():
    """Measures, prints, writes."""
    options = _options()
    with Processes() as processes:
        facts, rivals = timing.introduce(processes, _JAX, _RIVALS)
        results = {"machine": facts, "options": vars(options)}
        for l2 in _tasks(options):
            results[_title(l2)] = _measure(processes, options, l2, rivals)
    timing.write(options.output, results)


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dataset", default="fashion_mnist", help="digits, or NxDxC: that many embeddings"
    )
    parser.add_argument("--l2", type=float, nargs="*", default=[1e-2, 1e-4], help="one fit each")
    parser.add_argument("--path", type=int, default=16, help="penalties of the path; 0: no path")
    parser.add_argument("--from-l2", type=float, default=1e-1, help="the largest of the path")
    parser.add_argument("--to-l2", type=float, default=1e-5, help="the smallest of the path")
    parser.add_argument("--gaps", type=float, nargs="+", default=[1e-4, 1e-6])
    parser.add_argument("--rivals", nargs="*", default=["SciPy", "PyTorch", "scikit-learn"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300, help="seconds for a run of a rival")
    parser.add_argument("--output", default="", help="a JSON file")
    return parser.parse_args()


def _tasks(options):
    """The penalties of each task."""
    tasks = [[l2] for l2 in options.l2]
    if options.path:
        tasks.append(np.geomspace(options.from_l2, options.to_l2, options.path).tolist())
    return tasks


def _title(l2):
    return f"l2 = {l2[0]:g}" if len(l2) == 1 else f"{len(l2)} l2 from {l2[0]:g} to {l2[-1]:g}"


def _measure(processes, options, l2, rivals):
    """{gap: rows}."""
    task = {"dataset": options.dataset, "l2": l2}
    tolerance = min(options.gaps) / 10
    minima = processes.bind(f"{_JAX}:minima", **task, tolerance=tolerance)()
    print(
        f"\n{options.dataset}, {_title(l2)}: minima in {minima['seconds']:.0f} s, "
        f"each proved within {minima['bound']:.0e} of itself",
        flush=True,
    )
    results = {"minima": minima}
    for gap in options.gaps:
        bind = functools.partial(_bind, processes, task | {"minima": minima["minima"], "gap": gap})
        contenders = _in_jax(bind)
        if rivals:
            contenders += _rivals(bind, options, len(l2), minima["parameters"], gap)
        rows = [_noted(row, len(l2)) for row in timing.measure(contenders, options.repeats)]
        columns = {
            "CPU s": lambda row: f"{row['figures']['processor_seconds']:.1f}",
            "evaluations": lambda row: f"{row['figures']['evaluations']}",
            "true gap": lambda row: f"{row['figures']['gap']:.1e}",
        }
        print(f"\nto a gap of {gap:g}", timing.compare(rows, columns), sep="\n", flush=True)
        results[f"{gap:g}"] = rows
    return results


def _bind(processes, task, name, function, warm_up=None, **arguments):
    run = processes.bind(function, **task, **arguments)
    first = processes.bind(function, **task, **arguments | (warm_up or {}))
    return Contender(name, run, first)


def _in_jax(bind):
    return [
        bind("this project, proved", f"{_JAX}:certified"),
        bind("this project, true gap", f"{_JAX}:until_true_gap"),
    ]


def _rivals(bind, options, num_penalties, num_parameters, gap):
    """Every rival with each l2 by itself, and along a path from one optimum to the next."""
    dtype = "float32" if gap >= _FLOAT64_BELOW else "float64"
    arguments = {"dtype": dtype, "limit": options.limit, "warm_up": {"limit": 0.0}}
    solvers = {
        "SciPy, jitted objective": (f"{_JAX}:scipy", {}),
        "PyTorch LBFGS": (f"{_RIVALS}:pytorch", {}),
        "scikit-learn, lbfgs": (f"{_RIVALS}:scikit_learn", {"solver": "lbfgs"}),
    }
    if num_parameters <= _MOST_PARAMETERS:
        more = {"solver": "newton-cholesky"}
        solvers["scikit-learn, newton-cholesky"] = f"{_RIVALS}:scikit_learn", more
    starts = {"": False} if num_penalties == 1 else {", cold": False, ", warm": True}
    return [
        bind(name + suffix, function, **arguments, **more, warm_start=warm)
        for name, (function, more) in solvers.items()
        if name.startswith(tuple(options.rivals))
        for suffix, warm in starts.items()
    ]


def _noted(row, num_penalties):
    reached = row["figures"]["reached"]
    if reached == num_penalties:
        return row
    return row | {"note": f"not there: {reached} of {num_penalties} reached"}


if __name__ == "__main__":
    main()
