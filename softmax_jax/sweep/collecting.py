"""From the epochs of a sweep to its `Result`."""

from collections.abc import Iterable, Iterator

import jax
import numpy as np
from flax import traverse_util

from softmax_jax.sweep.result import Result


def collect(epochs: Iterable) -> Result:
    """Drains the generator `sweep.epochs` (or one that passes its epochs on) into a `Result`."""
    collection = None
    for epoch in epochs:
        collection = collection or Collection(epoch.run)
        collection.add(epoch)
    return collection.result()


class Collection:
    """What the epochs so far have brought, by the number of the trial.

    reached [T, E]: the epochs at which a trial was measured, as far as `count` [T] says ·
    metrics, facts: {name: [T, E]}, {name: [T]} · last, best: parameters [T, ...] of the trials
    that have ended · best_epoch [T] · log: the trials in the order in which they were heard of.
    """

    def __init__(self, run):
        num_trials = len(run.trials.group)
        self.run = run
        self.count = np.zeros(num_trials, np.int64)
        self.reached = np.zeros((num_trials, run.num_epochs), np.int32)
        self.metrics, self.facts = {}, {}
        self.last, self.best = None, None
        self.best_epoch = np.zeros(num_trials, np.int32)
        self.log = []

    def add(self, epoch):
        """Takes what an `Epoch` brought."""
        trials, columns = epoch.trials, self.count[epoch.trials]
        self.reached[trials, columns] = epoch.reached
        for name, values in epoch.metrics.items():
            self._metric(name, values.dtype)[trials, columns] = values
        for name, values in epoch.facts.items():
            self.facts.setdefault(name, np.zeros(len(self.count), values.dtype))[trials] = values
        self.count[trials] += 1
        self.log.append(np.asarray(trials, np.int32))
        if epoch.ends:
            params, best = epoch.run.placement.fetch((epoch.states.averaged, epoch.best))
            self.last = _place(self.last, params, epoch.piece, len(self.count))
            self.best = _place(self.best, best.params, epoch.piece, len(self.count))
            self.best_epoch = _place(self.best_epoch, best.epoch, epoch.piece, len(self.count))

    def result(self) -> Result:
        """The `Result`; a trial that ended before others keeps its last figures."""
        columns = np.minimum(np.arange(self.count.max()), self.count[:, None] - 1)

        def filled(values):
            return np.take_along_axis(values, columns, 1)

        return Result(
            self.run,
            {name: filled(values) for name, values in self.metrics.items()},
            filled(self.reached),
            self.last,
            self.best,
            self.best_epoch,
            self.facts,
        )

    def arrays(self) -> dict:
        """All of it as arrays by name, for `restored`."""
        length = self.count.max()
        kept = {"count": self.count, "reached": self.reached[:, :length], "facts": self.facts}
        kept["metrics"] = {name: values[:, :length] for name, values in self.metrics.items()}
        kept |= {"best_epoch": self.best_epoch, "log": np.concatenate(self.log or [[]])}
        if self.last is not None:
            kept |= {"last": self.last, "best": self.best}
        return traverse_util.flatten_dict(kept, sep="/")

    @classmethod
    def restored(cls, run, arrays):
        """The collection of this run that had these `arrays`."""
        kept = traverse_util.unflatten_dict(arrays, sep="/")
        collection = cls(run)
        length = kept["reached"].shape[1]
        collection.count, collection.facts = kept["count"], kept.get("facts", {})
        collection.reached[:, :length] = kept["reached"]
        for name, values in kept.get("metrics", {}).items():
            collection._metric(name, values.dtype)[:, :length] = values
        collection.last, collection.best = kept.get("last"), kept.get("best")
        collection.best_epoch, collection.log = kept["best_epoch"], [kept["log"].astype(np.int32)]
        return collection

    def lines(self) -> Iterator[dict]:
        """What was measured, a dictionary per trial and epoch, in the order of the log."""
        heard = np.zeros_like(self.count)
        for trial in np.concatenate(self.log or [[]]).astype(int):
            column = heard[trial]
            heard[trial] += 1
            figures = {name: values[trial, column] for name, values in self.metrics.items()}
            yield {"trial": trial, "epoch": self.reached[trial, column]} | figures

    def _metric(self, name, dtype):
        return self.metrics.setdefault(name, np.zeros(self.reached.shape, dtype))


def _place(collected, piece_values, piece, num_trials):
    """Writes the piece's arrays [S, K, ...] into the rows of its trials of arrays [T, ...]."""
    real = slice(piece.num_real)  # the padding goes no further
    numbers = piece.trials[:, real]
    if collected is None:
        collected = jax.tree.map(
            lambda leaf: np.zeros((num_trials, *leaf.shape[2:]), leaf.dtype), piece_values
        )

    def write(whole, part):
        whole[numbers] = part[:, real]
        return whole

    return jax.tree.map(write, collected, piece_values)
