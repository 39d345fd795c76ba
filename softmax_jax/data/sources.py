"""Where named datasets come from: scikit-learn's copies, and Fashion-MNIST's own files.

In this order: what a source is; the embedded datasets; Fashion-MNIST, with its download; the IDX
format of its files; the cache of decoded arrays.
"""

import contextlib
import functools
import gzip
import hashlib
import http.client
import io
import json
import math
import os
import queue
import struct
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from softmax_jax import host
from softmax_jax.data.dataset import Features
from softmax_jax.host import (
    DataError,
    DatasetNotFoundError,
    as_path,
    open_regular,
    replacing,
    user_cache_folder,
)


class Source(NamedTuple):
    """A dataset that has been found but not yet read.

    Attributes:
      name: what the user called it.
      label_names: C names, by label; None if the labels are yet to be encoded as classes 0..C−1.
      scale: the largest value that a pixel can take; 1 for features.
      shard_lengths: for each split, the number of examples in each of its files.
      read: reads a split, given its name: images uint8 [N, H, W] or [N, H, W, 3], or features
        [N, ...] of any type; labels int32 [N] (of any type if `label_names` is None); and, where
        there are any, weights [N] and groups [N] (None before them, if there are no weights).
      measure: what a dataset with a known truth says of a trained `classifier.Classifier`: a
        dictionary, which summary.json of a job takes in. None: nothing.
      features: what the features are called, where they have names.
      draws: whether 'auto' draws the rows of val at random, a fifth of each class; else it takes
        the last fifth, unless there are groups.
    """

    name: str
    label_names: tuple[str, ...] | None
    scale: float
    shard_lengths: Mapping[str, tuple[int, ...]]
    read: Callable[[str], tuple[Shaped[np.ndarray, "N ..."] | None, ...]]
    measure: Callable[[Any], dict[str, Any]] | None = None
    features: Features | None = None
    draws: bool = False


_REGISTERED: dict[str, Callable[[str], Source]] = {}


def register(name: str, find: Callable[[str], Source]) -> None:
    """Makes a dataset of your own known to `load`, and so to `config.dataset`.

    A config of yours imports the module that calls this: configs/large_vocabulary.py does.

    Args:
      name: of the dataset; `load` finds it by this name, and by 'name:options'.
      find: makes the `Source` from the full name, options included.

    Raises:
      ValueError: the name belongs to a dataset that this package knows, or is a path.
    """
    if name in (*EMBEDDED, FASHION_MNIST) or not name.isidentifier():
        raise ValueError(
            f"A dataset cannot be registered as {name!r}: choose a word that is not one of "
            f"{', '.join([*EMBEDDED, FASHION_MNIST])}."
        )
    _REGISTERED[name] = find


def registered_source(name: str) -> Source | None:
    """The source that was registered under the name, or None."""
    find = _REGISTERED.get(name.partition(":")[0])
    return None if find is None else find(name)


class CacheEntry(NamedTuple):
    """What the cache keeps: arrays, by name, and facts, anything that JSON can hold."""

    arrays: dict[str, Shaped[np.ndarray, "..."]]
    facts: dict


def data_folders(data_dir: str | os.PathLike | None) -> list[Path]:
    """Where datasets are looked for, in order: data_dir, $TFDS_DATA_DIR, ~/tensorflow_datasets.

    Raises:
      DataError: one of the first two is no path.
    """
    given = {"data_dir": data_dir, "TFDS_DATA_DIR": os.environ.get("TFDS_DATA_DIR")}
    folders = [as_path(folder, name) for name, folder in given.items() if folder]
    with contextlib.suppress(DataError):  # there is no home folder
        folders.append(as_path("~/tensorflow_datasets", "HOME"))
    return folders


EMBEDDED = ("breast_cancer", "digits", "iris", "wine")


def embedded_source(name: str) -> Source:
    """One of `EMBEDDED`, from scikit-learn's copy of it.

    - `digits`: 1,797 handwritten digits, images uint8 [N, 8, 8] of values 0..16, in 10 classes.
    - `breast_cancer` (569 examples of 30 features; `malignant` is class 0, `benign` class 1),
      `iris` (150 of 4, in 3 classes), `wine` (178 of 13, in 3 classes): float32 [N, D] as measured.

    The division into `train` and `test` is fixed and stratified: with the examples sorted by class,
    and within a class in scikit-learn's order, the first of every five is in `test`. So `test` has
    a fifth of each class, to within one example. Within each split the examples keep scikit-learn's
    order.
    """
    from sklearn import datasets

    everything = getattr(datasets, f"load_{name}")()
    if name == "digits":
        x, scale = everything.images.astype(np.uint8), 16.0
    else:
        x, scale = everything.data.astype(np.float32), 1.0
    y = everything.target.astype(np.int32)
    in_test = np.zeros(len(y), bool)
    in_test[np.argsort(y, kind="stable")[::5]] = True
    parts = {"train": (x[~in_test], y[~in_test]), "test": (x[in_test], y[in_test])}
    lengths = {split: (len(labels),) for split, (_, labels) in parts.items()}
    label_names = tuple(str(label) for label in everything.target_names)
    return Source(name, label_names, scale, lengths, parts.__getitem__)


