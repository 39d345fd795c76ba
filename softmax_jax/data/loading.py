"""`load` and `from_arrays`: from the name of a dataset, or from arrays, to its splits.

Below them: where a dataset is found, split strings such as `'train[:80%]+test'`, and whether the
examples are kept in memory or read by shards.
"""

import dataclasses
import difflib
import os
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from softmax_jax import host
from softmax_jax.data import npz, sources, tfds, validation
from softmax_jax.data.dataset import Dataset, Splits
from softmax_jax.data.sources import Source, data_folders, download
from softmax_jax.data.validation import check_alike, check_dataset
from softmax_jax.host import DataError, DatasetNotFoundError, brief, cut, user_cache_folder


class Slice(NamedTuple):
    """Examples start, ..., stop − 1 of one split of the source."""

    split: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.split}[{self.start}:{self.stop}]"


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
      train: split string of TFDS, such as `'train[:80%]'` or `'train[:-500]+test'`, or `'auto'`:
        see `replace_auto`.
      val: as train.
      test: as train, or '' for none. val and test may be the same data.
      data_dir: the folder to search first; see `find_source`.
      dtype: `'float32'` or `'float64'`, for features.
      stream: whether datasets are read by shards; by default, where a folder of .npy files is
        larger than a quarter of the memory: see `load_or_stream`.

    Returns:
      Images uint8 [N, H, W] or [N, H, W, 3], or features [N, ...]; labels int32 [N].

    Raises:
      DatasetNotFoundError: the dataset was not found, and the download failed.
      DataError: it is damaged, its labels or values cannot be trained on, a split string is wrong,
        or train shares examples with val or test.
    """
    specs = {"train": train, "val": val, "test": test}
    try:
        source = find_source(name, data_dir)
        resolved = replace_auto(specs, source.shard_lengths)
        slices = _resolve_roles(resolved, source)
        splits = {split for role in slices.values() for split, _, _ in role}
        arrays = {split: source.read(split) for split in sorted(splits)}
        taken = {role: _take_examples(arrays, slices[role], role) for role in slices}
        datasets = load_or_stream(_datasets(taken, source, dtype), stream)
        if specs["val"] == "auto" and resolved["val"].startswith("train["):
            validation.check_shuffled(datasets["train"].y, datasets["val"].y)
        for role, dataset in datasets.items():
            check_dataset(dataset, role)
    except OSError as error:
        reason = error.strerror or error
        where = f" ({error.filename})" if error.filename else ""
        raise DataError(
            f"{brief(name)} cannot be read: {reason}{where}. Correct that, or move it."
        ) from error
    check_alike(datasets)
    return Splits(
        train=datasets["train"],
        val=datasets["val"],
        test=datasets.get("test"),
        name=name,
        label_names=datasets["train"].label_names,
        val_is_test=bool(overlap(slices["val"], slices.get("test", []))),
        measure=source.measure,
    )


def _resolve_roles(specs: Mapping[str, str], source: Source) -> dict[str, list[Slice]]:
    """The slices of each role that has any; those of train must not overlap the others."""
    for role in ("train", "val"):
        if not specs[role]:
            raise DataError(
                f"There must be a {role} split, and {role} is {specs[role]!r}. Name one."
            )
    slices = {}
    for role, spec in specs.items():
        if spec:
            try:
                slices[role] = resolve_split(spec, source.shard_lengths)
            except DataError as error:
                raise DataError(f"{role}: {error}") from error
    parts = slices["train"]
    twice = [both for n, part in enumerate(parts) for both in overlap([part], parts[n + 1 :])]
    if twice:
        warnings.warn(
            f"train={specs['train']!r} takes examples twice: {', '.join(map(str, twice))}. Folds "
            "and bootstraps would judge models on what they were trained on. Take each once; an "
            "example that counts twice has a weight of 2.",
            stacklevel=3,
        )
    for role in set(slices) - {"train"}:
        common = overlap(slices["train"], slices[role])
        if common:
            raise DataError(
                f"train={specs['train']!r} and {role}={specs[role]!r} share examples: "
                f"{', '.join(map(str, common))}. A model is not judged on what it was trained "
                "on: change one of the two so that they have nothing in common."
            )
    return slices


def _take_examples(arrays: Mapping, slices: Sequence[Slice], role: str) -> tuple[np.ndarray, ...]:
    """x, y and, where there are any, the weights: of all slices, one after the other."""
    taken = [[array[start:stop] for array in arrays[split]] for split, start, stop in slices]
    if len(taken) == 1:  # a view, no copy
        return tuple(taken[0])
    if len({len(given) for given in taken}) > 1:
        raise DataError(f"{role}: some of its splits have weights. Give them to all, or to none.")
    size = sum(array.nbytes for given in taken for array in given)
    host.require_memory(size, f"{role}, put together from several slices,", "Write it as one file.")
    return tuple(np.asarray(np.concatenate(column)) for column in zip(*taken, strict=True))


def _datasets(taken: Mapping[str, tuple], source: Source, dtype: str) -> dict[str, Dataset]:
    there = {role: _present(*given, role=role) for role, given in taken.items()}
    given, labels = {role: own.y for role, own in there.items()}, None
    codes, names = given, source.label_names
    if names is None:
        codes, names = validation.encode_labels(given)
        labels = _as_given(codes["train"], given["train"], names)
    return {
        role: Dataset(
            own.x,
            codes[role],
            source.scale,
            names,
            source.name,
            weights=own.weights,
            dtype=dtype,
            labels=labels,
            present=own.present,
        )
        for role, own in there.items()
    }


def _as_given(codes, given, names):
    """[C]: what the labels that were given call each class, in their type."""
    if given.dtype.kind == "U":
        return np.array(names)
    if codes is given:
        fits = np.iinfo(given.dtype).max >= len(names) - 1
        return np.arange(len(names), dtype=given.dtype if fits else np.int32)
    labels = np.zeros(len(names), given.dtype)
    labels[codes] = given
    return labels


class _Present(NamedTuple):
    """Examples whose weight is above 0; and which of those that were given they are (None: all)."""

    x: Shaped[Any, "N ..."]
    y: Shaped[Any, " N"]
    weights: Shaped[np.ndarray, " N"] | None = None
    present: Shaped[np.ndarray, " M"] | None = None


def _present(
    x: Shaped[Any, "..."],
    y: Shaped[Any, "..."],
    weights: Shaped[Any, "..."] | None = None,
    *,
    role: str,
) -> _Present:
    """Leaves out the examples of weight 0 before anything is read off the examples.

    So neither their features nor their labels matter, not even for which classes there are.
    """
    if weights is None or not x.ndim:
        return _Present(x, y)
    weights = np.asarray(weights).astype(np.float64)
    validation.check_weights(weights, x.shape[:1], role)
    there = weights > 0
    if there.all() or y.shape != x.shape[:1]:
        return _Present(x, y, weights)
    if role == "train":
        validation.warn_absent_classes(np.asarray(y), there)
    needed = int(there.sum()) * int(np.prod(x.shape[1:])) * x.dtype.itemsize
    remedy = "Leave examples of weight 0 out of the file."
    host.require_memory(needed, f"{role}, without its examples of weight 0,", remedy)
    return _Present(x[there], y[there], weights[there], there)


_LARGEST_LABEL = 1 << 20  # without label_names, a larger one is taken for a mistake


def from_arrays(
    train: Iterable,
    val: Iterable,
    test: Iterable | None = None,
    label_names: Iterable | None = None,
    name: str = "arrays",
    *,
    dtype: str = "float32",
    stream: str | bool = "auto",
) -> Splits:
    """Makes splits of arrays of NumPy or JAX; those of JAX stay on their device.

    Args:
      train: `(x, y)` or `(x, y, weights)`. x [N, ...] is uint8, with values up to 255, or of
        another numeric type: then it is features, converted to `dtype`. y [N] are labels of any
        integer type, or text. weights [N] say how often each example counts, in the objective and
        in every score; those of weight 0 are left out (see `Dataset.present`).
      val: as train, with examples of the same shape and type.
      test: as val, or None.
      label_names: C names, by label. By default C is the largest label + 1, and the names are
        '0', '1', ...; or where the labels are text, those of train in ascending order.
      name: what the dataset is called in tables, plots and messages.
      dtype: `'float32'` or `'float64'`, for features.
      stream: whether datasets are read by shards; by default, where arrays of type np.memmap are
        larger than a quarter of the memory: see `load_or_stream`.

    Returns:
      Splits that share the memory of those arrays that had the right type already.

    Raises:
      DataError: counts, shapes or types differ, a split is empty, labels are not integers in
        0..C−1 or text that train has, features are not finite, weights are negative, not finite or
        all zero, or train shares memory with val or test.
    """
    roles = {"train": train, "val": val, "test": test}
    arrays = {role: _as_arrays(given, role) for role, given in roles.items() if given is not None}
    _check_apart({role: own[0] for role, own in arrays.items()})
    same = test is not None and _share_memory(arrays["val"][0], arrays["test"][0])
    there = {role: _present(*own, role=role) for role, own in arrays.items()}
    names = None if label_names is None else tuple(map(str, label_names))
    given = there["train"].y
    codes, names = _encode_text({role: own.y for role, own in there.items()}, names)
    names = _numbered_names(codes) if names is None else names
    labels = _as_given(codes["train"], given, names)
    datasets = {
        role: Dataset(
            own.x,
            codes[role],
            _pixel_scale(own.x),
            names,
            name,
            weights=own.weights,
            dtype=dtype,
            labels=labels,
            present=own.present,
        )
        for role, own in there.items()
    }
    datasets = load_or_stream(datasets, stream)
    for role, dataset in datasets.items():
        check_dataset(dataset, role)  # before labels become int32, where large ones would wrap
        datasets[role] = dataclasses.replace(dataset, y=dataset.y.astype(np.int32, copy=False))
    check_alike(datasets)
    return Splits(datasets["train"], datasets["val"], datasets.get("test"), name, names, same)


def _as_arrays(given: Iterable, role: str) -> tuple:
    """x, y and weights (or None) as arrays, of types that are right or can be converted."""
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        kind = type(given).__name__
        raise DataError(
            f"{role} must be (x, y) or (x, y, weights), and is a {kind}. Correct the call."
        )
    x, y, *rest = [
        value if hasattr(value, "__array_namespace__") else np.asarray(value) for value in given
    ]
    y = _as_text(y)
    validation.check_labels_present(y, role)
    if y.dtype.kind not in "iuUS":
        raise DataError(
            f"{role}: labels must be integers or text, and are {y.dtype}. Convert them: "
            "y.astype('int32')."
        )
    _check_numbers(x := _as_numbers(x), "x", role)
    if rest:
        _check_numbers(rest[0], "weights", role)
    return x, y, rest[0] if rest else None


def _as_text(y: Shaped[Any, "..."]) -> Shaped[Any, "..."]:
    """Text in Python objects, as Pandas has it, as an array of text; all else as it is."""
    is_text = y.dtype.kind == "O" and all(isinstance(label, str) for label in y.flat)
    return y.astype(str) if is_text else y


def _encode_text(
    labels: dict[str, Any], names: tuple[str, ...] | None
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Text labels encoded as `npz` has them, or as their places in `names`; others as they are."""
    if all(y.dtype.kind in "iu" for y in labels.values()):
        return labels, names
    codes, found = validation.encode_labels(labels)
    if names is not None:
        unknown = sorted(set(found) - set(names))
        if unknown:
            raise DataError(
                f"train has the label {unknown[0]!r}, which label_names lacks. Give the names of "
                "all classes, or leave label_names out."
            )
        places = np.array([names.index(name) for name in found])
        codes = {role: places[own] for role, own in codes.items()}
    return codes, found if names is None else names


