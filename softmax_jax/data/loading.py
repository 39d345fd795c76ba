"""`load`: from the name of a dataset to its splits."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from softmax_jax.data import labels, memory, placement
from softmax_jax.data.checks import check, check_alike
from softmax_jax.data.dataset import Dataset, Splits
from softmax_jax.data.errors import DataError
from softmax_jax.data.finding import find
from softmax_jax.data.source import Source
from softmax_jax.data.splits import Piece, as_they_are, overlap, resolve


def load(
    name: str,
    train: str = "train",
    val: str = "test",
    test: str = "",
    data_dir: str | os.PathLike | None = None,
    *,
    dtype: str = "float32",
    stream: str | bool = "auto",
) -> Splits:
    """Loads a dataset by name.

    Args:
      name: `'fashion_mnist'`, `'digits'`, or the TFDS name of any image classification set that
        TFDS has prepared on this machine in the array_record format; or the path of features of
        your own, a .npz file or a folder of .npy files: see `features.source`.
      train, val, test: split strings of TFDS, such as `'train[:80%]'` or `'train[:-500]+test'`, or
        `'auto'`: see `splits.as_they_are`. `test=''` means none. val and test may be the same data.
      data_dir: the folder to look into first; see `finding.find`.
      dtype: `'float32'` or `'float64'`, for features.
      stream: whether datasets are read in parts: by default where a folder of .npy files is larger
        than a quarter of the memory; see `placement.place`.

    Returns:
      Images uint8 [N, H, W] or [N, H, W, 3], or features [N, ...], and labels int32 [N].

    Raises:
      DatasetNotFoundError: the dataset is not to be had.
      DataError: it is damaged, its labels or values cannot be trained on, a split string is wrong,
        or train shares examples with val or test.
    """
    specs = {"train": train, "val": val, "test": test}
    try:
        source = find(name, data_dir)
        pieces = _resolve(as_they_are(specs, source.shard_lengths), source)
        splits = {split for role in pieces.values() for split, _, _ in role}
        arrays = {split: source.read(split) for split in sorted(splits)}
        taken = {role: _take(arrays, pieces[role], role) for role in pieces}
        parts = placement.place(_datasets(taken, source, dtype), stream)
        for role, dataset in parts.items():
            check(dataset, role)
    except OSError as error:
        raise DataError(f"{name!r} cannot be read: {error}. Mend that, or move it.") from error
    check_alike(parts)
    return Splits(
        train=parts["train"],
        val=parts["val"],
        test=parts.get("test"),
        name=name,
        label_names=parts["train"].label_names,
        val_is_test=bool(overlap(pieces["val"], pieces.get("test", []))),
    )


def _resolve(specs: Mapping[str, str], source: Source) -> dict[str, list[Piece]]:
    """The pieces of each role that has any, with train held apart from the rest."""
    for role in ("train", "val"):
        if not specs[role]:
            raise DataError(
                f"There must be a {role} split, and {role} is {specs[role]!r}. Name one."
            )
    pieces = {}
    for role, spec in specs.items():
        if spec:
            try:
                pieces[role] = resolve(spec, source.shard_lengths)
            except DataError as error:
                raise DataError(f"{role}: {error}") from error
    for role in set(pieces) - {"train"}:
        common = overlap(pieces["train"], pieces[role])
        if common:
            raise DataError(
                f"train={specs['train']!r} and {role}={specs[role]!r} share examples: "
                f"{', '.join(map(str, common))}. A model is not judged on what it was trained "
                "on: change one of the two so that they have nothing in common."
            )
    return pieces


def _take(arrays: Mapping, pieces: Sequence[Piece], role: str) -> tuple[np.ndarray, ...]:
    """x, y and, for train where there are any, the weights: of all pieces, one after the other."""
    parts = [[array[start:stop] for array in arrays[split]] for split, start, stop in pieces]
    parts = parts if role == "train" else [part[:2] for part in parts]
    if len(parts) == 1:  # a view, no copy
        return tuple(parts[0])
    if len({len(part) for part in parts}) > 1:
        raise DataError(f"{role}: some of its splits have weights. Give them to all, or to none.")
    size = sum(array.nbytes for part in parts for array in part)
    memory.require(size, f"{role}, put together from several pieces,", "Write it as one file.")
    return tuple(np.asarray(np.concatenate(part)) for part in zip(*parts, strict=True))


def _datasets(taken: Mapping[str, tuple], source: Source, dtype: str) -> dict[str, Dataset]:
    codes, names = {role: y for role, (_, y, *_) in taken.items()}, source.label_names
    if names is None:
        codes, names = labels.encode(codes)
    return {
        role: Dataset(
            x,
            codes[role],
            source.scale,
            names,
            source.name,
            weights=weights[0] if weights else None,
            dtype=dtype,
        )
        for role, (x, _, *weights) in taken.items()
    }
