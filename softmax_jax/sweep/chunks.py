"""Trials that run as one program, what they yield, and what is still pending.

A `Chunk` holds the numbers of its trials, an `Epoch` the outcome of one epoch of one chunk, and
`Pending` a chunk that is not done, with its state as arrays by name: the form in which a checkpoint
holds it.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from softmax_jax.data import Dataset
from softmax_jax.data.dataset import Features
from softmax_jax.model import Model
from softmax_jax.sweep.inputs import Inputs, Moment, Resamples
from softmax_jax.sweep.mesh import ONE, Placement
from softmax_jax.sweep.program import Best, create
from softmax_jax.sweep.settings import Trials, _in_order, in_use
from softmax_jax.train import State


class Chunk(NamedTuple):
    """Trials that run as one program: `trials` holds their numbers, a row per seed.

    The trials of a row share their minibatches. Only the first `num_real` columns count; the others
    repeat the last of these, so that all chunks of one batch size have one shape and compile once.
    """

    trials: Int[np.ndarray, "S K"]
    num_real: int


def plan(
    trials: Trials,
    chunk_size: int = 0,
    *,
    by_fold: bool = False,
    multiple: int = 1,
    rows: Bool[np.ndarray, " T"] | None = None,
) -> list[Chunk]:
    """The chunks in the order in which they run.

    A chunk holds as many seeds as fit (a number that divides that of all seeds, so that the chunks
    of one batch size have one shape), and of each seed the same columns.

    Args:
      trials: all of them.
      chunk_size: the most trials of a chunk; 0: any number.
      by_fold: whether the trials of a chunk must be of one fold.
      multiple: the number of columns is padded to a multiple of it.
      rows: whether each trial is to be run, with all others of its setting; None: all are.
    """
    numbers = np.arange(len(trials.setting))
    rows = np.ones(len(numbers), bool) if rows is None else rows
    chunks = []
    programs = np.stack([trials.batch_size, trials.num_samples], 1)
    for program in dict.fromkeys(map(tuple, programs[rows].tolist())):
        for fold in _in_order(trials.fold) if by_fold else [None]:
            together = (programs == program).all(1) & ((trials.fold == fold) | (fold is None))
            together &= rows
            seeds = _in_order(trials.seed)
            by_seed = np.stack([numbers[together & (trials.seed == seed)] for seed in seeds])
            chunks += cut(by_seed, chunk_size or by_seed.size, multiple)
    return chunks


def cut(by_seed: Int[np.ndarray, "S K"], limit: int, multiple: int = 1) -> list[Chunk]:
    """Chunks of trials, with at most `limit` real ones each.

    Where `multiple` divides the number of seeds of a chunk, its columns need no padding.
    """
    columns = _even(by_seed.shape[1], limit)
    rows = _divisor(len(by_seed), limit // columns)
    multiple = multiple if rows % multiple else 1
    chunks = []
    for top in range(0, len(by_seed), rows):
        for left in range(0, by_seed.shape[1], columns):
            tile = by_seed[top : top + rows, left : left + columns]
            missing = -(-columns // multiple) * multiple - tile.shape[1]
            padded = np.pad(tile, ((0, 0), (0, missing)), mode="edge")
            chunks.append(Chunk(padded, tile.shape[1]))
    return chunks


def _even(length, limit):
    """The size of the chunks when `length` is cut into as few, as even, as the limit allows."""
    num_parts = -(-length // max(limit, 1))
    return -(-length // num_parts)


def _divisor(length, limit):
    """The largest divisor of `length` within the limit, and 1 at least."""
    return max(n for n in range(1, length + 1) if length % n == 0 and n <= max(limit, 1))


class MisfitError(ValueError):
    """Saved arrays do not fit the tree that is to be restored."""


def flatten(tree: PyTree) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The leaves of a tree of arrays by their paths, on the host; random keys become their data.

    >>> {name: leaf.tolist() for name, leaf in flatten({"layer": {"b": np.zeros(2)}}).items()}
    {'layer/b': [0.0, 0.0]}
    """
    names, leaves, _ = _named(tree)
    data = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in leaves]
    return dict(zip(names, map(np.asarray, jax.device_get(data)), strict=True))


