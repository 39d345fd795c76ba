"""From labels as people write them, numbers or names, to classes 0..C−1."""

from collections.abc import Iterator, Mapping

import numpy as np

from softmax_jax.data.errors import DataError

_BLOCK = 1 << 20  # labels looked at at a time
_MOST_CLASSES = 1 << 20  # more are taken for a mistake, such as the number of each row
_KINDS = {"i": "integers", "u": "integers", "b": "booleans", "U": "text", "S": "bytes"}


def encode(labels: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The classes are the labels that occur in train, in ascending order.

    Args:
      labels: for `'train'` and other splits, [N] integers, booleans or text.

    Returns:
      For each split int32 [N] in 0..C−1, and the C names: text as it is, the integer 7 as `'7'`.

    Raises:
      DataError: labels are of another type, or of several, or a split has one that train lacks.

    >>> encode({"train": np.array([7, 3, 7]), "val": np.array([3])})[1]
    ('3', '7')
    """
    for role, values in labels.items():
        _check_kind(values, role, labels["train"])
    classes = _classes(labels["train"])
    if len(classes) > _MOST_CLASSES:
        raise DataError(
            f"train has {len(classes):,} different labels. That many classes are taken for a "
            "mistake: give each example the label of its class."
        )
    codes = {role: _codes(values, classes, role) for role, values in labels.items()}
    return codes, tuple(_name(label) for label in classes.tolist())


def _check_kind(values: np.ndarray, role: str, train: np.ndarray) -> None:
    kind, expected = (_KINDS.get(array.dtype.kind) for array in (values, train))
    if kind is None:
        raise DataError(
            f"{role}: labels must be integers or text, and are {values.dtype}. Convert them: "
            "y.astype('int64')."
        )
    if kind != expected:
        raise DataError(f"The labels of train are {expected}, and those of {role} {kind}.")


def _classes(values: np.ndarray) -> np.ndarray:
    classes = values[:0]
    for _, block in _blocks(values):
        classes = np.union1d(classes, block)
    return classes


def _codes(values: np.ndarray, classes: np.ndarray, role: str) -> np.ndarray:
    codes = np.empty(len(values), np.int32)
    for start, block in _blocks(values):
        # In the type of the classes, or else the classes would be converted for every block.
        found = np.searchsorted(classes, block.astype(classes.dtype))
        found = np.minimum(found, len(classes) - 1)
        unknown = classes[found] != block
        if unknown.any():
            row = int(np.argmax(unknown))
            raise DataError(
                f"{role}: label {_name(block[row].item())!r} of example {start + row} does not "
                f"occur in train, where there are {len(classes)} classes, and no model can learn "
                "it. Leave such examples out, or divide the examples otherwise: shuffle them "
                "first if they are sorted by label."
            )
        codes[start : start + len(block)] = found
    return codes


def _blocks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    values = np.asarray(values)
    for start in range(0, len(values), _BLOCK):
        yield start, values[start : start + _BLOCK]


def _name(label: int | str | bytes) -> str:
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)
