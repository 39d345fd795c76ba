"""The two types that the rest of the program sees, `Dataset` and `Splits`, and reading by shards.

A dataset larger than the memory is read one shard at a time. For training, a shard consists of
many runs of consecutive examples, drawn at random: which run is in which shard is a function of the
epoch alone. Within a shard, the caller shuffles.
"""

import dataclasses
import functools
import hashlib
import html
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped, UInt64
from numpy.typing import ArrayLike, DTypeLike

from softmax_jax import host
from softmax_jax.host import DataError

_BLOCK_VALUES = 1 << 16  # values in a block that is read at a time: they stay in the cache
_FEWEST_EXAMPLES = 16  # in a block


class Features(NamedTuple):
    """What the D features of an example are called, and what they are made of.

    A column of categories makes a feature for each: 1 in the examples that are of it, else 0.

    Attributes:
      names: [D] 'age', 'sex=female', 'sex=male'.
      columns: [D] the column of each: 'age', 'sex', 'sex'.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def categories(self) -> dict[str, tuple[str, ...] | None]:
        """For each column, in order, the categories that it makes features of; None: a number."""
        found: dict[str, tuple[str, ...] | None] = {}
        for name, column in zip(self.names, self.columns, strict=True):
            known = found.get(column) or ()
            found[column] = None if name == column else (*known, name[len(column) + 1 :])
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """N labelled examples, in arrays of NumPy or JAX.

    A model sees (x − mean) / scale, flattened to [N, D].

    Attributes:
      x: [N, ...] uint8, or floats; a dataset that is read by shards may hold any numeric type.
        As the user gave it: what is subtracted is `mean` or `shift`, later.
      y: [N] int32 labels in 0..C−1.
      scale: the divisor: the largest value of the image format (255; digits 16), 1 for features,
        or [D] of type `dtype`.
      label_names: C names, by label.
      name: the dataset that the examples come from.
      mean: what is subtracted before dividing: a number, or [D] of type `dtype`.
      weights: None, or float64 [N]: how often each example counts, in the objective and in every
        score. 0 is absent, k is k copies; None: once.
      dtype: 'float32' or 'float64': the type of x in memory, unless that is uint8.
      shard_size: None if all examples are in memory, else how many of them are read at a time.
      shift: [D] float64, where x stays float64 in memory because float32 would round away too much
        of it: subtracted in float64 before x becomes `dtype` on the device. None: it is not needed.
      labels: [C] what the data call the classes, in their own type: text, 1..10, booleans; None:
        0..C−1.
      present: where examples of weight 0 have been left out, which of the M that were given are
        here: N of them. None: all.
      features: what the features are called; None: they have no names.
      groups: [N] the number of each example's group (a patient, a document): a fold has all
        examples of a group, or none. None: there are no groups.
    """

    # Shapes are checked by `validation.check_dataset`, which names the split and the remedy.
    x: Shaped[Any, "..."]
    y: Shaped[Any, "..."]
    scale: float | int | Float[Any, "..."]
    label_names: tuple[str, ...]
    name: str
    mean: float | int | Float[Any, "..."] = 0.0
    weights: Shaped[Any, "..."] | None = None
    dtype: str = "float32"
    shard_size: int | None = None
    shift: Float[np.ndarray, " D"] | None = None
    labels: Shaped[np.ndarray, " C"] | None = None
    present: Bool[np.ndarray, " M"] | None = None
    features: Features | None = None
    groups: Shaped[np.ndarray, " N"] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise DataError(f"dtype must be 'float32' or 'float64'; it is {self.dtype!r}.")

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index) -> "Dataset | tuple[Any, Any]":
        """One example as (x, y), or the dataset of a slice, of row numbers or of booleans."""
        if isinstance(index, int | np.integer):
            return self.x[index], self.y[index]
        if self.shard_size is not None:
            raise DataError("A dataset that is read by shards cannot be indexed by more than one.")
        return dataclasses.replace(self, present=None, **self._rows_of(index))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """The examples one after the other, as (x, y)."""
        return ((self.x[row], self.y[row]) for row in range(len(self)))

    def _rows_of(self, index):
        """What the dataset has for each example, of these rows."""
        every = {name: getattr(self, name) for name in ("x", "y", "weights", "groups")}
        return {name: None if own is None else own[index] for name, own in every.items()}

    def __repr__(self) -> str:
        names = ", ".join(self.label_names[:5]) + ", …" * (self.num_classes > 5)
        weighted = ", weighted" if self.weights is not None else ""
        shards = f", read {self.shard_size:,} at a time" if self.shard_size else ""
        return (
            f"<Dataset {self.name}: {len(self):,} examples of {self.form}{list(self.x.shape[1:])}"
            f"{weighted}{shards}, {self.num_classes:,} classes: {names}>"
        )

    @property
    def num_examples(self) -> int:
        """N."""
        return self.x.shape[0]

    @property
    def num_features(self) -> int:
        """D: the values in one example, an image being flattened."""
        return math.prod(self.x.shape[1:])

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.label_names)

    @property
    def is_image(self) -> bool:
        """Whether an example can be drawn: uint8 [H, W], [H, W, 1] or [H, W, 3]."""
        shape = self.x.shape[1:]
        is_flat = len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))
        return is_flat and self.x.dtype == np.uint8

    @property
    def form(self) -> np.dtype:
        """The type of x in memory: uint8 or `dtype`; float64 where there is a `shift`."""
        if self.x.dtype == np.uint8:
            return np.dtype(np.uint8)
        return np.dtype(self.dtype if self.shift is None else np.float64)

    @property
    def rows(self) -> Int[np.ndarray, " N"]:
        """The numbers of the examples among those that were given: 0..N−1 where none is absent."""
        return np.arange(len(self)) if self.present is None else np.flatnonzero(self.present)

    def without_absent(self) -> "Dataset":
        """The dataset without the examples of weight 0; itself, where there are none.

        Raises:
          DataError: all weights are 0, or there is not enough memory for a copy of the others.
        """
        if self.weights is None or np.all(self.weights):
            return self
        there = np.asarray(self.weights) > 0
        if not there.any():
            raise DataError("All weights are 0. Give at least one example a weight.")
        size = int(there.sum()) * self.num_features * self.x.dtype.itemsize
        remedy = "Leave examples of weight 0 out of the file."
        host.require_memory(size, "A copy without the examples of weight 0", remedy)
        present = np.zeros(len(self) if self.present is None else len(self.present), bool)
        present[self.rows[there]] = True
        return dataclasses.replace(self, present=present, **self._rows_of(there))

    def aligned(self, values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Values by example, of all M that were given or of the N that are here: of these N."""
        whole = self.present is not None and len(values) == len(self.present)
        return values[self.present] if whole else values

    def text_labels(self, labels: Iterable) -> list[str]:
        """Names of labels: `text_labels([9, 0])` is, say, `['ankle boot', 't-shirt']`."""
        return [self.label_names[int(label)] for label in np.asarray(labels)]

    @functools.cached_property
    def row_hashes(self) -> UInt64[np.ndarray, " N"]:
        """A hash of the features of each example: equal rows have equal ones.

        Σ m_j · mix(w_j) modulo 2⁶⁴ over the 32-bit words w of a row, for fixed random odd m.
        """
        hashes = np.zeros(len(self), np.uint64)
        factors = None
        for start, block in self.blocks("hashes"):
            rows = block.reshape(len(block), -1) + block.dtype.type(0)  # no -0.0
            rows = np.ascontiguousarray(rows).view(np.uint8)
            rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).view(np.uint32).astype(np.uint64)
            if factors is None:
                rng = np.random.default_rng(0)
                drawn = rng.integers(1 << 63, size=rows.shape[1], dtype=np.uint64)
                factors = 2 * drawn + np.uint64(1)
            mixed = (rows + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            hashes[start : start + len(rows)] = (mixed ^ (mixed >> np.uint64(29))) @ factors
        return hashes

    def blocks(self, what: str = "reading") -> Iterator[tuple[int, Shaped[np.ndarray, "n ..."]]]:
        """x in its `form`, in order, as pairs (row of the first example, examples [n, ...]).

        The memory used does not grow with N. A progress bar, called `what`, appears if it takes
        long.
        """
        from tqdm import tqdm

        x = np.asarray(self.x)
        size = max(_FEWEST_EXAMPLES, _BLOCK_VALUES // max(self.num_features, 1))
        starts = range(0, self.num_examples, size)
        for start in tqdm(starts, desc=what, delay=2, leave=False, disable=None):
            with np.errstate(over="ignore"):  # too large a value becomes infinite
                block = x[start : start + size].astype(self.form, copy=False)
            yield start, block

    def batches(self, size: int) -> "Iterator[tuple[Float[np.ndarray, 'B ...'], Any]]":
        """Minibatches in order, `for x, y in val.batches(256)`, as a model sees them.

        Args:
          size: B, of all but the last.

        Yields:
          (x − mean) / scale of type `dtype`, in the shape of the data, and the labels int32 [B].

        Raises:
          DataError: the size is not a whole number from 1; at the call.
        """
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise DataError(f"A batch has a whole number of examples, 1 or more, not {size!r}.")
        parts = (slice(start, start + int(size)) for start in range(0, len(self), int(size)))
        return ((self._normalised(part), np.asarray(self.y[part])) for part in parts)

    def _normalised(self, part):
        x = np.asarray(self.x[part])
        return normalised(x, self.mean, self.scale, self.dtype).reshape(x.shape)

    def shuffled(self, epoch: int, batch_size: int = 1) -> "Iterator[Shard]":
        """All examples once, in shards that fit into memory, for training.

        A dataset in memory is a single shard, with the examples in their own order. Else each shard
        but the last has as many whole minibatches as `shard_size` allows, in runs drawn at random.
        The result is a function of the epoch alone: within a shard, the caller shuffles.
        """
        return shuffled_shards(self, epoch, batch_size)

    def in_order(self) -> "Iterator[Shard]":
        """All examples once, in shards that fit into memory, in order, for evaluation."""
        return ordered_shards(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """One dataset, divided for training, for choosing between models, and for the final test.

    Attributes:
      train: what models are fitted to.
      val: what models are compared on.
      test: what the selected model is measured on, or None.
      name: the dataset that was used, which may be a fallback.
      label_names: C names, by label.
      val_is_test: whether val and test share examples, which makes the test metrics optimistic.
      measure: what else the dataset can say of a trained classifier; see `sources.Source`.
    """

    train: Dataset
    val: Dataset
    test: Dataset | None
    name: str
    label_names: tuple[str, ...]
    val_is_test: bool
    measure: Callable[[Any], dict[str, Any]] | None = None

    def __repr__(self) -> str:
        roles = "".join(f"\n  {role}: {dataset!r}" for role, dataset in self._roles().items())
        return f"<Splits {self.name}{roles}>"

    def _repr_html_(self) -> str:
        return html_table(
            {
                "split": role,
                "examples": f"{len(dataset):,}",
                "shape": str(tuple(dataset.x.shape[1:])),
                "type": str(dataset.form),
                "classes": f"{dataset.num_classes:,}",
            }
            for role, dataset in self._roles().items()
        )

    def _roles(self) -> dict[str, Dataset]:
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {role: dataset for role, dataset in every.items() if dataset is not None}


def normalised(
    x: Shaped[Any, "N ..."],
    mean: ArrayLike,
    scale: ArrayLike,
    dtype: DTypeLike,
) -> Float[np.ndarray, "N D"]:
    """(x − mean) / scale in float64, and then as `dtype`: a large mean costs no precision.

    >>> normalised(np.array([[1.7e9 + 0.5]]), 1.7e9, 1.0, np.float32).tolist()
    [[0.5]]
    """
    D = math.prod(x.shape[1:])
    values = np.empty((len(x), D), dtype)
    rows = max(_FEWEST_EXAMPLES, _BLOCK_VALUES // max(D, 1))
    for start in range(0, len(x), rows):
        block = np.asarray(x[start : start + rows], np.float64).reshape(-1, D)
        with np.errstate(over="ignore"):
            values[start : start + rows] = (block - np.asarray(mean)) / np.asarray(scale)
    return values


def fingerprint(splits: Splits) -> str:
    """Identifies the data itself: a SHA-256, in hexadecimal.

    It covers dtype, shape and bytes of x, y (and weights and groups, where given) of train, val and
    test, in this order. Names and sources play no part: the same examples read from elsewhere, or
    by shards, have the same fingerprint.
    """
    found = hashlib.sha256()
    for role in ("train", "val", "test"):
        dataset = getattr(splits, role)
        if dataset is None:
            continue
        found.update(f"{dataset.form.str} {dataset.x.shape}".encode())
        for _, block in dataset.blocks("fingerprint"):
            found.update(np.ascontiguousarray(block).data)
        for array in (dataset.y, dataset.weights, dataset.groups):
            if array is not None:
                array = np.ascontiguousarray(array)
                found.update(f"{array.dtype.str} {array.shape}".encode())
                found.update(array.data)
    return found.hexdigest()


def digest(dataset: Dataset) -> str:
    """Identifies examples, whatever the type they are kept in: a SHA-256, in hexadecimal.

    It covers the features as float32, the labels and the weights, in their order.
    """
    found = hashlib.sha256(str(dataset.x.shape).encode())
    for _, block in dataset.blocks("digest"):
        with np.errstate(over="ignore"):
            found.update(np.ascontiguousarray(block, np.float32).data)
    found.update(np.ascontiguousarray(dataset.y, np.int64).data)
    found.update(np.ascontiguousarray(example_weights(dataset), np.float64).data)
    return found.hexdigest()


def check_joinable(one: Dataset, other: Dataset) -> None:
    """Raises DataError unless both are in memory, alike, and there is room for them together."""
    if one.shard_size or other.shard_size:
        raise DataError(
            "Datasets that are read by shards cannot be put together. Train on one of them, or "
            "write both into one file and divide that with split strings."
        )
    for what, own, its in (
        ("classes", one.label_names, other.label_names),
        ("examples of shape", one.x.shape[1:], other.x.shape[1:]),
    ):
        if own != its:
            raise DataError(
                f"Datasets of other {what} cannot be put together: {host.brief(own)} and "
                f"{host.brief(its)}. Make both by one call of data.load or data.from_arrays."
            )
    size = one.x.nbytes + other.x.nbytes
    host.require_memory(size, "train and val put together", "Train on one of them.")


def joined(one: Dataset, other: Dataset) -> Dataset:
    """The examples of both, in this order, with all else as in `one`.

    Where only one of them has weights, each example of the other counts once.

    Args:
      one: in memory.
      other: in memory, with examples of the same shape and type.

    Raises:
      DataError: one of them is read by shards, or there is not enough memory for both.
    """
    check_joinable(one, other)
    x, y = [
        np.concatenate([np.asarray(a), np.asarray(b)])
        for a, b in ((one.x, other.x), (one.y, other.y))
    ]
    weights = None
    if not (one.weights is None and other.weights is None):
        weights = np.concatenate([example_weights(one), example_weights(other)])
    groups = None
    if not (one.groups is None or other.groups is None):
        groups = np.concatenate([one.groups, other.groups])
    return dataclasses.replace(one, x=x, y=y, weights=weights, present=None, groups=groups)


def example_weights(dataset: Dataset) -> Float[np.ndarray, " N"]:
    """How often each example counts: its weight, else 1."""
    if dataset.weights is None:
        return np.ones(len(dataset))
    return np.asarray(dataset.weights, np.float64)


_RUN_BYTES = 1 << 20  # of a run on disk: longer reads are hardly faster
_FEWEST_RUNS = 16  # in a shard


class Shard(NamedTuple):
    """Some examples of a dataset, in memory.

    Attributes:
      number: 0, 1, ... within the epoch.
      rows: [n] their numbers in the dataset.
      dataset: the n examples.
    """

    number: int
    rows: Int[np.ndarray, " n"]
    dataset: Dataset


def shuffled_shards(
    dataset: Dataset, epoch: int, batch_size: int = 1, run_length: int | None = None
) -> Iterator[Shard]:
    """All examples of a dataset once, by shards; see `Dataset.shuffled`.

    Args:
      dataset: in memory, or read by shards.
      epoch: determines the order of the runs.
      batch_size: B; each shard but the last holds whole minibatches.
      run_length: examples in a run; by default 1 MiB of them, and at most a 16th of a shard.
    """
    N, size = dataset.num_examples, _examples_per_shard(dataset, batch_size)
    if size >= N:
        return iter([Shard(0, np.arange(N), dataset)])
    run_length = run_length or max(1, min(_run_length(dataset), size // _FEWEST_RUNS))
    starts = np.arange(0, N, run_length)
    np.random.default_rng(epoch).shuffle(starts)
    runs = [(int(start), min(int(start) + run_length, N)) for start in starts]
    return _read_shards(dataset, _cut_runs(runs, size), f"epoch {epoch}")


def ordered_shards(dataset: Dataset) -> Iterator[Shard]:
    """All examples of a dataset once, by shards, in their own order."""
    N, size = dataset.num_examples, _examples_per_shard(dataset, 1)
    if size >= N:
        return iter([Shard(0, np.arange(N), dataset)])
    return _read_shards(dataset, _cut_runs([(0, N)], size), "evaluating")


def _examples_per_shard(dataset: Dataset, batch_size: int) -> int:
    """As many as make whole minibatches: an epoch then has as many steps as in memory."""
    if dataset.shard_size is None or dataset.shard_size >= dataset.num_examples:
        return dataset.num_examples
    return max(dataset.shard_size // batch_size, 1) * batch_size


def _cut_runs(runs: Sequence[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    """The same examples in the same order, as lists of runs that hold `size` examples each."""
    shard, room = [], size
    for start, stop in runs:
        while start < stop:
            end = min(stop, start + room)
            shard.append((start, end))
            room -= end - start
            start = end
            if not room:
                yield shard
                shard, room = [], size
    if shard:
        yield shard


def _read_shards(dataset: Dataset, shards: Iterable, what: str) -> Iterator[Shard]:
    from tqdm import tqdm

    total = dataset.num_examples
    options = {"unit": " examples", "unit_scale": True, "leave": False, "disable": None}
    with tqdm(desc=what, total=total, delay=2, **options) as bar:
        for number, drawn in enumerate(shards):
            runs = sorted(drawn)  # in the order of the file
            rows = np.concatenate([np.arange(*run) for run in runs])
            yield Shard(number, rows, _read_runs(dataset, rows, runs))
            bar.update(len(rows))


def _read_runs(
    dataset: Dataset, rows: Int[np.ndarray, " n"], runs: Sequence[tuple[int, int]]
) -> Dataset:
    # A new array each time: the device may still be reading the previous shard.
    x = np.empty((len(rows), *dataset.x.shape[1:]), dataset.form)
    end = 0
    for start, stop in runs:
        begin, end = end, end + stop - start
        x[begin:end] = dataset.x[start:stop]
    weights = None if dataset.weights is None else dataset.weights[rows]
    own = {"x": x, "y": dataset.y[rows], "weights": weights, "groups": None}
    return dataclasses.replace(dataset, **own, shard_size=None, present=None)


def _run_length(dataset: Dataset) -> int:
    return _RUN_BYTES // max(dataset.num_features * dataset.x.dtype.itemsize, 1)


_CANCELLED = 1e-8  # of the squares: a smaller difference is catastrophic cancellation


def moments(
    blocks: Iterable,
    counts: Num[Any, "N R"] | None = None,
    constant: ArrayLike = 1.0,
    weights: Float[np.ndarray, " N"] | None = None,
) -> tuple[Float[np.ndarray, "R D"], Float[np.ndarray, "R D"]]:
    """Mean [R, D] and standard deviation [R, D], float64, of each feature in each resample.

    One pass, and two matrix products for all resamples.

    Args:
      blocks: pairs (number of the first example, x [n, ...]), as `Dataset.blocks()` yields them.
      counts: how often each example counts in each resample; None: once, R = 1.
      constant: a number or [D], the scale of a feature that does not vary within a resample.
      weights: what the counts are multiplied by, numbers of 0 or more; None: 1.

    >>> x = np.array([[1.0, 5.0], [3.0, 5.0], [9.0, 5.0]])
    >>> mean, scale = moments([(0, x)], counts=np.array([[1], [1], [0]]), constant=2.0)
    >>> mean.round(6).tolist(), scale.round(6).tolist()
    ([[2.0, 5.0]], [[1.0, 2.0]])
    """

    def of_blocks():
        for start, x in blocks:
            x = np.asarray(x, np.float64).reshape(len(x), -1)
            rows = slice(start, start + len(x))
            own = np.ones((len(x), 1)) if counts is None else np.asarray(counts[rows], np.float64)
            own = own if weights is None else own * weights[rows, None]
            yield _resampled_moments(x, own.T)

    mean, scale = _combined(of_blocks())
    # A reciprocal must be a finite float32.
    return mean, np.where(scale >= np.finfo(np.float32).tiny, scale, constant)


def column_moments(
    blocks: Iterable[Shaped[np.ndarray, "n ..."]],
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """Mean and standard deviation of each column, in float64 and in one pass.

    Exactly zero is the deviation of a column that is constant.

    >>> column_moments([np.array([[1.0, 5.0]]), np.array([[3.0, 5.0]])])
    (array([2., 5.]), array([1., 0.]))
    """
    first: np.ndarray | None = None

    def of_blocks():
        nonlocal first
        for block in blocks:
            x = np.asarray(block, np.float64).reshape(len(block), -1)
            first = x[0].copy() if first is None else first
            x = x - first
            mean = x.mean(0)
            yield len(x), mean, ((x - mean) ** 2).sum(0)

    mean, deviation = _combined(of_blocks())
    assert first is not None, "a dataset has examples"
    return first + mean, deviation


def _combined(parts):
    """Mean and standard deviation of all parts: triples (count, mean, squared deviations' sum).

    Two sets are combined as in Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances* (1979), so that a large mean costs no precision.
    """
    total, mean, squares = np.zeros(3)
    for n, own_mean, own_squares in parts:
        fraction = n / np.where(total + n > 0, total + n, 1)
        difference = own_mean - mean
        mean = mean + difference * fraction
        squares = squares + own_squares + difference**2 * fraction * total
        total = total + n
    return mean, np.sqrt(squares / total)


def _resampled_moments(x, counts):
    """Count [R, 1], mean and sum of squared deviations [R, D] of x [n, D] for counts [R, n]."""
    n = counts.sum(1, keepdims=True)
    centre = x.mean(0)
    centred = x - centre
    offset = counts @ centred / np.where(n > 0, n, 1)
    mean, squares = centre + offset, counts @ centred**2 - n * offset**2
    cancelled = (squares <= _CANCELLED * n * offset**2) & (offset != 0)
    for r in np.flatnonzero(cancelled.any(1)):
        rows, columns = np.flatnonzero(counts[r]), np.flatnonzero(cancelled[r])
        mean[r, columns], squares[r, columns] = _exact_moments(x[rows][:, columns], counts[r, rows])
    return n, mean, squares


def _exact_moments(x, counts):
    """Mean and sum of squared deviations [D] of x [n, D]: exact where a feature is constant."""
    shifted = x - x[0]
    mean = counts @ shifted / counts.sum()
    return x[0] + mean, counts @ (shifted - mean) ** 2


def html_table(rows: Iterable[dict]) -> str:
    """Rows with equal keys as an HTML table, for a notebook.

    >>> html_table([{"l2": 0.1, "name": "a<b"}])
    '<table><tr><th>l2</th><th>name</th></tr><tr><td>0.1</td><td>a&lt;b</td></tr></table>'
    """
    rows = list(rows)
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0]) if rows else ""
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
