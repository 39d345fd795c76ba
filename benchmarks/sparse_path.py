"""A path of 100 values of l1 to a relative duality gap, beside scikit-learn's saga, warm-started.

    TFDS_DATA_DIR=... python -m benchmarks.sparse_path [--task digits wide fashion_mnist]
        [--limit=600] [--gap=1e-4] [--num=100]

From the root of the repository. Features are standardised; the path goes from the smallest penalty
that leaves no weight down to a thousandth of it (wide: a hundredth; 5,000 × 2,000 Gaussian
features, of which 50 matter, 5 classes). The objective is mean cross-entropy + l1 ‖W‖₁.

This project runs until its certificates prove the gap, after a run that is not measured. saga goes
down the path from optimum to optimum: at each penalty it runs for 1, 2, 4, ... more passes, until
its weights have the gap,
which is computed outside the clock. After --limit seconds it is stopped: its
time is then a lower bound, and the ratio that of the penalties it finished. CPU seconds are of all
processors: the better figure on a busy machine, where they favour saga, which uses one.

adelie is not among the requirements and is not measured; its path is of the grouped penalty.
"""

import argparse
import time
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from softmax_jax import data, optimum


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--limit", type=float, default=600, help="seconds for saga")
    options = parser.parse_args()
    for name in options.task:
        x, y, ratio = TASKS[name]()
        x = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
        prepared = optimum.prepare(optimum.Problem(x.astype(np.float32), y))
        path = optimum.l1_path(prepared, options.num, ratio=ratio)
        ours(prepared, path, options)
        wall, cpu, found = ours(prepared, path, options)
        print(
            f"{name}: this project {wall:.2f} s ({cpu:.2f} CPU s), {found.iterations.sum()} steps"
            f", {found.converged.sum()} of {len(path)} certified",
            flush=True,
        )
        wall, cpu, done = saga(prepared, x, y, path, options)
        if not done:
            print(f"{name}: saga has not finished one penalty in {wall:.2f} s", flush=True)
            continue
        ours(prepared, path[:done], options)  # another number of trials is compiled anew
        part, part_cpu, _ = ours(prepared, path[:done], options)
        print(
            f"{name}: saga {wall:.2f} s ({cpu:.2f} CPU s) for {done} penalties, which take this "
            f"project {part:.2f} s ({part_cpu:.2f} CPU s): "
            f"{wall / part:.1f} ({cpu / part_cpu:.1f})",
            flush=True,
        )


def digits():
    """1,797 × 64, 10 classes."""
    return *load_digits(return_X_y=True), 1e-3


def wide():
    """5,000 × 2,000 with 50 true features and 5 classes."""
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(5000, 2000)), np.zeros((2000, 5))
    W[:50] = rng.normal(size=(50, 5))
    return x, (x @ W + rng.gumbel(size=(5000, 5))).argmax(1), 1e-2


def fashion_mnist():
    """10,000 × 784, 10 classes."""
    train = data.load("fashion_mnist", train="train[:10000]").train
    return np.asarray(train.x).reshape(len(train.y), -1) / 255.0, np.asarray(train.y), 1e-3


TASKS = {"digits": digits, "wide": wide, "fashion_mnist": fashion_mnist}


def ours(prepared, path, options):
    """(seconds, CPU seconds, the optima)."""
    began = time.perf_counter(), time.process_time()
    found = optimum.minimise(
        prepared, np.zeros(len(path)), l1=path, tolerance=options.gap, max_iterations=20_000
    )
    return time.perf_counter() - began[0], time.process_time() - began[1], found


def saga(prepared, x, y, path, options):
    """(seconds, CPU seconds, how many penalties have the gap)."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    x, model = x.astype(np.float32), None
    wall = cpu = 0.0
    for number, l1 in enumerate(path):
        C, passes, gap = 1 / (l1 * len(y)), 1, np.inf
        while gap > options.gap:
            if wall > options.limit:
                return wall, cpu, number
            if model is None:
                model = LogisticRegression(
                    solver="saga", l1_ratio=1.0, tol=1e-12, warm_start=True, random_state=0
                )
            model.set_params(C=C, max_iter=passes)
            began = time.perf_counter(), time.process_time()
            model.fit(x, y)
            wall += time.perf_counter() - began[0]
            cpu += time.process_time() - began[1]
            initial = model.coef_.T[None], model.intercept_[None]
            at = optimum.minimise(prepared, [0.0], l1=l1, initial=initial, max_iterations=0)
            gap = (at.gap_bound / at.objective)[0]
            passes *= 2
    return wall, cpu, len(path)


if __name__ == "__main__":
    main()