# Fashion-MNIST

FASHION_MNIST = "fashion_mnist"
FASHION_LABELS = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

_PREFIXES = {"train": "train", "test": "t10k"}
_KINDS = {"images-idx3-ubyte": 3, "labels-idx1-ubyte": 1}  # with the rank of the values
FASHION_FILES = tuple(f"{prefix}-{kind}" for prefix in _PREFIXES.values() for kind in _KINDS)


def find_fashion_mnist_files(folders: Sequence[Path]) -> dict[str, Path] | None:
    """The four files, compressed (`.gz`) or not, in the first folder that has them all.

    Args:
      folders: in order of preference; each is searched together with its subfolder `fashion_mnist`.

    Returns:
      The paths by the names in `FASHION_FILES`, or None if no folder has all four.
    """
    for folder in [place for given in folders for place in (given, given / FASHION_MNIST)]:
        found = {
            name: path
            for name in FASHION_FILES
            for path in (folder / f"{name}.gz", folder / name)
            if path.is_file()
        }
        if len(found) == len(FASHION_FILES):
            return found
    return None


def fashion_mnist_source(files: Mapping[str, Path]) -> Source:
    """The dataset in the four files; its arrays are cached beside them.

    Args:
      files: what `find_fashion_mnist_files` has found.

    Raises:
      DataError: a file is damaged or not what its name says, or images and labels differ in
        number; also raised by the source's `read`.
    """
    pairs = {
        split: [(files[f"{prefix}-{kind}"], rank) for kind, rank in _KINDS.items()]
        for split, prefix in _PREFIXES.items()
    }
    lengths = {split: (_count_examples(pair),) for split, pair in pairs.items()}

    def read(split: str) -> tuple[np.ndarray, np.ndarray]:
        paths = [path for path, _ in pairs[split]]
        build = functools.partial(_decode_fashion_mnist, pairs[split])
        arrays = cached(f"split-{split}", paths, build).arrays
        return arrays["x"], arrays["y"]

    return Source(FASHION_MNIST, FASHION_LABELS, 255.0, lengths, read)


def _count_examples(pair: Sequence[tuple[Path, int]]) -> int:
    (images, num_images), (labels, num_labels) = [
        (path, read_idx_sizes(path, rank)[0]) for path, rank in pair
    ]
    if num_images != num_labels:
        raise DataError(
            f"{images} holds {num_images:,} images and {labels} {num_labels:,} labels: they do not "
            "belong together. Put the original files there, or delete both."
        )
    return num_images


def _decode_fashion_mnist(pair: Sequence[tuple[Path, int]]) -> CacheEntry:
    x, y = [read_idx(path, rank) for path, rank in pair]
    return CacheEntry({"x": x, "y": y.astype(np.int32)}, {})


# Address, sizes and checksums as published; `url_checksums/fashion_mnist.txt` in TFDS has the same.
FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"


