"""`from_arrays`: from the user's own arrays to splits."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from softmax_jax.data import npy, placement
from softmax_jax.data.checks import check, check_alike
from softmax_jax.data.dataset import Dataset, Splits
from softmax_jax.data.errors import DataError

_LARGEST_LABEL = 1 << 20  # without label_names, a larger one is taken for a mistake


def from_arrays(
    train: Sequence,
    val: Sequence,
    test: Sequence | None = None,
    label_names: Sequence[str] | None = None,
    name: str = "arrays",
    *,
    dtype: str = "float32",
    stream: str | bool = "auto",
) -> Splits:
    """Makes splits of arrays of NumPy or JAX; those of JAX stay on their device.

    Args:
      train: `(x, y)` or `(x, y, weights)`. x [N, ...] is uint8, with values up to 255, or of
        another numeric type, which makes it features of type `dtype`; y [N] are labels of any
        integer type; weights [N] say how much each example counts in the objective.
      val, test: `(x, y)`, of the same shape and type as in train.
      label_names: C names, by label. By default C is the largest label + 1, and the names are
        '0', '1', ...
      name: what the dataset is called in whatever is written about it.
      dtype: `'float32'` or `'float64'`.
      stream: whether datasets are read in parts: by default where arrays of type np.memmap are
        larger than a quarter of the memory; see `placement.place`.

    Returns:
      Splits that share the memory of those arrays that had the right type already.

    Raises:
      DataError: counts, shapes or types differ, a split is empty, labels are not integers in
        0..C−1, features are not finite, weights are negative, not finite or all zero, or train
        shares memory with val or test.
    """
    given = {"train": train, "val": val, "test": test}
    parts = {role: _convert(part, role) for role, part in given.items() if part is not None}
    names = _names(parts) if label_names is None else tuple(str(label) for label in label_names)
    datasets = {
        role: Dataset(x, y, _scale(x), names, name, weights=weights, dtype=dtype)
        for role, (x, y, weights) in parts.items()
    }
    datasets = placement.place(datasets, stream)
    for role, dataset in datasets.items():
        check(dataset, role)  # before the labels are narrowed, which would wrap large ones round
        datasets[role] = dataclasses.replace(dataset, y=dataset.y.astype(np.int32, copy=False))
    check_alike(datasets)
    _check_apart(datasets)
    test = datasets.get("test")
    same = test is not None and _share(datasets["val"], test)
    return Splits(datasets["train"], datasets["val"], test, name, names, same)


def _convert(part: Sequence, role: str) -> tuple:
    """x, y and weights (or None) as arrays, of types that are right or can be made so."""
    lengths = (2, 3) if role == "train" else (2,)
    if not isinstance(part, tuple | list) or len(part) not in lengths:
        form = "(x, y) or (x, y, weights)" if role == "train" else "(x, y)"
        raise DataError(f"{role} must be {form}, and is a {type(part).__name__}. Mend the call.")
    x, y, *rest = [
        value if hasattr(value, "__array_namespace__") else np.asarray(value) for value in part
    ]
    if y.dtype.kind not in "iu":
        raise DataError(
            f"{role}: labels must be integers, and are {y.dtype}. Convert them: y.astype('int32'), "
            "or for names np.unique(y, return_inverse=True)[1]."
        )
    _check_numbers(x := _as_numbers(x), "x", role)
    if rest:
        _check_numbers(rest[0], "weights", role)
    return x, y, rest[0] if rest else None


def _as_numbers(array):
    """The array itself, or as bfloat16 if it lost that type in a file of NumPy."""
    dtype = npy.numbers(array.dtype)
    return array if dtype == array.dtype else array.view(dtype)


def _check_numbers(array, what: str, role: str) -> None:
    if not npy.is_number(array.dtype):
        raise DataError(
            f"{role}: {what} must be numbers, and are {array.dtype}. Encode them as floats first."
        )


def _scale(x: np.ndarray) -> float:
    return 255.0 if x.dtype == np.uint8 else 1.0


def _names(parts: Mapping[str, tuple]) -> tuple[str, ...]:
    """Names for as many classes as the labels need."""
    largest = max([int(y.max()) for _, y, _ in parts.values() if y.size], default=0)
    if largest > _LARGEST_LABEL:
        raise DataError(
            f"The largest label is {largest}, which would make as many classes. Number the "
            "classes from 0, or pass label_names if that is what you mean."
        )
    return tuple(str(label) for label in range(largest + 1))


def _check_apart(datasets: Mapping[str, Dataset]) -> None:
    for role in set(datasets) - {"train"}:
        if _share(datasets["train"], datasets[role]):
            raise DataError(
                f"train and {role} share examples: their x share memory. A model is not judged on "
                "what it was trained on: pass arrays that have nothing in common."
            )


def _share(one: Dataset, other: Dataset) -> bool:
    """Whether some examples are the same memory; arrays of JAX do not share parts."""
    if isinstance(one.x, np.ndarray) and isinstance(other.x, np.ndarray):
        return np.shares_memory(one.x, other.x)
    return one.x is other.x
