"""`load`: from the name of a dataset to its splits."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from softmax_jax.data.checks import check
from softmax_jax.data.dataset import Dataset, Splits
from softmax_jax.data.errors import DataError
from softmax_jax.data.finding import find
from softmax_jax.data.source import Source
from softmax_jax.data.splits import Piece, overlap, resolve


def load(
    name: str,
    train: str = "train",
    val: str = "test",
    test: str = "",
    data_dir: str | os.PathLike | None = None,
) -> Splits:
    """Loads a dataset by name.

    Args:
      name: `'fashion_mnist'`, `'digits'`, or the TFDS name of any image classification set that
        TFDS has prepared on this machine in the array_record format.
      train, val, test: split strings of TFDS, such as `'train[:80%]'` or `'train[:-500]+test'`.
        `test=''` means none. val and test may be the same data.
      data_dir: the folder to look into first; see `finding.find`.

    Returns:
      Images uint8 [N, H, W] or [N, H, W, 3] and labels int32 [N].

    Raises:
      DatasetNotFoundError: the dataset is not to be had.
      DataError: it is damaged, a split string is wrong, or train shares examples with val or test.
    """
    specs = {"train": train, "val": val, "test": test}
    try:
        source = find(name, data_dir)
        pieces = _resolve(specs, source)
        splits = {split for role in pieces.values() for split, _, _ in role}
        arrays = {split: source.read(split) for split in sorted(splits)}
    except OSError as error:
        raise DataError(f"{name!r} cannot be read: {error}. Mend that, or move it.") from error
    parts = {role: _take(arrays, pieces[role], source, role) for role in pieces}
    return Splits(
        train=parts["train"],
        val=parts["val"],
        test=parts.get("test"),
        name=name,
        label_names=source.label_names,
        val_is_test=bool(overlap(pieces["val"], pieces.get("test", []))),
    )


def _resolve(specs: Mapping[str, str], source: Source) -> dict[str, list[Piece]]:
    """The pieces of each role that has any, with train held apart from the rest."""
    for role in ("train", "val"):
        if not specs[role]:
            raise DataError(
                f"There must be a {role} split, and {role} is {specs[role]!r}. Name one."
            )
    pieces = {role: resolve(spec, source.shard_lengths) for role, spec in specs.items() if spec}
    for role in set(pieces) - {"train"}:
        common = overlap(pieces["train"], pieces[role])
        if common:
            raise DataError(
                f"train={specs['train']!r} and {role}={specs[role]!r} share examples: "
                f"{', '.join(map(str, common))}. A model is not judged on what it was trained "
                "on: change one of the two so that they have nothing in common."
            )
    return pieces


def _take(arrays: Mapping, pieces: Sequence[Piece], source: Source, role: str) -> Dataset:
    parts = [[array[start:stop] for array in arrays[split]] for split, start, stop in pieces]
    if len(parts) == 1:  # a view, no copy
        x, y = parts[0]
    else:
        x, y = [np.concatenate(part) for part in zip(*parts, strict=True)]
    dataset = Dataset(x, y, source.scale, source.label_names, source.name)
    check(dataset, role)
    return dataset
