"""`load`: from the name of a dataset to its splits."""

import difflib
import os
from collections.abc import Mapping, Sequence

import numpy as np

from softmax_jax.data import digits, fashion_mnist, prepared
from softmax_jax.data.arrays import check
from softmax_jax.data.dataset import Dataset, Splits
from softmax_jax.data.download import download
from softmax_jax.data.errors import DataError, DatasetNotFoundError
from softmax_jax.data.source import Source, data_folders, user_cache
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
      data_dir: the folder to look into first, then $TFDS_DATA_DIR, then ~/tensorflow_datasets:
        for datasets prepared by TFDS, and for the four IDX files of Fashion-MNIST. If these are
        nowhere, they are downloaded into `data_dir/fashion_mnist`, or without a data_dir into
        $XDG_CACHE_HOME/softmax_jax/fashion_mnist.

    Returns:
      Images uint8 [N, H, W] or [N, H, W, 3] and labels int32 [N].

    Raises:
      DatasetNotFoundError: the dataset is not to be had.
      DataError: it is damaged, a split string is wrong, or train shares examples with val or test.
    """
    specs = {"train": train, "val": val, "test": test}
    try:
        source = _find(name, data_dir)
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


def _find(name: str, data_dir: str | os.PathLike | None) -> Source:
    if name == digits.NAME:
        return digits.source()
    folders = data_folders(data_dir)
    folder = prepared.find(name, folders)
    if folder:
        source = prepared.source(name, folder)
        is_fashion = folder.parent.name == fashion_mnist.NAME
        return source._replace(label_names=fashion_mnist.LABEL_NAMES) if is_fashion else source
    if name == fashion_mnist.NAME:
        return _find_fashion_mnist(data_dir)
    known = sorted({digits.NAME, fashion_mnist.NAME} | prepared.names(folders))
    near = difflib.get_close_matches(name, known) or known
    raise DatasetNotFoundError(
        f"There is no dataset {name!r} prepared by TFDS in {', '.join(map(str, folders))}. "
        f"Near names that are there: {', '.join(near)}. For another one, prepare it with TFDS "
        "(file_format='array_record') and set data_dir or TFDS_DATA_DIR to its folder."
    )


def _find_fashion_mnist(data_dir: str | os.PathLike | None) -> Source:
    folders = data_folders(data_dir)
    files = fashion_mnist.find([*folders, user_cache()])
    if not files:
        target = (folders[0] if data_dir else user_cache()) / fashion_mnist.NAME
        try:
            download(target)
        except DatasetNotFoundError as error:
            raise DatasetNotFoundError(
                f"Fashion-MNIST is not in {', '.join(map(str, folders))}. {error}. Do one of "
                "these: prepare it with TFDS (file_format='array_record') and set TFDS_DATA_DIR "
                "to its folder; put its four IDX files (train-images-idx3-ubyte.gz, ...) into "
                "data_dir; or allow the network."
            ) from error
        files = fashion_mnist.find([target])
    return fashion_mnist.source(files)


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
    x, y = (
        parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]
    )
    dataset = Dataset(x, y, source.scale, source.label_names, source.name)
    check(dataset, role)
    return dataset
