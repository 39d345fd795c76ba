"""Successive halving: a sweep that goes on, after some epochs, with the better of its settings.

With (factor, min_epochs) all settings are compared after min_epochs, min_epochs · factor, ...
epochs, the *rungs*, and each time the best 1/factor of them go on: by their mean over seeds and
folds of the metric that selects. The trials that go on are put together into smaller programs.
Each is trained as it would be without halving: the same minibatches, and a schedule over the whole
training. Its numbers are equal up to rounding, since products of another shape may sum in another
order.

Source: Jamieson and Talwalkar, *Non-stochastic best arm identification and hyperparameter
optimization* (2016).
"""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from softmax_jax.sweep import chunks
from softmax_jax.sweep.chunks import Chunk, Epoch, Pending, Run
from softmax_jax.sweep.settings import compare_settings

SCORE = "score"  # what a setting is compared by: an array of a `Pending` that waits at a rung


def rungs(halving: tuple[int, int], num_epochs: int) -> list[int]:
    """The epochs after which settings are compared, the end of the training not among them.

    >>> rungs((3, 1), 27)
    [1, 3, 9]
    """
    factor, epoch = halving
    found = []
    while epoch < num_epochs:
        found.append(epoch)
        epoch *= factor
    return found


def going_on(num_settings: int, factor: int) -> int:
    """How many of so many settings go on after a rung."""
    return max(1, num_settings // factor)


def lengths(num_settings: int, halving: tuple[int, int] | None, num_epochs: int) -> list[int]:
    """How many epochs each setting is trained, the longest first.

    >>> lengths(9, (3, 1), 5)
    [5, 3, 3, 1, 1, 1, 1, 1, 1]
    """
    if halving is None:
        return [num_epochs] * num_settings
    alive, found = num_settings, []
    for epoch in rungs(halving, num_epochs):
        remaining = going_on(alive, halving[0])
        found += [epoch] * (alive - remaining)
        alive = remaining
    return [num_epochs] * alive + found[::-1]


def problems(
    halving: tuple[int, int], *, num_epochs: int, num_settings: int, validated: bool
) -> dict[str, bool]:
    """{what is wrong with the numbers: whether it is so}."""
    factor, first = halving
    right = factor >= 2 and first >= 1
    return {
        f"halving must be (a factor from 2, min_epochs from 1); it is {halving}": not right,
        f"halving compares settings after {first} epochs, and there are {num_epochs}: its "
        "min_epochs must be below num_epochs": right and first >= num_epochs,
        "halving compares settings, and there is only one": num_settings < 2,
        "halving needs a validation metric: give val, or resamples": not validated,
    }


@functools.partial(jax.jit, static_argnames="by")
def score(
    metrics: dict[str, Array], by: str, hopeless: float | Float[Array, ""]
) -> Float[Array, "S K"]:
    """What is better where it is smaller; infinite for what has diverged.

    Args:
      metrics: of trials [S, K], by name.
      by: the name of the one that decides.
      hopeless: a validation loss beyond which a trial has diverged.
    """
    cost = metrics[by] if by.endswith("loss") else -metrics[by]
    sound = jnp.isfinite(metrics["train_loss"]) & (metrics["val_loss"] <= hopeless)
    return jnp.where(sound & jnp.isfinite(cost), cost, jnp.inf)


def epochs(
    run: Run,
    pending: list[Pending],
    train: Callable[[Pending, tuple[Pending, ...], int], Iterator[Epoch]],
    plan: Callable[[Bool[np.ndarray, " T"]], list[Chunk]],
    multiple: int,
) -> Iterator[Epoch]:
    """The epochs of all trials, rung by rung.

    Args:
      run: with its `halving`.
      pending: the chunks to be run; those that wait at a rung among them.
      train: (a chunk, those that come after it, the last epoch) -> its epochs.
      plan: the chunks of some of the trials.
      multiple: the number of columns is padded to a multiple of it.
    """
    assert run.halving is not None
    stops = rungs(run.halving, run.num_epochs)
    while pending:
        where = {(item.epoch, item.segment) for item in pending}
        # All wait at one rung: so it is only before a comparison, whatever a checkpoint has kept,
        # as the next one is made when some chunk has gone on.
        if len(where) == 1 and where <= {(rung, 0) for rung in stops}:
            pending = _best_of(run, pending, plan)
        begun = min(item.epoch for item in pending)
        goal = next(epoch for epoch in (*stops, run.num_epochs) if epoch > begun)
        waiting = [item for item in pending if item.epoch >= goal]
        rest = [item for item in pending if item.epoch < goal]
        for number, item in enumerate(rest):
            later = (*rest[number + 1 :], *waiting)
            fitting = _padded(run, item, multiple) if begun >= stops[0] else item
            for epoch in train(fitting, later, goal):
                yield epoch
                if epoch.pauses:
                    waiting.append(chunks.pending_after(epoch)[0])
        pending = waiting


def _best_of(run, waiting, plan):
    """The chunks of the settings that go on, with their states."""
    trials = np.concatenate([_real(item).ravel() for item in waiting])
    costs = np.concatenate([item.saved[SCORE].ravel() for item in waiting])
    order = np.argsort(trials)  # the mean of a setting does not depend on the chunks
    keep = best_settings(run, trials[order], costs[order])
    rows = np.zeros(len(run.trials.setting), bool)
    rows[trials] = keep[run.trials.setting[trials]]
    place = np.zeros(len(rows), np.int64)
    place[trials] = np.arange(len(trials))
    names = [name for name in waiting[0].saved if name != SCORE]
    flat = {
        name: np.concatenate(
            [item.saved[name].reshape(-1, *item.saved[name].shape[2:]) for item in waiting]
        )
        for name in names
    }
    epoch, found = waiting[0].epoch, []
    for chunk in plan(rows):
        own = place[chunk.trials[:, : chunk.num_real]]
        found.append(Pending(chunk, epoch, 0, {name: flat[name][own] for name in names}))
    return found


def best_settings(
    run: Run, trials: Int[np.ndarray, " n"], costs: Num[np.ndarray, " n"]
) -> Bool[np.ndarray, " G"]:
    """Whether each setting goes on, by the costs of these trials.

    Ties go to the larger l2, then to the smaller learning rate; diverged settings come last.
    """
    assert run.halving is not None
    setting, h = run.trials.setting, run.trials.hyperparameters
    compared = compare_settings(setting[trials], costs, ~np.isfinite(costs))
    first = trials[compared.first]
    cost = np.where(compared.excluded, np.inf, compared.mean)
    order = np.lexsort((h.learning_rate[first], -h.l2[first], cost))
    best = order[: going_on(len(order), run.halving[0])]
    keep = np.zeros(setting.max() + 1, bool)
    keep[setting[first[best]]] = True
    return keep


def _real(item):
    return item.chunk.trials[:, : item.chunk.num_real]


def _padded(run, item, multiple):
    """The chunk with one of few numbers of columns, so that few programs are compiled."""
    real, table = _real(item), run.trials
    one = real[0, 0]
    same = (table.batch_size == table.batch_size[one]) & (table.seed == table.seed[one])
    same &= table.num_samples == table.num_samples[one]
    columns = size_of(real.shape[1], int(same.sum()), run.halving[0])
    if len(real) % multiple:
        columns = -(-columns // multiple) * multiple
    columns = max(columns, item.chunk.trials.shape[1])
    trials = np.pad(real, ((0, 0), (0, columns - real.shape[1])), mode="edge")
    return item._replace(chunk=item.chunk._replace(trials=trials))


def size_of(num: int, most: int, factor: int) -> int:
    """The smallest size from `num` on that is most / factor^k, or beyond 64 most / factor^(k/4).

    Those beyond 16 are multiples of 8. Many columns are padded by a third at most (of a factor of
    3). To pad a few costs less than to compile a program for each number of them; and searches of
    one size share most of their programs.

    >>> [size_of(num, 256, 3) for num in (256, 100, 85, 50, 20, 5, 1)]
    [256, 112, 88, 64, 32, 9, 1]
    """

    def size(step):
        whole = math.floor(most / factor ** (step / 4) + 1e-9)
        return min(most, -(-whole // 8) * 8) if whole > 16 else whole

    step = 0
    while True:
        further = step + 1
        if size(step) <= _FEW:
            further = 4 * (step // 4 + 1)
        if size(further) < num:
            return size(step)
        step = further


_FEW = 64  # columns
