"""Decoded arrays kept on disk, so that a dataset is decoded once.

An entry is a few `.npy` files and a manifest, written last. The manifest holds its own SHA-256,
that of each array file, and names, sizes and times of the files that the arrays were decoded
from. Whatever does not match is as good as absent.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from softmax_jax.data.files import replacing
from softmax_jax.data.source import user_cache

_FORMAT = 1  # to be raised when the meaning of an entry changes


class Entry(NamedTuple):
    """Arrays, by name, and facts: anything that JSON can hold."""

    arrays: dict[str, np.ndarray]
    facts: dict


def recall(name: str, sources: Sequence[Path], build: Callable[[], Entry]) -> Entry:
    """The entry as cached, or else as built, in which case it is cached for the next time.

    Args:
      name: of the entry, unique among those of one folder of sources.
      sources: the files, all in one folder, that the entry depends on. The cache lies beside
        them, or in the user's cache where that folder is read-only.
      build: makes the entry; called if no entry is there, or it is damaged or stale.

    A cache that cannot be written is no error.
    """
    signature = _signature(sources)  # taken before building, lest a later change go unseen
    folders = _folders(sources[0].parent)
    for folder in folders:
        entry = _read(folder, name, signature)
        if entry is not None:
            return entry
    entry = build()
    any(_write(folder, name, signature, entry) for folder in folders)  # the first that lets us
    return entry


def _signature(sources: Sequence[Path]) -> list:
    stats = [(path.name, path.stat()) for path in sorted(sources)]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _folders(home: Path) -> list[Path]:
    home = home.resolve()
    elsewhere = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return [home / "softmax_jax_cache", user_cache() / "decoded" / f"{home.name}-{elsewhere}"]


def _read(folder: Path, name: str, signature: list) -> Entry | None:
    try:
        digest, text = (folder / f"{name}.json").read_text("utf-8").split("\n", 1)
        manifest = json.loads(text)
        if digest != _sha256(text) or manifest["signature"] != [_FORMAT, signature]:
            return None
        arrays = {
            key: _read_array(folder / f"{name}-{key}.npy", digest)
            for key, digest in manifest["arrays"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent or damaged in whatever way: to be built again
    return Entry(arrays, manifest["facts"])


def _read_array(path: Path, digest: str) -> np.ndarray:
    # One open file for both: another process may put a new one in its place in between.
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ValueError(f"{path} is damaged")
        file.seek(0)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        # Mapped instead of read: its start is aligned, so a CPU device takes it without a copy.
        return np.asarray(np.memmap(file, dtype, "r", file.tell(), shape))


def _write(folder: Path, name: str, signature: list, entry: Entry) -> bool:
    try:
        _make(folder)
        digests = {
            key: _write_array(folder / f"{name}-{key}.npy", array)
            for key, array in entry.arrays.items()
        }
        manifest = {"signature": [_FORMAT, signature], "arrays": digests, "facts": entry.facts}
        text = json.dumps(manifest, indent=1)
        with replacing(folder / f"{name}.json") as file:
            file.write(f"{_sha256(text)}\n{text}".encode())
    except OSError:
        return False
    return True


def _make(folder: Path) -> None:
    # A folder that nobody may write to is meant to stay as it is, even if we run as root.
    parent = folder.parent
    if parent.exists() and not parent.stat().st_mode & 0o222:
        raise PermissionError(f"{parent} is read-only")
    folder.mkdir(parents=True, exist_ok=True)


def _write_array(path: Path, array: np.ndarray) -> str:
    with replacing(path) as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        with open(file.name, "rb") as written:
            return hashlib.file_digest(written, "sha256").hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