def _as_numbers(array: Shaped[Any, "..."]) -> Shaped[Any, "..."]:
    """The array itself, or as bfloat16 if it lost that type in a file of NumPy."""
    dtype = npz.number_dtype(array.dtype)
    return array if dtype == array.dtype else array.view(dtype)


def _check_numbers(array: Shaped[Any, "..."], what: str, role: str) -> None:
    if not npz.is_number(array.dtype):
        raise DataError(
            f"{role}: {what} must be numbers, and are {array.dtype}. Encode them as floats first."
        )


def _pixel_scale(x: Shaped[Any, "..."]) -> float:
    return 255.0 if x.dtype == np.uint8 else 1.0


def _numbered_names(labels: Mapping[str, Any]) -> tuple[str, ...]:
    """Names for as many classes as the labels need."""
    largest = max([int(y.max()) for y in labels.values() if y.size], default=0)
    if largest > _LARGEST_LABEL:
        raise DataError(
            f"The largest label is {largest}, which would make as many classes. Number the "
            "classes from 0, or pass label_names if that is what you mean."
        )
    learnt = int(labels["train"].max()) if labels["train"].size else largest
    if largest > learnt:
        warnings.warn(
            f"A label of val or test is {largest}, which makes {largest + 1} classes, and no label "
            f"of train is above {learnt}: no model can learn these classes. Leave such examples "
            "out, or pass label_names if that is what you mean.",
            stacklevel=3,
        )
    return tuple(str(label) for label in range(largest + 1))


