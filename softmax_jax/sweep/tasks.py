"""The work that is left of a sweep: pieces, and how far each has come."""

from typing import NamedTuple

import numpy as np

from softmax_jax.sweep import trees
from softmax_jax.sweep.trials import Piece, cut


class Task(NamedTuple):
    """A piece that has `epoch` epochs behind it, and `part` parts of the next one.

    saved: the state of its trials by name, arrays [S, K, ...] without any padding; None: fresh.
    """

    piece: Piece
    epoch: int = 0
    part: int = 0
    saved: dict | None = None


def left(epoch) -> list[Task]:
    """What is left of the sweep after an `Epoch`, with the state that it is in, on the host."""
    rest = list(epoch.rest)
    if epoch.ends:
        return rest
    arrays = trees.flatten(epoch.run.placement.fetch(epoch.progress))
    saved = {name: array[:, : epoch.piece.num_real] for name, array in arrays.items()}
    return [Task(epoch.piece, epoch.epoch - (epoch.part > 0), epoch.part, saved), *rest]


def pack(tasks: list[Task]) -> tuple[dict, list]:
    """The tasks as arrays by name, and as a list of what JSON can hold."""
    arrays = {
        f"{number}/{name}": array
        for number, task in enumerate(tasks)
        for name, array in (task.saved or {}).items()
    }
    described = [
        {"trials": task.piece.trials[:, : task.piece.num_real].tolist()}
        | {"epoch": task.epoch, "part": task.part}
        for task in tasks
    ]
    return arrays, described


def unpack(arrays: dict, described: list) -> list[Task]:
    """The tasks that `pack` was given, without any padding."""
    tasks = []
    for number, task in enumerate(described):
        trials, prefix = np.array(task["trials"]), f"{number}/"
        own = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        piece = Piece(trials, trials.shape[1])
        tasks.append(Task(piece, task["epoch"], task["part"], own or None))
    return tasks


def load(task: Task, like):
    """The tree of what was saved, with the structure and the padding of `like`, on the host."""
    missing = task.piece.trials.shape[1] - task.piece.num_real

    def pad(array):
        widths = [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, widths, mode="edge")

    return trees.unflatten(like, {name: pad(array) for name, array in task.saved.items()})


def recut(tasks: list[Task], chunk: int, multiple: int) -> list[Task]:
    """The same work in pieces that fit this machine: at most `chunk` trials, padded to `multiple`.

    Nothing is put together again: pieces only become smaller.
    """
    return [part for task in tasks for part in _recut(task, chunk, multiple)]


def _recut(task, chunk, multiple):
    real = task.piece.trials[:, : task.piece.num_real]
    for piece in cut(real, chunk or real.size, multiple):
        own = piece.trials[:, : piece.num_real]
        (top, start), (height, width) = np.argwhere(real == own[0, 0])[0], own.shape
        block = np.s_[top : top + height, start : start + width]
        saved = task.saved and {name: array[block] for name, array in task.saved.items()}
        yield task._replace(piece=piece, saved=saved)
