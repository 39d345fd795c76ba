"""From the epochs of a sweep to its `Result`."""

from collections.abc import Iterable

import jax
import numpy as np

from softmax_jax.sweep.result import Result


def collect(epochs: Iterable) -> Result:
    """Drains the generator `sweep.epochs` (or one that passes its epochs on) into a `Result`."""
    metrics, last, best, best_epoch = {}, None, None, None
    for epoch in epochs:
        run = epoch.run
        shape = (len(run.trials.group), run.num_epochs)
        for name, values in epoch.metrics.items():
            if name not in metrics:
                metrics[name] = np.full(shape, np.nan, np.float32)
            metrics[name][epoch.trials, epoch.epoch - 1] = values
        if epoch.epoch == run.num_epochs:
            params, kept = jax.device_get((epoch.states.params, epoch.best))
            last = _place(last, params, epoch, shape[0])
            best = _place(best, kept.params, epoch, shape[0])
            best_epoch = _place(best_epoch, kept.epoch, epoch, shape[0])
    return Result(run, metrics, last, best, best_epoch)


def _place(collected, piece, epoch, num_trials):
    """Writes the piece's arrays [S, K, ...] into the rows of its trials of arrays [T, ...]."""
    real = slice(epoch.piece.num_real)  # the padding goes no further
    numbers = epoch.piece.trials[:, real]
    if collected is None:
        collected = jax.tree.map(
            lambda leaf: np.zeros((num_trials, *leaf.shape[2:]), leaf.dtype), piece
        )

    def write(whole, part):
        whole[numbers] = part[:, real]
        return whole

    return jax.tree.map(write, collected, piece)
