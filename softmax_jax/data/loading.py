"""`load` and `from_arrays`: from the name of a dataset, or from arrays, to its splits.

On the way: where a dataset is found, split strings such as `'train[:80%]+test'`, and whether the
examples are kept in memory as a whole or read by shards.
"""

import dataclasses
import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from softmax_jax import host
from softmax_jax.data import bigram, npz, sources, tfds, validation
from softmax_jax.data.dataset import Dataset, Splits
from softmax_jax.data.sources import Source, data_folders, download
from softmax_jax.data.validation import check_alike, check_dataset
from softmax_jax.host import DataError, DatasetNotFoundError, user_cache_folder


class Slice(NamedTuple):
    """Examples start, ..., stop − 1 of one split of the source."""

    split: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.split}[{self.start}:{self.stop}]"


def resolve_split(spec: str, shard_lengths: Mapping[str, Sequence[int]]) -> list[Slice]:
    """Reads a split string as TFDS does.

    Args:
      spec: `'train'`, `'train[:50000]'`, `'train[10%:20%]+test[-500:]'`, `'all'`, ...; see
        https://www.tensorflow.org/datasets/splits. Percentages round to the nearest example.
      shard_lengths: for each split of the source, the number of examples in each of its files.

    Returns:
      The pieces in the order given; neighbours that touch are joined.

    Raises:
      DataError: the string is malformed, names a split that the source lacks, reaches beyond
        its end, or selects nothing.
    """
    if spec in shard_lengths:  # a plain name, the common case, needs no parser: TFDS takes 0.2 s
        pieces = [Slice(spec, 0, sum(shard_lengths[spec]))]
    else:
        pieces = _resolve_with_tfds(spec, shard_lengths)
    pieces = _merge_touching([piece for piece in pieces if piece.start < piece.stop])
    if not pieces:
        raise DataError(
            f"The split {spec!r} is empty. Give one that selects at least one example; "
            f"there are {_split_sizes(shard_lengths)}."
        )
    return pieces


