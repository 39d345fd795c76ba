"""What all data must hold before anything is compiled. Arrays of JAX are checked on their device.

Every function raises a DataError that names the split, the rule, what it found and the mend.
"""

from collections.abc import Mapping

import numpy as np

from softmax_jax.data.dataset import Dataset
from softmax_jax.data.errors import DataError


def check(dataset: Dataset, role: str) -> None:
    """Checks one split, called `role` in the messages.

    Raises:
      DataError: it is empty, counts differ, labels are outside 0..C−1, features are not finite,
        or weights are negative, not finite or all zero.
    """
    _check_shapes(dataset, role)
    _check_labels(dataset, role)
    if dataset.x.dtype != np.uint8:
        _check_finite(dataset, role)
    if dataset.weights is not None:
        _check_weights(dataset, role)


def check_alike(datasets: Mapping[str, Dataset]) -> None:
    """Checks that the examples of all splits have the shape and type of those in train.

    Raises:
      DataError: they have not.
    """
    train = datasets["train"]
    for role, dataset in datasets.items():
        shape, expected = dataset.x.shape[1:], train.x.shape[1:]
        if (shape, dataset.form) != (expected, train.form):
            raise DataError(
                f"An example in train is {train.form} of shape {expected}, and one in {role} is "
                f"{dataset.form} of shape {shape}. Prepare both in the same way."
            )


def _check_shapes(dataset: Dataset, role: str) -> None:
    x, y = dataset.x, dataset.y
    if x.ndim < 2 or dataset.num_features == 0:
        raise DataError(
            f"{role}: x has shape {x.shape}, and [N, D] or [N, H, W] with at least one feature "
            "is needed. Reshape it; a single feature is x.reshape(-1, 1)."
        )
    if y.shape != x.shape[:1]:
        raise DataError(
            f"{role}: x holds {x.shape[0]:,} examples, and y has shape {y.shape}. Give each "
            "example one integer label."
        )
    if dataset.num_examples == 0:
        raise DataError(f"{role}: there are no examples. Give at least one.")


def _check_labels(dataset: Dataset, role: str) -> None:
    y, num_classes = dataset.y, dataset.num_classes
    if num_classes < 2:
        raise DataError(
            f"{role}: there is only one class, {dataset.label_names[0]!r}. Give examples of at "
            "least two."
        )
    if int(y.min()) < 0 or int(y.max()) >= num_classes:
        y = np.asarray(y)
        row = int(np.argmax((y < 0) | (y >= num_classes)))
        raise DataError(
            f"{role}: label {y[row]} of example {row} is outside 0..{num_classes - 1}, as there "
            f"are {num_classes} classes. Number the classes from 0, give all their names, and "
            "leave out examples without a label."
        )


def _check_finite(dataset: Dataset, role: str) -> None:
    on_device = not isinstance(dataset.x, np.ndarray)
    if on_device and bool(dataset.x.__array_namespace__().isfinite(dataset.x).all()):
        return
    for start, block in dataset.blocks(f"checking {role}"):
        finite = np.isfinite(block)
        if not finite.all():
            row, column = np.argwhere(~finite.reshape(len(block), -1))[0]
            value = block.reshape(len(block), -1)[row, column]
            raise DataError(
                f"{role}: feature {value} in row {start + row}, column {column} is not a finite "
                f"{dataset.form}. Fill in or leave out what is missing, and scale down what is "
                "too large."
            )


def _check_weights(dataset: Dataset, role: str) -> None:
    weights = np.asarray(dataset.weights)
    if weights.shape != (dataset.num_examples,):
        raise DataError(
            f"{role}: weights have shape {weights.shape}, and there are {dataset.num_examples:,} "
            "examples. Give each example one weight."
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{role}: weight {weights[row]} of example {row} is negative or not finite. "
            "A weight says how often an example counts: give 0 or more."
        )
    if not weights.any():
        raise DataError(f"{role}: all weights are 0. Give at least one example a weight.")
