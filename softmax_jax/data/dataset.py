"""The two types that the rest of the program sees: `Dataset` and `Splits`."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from softmax_jax.data import streaming
from softmax_jax.data.errors import DataError

if TYPE_CHECKING:
    import jax

    Array = np.ndarray | jax.Array


_BLOCK = 1 << 16  # values in a block that is looked at at a time: they stay in the cache
_FEWEST = 16  # examples in it


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """N labelled examples.

    A model sees (x − mean) / scale, flattened to [N, D].

    Attributes:
      x: [N, ...] uint8, or floats: those of a dataset that is read in parts may be of any type.
      y: [N] int32 labels in 0..C−1.
      scale: the divisor: the largest value of the image format (255; digits 16), 1 for features,
        or [D] of type `dtype`.
      label_names: C names, by label.
      name: the dataset that the examples come from.
      mean: what is subtracted before dividing: a number, or [D] of type `dtype`.
      weights: None, or [N] of type `dtype`: how much each example counts in the objective.
      dtype: 'float32' or 'float64': the type of x in memory, unless that is uint8.
      part_size: None if all examples are in memory, else how many of them are at a time.
    """

    x: "Array"
    y: "Array"
    scale: "float | np.ndarray"
    label_names: tuple[str, ...]
    name: str
    mean: "float | np.ndarray" = 0.0
    weights: "Array | None" = None
    dtype: str = "float32"
    part_size: int | None = None

    def __post_init__(self):
        if self.dtype not in ("float32", "float64"):
            raise DataError(f"dtype must be 'float32' or 'float64'; it is {self.dtype!r}.")

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
        """The type of x in memory: uint8 or `dtype`."""
        return np.dtype(np.uint8 if self.x.dtype == np.uint8 else self.dtype)

    def text_labels(self, labels: Iterable[int]) -> list[str]:
        """Names of labels: `text_labels([9, 0])` is, say, `['ankle boot', 't-shirt']`."""
        return [self.label_names[int(label)] for label in np.asarray(labels)]

    def blocks(self, what: str = "reading") -> Iterator[tuple[int, np.ndarray]]:
        """x in its `form`, as pairs (number of the first example, [n, ...]), in order.

        Memory does not grow with N. What takes long shows a progress bar, called `what`.
        """
        from tqdm import tqdm

        x = np.asarray(self.x)
        size = max(_FEWEST, _BLOCK // max(self.num_features, 1))
        starts = range(0, self.num_examples, size)
        for start in tqdm(starts, desc=what, delay=2, leave=False, disable=None):
            with np.errstate(over="ignore"):  # what is too large becomes infinite
                block = x[start : start + size].astype(self.form, copy=False)
            yield start, block

    def shuffled(self, epoch: int, batch_size: int = 1) -> "Iterator[streaming.Part]":
        """All examples once, in parts that fit into memory, for training.

        Where all are in memory, that is a single part, with the examples in their own order; else
        each part but the last has as many whole minibatches as `part_size` allows, of blocks drawn
        at random. A function of the epoch alone: within a part, the caller shuffles.
        """
        return streaming.shuffled(self, epoch, batch_size)

    def in_order(self) -> "Iterator[streaming.Part]":
        """All examples once, in parts that fit into memory, in order, for evaluation."""
        return streaming.in_order(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """One dataset, divided for training, for choosing between models, and for the final figure.

    Attributes:
      train: what models are fitted to.
      val: what they are compared on.
      test: what the selected one is measured on, or None.
      name: the dataset really used.
      label_names: C names, by label.
      val_is_test: whether val and test share examples, so that the test figure is flattering.
    """

    train: Dataset
    val: Dataset
    test: Dataset | None
    name: str
    label_names: tuple[str, ...]
    val_is_test: bool


def fingerprint(splits: Splits) -> str:
    """Identifies the data itself: a SHA-256, in hexadecimal.

    It runs over dtype, shape and bytes of x, y (and weights, where given) of train, val and test,
    in this order. Names and sources play no part, so the same examples read from
    elsewhere, or in parts, have the same fingerprint.
    """
    digest = hashlib.sha256()
    for role in ("train", "val", "test"):
        dataset = getattr(splits, role)
        if dataset is None:
            continue
        digest.update(f"{dataset.form.str} {dataset.x.shape}".encode())
        for _, block in dataset.blocks("fingerprint"):
            digest.update(np.ascontiguousarray(block).data)
        for array in (dataset.y, dataset.weights):
            if array is not None:
                array = np.ascontiguousarray(array)
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(array.data)
    return digest.hexdigest()
