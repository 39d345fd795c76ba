"""The two types that the rest of the program sees: `Dataset` and `Splits`."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax

    Array = np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """N labelled examples.

    A model sees (x − mean) / scale, flattened to [N, D].

    Attributes:
      x: [N, ...] uint8 images ([N, H, W] grey, [N, H, W, 3] colour) or float32 features [N, D].
      y: [N] int32 labels in 0..C−1.
      scale: the divisor: the largest value of the image format (255; digits 16), 1 for features.
      label_names: C names, by label.
      name: the dataset that the examples come from.
      mean: what is subtracted before dividing: a number, or float32 [D].
      weights: None, or float32 [N]: how much each example counts in the objective.
    """

    x: "Array"
    y: "Array"
    scale: float
    label_names: tuple[str, ...]
    name: str
    mean: "float | np.ndarray" = 0.0
    weights: "Array | None" = None

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
        """Whether an example can be drawn: [H, W], [H, W, 1] or [H, W, 3]."""
        shape = self.x.shape[1:]
        return len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))

    def text_labels(self, labels: Iterable[int]) -> list[str]:
        """Names of labels: `text_labels([9, 0])` is, say, `['ankle boot', 't-shirt']`."""
        return [self.label_names[int(label)] for label in np.asarray(labels)]


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
    elsewhere have the same fingerprint.
    """
    digest = hashlib.sha256()
    for role in ("train", "val", "test"):
        dataset = getattr(splits, role)
        arrays = () if dataset is None else (dataset.x, dataset.y, dataset.weights)
        for array in arrays:
            if array is not None:
                array = np.ascontiguousarray(array)
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(array.data)
    return digest.hexdigest()
