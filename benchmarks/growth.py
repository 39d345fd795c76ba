"""How the time and the memory of a sweep grow with each of its sizes, one at a time.

    python -m benchmarks.growth [--repeats=5]

From the root of the repository. Examples made at random, uint8, batch 256, 5 epochs without
validation; memory is the peak of a process of its own above what it held before, which includes the
examples twice (the host's and the device's) and what compiling takes.
"""

import argparse
import functools
import time

import numpy as np

from benchmarks import peak_memory, timing
from benchmarks.timing import Contender, Processes

_BASE = {"trials": 16, "examples": 20_000, "features": 784, "classes": 10}
_EPOCHS = 5


def main():
    """Measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    timing.print_machine(timing.machine())
    variants = [_BASE] + [
        _BASE | {name: factor * _BASE[name]} for name in _BASE for factor in (4, 16)
    ]
    with Processes() as processes:
        contenders = [_contender(processes, sizes) for sizes in variants]
        rows = timing.measure(contenders, options.repeats)
    for row, sizes in zip(rows, variants, strict=True):
        with Processes() as fresh:
            row["peak"] = fresh.bind(f"{__spec__.name}:sweep_of", **sizes)()["peak"]
    columns = {"peak": lambda row: f"{row['peak'] / 1e6:.0f} MB"}
    print(f"\n{_EPOCHS} epochs", timing.compare(rows, columns), sep="\n")


def _contender(processes, sizes):
    changed = [f"{name} {size:,}" for name, size in sizes.items() if size != _BASE[name]]
    name = changed[0] if changed else ", ".join(f"{size:,} {name}" for name, size in sizes.items())
    run = processes.bind(f"{__spec__.name}:sweep_of", **sizes)
    return Contender(name, run, run)


def sweep_of(trials, examples, features, classes):
    """Seconds of a sweep and the peak of its memory."""
    import jax  # in a process of its own: the one that prints need not have it

    from softmax_jax import sweep

    train = _examples(examples, features, classes)
    before, start = peak_memory.start(), time.perf_counter()
    settings = sweep.grid(learning_rate=np.geomspace(1e-3, 1e-1, trials))
    for epoch in sweep.epochs(train, None, settings, num_epochs=_EPOCHS):
        jax.block_until_ready(epoch.states)
    return {"seconds": time.perf_counter() - start, "peak": peak_memory.since(before)}


@functools.lru_cache(maxsize=1)
def _examples(examples, features, classes):
    from softmax_jax import data

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (examples, features), np.uint8)
    y = np.append(np.arange(classes), rng.integers(0, classes, examples - classes))
    names = tuple(map(str, range(classes)))
    return data.from_arrays((x, y), (x[:1].copy(), y[:1].copy()), label_names=names).train


if __name__ == "__main__":
    main()
