"""Trials that run as one program, what they yield, and what is still pending.

A `Chunk` holds the numbers of its trials, an `Epoch` is what one epoch of one chunk brought, and
`Pending` a chunk that is not done, with its state as arrays by name: the form in which a checkpoint
holds it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from softmax_jax.model import Model
from softmax_jax.sweep.mesh import ONE, Placement
from softmax_jax.sweep.program import Best
from softmax_jax.sweep.settings import Trials, _in_order
from softmax_jax.train import State


class Chunk(NamedTuple):
    """Trials that run as one program: `trials` [S, K] holds their numbers, a row per seed.

    The trials of a row share their minibatches. `num_real` of the columns count; the rest repeat
    the last of them, so that all chunks of one batch size have one shape and compile once.
    """

    trials: np.ndarray
    num_real: int


def plan(trials: Trials, chunk_size: int = 0, *, by_fold=False, multiple=1) -> list[Chunk]:
    """The chunks in the order in which they run, each of at most `chunk_size` trials (0: any).

    A chunk holds as many seeds as fit (of numbers that divide all seeds, so that the chunks of one
    batch size have one shape), and of each seed the same columns. by_fold: no chunk has trials of
    two folds. multiple: what the number of columns is padded to a multiple of.
    """
    numbers = np.arange(len(trials.setting))
    chunks = []
    programs = np.stack([trials.batch_size, trials.num_samples], 1)
    for program in dict.fromkeys(map(tuple, programs.tolist())):
        for fold in _in_order(trials.fold) if by_fold else [None]:
            together = (programs == program).all(1) & ((trials.fold == fold) | (fold is None))
            by_seed = numbers[together].reshape(len(_in_order(trials.seed)), -1)
            chunks += cut(by_seed, chunk_size or by_seed.size, multiple)
    return chunks


def cut(by_seed, limit, multiple=1) -> list[Chunk]:
    """Chunks of trials [seeds, columns], with at most `limit` real ones each.

    Where `multiple` divides the seeds of a chunk, its columns need no padding.
    """
    columns = _even(by_seed.shape[1], limit)
    rows = _divisor(len(by_seed), limit // columns)
    multiple = multiple if rows % multiple else 1
    chunks = []
    for top in range(0, len(by_seed), rows):
        for left in range(0, by_seed.shape[1], columns):
            block = by_seed[top : top + rows, left : left + columns]
            missing = -(-columns // multiple) * multiple - block.shape[1]
            padded = np.pad(block, ((0, 0), (0, missing)), mode="edge")
            chunks.append(Chunk(padded, block.shape[1]))
    return chunks


def _even(length, limit):
    """The size of the chunks when `length` is cut into as few, as even, as the limit allows."""
    num_pieces = -(-length // max(limit, 1))
    return -(-length // num_pieces)


def _divisor(length, limit):
    """The largest divisor of `length` within the limit, and 1 at least."""
    return max(n for n in range(1, length + 1) if length % n == 0 and n <= max(limit, 1))


class MisfitError(ValueError):
    """Arrays that are not those of the tree that they are to become."""


def flatten(tree) -> dict[str, np.ndarray]:
    """The leaves of a tree of arrays by their paths, on the host; of random keys their data.

    >>> {name: leaf.tolist() for name, leaf in flatten({"layer": {"b": np.zeros(2)}}).items()}
    {'layer/b': [0.0, 0.0]}
    """
    names, leaves, _ = _named(tree)
    data = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in leaves]
    return dict(zip(names, map(np.asarray, jax.device_get(data)), strict=True))


def unflatten(like, arrays: dict[str, np.ndarray]):
    """A tree of the structure of `like`, with the arrays for leaves.

    like: a tree of arrays, or of what `jax.eval_shape` gives (random keys must be keys). Raises
    MisfitError that names each leaf that is missing, too many, or of another shape or type.

    >>> unflatten({"b": np.ones(2)}, {"b": np.zeros(2)})
    {'b': array([0., 0.])}
    """
    names, leaves, structure = _named(like)
    wanted = {name: _stored_form(leaf) for name, leaf in zip(names, leaves, strict=True)}
    problems = [f"{name} is missing" for name in names if name not in arrays]
    problems += [f"{name} is not part of it" for name in arrays if name not in wanted]
    problems += [
        f"{name} is {_describe(arrays[name])} and should be {_describe(form)}"
        for name, form in wanted.items()
        if name in arrays and _describe(arrays[name]) != _describe(form)
    ]
    if problems:
        raise MisfitError(
            "What was saved does not fit this program: " + "; ".join(problems) + ". Resume it "
            "with the version that wrote it."
        )
    return structure.unflatten(
        jax.random.wrap_key_data(arrays[name], impl=jax.random.key_impl(leaf))
        if _is_key(leaf)
        else arrays[name]
        for name, leaf in zip(names, leaves, strict=True)
    )


def _named(tree):
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"Two leaves of the tree have one name: {sorted(names)}.")
    return names, [leaf for _, leaf in paths], structure


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored_form(leaf):
    return jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf


def _describe(array):
    return f"{array.dtype}{list(array.shape)}"


class Run(NamedTuple):
    """What stays the same throughout a sweep.

    trials: their table · num_epochs: the length · model: in the form that is trained · criterion:
    from a number of samples to the `train.Criterion` · best_by: the metric that decides a trial's
    best epoch · num_examples: to train on · mean, scale: how an input is normalised ([R, D] where
    each resample has its own) · label_names: of the classes · schedule: of the learning rate ·
    placement: on the devices.
    """

    trials: Trials
    num_epochs: int
    model: Model
    criterion: Callable
    best_by: str
    num_examples: int
    mean: np.ndarray
    scale: np.ndarray
    label_names: tuple
    schedule: str = "constant"
    placement: Placement = ONE


class Epoch(NamedTuple):
    """What one epoch of one chunk of the sweep brought.

    `epoch` counts from 1; `trials` [n] are the numbers of the trials trained here, `reached` [n]
    the epoch that each of them has reached, `metrics` {name: [n]} their metrics (train_loss,
    val_accuracy, ...) and `facts` {name: [n]} what else is known of them. `states` and
    `best` are stacked [S, K] as the `chunk` has its trials, and valid until the next step of the
    iterator; `ends` says whether this is the chunk's last epoch.

    Where an epoch is yielded by segments, all but its last bring no metrics (`trials` is empty):
    `segment` is then how many of them are done, else 0. `progress` is the state of the training as
    a tree of leaves [S, K, ...], and `pending` the chunks that come after this one: together, the
    remaining work.
    """

    epoch: int
    trials: np.ndarray
    reached: np.ndarray
    metrics: dict
    facts: dict
    states: State
    best: Best
    chunk: Chunk
    ends: bool
    run: Run
    segment: int
    progress: dict
    pending: tuple

    def __repr__(self):
        shown = {name: values for name, values in self.metrics.items() if len(values)}
        best = {name: float(values.min()) for name, values in shown.items() if "loss" in name}
        texts = "".join(f", least {name} {value:.4f}" for name, value in best.items())
        return f"<Epoch {self.epoch} of {self.run.num_epochs}: {len(self.trials)} trials{texts}>"


class Epochs(Iterator):
    """The iterator over the epochs of a sweep: its `run` stays the same, its `pending` is the plan.

    bytes_per_trial: what one more trial takes on a device while it trains.
    """

    def __init__(self, run: Run, pending: list, bytes_per_trial: int, epochs: Iterator[Epoch]):
        self.run, self.pending, self.bytes_per_trial = run, pending, bytes_per_trial
        self._epochs = epochs

    def __next__(self) -> Epoch:
        return next(self._epochs)


class Pending(NamedTuple):
    """A chunk of which `epoch` epochs are done, and `segment` segments of the next one.

    saved: the state of its trials by name, arrays [S, K, ...] without any padding; None: fresh.
    """

    chunk: Chunk
    epoch: int = 0
    segment: int = 0
    saved: dict | None = None


def pending_after(epoch) -> list[Pending]:
    """The chunks that are pending after an `Epoch`, its own with its state, on the host."""
    pending = list(epoch.pending)
    if epoch.ends:
        return pending
    arrays = flatten(epoch.run.placement.fetch(epoch.progress))
    saved = {name: array[:, : epoch.chunk.num_real] for name, array in arrays.items()}
    return [Pending(epoch.chunk, epoch.epoch - (epoch.segment > 0), epoch.segment, saved), *pending]


def pack(pending: list[Pending]) -> tuple[dict, list]:
    """The pending chunks as arrays by name, and as a list of what JSON can hold."""
    arrays = {
        f"{number}/{name}": array
        for number, item in enumerate(pending)
        for name, array in (item.saved or {}).items()
    }
    described = [
        {"trials": item.chunk.trials[:, : item.chunk.num_real].tolist()}
        | {"epoch": item.epoch, "segment": item.segment}
        for item in pending
    ]
    return arrays, described


def unpack(arrays: dict, described: list) -> list[Pending]:
    """What `pack` was given, without any padding."""
    pending = []
    for number, item in enumerate(described):
        trials, prefix = np.array(item["trials"]), f"{number}/"
        own = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        chunk = Chunk(trials, trials.shape[1])
        pending.append(Pending(chunk, item["epoch"], item["segment"], own or None))
    return pending


def restore_state(item: Pending, like):
    """The tree of what was saved, with the structure and the padding of `like`, on the host."""
    missing = item.chunk.trials.shape[1] - item.chunk.num_real

    def pad(array):
        widths = [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, widths, mode="edge")

    return unflatten(like, {name: pad(array) for name, array in item.saved.items()})


def recut(pending: list[Pending], chunk_size: int, multiple: int) -> list[Pending]:
    """The same work in chunks that fit this machine, of at most `chunk_size` trials.

    multiple: what their numbers of columns are padded to a multiple of. Nothing is put together
    again: chunks only become smaller.
    """
    return [smaller for item in pending for smaller in _recut(item, chunk_size, multiple)]


def _recut(item, chunk_size, multiple):
    real = item.chunk.trials[:, : item.chunk.num_real]
    for chunk in cut(real, chunk_size or real.size, multiple):
        own = chunk.trials[:, : chunk.num_real]
        (top, start), (height, width) = np.argwhere(real == own[0, 0])[0], own.shape
        block = np.s_[top : top + height, start : start + width]
        saved = item.saved and {name: array[block] for name, array in item.saved.items()}
        yield item._replace(chunk=chunk, saved=saved)