class Published(NamedTuple):
    """What a file must be: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


PUBLISHED = {
    "train-images-idx3-ubyte.gz": Published(
        26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte.gz": Published(
        29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte.gz": Published(
        4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
    "t10k-labels-idx1-ubyte.gz": Published(
        5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
}
_DOWNLOAD_BLOCK = 1 << 14  # bytes


def download(
    folder: Path,
    address: str = FASHION_MNIST_URL,
    published: Mapping[str, Published] = PUBLISHED,
    patience: float = 5.0,
) -> None:
    """Downloads those of the published files that the folder lacks.

    A file gets its name only when it is complete and its checksum is right; an interrupt leaves no
    partial file. A progress bar is shown if stderr is a terminal.

    Args:
      folder: created if necessary.
      address: the URL that the files' names are appended to.
      published: the files, by name.
      patience: seconds to wait for the first and for every further block of 16 KiB.

    Raises:
      DatasetNotFoundError: a file cannot be fetched, is not the published one, or cannot be
        written.
    """
    from tqdm import tqdm

    missing = {name: file for name, file in published.items() if not (folder / name).exists()}
    size = sum(file.size for file in missing.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # disable=None: no bar unless stderr is a terminal
        with tqdm(desc="downloading", total=size, unit="B", unit_scale=True, disable=None) as bar:
            for name, file in missing.items():
                _fetch(f"{address}/{name}", folder / name, file, patience, bar.update)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DatasetNotFoundError(
            f"Fashion-MNIST cannot be downloaded from {address} into {folder}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _fetch(
    url: str, path: Path, published: Published, patience: float, progress: Callable[[int], object]
) -> None:
    digest, size = hashlib.sha256(), 0
    with replacing(path) as file, contextlib.closing(_receive_blocks(url, patience)) as blocks:
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
            progress(len(block))
            if size > published.size:
                break
        if (size, digest.hexdigest()) != published:
            raise ValueError(
                f"what {url} sends is not the published file ({published.size:,} bytes, SHA-256 "
                f"{published.sha256}), and was deleted"
            )


def _receive_blocks(url: str, patience: float) -> Generator[bytes, None, None]:
    """The content of a URL. No single wait is longer than `patience`.

    A socket's own timeout covers neither name resolution nor a server that sends a byte now and
    then: so another thread receives, and this one waits for it with a timeout.
    """
    received: queue.SimpleQueue = queue.SimpleQueue()
    given_up = threading.Event()
    arguments = (url, patience, received, given_up)
    threading.Thread(target=_receive, args=arguments, daemon=True).start()
    try:
        while item := received.get(timeout=patience):
            if isinstance(item, Exception):
                raise item
            yield item
    except queue.Empty:
        raise TimeoutError(f"nothing came from {url} within {patience:g} seconds") from None
    finally:
        given_up.set()


def _receive(
    url: str, patience: float, received: queue.SimpleQueue, given_up: threading.Event
) -> None:
    try:
        opener = urllib.request.build_opener()  # urlopen would keep the proxies of its first call
        with opener.open(url, timeout=patience) as response:
            while not given_up.is_set() and (block := response.read(_DOWNLOAD_BLOCK)):
                received.put(block)
        received.put(b"")
    except urllib.error.HTTPError as error:
        error.close()
        received.put(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        received.put(error)


# The IDX format, in which MNIST and its kin are published: a header, then the values, row by row.
# The header is two zero bytes, a byte for the type of the values (8: uint8), a byte for the rank r,
# and r sizes as big-endian uint32.

_IDX_UINT8 = 8
_MOST_DEFLATED = 1100  # bytes that a byte of a .gz can stand for: deflate makes 1,032 of one


def read_idx_sizes(path: Path, rank: int) -> tuple[int, ...]:
    """The shape according to the header of the file; see `read_idx`."""
    return _read_idx(path, rank, header_only=True)[0]


def read_idx(path: Path, rank: int) -> UInt8[np.ndarray, "..."]:
    """Reads a whole IDX file of uint8 values.

    Args:
      path: the file; compressed if its name ends in `.gz`.
      rank: of the array.

    Raises:
      DataError: the file is not IDX, not uint8, of another rank, longer or shorter than its
        header says, or its compression is damaged.
    """
    sizes, values = _read_idx(path, rank, header_only=False)
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _read_idx(path: Path, rank: int, header_only: bool) -> tuple[tuple[int, ...], bytes]:
    """The sizes and the values: as many as the header promises, whatever else is there."""
    with open_regular(path) as stored:
        size = os.fstat(stored.fileno()).st_size
        most = size * (_MOST_DEFLATED if path.suffix == ".gz" else 1)
        file = gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else stored
        try:
            sizes = _read_idx_header(file, path, rank)
            promised = math.prod(sizes)
            if promised > most:
                raise _idx_error(
                    path, f"its header promises {promised:,} values, and it has {size:,} bytes"
                )
            if header_only:
                return sizes, b""
            host.require_memory(promised, f"What {path} unpacks to", "Leave out some examples.")
            values = file.read(promised + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _idx_error(path, f"it cannot be decompressed ({error})") from error
    if len(values) != promised:
        there = f"{len(values):,}" if len(values) < promised else "more"
        raise _idx_error(
            path, f"its header promises {promised:,} values of shape {sizes}, and {there} are there"
        )
    return sizes, values


def _read_idx_header(file: io.BufferedIOBase, path: Path, rank: int) -> tuple[int, ...]:
    header = file.read(4 + 4 * rank)
    if header[:2] != b"\0\0" or len(header) < 4:
        raise _idx_error(path, f"it does not start as an IDX file does (but with {header[:4]!r})")
    if header[2] != _IDX_UINT8:
        raise _idx_error(path, f"its values are of IDX type {header[2]}, not {_IDX_UINT8} (uint8)")
    if header[3] != rank:
        raise _idx_error(path, f"its values have rank {header[3]}, not {rank}")
    if len(header) < 4 + 4 * rank:
        raise _idx_error(path, f"it ends within its header, after {len(header)} bytes")
    return struct.unpack(f">{rank}I", header[4:])


def _idx_error(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} is truncated, damaged or another file under this name: {what}. "
        "Delete it, and put the original in its place or let it be downloaded again."
    )


# The cache. An entry is a few `.npy` files and a manifest, written last. The manifest holds its own
# SHA-256, that of each array file, and the names, sizes and times of the files that the arrays were
# decoded from. An entry that does not match is treated as absent.


_CACHE_FORMAT = 1  # to be raised when the meaning of an entry changes
_MOST_MANIFEST = 1 << 26  # bytes


def cached(name: str, sources: Sequence[Path], build: Callable[[], CacheEntry]) -> CacheEntry:
    """Returns an entry from the cache, or else builds it and caches it.

    That the cache cannot be written is no error.

    Args:
      name: of the entry, unique among those of one folder of sources.
      sources: the files, all in one folder, that the entry depends on. The cache is beside them, or
        in the user's cache where that folder is read-only.
      build: makes the entry; called if there is none, or if it is damaged or stale.
    """
    signature = _signature(sources)  # before building, lest a change meanwhile go unnoticed
    folders = _cache_folders(sources[0].parent)
    for folder in folders:
        entry = _read_entry(folder, name, signature)
        if entry is not None:
            return entry
    entry = build()
    for folder in folders:  # up to the first that can be written to
        if _write_entry(folder, name, signature, entry):
            break
    return entry


def _signature(sources: Sequence[Path]) -> list:
    stats = [(path.name, path.stat()) for path in sorted(sources)]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _cache_folders(home: Path) -> list[Path]:
    home = home.resolve()
    elsewhere = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    folders = [home / "softmax_jax_cache"]
    with contextlib.suppress(DataError):  # there is no home folder
        folders.append(user_cache_folder() / "decoded" / f"{home.name}-{elsewhere}")
    return folders


def _read_entry(folder: Path, name: str, signature: list) -> CacheEntry | None:
    try:
        with open_regular(folder / f"{name}.json") as file:
            digest, text = file.read(_MOST_MANIFEST).decode("utf-8").split("\n", 1)
        manifest = json.loads(text)
        if digest != _sha256(text) or manifest["signature"] != [_CACHE_FORMAT, signature]:
            return None
        arrays = {
            key: _read_cached_array(folder / f"{name}-{key}.npy", digest)
            for key, digest in manifest["arrays"].items()
        }
        return CacheEntry(arrays, manifest["facts"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # absent or damaged: build it again


def _read_cached_array(path: Path, digest: str) -> np.ndarray:
    # One open file for both: another process may replace it in between.
    with open_regular(path) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ValueError(f"{path} is damaged")
        file.seek(0)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        # Mapped, not read: its start is aligned, so that a CPU device takes it without a copy.
        return np.asarray(np.memmap(file, dtype, "r", file.tell(), shape))


def _write_entry(folder: Path, name: str, signature: list, entry: CacheEntry) -> bool:
    try:
        _make_folder(folder)
        digests = {
            key: _write_cached_array(folder / f"{name}-{key}.npy", array)
            for key, array in entry.arrays.items()
        }
        manifest = {
            "signature": [_CACHE_FORMAT, signature],
            "arrays": digests,
            "facts": entry.facts,
        }
        text = json.dumps(manifest, indent=1)
        with replacing(folder / f"{name}.json") as file:
            file.write(f"{_sha256(text)}\n{text}".encode())
    except OSError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    # A folder that nobody may write to should stay as it is, even for root.
    parent = folder.parent
    if parent.exists() and not parent.stat().st_mode & 0o222:
        raise PermissionError(f"{parent} is read-only")
    folder.mkdir(parents=True, exist_ok=True)


def _write_cached_array(path: Path, array: np.ndarray) -> str:
    with replacing(path) as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        with open(file.name, "rb") as written:
            return hashlib.file_digest(written, "sha256").hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
