"""The trials of a job: their table, and the plan in which pieces they are run."""

from typing import NamedTuple

import numpy as np

from softmax_jax.sweep.settings import as_arrays
from softmax_jax.train import Hyperparameters


class Trials(NamedTuple):
    """A row per trial, in the order of their numbers.

    Of batch size, number of samples, seed, setting and fold, the last runs fastest. Every field is
    an array [T]; `group` numbers the settings with their sizes, which are what a selection
    compares; `fold` is the column of the resamples (-1: there are none); `num_samples` the words
    that a loss draws for a batch (0: it draws none). `shown` names the columns that matter.
    """

    hyperparameters: Hyperparameters
    batch_size: np.ndarray
    seed: np.ndarray
    fold: np.ndarray
    group: np.ndarray
    num_samples: np.ndarray
    shown: tuple = (*Hyperparameters._fields, "seed", "batch_size")

    def row(self, trial) -> dict:
        """The trial's settings by their config names, as plain numbers."""
        values = {name: shortest(column[trial]) for name, column in self.axes().items()}
        values |= {"seed": int(self.seed[trial]), "fold": int(self.fold[trial])}
        values |= {"batch_size": int(self.batch_size[trial])}
        values |= {"num_samples": int(self.num_samples[trial])}
        return {name: value for name, value in values.items() if name in (*self.shown, "fold")}

    def axes(self) -> dict:
        """The hyperparameters by name, arrays [T]."""
        return self.hyperparameters._asdict()

    def columns(self) -> dict:
        """All that a selection chooses among, by name, arrays [T]: hyperparameters and sizes."""
        return self.axes() | {"batch_size": self.batch_size, "num_samples": self.num_samples}


def table(settings, *, seeds=(0,), batch_sizes=(256,), num_samples=(0,), num_resamples=0) -> Trials:
    """All trials of settings × seeds × resamples × batch sizes × numbers of samples."""
    settings = as_arrays(settings)
    num_settings, folds = len(settings.l2), max(num_resamples, 1)
    shape = (len(batch_sizes), len(num_samples), len(seeds), num_settings, folds)
    size, sample, seed, setting, fold = (index.ravel() for index in np.indices(shape))
    shown = Trials._field_defaults["shown"] + (("num_samples",) if any(num_samples) else ())
    return Trials(
        hyperparameters=Hyperparameters(*(column[setting] for column in settings)),
        batch_size=np.asarray(batch_sizes, np.int64)[size],
        seed=np.asarray(seeds, np.int64)[seed],
        fold=fold if num_resamples else np.full_like(fold, -1),
        group=(size * len(num_samples) + sample) * num_settings + setting,
        num_samples=np.asarray(num_samples, np.int64)[sample],
        shown=shown,
    )


class Piece(NamedTuple):
    """Trials that run as one program: `trials` [S, K] holds their numbers, a row per seed.

    The trials of a row share their minibatches. `num_real` of the columns count; the rest repeat
    the last of them, so that all pieces of one batch size have one shape and compile once.
    """

    trials: np.ndarray
    num_real: int


def plan(trials: Trials, chunk: int = 0, *, by_fold=False, multiple=1) -> list[Piece]:
    """The pieces in the order in which they run; each has at most `chunk` trials (0: no limit).

    A piece holds as many seeds as fit (of numbers that divide all seeds, so that the pieces of one
    batch size have one shape), and of each seed the same columns. by_fold: no piece has trials of
    two folds. multiple: what the number of columns is padded to a multiple of.
    """
    numbers = np.arange(len(trials.group))
    pieces = []
    programs = np.stack([trials.batch_size, trials.num_samples], 1)
    for program in dict.fromkeys(map(tuple, programs.tolist())):
        for fold in _in_order(trials.fold) if by_fold else [None]:
            together = (programs == program).all(1) & ((trials.fold == fold) | (fold is None))
            by_seed = numbers[together].reshape(len(_in_order(trials.seed)), -1)
            pieces += cut(by_seed, chunk or by_seed.size, multiple)
    return pieces


def cut(by_seed, limit, multiple=1) -> list[Piece]:
    """Pieces of trials [seeds, columns], with at most `limit` real ones each.

    Where `multiple` divides the seeds of a piece, its columns need no padding.
    """
    columns = _even(by_seed.shape[1], limit)
    rows = _divisor(len(by_seed), limit // columns)
    multiple = multiple if rows % multiple else 1
    pieces = []
    for top in range(0, len(by_seed), rows):
        for left in range(0, by_seed.shape[1], columns):
            block = by_seed[top : top + rows, left : left + columns]
            missing = -(-columns // multiple) * multiple - block.shape[1]
            padded = np.pad(block, ((0, 0), (0, missing)), mode="edge")
            pieces.append(Piece(padded, block.shape[1]))
    return pieces


def _even(length, limit):
    """The size of the pieces when `length` is cut into as few, as even, as the limit allows."""
    num_pieces = -(-length // max(limit, 1))
    return -(-length // num_pieces)


def _divisor(length, limit):
    """The largest divisor of `length` within the limit, and 1 at least."""
    return max(n for n in range(1, length + 1) if length % n == 0 and n <= max(limit, 1))


def _in_order(values):
    return list(dict.fromkeys(values.tolist()))


def shortest(value):
    """The float of a NumPy number: 0.1, where float(np.float32(0.1)) is 0.10000000149011612."""
    return float(str(value))
