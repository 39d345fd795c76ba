"""Passes over features at the scale of ImageNet: seconds each, and what the whole would take.

    python -m benchmarks.scale [--rows=20018] [--features=768] [--classes=1000] [--trials 1 4]

By default a 64th of the rows of ImageNet's train split. For each number of trials: the seconds of
one pass (loss and gradient at a point of every trial), beside those of its two matrix products
alone, on tiles of the same size; the median of --repeats interleaved rounds. Then l2 = 1e-4 is
solved to a proved gap of 1e-4 from a mapped float16 file, with the passes that it takes and the
peak of the memory. The arithmetic: passes × seconds of a pass × 64, for the whole of the rows.
"""

import argparse
import functools
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peak_memory
from softmax_jax.optimum import Problem, minimise, passes, product

_WHOLE = 64


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_018)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        x, y = _features(Path(folder), options.rows, options.features, options.classes)
        print("| trials | rows of a tile | s a pass | s its products | share of the peak |")
        print("| ---: | ---: | ---: | ---: | ---: |")
        for trials in options.trials:
            _measure_pass(Problem(x, y, num_classes=options.classes), trials, options.repeats)
        _solve(Problem(x, y, num_classes=options.classes))


def _features(folder, rows, features, classes):
    """A mapped file of float16 features whose classes overlap, and their labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=rows)
    centres = rng.normal(size=(classes, features)).astype(np.float32)
    x = rng.normal(size=(rows, features)).astype(np.float32) * 3 + centres[y]
    np.save(folder / "x.npy", x.astype(np.float16))
    return np.load(folder / "x.npy", mmap_mode="r"), y


def _measure_pass(problem, trials, repeats):
    own = passes.prepare(problem, trials)
    classes, (_, features) = problem.num_classes, own.table.shape
    points = jnp.zeros((trials, classes, features + 1))
    columns = np.zeros(trials, np.int32)
    tile = jnp.ones((features + 1, own.tile_rows))
    tiles = -(-len(own.y) // own.tile_rows)
    works = {
        "pass": lambda: passes.pass_over(own, points, columns).gradient,
        "products": functools.partial(_products, points, tile, tiles),
    }
    seconds = {name: [] for name in works}
    for number in range(repeats + 1):  # the first compiles
        for name, work in works.items():
            start = time.perf_counter()
            jax.block_until_ready(work())
            if number:
                seconds[name].append(time.perf_counter() - start)
    each, alone = (statistics.median(seconds[name]) for name in works)
    print(f"| {trials} | {own.tile_rows} | {each:.2f} | {alone:.2f} | {alone / each:.0%} |")


@functools.partial(jax.jit, static_argnums=2)
def _products(points, tile, tiles):
    """The two products of each tile, and nothing else."""

    def step(_, point):
        scores = product(point, tile)
        return point + 1e-9 * product(scores, tile.T)

    flat = points.reshape(-1, points.shape[-1])
    return jax.lax.fori_loop(0, tiles, step, flat)


def _solve(problem):
    minimise(problem, [1e-4], tolerance=1e-4)  # compiles
    before, start = peak_memory.start(), time.perf_counter()
    found = minimise(problem, [1e-4], tolerance=1e-4)
    seconds = time.perf_counter() - start
    number, gap = int(found.passes[0]), float(found.gap_bound[0] / found.objective[0])
    print(
        f"l2 = 1e-4: gap {gap:.1e} in {number} passes, {seconds:.1f} s, "
        f"{peak_memory.since(before) / 2**20:.0f} MiB above the start (the mapped file among them)"
    )
    print(f"of {_WHOLE} times the rows: {_WHOLE * seconds / 60:.1f} minutes for one penalty")


if __name__ == "__main__":
    main()
