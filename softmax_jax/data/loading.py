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
from softmax_jax.data import npz, sources, tables, tfds, validation
from softmax_jax.data.dataset import Dataset, Features, Splits
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
    label_column: str = "",
    group_column: str = "",
    dtype: str = "float32",
    stream: str | bool = "auto",
) -> Splits:
    """Loads a dataset by name.

    Args:
      name: `'fashion_mnist'`, `'digits'`, or the TFDS name of any image classification set that
        TFDS has prepared on this machine in the array_record format; or the path of features of
        your own: a .npz file or a folder of .npy files (see `npz.file_source`), or a table, .csv,
        .tsv, .parquet or a folder of Hugging Face `datasets` (see `tables.table_source`).
      train: split string of TFDS, such as `'train[:80%]'` or `'train[:-500]+test'`, or `'auto'`:
        see `replace_auto`. `'train[k=16]'` draws 16 examples of each class, at random by
        `seed=0`: `'train[:90%,k=16,seed=3]'`; a draw of fewer lies within one of more.
      val: as train.
      test: as train, or '' for none. val and test may be the same data.
      data_dir: the folder to search first; see `find_source`.
      label_column: of a table, the column with the labels.
      group_column: of a table, the column with the groups, and of arrays the name of theirs (by
        default 'groups'): examples of one group stay in one fold, and on one side of 'auto'.
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
    train, shots = split_shots(train)
    specs = {"train": train, "val": val, "test": test}
    try:
        source = find_source(name, data_dir, label_column, group_column)
        resolved = replace_auto(specs, source.shard_lengths)
        slices = _resolve_roles(resolved, source)
        splits = {split for role in slices.values() for split, _, _ in role}
        arrays = {split: _four(source.read(split)) for split in sorted(splits)}
        taken = {role: _take_examples(arrays, slices[role], role) for role in slices}
        fifth = specs["val"] == "auto" and resolved["val"].startswith("train[")
        drawn = (
            fifth and specs["train"] == "auto" and (source.draws or arrays["train"][3] is not None)
        )
        if drawn:
            taken |= _drawn(arrays["train"])
        if shots is not None:
            taken["train"] = _draw_shots(taken["train"], *shots)
        datasets = load_or_stream(_datasets(taken, source, dtype), stream)
        if fifth and not drawn:
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


_SHOTS = re.compile(r"([\w-]+)\[(?:([^\[\],]*),)?k=(\d{1,9})(?:,seed=(\d{1,9}))?\]")


def split_shots(spec: str) -> tuple[str, tuple[int, int] | None]:
    """A split string without the number of examples of each class, and (k, seed) or None.

    >>> split_shots("train[:90%,k=16]"), split_shots("train[:80%]")
    (('train[:90%]', (16, 0)), ('train[:80%]', None))
    """
    match = _SHOTS.fullmatch(spec)
    if match is None:
        return spec, None
    name, ends, k, seed = match.groups()
    return f"{name}[{ends}]" if ends else name, (int(k), int(seed or 0))


def _draw_shots(arrays, k, seed):
    """k examples of each class, in their order; those of weight 0 are not drawn."""
    _, y, weights, _ = arrays
    y = np.asarray(y)
    there = np.ones(len(y), bool) if weights is None else np.asarray(weights) > 0
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[there[order]]
    names, labels, counts = np.unique(y[order], return_inverse=True, return_counts=True)
    if k < 1 or counts.min() < k:
        rarest = f"{brief(names[counts.argmin()].item())} has {counts.min():,}"
        raise DataError(
            f"train[k={k}] takes that many examples of each class, and the class {rarest} (with "
            f"weight). Ask for 1 to {counts.min():,}."
        )
    rows = np.sort(np.concatenate([order[labels == own][:k] for own in range(len(names))]))
    return tuple(None if array is None else array[rows] for array in arrays)


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


def _four(arrays: tuple) -> tuple:
    """x, y, weights and groups; None where the source has none."""
    return *arrays, *[None] * (4 - len(arrays))


def _take_examples(arrays: Mapping, slices: Sequence[Slice], role: str) -> tuple:
    """x, y, weights and groups: of all slices, one after the other."""
    taken = [
        [None if array is None else array[start:stop] for array in arrays[split]]
        for split, start, stop in slices
    ]
    if len(taken) == 1:  # a view, no copy
        return tuple(taken[0])
    for what, column in zip(("weights", "groups"), list(zip(*taken, strict=True))[2:], strict=True):
        if len({array is None for array in column}) > 1:
            raise DataError(
                f"{role}: some of its splits have {what}. Give them to all, or to none."
            )
    size = sum(array.nbytes for given in taken for array in given if array is not None)
    host.require_memory(size, f"{role}, put together from several slices,", "Write it as one file.")
    return tuple(
        None if column[0] is None else np.asarray(np.concatenate(column))
        for column in zip(*taken, strict=True)
    )


def _drawn(arrays: tuple) -> dict[str, tuple]:
    """train and val from the rows of a source that draws them, or that has groups.

    val is a fifth of each class, drawn at random, with groups and weights of 0 as in a fold.
    """
    x, y, weights, groups = arrays
    there = np.ones(len(y), bool) if weights is None else np.asarray(weights) > 0
    member = np.zeros(len(y), np.int64)
    units = int(there.sum()) if groups is None else len(np.unique(groups[there]))
    if units < 2:
        raise DataError(
            "'auto' divides the rows of train, and there is only one of them (or group)."
        )
    member[there] = validation.assign_folds(
        np.asarray(y)[there],
        min(_ONE_IN, units),
        together=None if groups is None else validation.numbered(groups[there])[1],
    )
    host.require_memory(x.nbytes, "train and val, drawn from the rows,", "Write them as two files.")
    rows = {"train": member > 0, "val": member == 0}
    return {
        role: tuple(None if array is None else array[own] for array in arrays)
        for role, own in rows.items()
    }


_ONE_IN = 5  # of the rows 'auto' gives to val


def _datasets(taken: Mapping[str, tuple], source: Source, dtype: str) -> dict[str, Dataset]:
    there = {role: _present(*given, role=role) for role, given in taken.items()}
    given, labels = {role: own.y for role, own in there.items()}, None
    codes, names = given, source.label_names
    if names is None:
        codes, names = validation.encode_labels(given)
        labels = _as_given(codes["train"], given["train"], names)
    groups = _group_codes({role: own.groups for role, own in there.items()})
    found: dict[str, Any] = {"label_names": names, "labels": labels, "dtype": dtype}
    found |= {"name": source.name, "scale": source.scale, "features": source.features}
    return {
        role: dataclasses.replace(own, y=codes[role], groups=groups[role], **found)
        for role, own in there.items()
    }


def _group_codes(groups: Mapping[str, Any]) -> dict[str, Any]:
    """The groups as numbers, one for each in all splits; a warning of those in several of them."""
    for role, own in groups.items():
        if own is not None:
            validation.check_groups(own, role)
    given = [np.asarray(own) for own in groups.values() if own is not None]
    if not given:
        return dict(groups)
    names = np.unique(np.concatenate([own.astype(str) for own in given]))
    codes: dict[str, Any] = {
        role: None if own is None else np.searchsorted(names, np.asarray(own).astype(str))
        for role, own in groups.items()
    }
    for role in set(codes) - {"train"}:
        if codes["train"] is None or codes[role] is None:
            continue
        common = np.intersect1d(codes["train"], codes[role])
        if len(common):
            warnings.warn(
                f"{len(common):,} of the groups of {role} are in train too, "
                f"{str(names[common[0]])!r} is one. Examples of one group are alike: leave out of "
                "one of the two what is in both.",
                stacklevel=3,
            )
    return codes


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


def _present(
    x: Shaped[Any, "..."],
    y: Shaped[Any, "..."],
    weights: Shaped[Any, "..."] | None = None,
    groups: Shaped[Any, "..."] | None = None,
    *,
    role: str,
) -> Dataset:
    """The examples of weight above 0, with labels as they were given and no names of classes.

    The others are left out before anything is read off the examples: neither their features nor
    their labels matter, not even for which classes there are.
    """
    if groups is not None and groups.shape != x.shape[:1]:
        raise DataError(
            f"{role}: groups have shape {groups.shape}, and there are {len(x):,} examples. Give "
            "each example one group."
        )
    dataset = Dataset(x, y, 1.0, (), "", weights=weights, groups=groups)
    if weights is None or not x.ndim:
        return dataset
    weights = np.asarray(weights).astype(np.float64)
    validation.check_weights(weights, x.shape[:1], role)
    dataset = dataclasses.replace(dataset, weights=weights)
    if y.shape != x.shape[:1]:
        return dataset
    if role == "train":
        validation.warn_absent_classes(np.asarray(y), weights > 0)
    return dataset.without_absent()


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
      train: `(x, y)`, `(x, y, weights)` or `(x, y, weights, groups)`. x [N, ...] is uint8, with
        values up to 255, or of another numeric type: then it is features, converted to `dtype`; or
        a sparse matrix of SciPy, which becomes dense; or a data frame of pandas, polars or PyArrow,
        whose columns of text become a feature for each category. y [N] are labels of any integer
        type, booleans, or text. weights [N] (or None) say how often each example counts, in the
        objective and in every score; those of weight 0 are left out (see `Dataset.present`).
        groups [N]: see `Dataset.groups`.
      val: as train, with examples of the same shape and type.
      test: as val, or None.
      label_names: C names, by label. By default C is the largest label + 1, and the names are
        '0', '1', ...; or of text and booleans, those of train in ascending order.
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
    given = {role: _parts(own, role) for role, own in roles.items() if own is not None}
    features = _encode_frames(given)
    arrays = {role: _as_arrays(own, role) for role, own in given.items()}
    _check_apart({role: own[0] for role, own in arrays.items()})
    same = test is not None and _share_memory(arrays["val"][0], arrays["test"][0])
    there = {role: _present(*own, role=role) for role, own in arrays.items()}
    names = None if label_names is None else tuple(map(str, label_names))
    codes, names = _encode_text({role: own.y for role, own in there.items()}, names)
    names = _numbered_names(codes) if names is None else names
    labels = _as_given(codes["train"], there["train"].y, names)
    groups = _group_codes({role: own.groups for role, own in there.items()})
    found: dict[str, Any] = {"label_names": names, "labels": labels, "dtype": dtype, "name": name}
    found["features"] = features
    datasets = {
        role: dataclasses.replace(
            own, y=codes[role], scale=_pixel_scale(own.x), groups=groups[role], **found
        )
        for role, own in there.items()
    }
    datasets = load_or_stream(datasets, stream)
    for role, dataset in datasets.items():
        check_dataset(dataset, role)  # before labels become int32, where large ones would wrap
        datasets[role] = dataclasses.replace(dataset, y=dataset.y.astype(np.int32, copy=False))
    check_alike(datasets)
    return Splits(datasets["train"], datasets["val"], datasets.get("test"), name, names, same)


def _parts(given: Any, role: str) -> list:
    """x, y, weights and groups, as they were given; None for those that were not."""
    if not isinstance(given, tuple | list) or not 2 <= len(given) <= 4:
        kind = type(given).__name__
        raise DataError(
            f"{role} must be (x, y) or (x, y, weights), and is a {kind}. Correct the call. (With "
            "groups it is (x, y, weights, groups), where weights may be None.)"
        )
    return list(_four(tuple(given)))


def _encode_frames(given: Mapping[str, list]) -> Features | None:
    """Replaces each x that is a data frame by its features, those of train; their names, if any."""
    frames = {role: tables.is_frame(own[0]) for role, own in given.items()}
    if not any(frames.values()):
        return None
    others = [role for role, is_frame in frames.items() if not is_frame]
    if others:
        raise DataError(
            f"x of {others[0]} is no data frame, as that of others is. Give alike ones."
        )
    found = {role: tables.from_frame(own[0], role) for role, own in given.items()}
    features = tables.features_of([found["train"]])
    for role, table in found.items():
        tables.check_extra(table, features, role)
        given[role][0] = tables.encode(table, features, unknown=True)
    return features


def _as_arrays(given: Iterable, role: str) -> tuple:
    """x, y, weights and groups (or None) as arrays, of types that are right or can be converted."""
    x, y, weights, groups = [
        value if value is None or hasattr(value, "__array_namespace__") else _as_array(value, role)
        for value in given
    ]
    y = _as_text(y)
    validation.check_label_type(y, role)
    _check_numbers(x := _as_numbers(x), "x", role)
    if weights is not None:
        _check_numbers(weights, "weights", role)
    return x, y, weights, None if groups is None else _as_text(groups)


def _as_array(value: Any, role: str) -> np.ndarray:
    return npz.dense(value, role) if host.is_sparse(value) else np.asarray(value)


def _as_text(y: Shaped[Any, "..."]) -> Shaped[Any, "..."]:
    """Text in Python objects, or of any length, as an array of text; all else as it is."""
    is_text = y.dtype.kind in "OT" and all(isinstance(label, str) for label in y.flat)
    return np.array(y.tolist(), str).reshape(y.shape) if is_text else y


def _encode_text(
    labels: dict[str, Any], names: tuple[str, ...] | None
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Text and booleans encoded as `npz` has them, or by their places in `names`; others stay."""
    kinds = {y.dtype.kind for y in labels.values()}
    if kinds == {"b"} and names is not None:
        return {role: y.astype(np.int32) for role, y in labels.items()}, names
    if kinds <= {"i", "u"}:
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
    largest = max([0, *(int(y.max()) for y in labels.values() if y.size)])
    if largest > _LARGEST_LABEL:
        raise DataError(
            f"The largest label is {largest}, which would make as many classes. Number the "
            "classes from 0, or pass label_names if that is what you mean."
        )
    learnt = max(int(labels["train"].max()), 0) if labels["train"].size else largest
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


def find_source(
    name: str,
    data_dir: str | os.PathLike | None,
    label_column: str = "",
    group_column: str = "",
) -> Source:
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
      label_column, group_column: see `load`.

    Raises:
      DatasetNotFoundError: there is no such dataset, or it cannot be downloaded.
      DataError: the files are damaged, or the dataset has no such columns.
    """
    if tables.is_path(name):
        return tables.table_source(name, label_column, group_column)
    if label_column:
        raise DataError(
            f"label_column = {brief(label_column)} is for tables, .csv, .tsv or .parquet, and "
            f"{brief(name)} is none: leave it empty."
        )
    if npz.is_path(name):
        return npz.file_source(name, group_column)
    if group_column:
        raise DataError(f"{brief(name)} has no groups: leave group_column empty.")
    if name in sources.EMBEDDED:
        return sources.embedded_source(name)
    if registered := sources.registered_source(name):
        return registered
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
        "your own are a .npz file or a folder with x_train.npy and y_train.npy, or a .csv."
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
    for role, dataset in datasets.items():
        if role != "train" and dataset.x.dtype != datasets["train"].x.dtype:
            validation.shift_of(dataset)  # warns where these have lost digits on their own
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