def replace_auto(specs: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Puts split strings in the place of `'auto'`, which takes the splits as the data has them.

    Args:
      specs: split strings or `'auto'` for train, val and test.
      names: the splits of the source.

    Returns:
      train is `'train'`; val is `'val'` or `'validation'`, whichever is there; test is `'test'`, or
      none if there is none. Where there is no val, and both train and val are `'auto'`, they share
      train: its last fifth is val.

    >>> as_they_are({"train": "auto", "val": "auto", "test": "auto"}, ["train", "test"])
    {'train': 'train[:80%]', 'val': 'train[80%:]', 'test': 'test'}
    """
    own = [name for name in ("val", "validation") if name in names]
    shared = not own and specs["train"] == specs["val"] == "auto"
    meant = {
        "train": "train[:80%]" if shared else "train",
        "val": own[0] if own else "train[80%:]",
        "test": "test" if "test" in names else "",
    }
    return {role: meant[role] if spec == "auto" else spec for role, spec in specs.items()}


def overlap(ours: Sequence[Slice], theirs: Sequence[Slice]) -> list[Slice]:
    """The examples that both have, as pieces."""
    common = [
        Slice(a.split, max(a.start, b.start), min(a.stop, b.stop))
        for a in ours
        for b in theirs
        if a.split == b.split
    ]
    return [piece for piece in common if piece.start < piece.stop]


def _resolve_with_tfds(spec: str, shard_lengths: Mapping[str, Sequence[int]]) -> list[Slice]:
    import tensorflow_datasets as tfds

    infos = {
        name: tfds.core.SplitInfo(
            name=name, shard_lengths=list(lengths), num_bytes=0, filename_template=None
        )
        for name, lengths in shard_lengths.items()
    }
    try:
        slices = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[-1].rstrip(".")
        raise DataError(
            f"The split {spec!r} cannot be read: {reason}. Write for example 'train', "
            "'train[:80%]' or 'auto' (the splits as they are); there are "
            f"{_split_sizes(shard_lengths)}."
        ) from error
    return [
        Slice(s.splitname, s.from_ or 0, infos[s.splitname].num_examples if s.to is None else s.to)
        for s in slices
    ]


def _merge_touching(pieces: Sequence[Slice]) -> list[Slice]:
    joined: list[Slice] = []
    for piece in pieces:
        if joined and joined[-1].split == piece.split and joined[-1].stop == piece.start:
            piece = joined.pop()._replace(stop=piece.stop)
        joined.append(piece)
    return joined


def _split_sizes(shard_lengths: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name!r} ({sum(sizes):,})" for name, sizes in shard_lengths.items())


_MEMORY_FRACTION = (
    1 / 4
)  # of the memory that datasets may take: the rest is for copies, trials, neighbours
_SHARD_BYTES = (
    1 << 29
)  # bytes of a part, the same on all machines: it decides the order of the examples
_SHARD_FRACTION = 1 / 8  # of the memory that a part may take, which exists two or three times
_STREAM_OPTIONS = ("auto", True, False)


def load_or_stream(datasets: Mapping[str, Dataset], stream: str | bool) -> dict[str, Dataset]:
    """The same datasets, x converted to its form in memory, or else with a part_size.

    Args:
      stream: False: all are in memory. True: none that is larger than one part. `'auto'`: as True
        for arrays mapped from disk, if all datasets together take more than a quarter of the
        memory, else as False.

    Raises:
      DataError: there is no memory for what is to be in it.
    """
    if stream not in _STREAM_OPTIONS:
        raise DataError(f"stream must be 'auto', True or False; it is {stream!r}.")
    needed = sum(dataset.num_examples * _example_bytes(dataset) for dataset in datasets.values())
    wanted = stream is True or (
        stream == "auto" and needed > _MEMORY_FRACTION * host.available_memory()
    )
    kind = np.ndarray if stream is True else np.memmap
    placed = {}
    for role, dataset in datasets.items():
        size = _shard_size(dataset)
        if wanted and isinstance(dataset.x, kind) and size < dataset.num_examples:
            dataset = dataclasses.replace(dataset, shard_size=size)
        else:
            dataset = _resident(dataset, role)
        weights = dataset.weights
        if weights is not None:
            weights = _converted(weights, np.dtype(dataset.dtype))
        placed[role] = dataclasses.replace(dataset, weights=weights)
    return placed


def _shard_size(dataset: Dataset) -> int:
    most = min(_SHARD_BYTES, _SHARD_FRACTION * host.available_memory())
    return max(1, int(most // _example_bytes(dataset)))


def _resident(dataset: Dataset, role: str) -> Dataset:
    if dataset.x.dtype != dataset.form:
        needed = dataset.num_examples * _example_bytes(dataset)
        remedy = "Save it as .npy files in a folder, and let it be read by shards: stream='auto'."
        host.require_memory(needed, f"{role}, as {dataset.form},", remedy)
    return dataclasses.replace(dataset, x=_converted(dataset.x, dataset.form))


def _converted(array, dtype: np.dtype):
    if isinstance(array, np.ndarray) or dtype == np.float64:  # JAX has no float64 by default
        array = np.asarray(array)  # no longer a memmap
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported so
        return array.astype(dtype, copy=False)


def _example_bytes(dataset: Dataset) -> int:
    """Of an example in memory."""
    return max(dataset.num_features, 1) * dataset.form.itemsize


def find_source(name: str, data_dir: str | os.PathLike | None) -> Source:
    """Finds a dataset in the first place that has it; its arrays are not yet read.

    Folders are data_dir, $TFDS_DATA_DIR, ~/tensorflow_datasets, in this order. In them are looked
    for a dataset prepared by TFDS, and then the four IDX files of Fashion-MNIST. If these are
    nowhere, they are downloaded into `data_dir/fashion_mnist`, or without a data_dir into
    $XDG_CACHE_HOME/softmax_jax/fashion_mnist. The names in `sources.EMBEDDED` come from
    scikit-learn; 'bigram' and 'bigram:V' are made on the spot. A name that is a path (see
    `npz.is_path`) is that file or folder.

    Raises:
      DatasetNotFoundError: there is no such dataset, or it cannot be downloaded.
      DataError: the files are damaged.
    """
    if name in sources.EMBEDDED:
        return sources.embedded_source(name)
    if name.partition(":")[0] == bigram.BIGRAM:
        return bigram.bigram_source(name)
    if npz.is_path(name):
        return npz.file_source(name)
    folders = data_folders(data_dir)
    folder = tfds.find_prepared(name, folders)
    if folder:
        source = tfds.prepared_source(name, folder)
        is_fashion = folder.parent.name == sources.FASHION_MNIST
        return source._replace(label_names=sources.FASHION_LABELS) if is_fashion else source
    if name == sources.FASHION_MNIST:
        return _find_fashion_mnist(data_dir)
    known = sorted({*sources.EMBEDDED, sources.FASHION_MNIST} | tfds.prepared_names(folders))
    near = difflib.get_close_matches(name, known) or known
    raise DatasetNotFoundError(
        f"There is no dataset {name!r} prepared by TFDS in {', '.join(map(str, folders))}. "
        f"Names nearest to it here: {', '.join(near)}. For another one, prepare it with TFDS "
        "(file_format='array_record') and set data_dir or TFDS_DATA_DIR to its folder. Features of "
        "your own are a .npz file or a folder with x_train.npy and y_train.npy."
    )


def _find_fashion_mnist(data_dir: str | os.PathLike | None) -> Source:
    folders = data_folders(data_dir)
    files = sources.find_fashion_mnist_files([*folders, user_cache_folder()])
    if not files:
        target = (folders[0] if data_dir else user_cache_folder()) / sources.FASHION_MNIST
        try:
            download(target)
        except DatasetNotFoundError as error:
            raise DatasetNotFoundError(
                f"Fashion-MNIST is not in {', '.join(map(str, folders))}. {error}. Do one of "
                "these: prepare it with TFDS (file_format='array_record') and set TFDS_DATA_DIR "
                "to its folder; put its four IDX files (train-images-idx3-ubyte.gz, ...) into "
                "data_dir; or allow the network."
            ) from error
        files = sources.find_fashion_mnist_files([target])
    return sources.fashion_mnist_source(files)


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
        your own, a .npz file or a folder of .npy files: see `npz.file_source`.
      train, val, test: split strings of TFDS, such as `'train[:80%]'` or `'train[:-500]+test'`, or
        `'auto'`: see `replace_auto`. `test=''` means none. val and test may be the same data.
      data_dir: the folder to look into first; see `find_source`.
      dtype: `'float32'` or `'float64'`, for features.
      stream: whether datasets are read by shards: by default where a folder of .npy files is larger
        than a quarter of the memory; see `load_or_stream`.

    Returns:
      Images uint8 [N, H, W] or [N, H, W, 3], or features [N, ...], and labels int32 [N].

    Raises:
      DatasetNotFoundError: the dataset was not found, and the download failed.
      DataError: it is damaged, its labels or values cannot be trained on, a split string is wrong,
        or train shares examples with val or test.
    """
    specs = {"train": train, "val": val, "test": test}
    try:
        source = find_source(name, data_dir)
        pieces = _resolve_roles(replace_auto(specs, source.shard_lengths), source)
        splits = {split for role in pieces.values() for split, _, _ in role}
        arrays = {split: source.read(split) for split in sorted(splits)}
        taken = {role: _take_examples(arrays, pieces[role], role) for role in pieces}
        parts = load_or_stream(_datasets(taken, source, dtype), stream)
        for role, dataset in parts.items():
            check_dataset(dataset, role)
    except OSError as error:
        raise DataError(f"{name!r} cannot be read: {error}. Correct that, or move it.") from error
    check_alike(parts)
    return Splits(
        train=parts["train"],
        val=parts["val"],
        test=parts.get("test"),
        name=name,
        label_names=parts["train"].label_names,
        val_is_test=bool(overlap(pieces["val"], pieces.get("test", []))),
    )


def _resolve_roles(specs: Mapping[str, str], source: Source) -> dict[str, list[Slice]]:
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
                pieces[role] = resolve_split(spec, source.shard_lengths)
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


def _take_examples(arrays: Mapping, pieces: Sequence[Slice], role: str) -> tuple[np.ndarray, ...]:
    """x, y and, for train where there are any, the weights: of all pieces, one after the other."""
    parts = [[array[start:stop] for array in arrays[split]] for split, start, stop in pieces]
    parts = parts if role == "train" else [part[:2] for part in parts]
    if len(parts) == 1:  # a view, no copy
        return tuple(parts[0])
    if len({len(part) for part in parts}) > 1:
        raise DataError(f"{role}: some of its splits have weights. Give them to all, or to none.")
    size = sum(array.nbytes for part in parts for array in part)
    host.require_memory(size, f"{role}, put together from several pieces,", "Write it as one file.")
    return tuple(np.asarray(np.concatenate(part)) for part in zip(*parts, strict=True))


def _datasets(taken: Mapping[str, tuple], source: Source, dtype: str) -> dict[str, Dataset]:
    codes, names = {role: y for role, (_, y, *_) in taken.items()}, source.label_names
    if names is None:
        codes, names = validation.encode_labels(codes)
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
      stream: whether datasets are read by shards: by default where arrays of type np.memmap are
        larger than a quarter of the memory; see `load_or_stream`.

    Returns:
      Splits that share the memory of those arrays that had the right type already.

    Raises:
      DataError: counts, shapes or types differ, a split is empty, labels are not integers in
        0..C−1, features are not finite, weights are negative, not finite or all zero, or train
        shares memory with val or test.
    """
    given = {"train": train, "val": val, "test": test}
    parts = {role: _convert_part(part, role) for role, part in given.items() if part is not None}
    names = (
        _numbered_names(parts)
        if label_names is None
        else tuple(str(label) for label in label_names)
    )
    datasets = {
        role: Dataset(x, y, _pixel_scale(x), names, name, weights=weights, dtype=dtype)
        for role, (x, y, weights) in parts.items()
    }
    datasets = load_or_stream(datasets, stream)
    for role, dataset in datasets.items():
        check_dataset(
            dataset, role
        )  # before the labels are narrowed, which would wrap large ones round
        datasets[role] = dataclasses.replace(dataset, y=dataset.y.astype(np.int32, copy=False))
    check_alike(datasets)
    _check_apart(datasets)
    test = datasets.get("test")
    same = test is not None and _share_memory(datasets["val"], test)
    return Splits(datasets["train"], datasets["val"], test, name, names, same)


def _convert_part(part: Sequence, role: str) -> tuple:
    """x, y and weights (or None) as arrays, of types that are right or can be made so."""
    lengths = (2, 3) if role == "train" else (2,)
    if not isinstance(part, tuple | list) or len(part) not in lengths:
        form = "(x, y) or (x, y, weights)" if role == "train" else "(x, y)"
        raise DataError(f"{role} must be {form}, and is a {type(part).__name__}. Correct the call.")
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
    dtype = npz.number_dtype(array.dtype)
    return array if dtype == array.dtype else array.view(dtype)


def _check_numbers(array, what: str, role: str) -> None:
    if not npz.is_number(array.dtype):
        raise DataError(
            f"{role}: {what} must be numbers, and are {array.dtype}. Encode them as floats first."
        )


def _pixel_scale(x: np.ndarray) -> float:
    return 255.0 if x.dtype == np.uint8 else 1.0


def _numbered_names(parts: Mapping[str, tuple]) -> tuple[str, ...]:
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
        if _share_memory(datasets["train"], datasets[role]):
            raise DataError(
                f"train and {role} share examples: their x share memory. A model is not judged on "
                "what it was trained on: pass arrays that have nothing in common."
            )


def _share_memory(one: Dataset, other: Dataset) -> bool:
    """Whether some examples are the same memory; arrays of JAX do not share parts."""
    if isinstance(one.x, np.ndarray) and isinstance(other.x, np.ndarray):
        return np.shares_memory(one.x, other.x)
    return one.x is other.x
