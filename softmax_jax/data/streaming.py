"""Datasets that are larger than the memory, a part at a time.

A block is a run of consecutive examples, read together; a part is as many examples as are in
memory together, of many blocks drawn at random. The sequence of the blocks, and so what is in
which part, is a function of the epoch alone; within a part, training shuffles as it likes.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from softmax_jax.data.dataset import Dataset

_BLOCK = 1 << 20  # bytes of a block on disk: longer reads are hardly faster
_FEWEST_BLOCKS = 16  # in a part


class Part(NamedTuple):
    """Some examples of a dataset, in memory.

    Attributes:
      number: 0, 1, ... within the epoch.
      rows: [n] their numbers in the dataset.
      dataset: the n examples.
    """

    number: int
    rows: np.ndarray
    dataset: "Dataset"


def shuffled(
    dataset: "Dataset", epoch: int, batch_size: int = 1, block_size: int | None = None
) -> Iterator[Part]:
    """All examples of a dataset once, in parts; see `Dataset.shuffled`.

    Args:
      block_size: examples in a block; by default 1 MiB of them, and at most a 16th of a part.
    """
    N, size = dataset.num_examples, _part_size(dataset, batch_size)
    if size >= N:
        return iter([Part(0, np.arange(N), dataset)])
    block_size = block_size or max(1, min(_block(dataset), size // _FEWEST_BLOCKS))
    starts = np.arange(0, N, block_size)
    np.random.default_rng(epoch).shuffle(starts)
    runs = [(int(start), min(int(start) + block_size, N)) for start in starts]
    return _parts(dataset, _cut(runs, size), f"epoch {epoch}")


def in_order(dataset: "Dataset") -> Iterator[Part]:
    """All examples of a dataset once, in parts, in their own order."""
    N, size = dataset.num_examples, _part_size(dataset, 1)
    if size >= N:
        return iter([Part(0, np.arange(N), dataset)])
    return _parts(dataset, _cut([(0, N)], size), "evaluating")


def _part_size(dataset: "Dataset", batch_size: int) -> int:
    """Whole minibatches, so that an epoch has as many steps as in memory."""
    if dataset.part_size is None or dataset.part_size >= dataset.num_examples:
        return dataset.num_examples
    return max(dataset.part_size // batch_size, 1) * batch_size


def _cut(runs: Sequence[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    """The same examples in the same sequence, as groups of runs of `size` examples together."""
    group, left = [], size
    for start, stop in runs:
        while start < stop:
            end = min(stop, start + left)
            group.append((start, end))
            left -= end - start
            start = end
            if not left:
                yield group
                group, left = [], size
    if group:
        yield group


def _parts(dataset: "Dataset", groups: Iterator, what: str) -> Iterator[Part]:
    from tqdm import tqdm

    total = dataset.num_examples
    options = {"unit": " examples", "unit_scale": True, "leave": False, "disable": None}
    with tqdm(desc=what, total=total, delay=2, **options) as bar:
        for number, group in enumerate(groups):
            runs = sorted(group)  # as they lie on the disk
            rows = np.concatenate([np.arange(*run) for run in runs])
            yield Part(number, rows, _read(dataset, rows, runs))
            bar.update(len(rows))


def _read(dataset: "Dataset", rows: np.ndarray, runs: Sequence[tuple[int, int]]) -> "Dataset":
    # A new array each time: the device may still be reading the part before.
    x = np.empty((len(rows), *dataset.x.shape[1:]), dataset.form)
    end = 0
    for start, stop in runs:
        begin, end = end, end + stop - start
        x[begin:end] = dataset.x[start:stop]
    weights = None if dataset.weights is None else dataset.weights[rows]
    return dataclasses.replace(dataset, x=x, y=dataset.y[rows], weights=weights, part_size=None)


def _block(dataset: "Dataset") -> int:
    return _BLOCK // max(dataset.num_features * dataset.x.dtype.itemsize, 1)