def unflatten(like: PyTree, arrays: dict[str, Shaped[Array | np.ndarray, "..."]]) -> PyTree:
    """A tree with the structure of `like` and the arrays for leaves.

    Args:
      like: a tree of arrays, or of what `jax.eval_shape` returns (random keys must be keys).
      arrays: the leaves by their paths, as `flatten` returns them.

    Raises:
      MisfitError: it names each leaf that is missing, unknown, or of another shape or type.

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
        jax.random.wrap_key_data(jnp.asarray(arrays[name]), impl=jax.random.key_impl(leaf))
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
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored_form(leaf):
    return jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf


def _describe(array):
    return f"{array.dtype}{list(array.shape)}"


class Run(NamedTuple):
    """What stays the same throughout a sweep.

    Attributes:
      trials: their table.
      num_epochs: of the training.
      model: in the form that is trained.
      criterion: a function from a number of samples to the `train.Criterion`.
      best_by: the metric that decides a trial's best epoch.
      num_examples: to train on.
      mean, scale: how an input is normalised: numbers, [D], or [R, D] where each resample has its
        own.
      label_names: of the classes.
      schedule: of the learning rate.
      optimizer: one of `train.OPTIMIZERS`.
      placement: on the devices.
      val: the validation examples; None: there are none, or there are resamples.
      resamples: of the training examples.
      labels: what the data call the classes, see `data.Dataset`.
      features: what the features are called, see `data.Dataset`.
      chance: the losses of the classes' frequencies in train, without any features, by the names of
        the metrics.
      class_weight: that the objective weighs the classes by; None: 1.
      halving: (factor, min_epochs) of successive halving, see `halving`; None: there is none.
    """

    trials: Trials
    num_epochs: int
    model: Model
    criterion: Callable
    best_by: str
    num_examples: int
    mean: Moment
    scale: Moment
    label_names: tuple[str, ...]
    schedule: str = "constant"
    optimizer: str = "sgd"
    placement: Placement = ONE
    class_weight: Float[np.ndarray, " C"] | None = None
    val: Dataset | None = None
    resamples: Resamples | None = None
    labels: Shaped[np.ndarray, " C"] | None = None
    features: Features | None = None
    chance: Mapping[str, float] = MappingProxyType({})
    halving: tuple[int, int] | None = None

    @property
    def num_compared(self) -> int:
        """The number of trials that a selection compares; those that serve an outer fold follow."""
        if self.resamples is None:
            return len(self.trials.fold)
        return int((self.resamples.outer[self.trials.fold] < 0).sum())


class Epoch(NamedTuple):
    """The outcome of one epoch of one chunk of the sweep.

    Where an epoch is yielded by segments, only the last has metrics; of the others `trials` is
    empty. `progress` and `pending` together are the remaining work.

    Attributes:
      epoch: counted from 1.
      trials: the numbers of the n trials trained here.
      reached: the epoch that each of them has reached.
      metrics: of each of them, by name: train_loss, val_accuracy, ...
      facts: what else is known of each of them, by name.
      states: stacked [S, K] as in `chunk`, and valid until the next step of the iterator.
      best: the best epoch of each trial, stacked and valid as `states` are.
      chunk: the trials that run together.
      ends: whether this is the chunk's last epoch.
      run: what stays the same throughout the sweep.
      segment: how many segments of the epoch are done; 0: all.
      progress: the state of the training, a tree of leaves [S, K, ...].
      pending: the chunks that come after this one.
      pauses: whether this chunk now waits for others, to be compared with them (see `halving`).
    """

    epoch: int
    trials: Int[np.ndarray, " n"]
    reached: Int[np.ndarray, " n"]
    metrics: dict[str, Float[np.ndarray, " n"]]
    facts: dict[str, Shaped[np.ndarray, " n"]]
    states: State
    best: Best
    chunk: Chunk
    ends: bool
    run: Run
    segment: int
    progress: PyTree
    pending: tuple["Pending", ...]
    pauses: bool = False

    def __repr__(self) -> str:
        shown = {name: values for name, values in self.metrics.items() if len(values)}
        best = {name: float(values.min()) for name, values in shown.items() if "loss" in name}
        texts = "".join(f", least {name} {value:.4f}" for name, value in best.items())
        return f"<Epoch {self.epoch} of {self.run.num_epochs}: {len(self.trials):,} trials{texts}>"


class Epochs(Iterator):
    """The iterator over the epochs of a sweep.

    Attributes:
      run: what stays the same throughout.
      pending: the chunks to be run, in their order.
      bytes_per_trial: what one more trial takes on a device while it trains.
    """

    def __init__(
        self, run: Run, pending: list["Pending"], bytes_per_trial: int, epochs: Iterator[Epoch]
    ) -> None:
        self.run, self.pending, self.bytes_per_trial = run, pending, bytes_per_trial
        self._epochs = epochs

    def __next__(self) -> Epoch:
        return next(self._epochs)


class Pending(NamedTuple):
    """A chunk of which `epoch` epochs are done, and `segment` segments of the next one.

    saved: the state of its trials by name, arrays [S, K, ...] without padding; None: not begun.
    """

    chunk: Chunk
    epoch: int = 0
    segment: int = 0
    saved: dict[str, Shaped[np.ndarray, "S K ..."]] | None = None


def pending_from(trials: Trials, first: int) -> list[Pending]:
    """The trials from that number on, a chunk for each fold."""
    new = np.arange(first, len(trials.fold))
    own = [new[trials.fold[new] == fold] for fold in _in_order(trials.fold[new])]
    return [Pending(Chunk(numbers[None], len(numbers))) for numbers in own]


def pending_after(epoch: Epoch) -> list[Pending]:
    """The chunks that are pending after an `Epoch`: its own first, with its state on the host."""
    pending = list(epoch.pending)
    if epoch.ends:
        return pending
    arrays = flatten(epoch.run.placement.fetch(epoch.progress))
    saved = {name: array[:, : epoch.chunk.num_real] for name, array in arrays.items()}
    return [Pending(epoch.chunk, epoch.epoch - (epoch.segment > 0), epoch.segment, saved), *pending]


def ended(epoch: Epoch) -> Pending:
    """What a longer training of this SGD chunk, which ends here, goes on from.

    Without the parameters after the last and the best epoch, which a `Collection` has.
    """
    states, best = epoch.progress["states"], epoch.progress["best"]
    beside = {"states": states.replace(params=None), "best": best._replace(params=None)}
    arrays = flatten(epoch.run.placement.fetch(beside))
    real = epoch.chunk.num_real
    saved = {name: array[:, :real] for name, array in arrays.items()}
    return Pending(Chunk(epoch.chunk.trials[:, :real], real), epoch.epoch, 0, saved)


def going_on(
    ended: list[Pending], pending: list[Pending], num_epochs: int, arrays: dict[str, np.ndarray]
) -> list[Pending]:
    """The chunks that have ended, and of which a longer training has epochs left.

    Args:
      ended: see the function of that name.
      pending: the chunks that are being trained already.
      num_epochs: of the longer training.
      arrays: of the `Collection`, with the parameters.
    """
    under_way = {int(trial) for item in pending for trial in item.chunk.trials.ravel()}
    found = []
    for item in ended:
        saved, trials = item.saved or {}, item.chunk.trials
        stopped = saved.get("states/stopped")
        runs = stopped is None or not stopped.all()
        if item.epoch < num_epochs and runs and not under_way & set(trials.ravel().tolist()):
            params = {
                f"{role}/params/{name.removeprefix(prefix)}": array[trials]
                for role, prefix in (("states", "last/"), ("best", "best/"))
                for name, array in arrays.items()
                if name.startswith(prefix)
            }
            found.append(item._replace(saved=saved | params))
    return found


def pack(pending: list[Pending]) -> tuple[dict[str, Shaped[np.ndarray, "..."]], list[dict]]:
    """The pending chunks as arrays by name, and a list of values for JSON."""
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


def unpack(arrays: dict[str, Shaped[np.ndarray, "..."]], described: list[dict]) -> list[Pending]:
    """The inverse of `pack`, without padding."""
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


def restore_state(item: Pending, like: PyTree) -> PyTree:
    """The saved state, with the structure and the padding of `like`, on the host."""
    missing = item.chunk.trials.shape[1] - item.chunk.num_real

    def pad(array):
        widths = [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, widths, mode="edge")

    return unflatten(like, {name: pad(array) for name, array in (item.saved or {}).items()})


def recut(pending: list[Pending], chunk_size: int, multiple: int) -> list[Pending]:
    """The same work in chunks that fit this machine, of at most `chunk_size` trials (0: any).

    Chunks are cut, and never joined. multiple: the number of columns is padded to a multiple of it.
    """
    return [smaller for item in pending for smaller in _recut(item, chunk_size, multiple)]


def _recut(item, chunk_size, multiple):
    real = item.chunk.trials[:, : item.chunk.num_real]
    for chunk in cut(real, chunk_size or real.size, multiple):
        own = chunk.trials[:, : chunk.num_real]
        (top, start), (height, width) = np.argwhere(real == own[0, 0])[0], own.shape
        rows_columns = np.s_[top : top + height, start : start + width]
        saved = item.saved and {name: array[rows_columns] for name, array in item.saved.items()}
        yield item._replace(chunk=chunk, saved=saved)


def create_states(run: Run, chunk: Chunk, inputs: Inputs) -> State:
    """Fresh states [S, K] for the trials of a chunk."""
    table, columns, placement = run.trials, chunk.trials[0], run.placement
    return create(
        placement.everywhere(table.seed[chunk.trials[:, 0]].astype(np.uint32)),
        placement.rows(jax.tree.map(lambda column: column[columns], in_use(table.hyperparameters))),
        placement.rows(np.maximum(table.fold[columns], 0).astype(np.int32)),
        -(-run.num_examples // batch_size(run, chunk)) * run.num_epochs,
        model=run.model,
        num_features=inputs.dataset.num_features,
        num_classes=len(run.label_names),
        placement=placement,
        optimizer=run.optimizer,
    )


def batch_size(run: Run, chunk: Chunk) -> int:
    """That of all trials of a chunk."""
    return int(run.trials.batch_size[chunk.trials[0, 0]])
