"""The book's run, side by side: 10 epochs, batch 256, learning rate 0.1, validation every epoch.

    TFDS_DATA_DIR=... python -m benchmarks.book_run [--repeats=5] [--output=FILE.json]
    python -m benchmarks.book_run --dataset=digits      # runs anywhere

From the root of the repository; needs requirements-bench.txt (without PyTorch, or on an
accelerator, its contenders are left out). Every contender takes its turn in every round, after one
run that is not measured: what is compiled and cached is warm. Each library has the threads that it
takes by default. The first line is this project's training with validation, and `ratio` says how
many times as long the others take. The line of the whole command counts everything from its start
to its exit: imports, data, training, pictures, files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import timing
from benchmarks.timing import Contender, Processes

_JAX, _RIVALS = "benchmarks.in_jax", "benchmarks.rivals"
_TEXTBOOK_WORKERS = (0, 4)  # none, and as many as the textbook takes
_SAME = 0.01  # a larger difference in accuracy is a mistake in one of the contenders


def main():
    """Measures, prints, writes."""
    options = _options()
    with Processes() as processes:
        facts, torch = timing.introduce(processes, _JAX, _RIVALS)
        contenders = _in_jax(processes, options)
        if torch:
            contenders += _in_torch(processes, options)
        contenders += _command(options)
        rows = timing.measure(contenders, options.repeats)
    print(timing.compare(rows, {"val accuracy": timing.accuracy}))
    _print_spread(rows)
    _print_command(rows)
    timing.write(options.output, {"machine": facts, "options": vars(options), "rows": rows})


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="fashion_mnist", help="or digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", default="", help="a JSON file")
    return parser.parse_args()


def _book(options):
    return {"dataset": options.dataset, "num_epochs": options.epochs, "batch_size": 256}


def _in_jax(processes, options):
    fit = processes.bind(f"{_JAX}:fit", **_book(options), learning_rates=(0.1,))
    loop = processes.bind(f"{_JAX}:textbook_loop", **_book(options), learning_rate=0.1)
    return [
        Contender("this project, training", fit, fit, note="compiled before"),
        Contender("JAX, Python loop over a jitted step", loop, loop, note="compiled before"),
    ]


def _in_torch(processes, options):
    book = _book(options) | {"learning_rate": 0.1}
    autograd = processes.bind(f"{_RIVALS}:autograd", **book)
    by_hand = processes.bind(f"{_RIVALS}:by_hand", **book)
    return [
        Contender("PyTorch, in memory, autograd", autograd, autograd),
        Contender("PyTorch, in memory, by hand", by_hand, by_hand, note="closed-form gradient"),
        _data_loader(processes, book),
    ]


def _data_loader(processes, book):
    """One epoch is measured; the accuracy is that of one full run, which warms up."""

    def bind(num_epochs, num_workers):
        arguments = book | {"num_epochs": num_epochs, "num_workers": num_workers}
        return processes.bind(f"{_RIVALS}:data_loader", **arguments)

    bind(1, 0)()
    seconds = {
        workers: min(bind(1, workers)()["seconds"] for _ in range(2))
        for workers in _TEXTBOOK_WORKERS
    }
    shown = ", ".join(f"{workers}: {value:.2f}" for workers, value in seconds.items())
    print(f"PyTorch DataLoader, seconds an epoch (the better of two) by num_workers: {shown}")
    fastest = min(seconds, key=seconds.get)
    full = bind(book["num_epochs"], fastest)()

    def one_epoch():
        return bind(1, fastest)() | {"accuracy": full["accuracy"]}

    return Contender(
        "PyTorch, DataLoader",
        one_epoch,
        lambda: full,
        factor=book["num_epochs"],
        note=f"num_workers={fastest}; 1 epoch measured × {book['num_epochs']}",
    )


def _command(options):
    if not Path("main.py").exists():
        print("The whole command is left out: there is no main.py here.")
        return []

    def run():
        return _run_command(options.dataset, options.epochs)

    return [Contender("this project, the whole command", run, run, note="caches warm")]


def _run_command(dataset, num_epochs):
    """main.py in a fresh work folder: seconds, those of its phases, the peak of its memory."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        workdir = Path(folder) / "run"
        command = [sys.executable, "main.py", "--config=configs/default.py"]
        command += [f"--workdir={workdir}", f"--config.dataset={dataset}"]
        command += [f"--config.num_epochs={num_epochs}"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{log.read()}")
        summary = json.loads((workdir / "summary.json").read_text())
    return {
        "seconds": seconds,
        "accuracy": summary["selected"]["val_accuracy"],
        "peak_megabytes": usage.ru_maxrss / 1024,
        "phases": summary["seconds"],
    }


def _print_spread(rows):
    found = [row["figures"]["accuracy"] for row in rows]
    spread = max(found) - min(found)
    verdict = "as it should be" if spread <= _SAME else f"MORE THAN {_SAME}: one of them is wrong"
    print(f"Validation accuracies differ by {spread:.4f}, {verdict}.")


def _print_command(rows):
    for row in rows:
        if "phases" in row["figures"]:
            peak, phases = row["figures"]["peak_megabytes"], row["figures"]["phases"]
            print(f"The last whole command: peak memory {peak:.0f} MB; seconds by phase:", end=" ")
            print(", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items()))


if __name__ == "__main__":
    main()
