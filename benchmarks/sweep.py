"""Sweeps of T trials, side by side: 10 epochs of Fashion-MNIST, batch 256, validation every epoch.

    TFDS_DATA_DIR=... python -m benchmarks.sweep [--trials 1 4 16 64 256] [--repeats=5]
    python -m benchmarks.sweep --trials 64 --sklearn --output=FILE.json
    python -m benchmarks.sweep --digits-cv              # 1,000 settings × 5 folds of the digits
    python -m benchmarks.sweep --dataset=digits         # runs anywhere

From the root of the repository; needs requirements-bench.txt (without PyTorch, or on an
accelerator, its contenders are left out). Learning rates are spread over 0.01..0.1; the accuracy
shown is that of the trial with 0.1. Every contender takes its turn in every round, after a run of
two epochs that is not measured: what is compiled is warm. A contender that does a part of the work
is scaled to the whole, and the note says so.

`ratio`: times as long as this project's sweep. `GFLOP/s`: of the matrix products that the task
needs, (4 N + 2 N_val) T C D an epoch. The line "the matrix products alone" is the peak of this
machine at the sweep's own shapes, with the same numbers of steps; its ratio is the fraction of the
peak that the sweep reaches.
"""

import argparse
import functools

from benchmarks import timing
from benchmarks.timing import Contender, Processes

_JAX, _RIVALS = "benchmarks.in_jax", "benchmarks.rivals"
_ON_CPU, _ON_ACCELERATOR = (1, 4, 16, 64, 256), (1, 4, 16, 64, 256, 1024, 4096)
_ONE_BY_ONE = 4  # how many runs of one are measured


def main():
    """Measures, prints, writes."""
    options = _options()
    with Processes() as processes:
        facts, torch = timing.introduce(processes, _JAX, _RIVALS)
        on_cpu = facts["platform"] == "cpu"
        results = {"machine": facts, "options": vars(options)}
        if options.digits_cv:
            results["digits_cv"] = _measure_digits(processes, options)
        else:
            task = processes.bind(f"{_JAX}:sizes", dataset=options.dataset)()
            for num_trials in options.trials or (_ON_CPU if on_cpu else _ON_ACCELERATOR):
                rows = _measure_trials(processes, options, task, num_trials, torch)
                results[f"{num_trials} trials"] = rows
    timing.write(options.output, results)


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="fashion_mnist", help="or digits")
    parser.add_argument("--trials", type=int, nargs="+", default=None)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sklearn", action="store_true", help="with scikit-learn (slow)")
    parser.add_argument("--digits-cv", action="store_true", help="only the digits")
    parser.add_argument("--output", default="", help="a JSON file")
    return parser.parse_args()


def _measure_trials(processes, options, task, num_trials, torch):
    bind = functools.partial(_contender, processes, options)
    contenders = _in_jax(bind, num_trials)
    if torch:
        contenders += _in_torch(bind, num_trials)
        if options.sklearn:
            contenders.append(_scikit_learn(processes, options, num_trials))
    rows = timing.measure(contenders, options.repeats)
    per_epoch = 4 * task["train"] + 2 * task["val"]
    work = options.epochs * per_epoch * num_trials * task["classes"] * task["features"]

    def rate(row):
        return "" if "scikit" in row["name"] else f"{work / row['median'] / 1e9:.0f}"

    columns = {"GFLOP/s": rate, "val accuracy": timing.accuracy}
    print(f"\n{num_trials} trials", timing.compare(rows, columns), sep="\n", flush=True)
    return rows


def _contender(processes, options, name, function, factor=1.0, note="", **arguments):
    """A contender that warms up with two epochs."""
    arguments |= {"dataset": options.dataset, "batch_size": 256}
    run = processes.bind(function, num_epochs=options.epochs, **arguments)
    warm_up = processes.bind(function, num_epochs=2, **arguments)
    return Contender(name, run, warm_up, factor, note)


def _in_jax(bind, num_trials):
    rates = _learning_rates(num_trials)
    few = rates[-_ONE_BY_ONE:]
    factor = num_trials / len(few)
    return [
        bind("this project, one sweep", f"{_JAX}:fit", learning_rates=rates),
        bind("the matrix products alone", f"{_JAX}:products", num_trials=num_trials),
        bind(
            "this project, runs of one",
            f"{_JAX}:fit_one_by_one",
            factor,
            _scaled(len(few), factor),
            learning_rates=few,
        ),
    ]


def _in_torch(bind, num_trials):
    rates = _learning_rates(num_trials)
    return [
        bind("PyTorch, stacked by hand", f"{_RIVALS}:stacked", learning_rates=rates),
        bind("PyTorch's products alone", f"{_RIVALS}:products", num_trials=num_trials),
        bind(
            "PyTorch, a loop over the trials",
            f"{_RIVALS}:autograd",
            num_trials,
            _scaled(1, num_trials),
            learning_rate=rates[-1],
        ),
    ]


def _scikit_learn(processes, options, num_trials):
    function = f"{_RIVALS}:logistic_regression"
    run = processes.bind(function, dataset=options.dataset, l2=1e-4)
    note = "lbfgs, 100 iterations" + (f"; {_scaled(1, num_trials)}" if num_trials > 1 else "")
    return Contender("scikit-learn, a loop over l2", run, run, num_trials, note)


def _measure_digits(processes, options):
    """Settings × folds in one sweep; the warm-up is the full run, with compiling."""
    run = processes.bind(
        f"{_JAX}:cross_validate_digits",
        num_epochs=options.epochs,
        batch_size=256,
        num_settings=1000,
        folds=5,
    )
    rows = timing.measure([Contender("this project, one sweep", run, run)], options.repeats)
    print("\n1,000 settings × 5 folds of the digits (accuracy: of the best trial)")
    print(timing.compare(rows, {"val accuracy": timing.accuracy}))
    print(f"The first run, with compiling: {rows[0]['warm_up']:.3f} s")
    return rows


def _learning_rates(num_trials):
    """Spread evenly over 0.01..0.1, ending at 0.1."""
    steps = max(num_trials - 1, 1)
    return tuple(0.1 - 0.09 * (num_trials - 1 - i) / steps for i in range(num_trials))


def _scaled(measured, factor):
    return f"{measured} measured × {factor:g}" if factor != 1 else ""


if __name__ == "__main__":
    main()