def _check_apart(features: Mapping[str, Any]) -> None:
    for role in set(features) - {"train"}:
        if _share_memory(features["train"], features[role]):
            raise DataError(
                f"train and {role} share examples: their x share memory. A model is not judged on "
                "what it was trained on: pass arrays that have nothing in common."
            )


def _share_memory(one: Any, other: Any) -> bool:
    """Whether some examples are the same memory; different arrays of JAX never share any."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.shares_memory(one, other)
    return one is other


def find_source(name: str, data_dir: str | os.PathLike | None) -> Source:
    """Finds a dataset in the first place that has it; its arrays are not yet read.

    The names in `sources.EMBEDDED` come from scikit-learn, those given to `sources.register` from
    the function given with them; a name that is a path (see `npz.is_path`) is that file or folder.
    For any other name the folders data_dir, $TFDS_DATA_DIR and ~/tensorflow_datasets are searched,
    in this order: for a dataset prepared by TFDS, and then for the four IDX files of Fashion-MNIST.
    If these are nowhere, they are downloaded into `data_dir/fashion_mnist`, or without a data_dir
    into $XDG_CACHE_HOME/softmax_jax/fashion_mnist.

    Args:
      name: of the dataset.
      data_dir: the folder to search first.

    Raises:
      DatasetNotFoundError: there is no such dataset, or it cannot be downloaded.
      DataError: the files are damaged.
    """
    if name in sources.EMBEDDED:
        return sources.embedded_source(name)
    if registered := sources.registered_source(name):
        return registered
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
        f"There is no dataset {brief(name)} prepared by TFDS in {', '.join(map(str, folders))}. "
        f"Names nearest to it here: {', '.join(near)}. For another one, prepare it with TFDS "
        "(file_format='array_record') and set data_dir or TFDS_DATA_DIR to its folder. Features of "
        "your own are a .npz file or a folder with x_train.npy and y_train.npy."
    )


def _find_fashion_mnist(data_dir: str | os.PathLike | None) -> Source:
    folders = data_folders(data_dir)
    files = sources.find_fashion_mnist_files([*folders, user_cache_folder()])
    if files is None:
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
    assert files is not None  # those that were just downloaded
    return sources.fashion_mnist_source(files)


def resolve_split(spec: str, shard_lengths: Mapping[str, Sequence[int]]) -> list[Slice]:
    """Reads a split string as TFDS does.

    Args:
      spec: `'train'`, `'train[:50000]'`, `'train[10%:20%]+test[-500:]'`, `'all'`, ...; see
        https://www.tensorflow.org/datasets/splits. Percentages round to the nearest example.
      shard_lengths: for each split of the source, the number of examples in each of its files.

    Returns:
      The slices in the given order; neighbours that touch are merged.

    Raises:
      DataError: the string is malformed, names a split that the source lacks, reaches beyond
        its end, or selects nothing.
    """
    if spec in shard_lengths:
        slices = [Slice(spec, 0, sum(shard_lengths[spec]))]
    else:
        try:
            slices = [s for part in re.split(r"\s*\+\s*", spec) for s in _part(part, shard_lengths)]
        except ValueError as error:
            raise DataError(
                f"The split {brief(spec)} cannot be read: {cut(str(error), 200)}. Write for "
                "example 'train', 'train[:80%]' or 'auto' (the splits as they are); there are "
                f"{_split_sizes(shard_lengths)}."
            ) from None
    slices = _merge_touching([part for part in slices if part.start < part.stop])
    if not slices:
        raise DataError(
            f"The split {spec!r} is empty. Give one that selects at least one example; "
            f"there are {_split_sizes(shard_lengths)}."
        )
    return slices


def replace_auto(specs: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Replaces `'auto'` by the split strings that take the splits as the data has them.

    Args:
      specs: split strings or `'auto'` for train, val and test.
      names: the splits of the source.

    Returns:
      train is `'train'`; val is `'val'` or `'validation'`, whichever is there; test is `'test'`, or
      '' if there is none. Where the source has no val, the last fifth of its train is val; if train
      and val are both `'auto'`, train is the rest.

    >>> replace_auto({"train": "auto", "val": "auto", "test": "auto"}, ["train", "test"])
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
    """The examples that both have, as slices."""
    common = [
        Slice(a.split, max(a.start, b.start), min(a.stop, b.stop))
        for a in ours
        for b in theirs
        if a.split == b.split
    ]
    return [part for part in common if part.start < part.stop]


_PART = re.compile(r"(?P<name>[\w-]+)(\[(?P<ends>[\w%:.-]+)\])?")
_END = re.compile(r"((?P<value>-?[\d_.]+)(?P<unit>%|shard)?)?")


def _part(part: str, shard_lengths: Mapping[str, Sequence[int]]) -> list[Slice]:
    """The slices of 'train', 'train[10%:20%]', 'train[1shard]' or 'all'; or ValueError."""
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{brief(part)} is not NAME or NAME[FROM:TO]")
    name, ends = match["name"], match["ends"]
    if name == "all" and ends is None:
        return [Slice(split, 0, sum(lengths)) for split, lengths in shard_lengths.items()]
    if name not in shard_lengths:
        raise ValueError(f"there is no split {brief(name)}" + " to slice" * (name == "all"))
    lengths = shard_lengths[name]
    return [Slice(name, *_bounds(ends or ":", lengths))]


def _bounds(ends: str, lengths: Sequence[int]) -> tuple[int, int]:
    """The first example, and the one after the last, of '10:20', '-10%:', ':1shard' or '2shard'."""
    found = [_END.fullmatch(end) for end in ends.split(":")]
    start, stop = found[0], found[-1]
    if len(found) > 2 or start is None or stop is None:
        raise ValueError(f"{brief(ends)} is not FROM:TO, of whole numbers, percentages or shards")
    unit = start["unit"] or stop["unit"]
    low, high = start["value"], stop["value"]
    if len(found) == 1:
        if unit != "shard":
            raise ValueError(f"{brief(ends)} has no colon")
        high = str(int(low) + 1 or len(lengths))
    size = sum(lengths)
    first = 0 if low is None else _position(low, unit, lengths)
    last = size if high is None else _position(high, unit, lengths)
    if max(abs(first), abs(last)) > size:
        raise ValueError(f"{brief(ends)} reaches beyond its {size:,} examples")
    return first + size * (first < 0), last + size * (last < 0)


def _position(end: str, unit: str | None, lengths: Sequence[int]) -> int:
    """The number of examples before an end of a slice, or after it if negative."""
    if unit == "%":
        if abs(float(end)) > 100:
            raise ValueError(f"{brief(end)} % is more than all")
        return round(float(end) * sum(lengths) / 100)
    return sum(lengths[: int(end)]) if unit == "shard" else int(end)


def _merge_touching(slices: Sequence[Slice]) -> list[Slice]:
    merged: list[Slice] = []
    for part in slices:
        if merged and merged[-1].split == part.split and merged[-1].stop == part.start:
            part = merged.pop()._replace(stop=part.stop)
        merged.append(part)
    return merged


def _split_sizes(shard_lengths: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name!r} ({sum(sizes):,})" for name, sizes in shard_lengths.items())


# Of the memory, the datasets may take a quarter: the rest is for copies, trials and other programs.
_MEMORY_FRACTION = 1 / 4
# The size of a shard is the same on all machines, as the order of the examples depends on it.
_SHARD_BYTES = 1 << 29
_SHARD_FRACTION = 1 / 8  # of the memory that a shard may take: two or three exist at a time
_STREAM_OPTIONS = ("auto", True, False)


def load_or_stream(datasets: Mapping[str, Dataset], stream: str | bool) -> dict[str, Dataset]:
    """Converts each dataset to its form in memory, or else sets its `shard_size`.

    Args:
      datasets: by role.
      stream: False: all are loaded into memory. True: those larger than one shard are not.
        `'auto'`: as True for arrays mapped from disk, if all datasets together take more than a
        quarter of the memory; else as False.

    Raises:
      DataError: there is not enough memory for what is to be loaded.

    Features that float32 would round too much stay float64, with a `Dataset.shift`.
    """
    if stream not in _STREAM_OPTIONS:
        raise DataError(f"stream must be 'auto', True or False; it is {stream!r}.")
    shift = validation.shift_of(datasets["train"])
    datasets = {role: dataclasses.replace(own, shift=shift) for role, own in datasets.items()}
    needed = sum(dataset.num_examples * _example_bytes(dataset) for dataset in datasets.values())
    wanted = stream is True or (
        stream == "auto" and needed > _MEMORY_FRACTION * host.available_memory()
    )
    kind = np.ndarray if stream is True else np.memmap
    placed = {}
    for role, dataset in datasets.items():
        size = _shard_size(dataset)
        if wanted and isinstance(dataset.x, kind) and size < dataset.num_examples:
            placed[role] = dataclasses.replace(dataset, shard_size=size)
        else:
            placed[role] = _resident(dataset, role)
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


def _converted(array: Shaped[Any, "..."], dtype: np.dtype) -> Shaped[Any, "..."]:
    if isinstance(array, np.ndarray) or dtype == np.float64:  # JAX has no float64 by default
        array = np.asarray(array)  # no longer a memmap
    with np.errstate(over="ignore"):  # too large a value becomes infinite, and is reported
        return array.astype(dtype, copy=False)


def _example_bytes(dataset: Dataset) -> int:
    """The size of an example in memory."""
    return max(dataset.num_features, 1) * dataset.form.itemsize
