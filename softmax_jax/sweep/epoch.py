"""What the host sees of a sweep: one `Epoch` after the other."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from softmax_jax.sweep.program import Best
from softmax_jax.sweep.run import Run
from softmax_jax.sweep.trials import Piece
from softmax_jax.train import State


class Epoch(NamedTuple):
    """What one epoch of one piece of the sweep brought.

    `epoch` counts from 1; `trials` [n] are the numbers of the trials trained here, `reached` [n]
    the epoch that each of them has come to, `metrics` {name: [n]} their figures (train_loss,
    val_accuracy, ...) and `facts` {name: [n]} what else is known of them by now. `states` and
    `best` are stacked [S, K] as the `piece` has its trials, and valid until the next step of the
    generator; `ends` says whether this is the piece's last epoch.

    Where epochs come in parts, all but the last step of each brings no figures (`trials` is empty):
    `part` is then how many parts lie behind it, else 0. `progress` is the state of the training as
    a tree of leaves [S, K, ...], and `rest` what comes after this piece: what it takes to go on
    from here.
    """

    epoch: int
    trials: np.ndarray
    reached: np.ndarray
    metrics: dict
    facts: dict
    states: State
    best: Best
    piece: Piece
    ends: bool
    run: Run
    part: int
    progress: dict
    rest: tuple


class Epochs(Iterator):
    """The iterator over the epochs of a sweep: its `run` stays the same, its `work` is the plan.

    bytes_per_trial: what one more trial takes on a device while it trains.
    """

    def __init__(self, run: Run, work: list, bytes_per_trial: int, epochs: Iterator[Epoch]):
        self.run, self.work, self.bytes_per_trial = run, work, bytes_per_trial
        self._epochs = epochs

    def __next__(self) -> Epoch:
        return next(self._epochs)
