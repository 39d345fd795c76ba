"""Interleaved measurements: processes, rounds, medians, a table. No command of its own.

Every library runs in a process of its own, which lives as long as the benchmark: thread pools and
memory of one do not disturb another, and this process stays small. Contenders take turns, one run
of each per round, in an order that rotates: what the machine does meanwhile hits all alike.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from softmax_jax.host import DataError

_PACKAGES = ("numpy", "jax", "jaxlib", "flax", "optax", "torch", "scikit-learn")


class Contender(NamedTuple):
    """What takes part in a comparison.

    run() and warm_up() -> {"seconds": ..., "accuracy": ..., ...}. Only run() is measured; warm_up()
    comes first and once, to load and to compile. factor: by what the seconds are multiplied where
    only a part of the work is run; the note says so.
    """

    name: str
    run: Callable[[], dict]
    warm_up: Callable[[], dict]
    factor: float = 1.0
    note: str = ""


class Processes:
    """A process per library, started when first called."""

    def __init__(self):
        self._pools = {}

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for pool in self._pools.values():
            pool.shutdown()

    def bind(self, function: str, **arguments) -> Callable[[], dict]:
        """`function` is 'module:function'; a process per module. Returns what runs it there.

        Where data is wrong or not to be had, the benchmark ends with a message that says so.
        """
        return functools.partial(self._call, function, arguments)

    def _call(self, function, arguments):
        module = function.partition(":")[0]
        if module not in self._pools:
            spawn = multiprocessing.get_context("spawn")
            self._pools[module] = ProcessPoolExecutor(max_workers=1, mp_context=spawn)
        try:
            return self._pools[module].submit(_timed, function, arguments).result()
        except DataError as error:
            raise SystemExit(str(error)) from None


def _timed(function, arguments):
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    start = time.perf_counter()
    figures = call(**arguments)
    return {"seconds": time.perf_counter() - start} | figures


def measure(contenders: list[Contender], repeats: int) -> list[dict]:
    """A row per contender: its name, seconds of every repeat (scaled), median, figures, note."""
    warm_ups = [contender.warm_up() for contender in contenders]
    runs = [[] for _ in contenders]
    for shift in range(repeats):
        for position in range(len(contenders)):
            turn = (position + shift) % len(contenders)
            runs[turn].append(contenders[turn].run())
    return [_row(*results) for results in zip(contenders, warm_ups, runs, strict=True)]


def _row(contender, warm_up, runs):
    seconds = [contender.factor * run["seconds"] for run in runs]
    return {
        "name": contender.name,
        "median": statistics.median(seconds),
        "seconds": seconds,
        "warm_up": warm_up["seconds"],
        "figures": {name: value for name, value in runs[-1].items() if name != "seconds"},
        "note": contender.note,
    }


def compare(rows: list[dict], columns: dict[str, Callable[[dict], str]]) -> str:
    """A table of the rows, the first of which the others are compared with.

    columns: {heading: row -> text}, further ones between the ratio and the note.
    """
    base = rows[0]["median"]
    head = ["", "median s", "min .. max", "ratio", *columns, "note"]
    body = [
        [
            row["name"],
            f"{row['median']:.3f}",
            f"{min(row['seconds']):.3f} .. {max(row['seconds']):.3f}",
            f"{row['median'] / base:.2f}",
            *(column(row) for column in columns.values()),
            row["note"],
        ]
        for row in rows
    ]
    return _align([head, *body])


def _align(lines):
    """Names and notes to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1

    def cell(i, text):
        return text.ljust(widths[i]) if i in (0, last) else text.rjust(widths[i])

    return "\n".join(
        "  ".join(cell(i, text) for i, text in enumerate(line)).rstrip() for line in lines
    )


def accuracy(row: dict) -> str:
    """The column of the validation accuracy."""
    value = row["figures"].get("accuracy")
    return "" if value is None else f"{value:.4f}"


def machine() -> dict:
    """What the figures depend on: the CPU, the versions, how busy the machine is."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _cpu_model():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def introduce(processes: Processes, in_jax: str, rivals: str) -> tuple[dict, bool]:
    """Prints what the figures depend on. Returns it, and whether PyTorch's contenders take part.

    in_jax, rivals: the modules of the contenders, each with a function `describe`.
    """
    facts = machine() | processes.bind(f"{in_jax}:describe")()
    torch = facts["platform"] == "cpu" and importlib.util.find_spec("torch") is not None
    if torch:
        facts |= processes.bind(f"{rivals}:describe")()
    else:
        print("The PyTorch contenders are left out: no PyTorch, or an accelerator.")
    facts.pop("seconds")
    print_machine(facts)
    return facts, torch


def print_machine(facts: dict) -> None:
    """The facts of `machine()` and of the libraries' own, a line each."""
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {version}" for key, version in value.items())
        elif isinstance(value, tuple):
            value = ", ".join(f"{number:.2f}" for number in value)
        print(f"{name}: {value}")


def write(path: str, results: dict) -> None:
    """The results as JSON, where a path is given."""
    if path:
        Path(path).write_text(json.dumps(results, indent=2) + "\n")
