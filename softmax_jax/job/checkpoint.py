"""Checkpoints: the state of a job in files that can be verified, so that a killed job can resume.

The file is an ordinary `.npz` that is sealed with a digest of itself: an uncompressed zip of `.npy`
members (so NumPy's own `np.load` opens it) and a JSON member, `manifest.json`. A zip may end with a
comment: here it is a mark and a SHA-256 in hexadecimal, the last 64 bytes of the file. The digest
is that of the file with the character 0 in their place. It is verified before anything in the file
is used, so a single changed bit is detected anywhere.

    np.load("00000010.npz")["params/W"]
"""

import contextlib
import hashlib
import io
import json
import os
import re
import time
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from softmax_jax.data import npz
from softmax_jax.host import WORKDIR, JobError, brief, cut, open_regular, replacing
from softmax_jax.job import processes, workdir
from softmax_jax.sweep import chunks
from softmax_jax.sweep.result import Collection

_FORMAT = 4  # to be raised when the meaning of a file changes
_MANIFEST = "manifest.json"  # stored, not compressed, in this and all later formats
_MARK, _BLANK = b"softmax_jax checkpoint, SHA-256 ", b"0" * 64


class Checkpoint(NamedTuple):
    """The state of a job.

    Attributes:
      number: its place among the checkpoints of the job, from 1.
      job: the digest of the job's identity.
      arrays: by name.
      facts: anything that JSON can hold.
    """

    number: int
    job: str
    arrays: dict[str, np.ndarray]
    facts: dict


class DamagedError(Exception):
    """A file that `write_sealed` did not write, or that has changed since.

    The message completes the sentence 'FILE is damaged: ...'.
    """


def write_sealed(file: BinaryIO | io.BufferedIOBase, checkpoint: Checkpoint) -> None:
    """Writes a sealed checkpoint into a new file.

    Raises:
      ValueError: an array holds Python objects.
    """
    hashed = _Hashed(file)
    arrays = {name: np.asarray(array) for name, array in checkpoint.arrays.items()}
    manifest = {
        "format": _FORMAT,
        "number": checkpoint.number,
        "job": checkpoint.job,
        "facts": checkpoint.facts,
        "dtypes": {name: a.dtype.name for name, a in arrays.items() if _is_foreign(a.dtype)},
    }
    with zipfile.ZipFile(hashed, "w") as archive:  # type: ignore[call-overload]  # uncompressed
        archive.comment = _MARK + _BLANK
        archive.writestr(zipfile.ZipInfo(_MANIFEST), json.dumps(manifest))
        for name, array in arrays.items():
            if _is_foreign(array.dtype):
                array = array.view(f"u{array.dtype.itemsize}")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
    file.seek(-len(_BLANK), io.SEEK_END)
    file.write(hashed.digest.hexdigest().encode())


def read_sealed(path: Path) -> Checkpoint:
    """The checkpoint in a file, verified to the last bit.

    Raises:
      DamagedError: the file is not as `write_sealed` wrote it.
      JobError: its format is that of another version of this program (exit code 3).
      OSError: it cannot be read.
    """
    content = _verified(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            manifest = _read_manifest(archive, path)
            arrays = {
                name.removesuffix(".npy"): _read_array(archive, name)
                for name in archive.namelist()
                if name != _MANIFEST
            }
        for name, dtype in manifest["dtypes"].items():
            arrays[name] = arrays[name].view(_foreign(dtype))
        return Checkpoint(manifest["number"], manifest["job"], arrays, manifest["facts"])
    except (JobError, MemoryError):
        raise
    except Exception as error:  # sealed, but not by `write_sealed`: it may fail in any way
        reason = f"{type(error).__name__}: {cut(str(error), 200)}"
        raise DamagedError(f"its content is invalid: {reason}") from error


def _verified(path):
    """The content of a file whose digest matches."""
    with open_regular(path, follow=False) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - len(_MARK + _BLANK), 0))
        if not file.read().startswith(_MARK):
            raise DamagedError("it does not end as a checkpoint does")
        file.seek(0)
        content = file.read()
    digest = hashlib.sha256(memoryview(content)[: -len(_BLANK)])
    digest.update(_BLANK)
    if digest.hexdigest().encode() != content[-len(_BLANK) :]:
        raise DamagedError("its SHA-256 does not match the one at its end")
    return content


def _read_manifest(archive, path):
    if archive.getinfo(_MANIFEST).compress_type != zipfile.ZIP_STORED:
        raise ValueError("its manifest is compressed")
    manifest = json.loads(archive.read(_MANIFEST))
    if manifest["format"] != _FORMAT:
        raise JobError(
            f"{path} has format {brief(manifest['format'])}, and this program reads format "
            f"{_FORMAT}: resume with the version that wrote it, or choose another --workdir.",
            WORKDIR,
        )
    return manifest


def _read_array(archive, name):
    """An array that is as large as its header says, before memory is taken for it."""
    info = archive.getinfo(name)
    with archive.open(info) as member:
        header = npz.read_header(member, name)
    if info.compress_type != zipfile.ZIP_STORED or header.offset + header.nbytes != info.file_size:
        raise ValueError(f"{name} is compressed, or not of the size of its member")
    if info.file_size > archive.fp.seek(0, io.SEEK_END):
        raise ValueError(f"{name} would be larger than the whole file")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _is_foreign(dtype):
    """Whether NumPy's format does not know the type: bfloat16 and its like come from ml_dtypes."""
    return dtype.kind == "V" and dtype.names is None


def _foreign(name):
    import ml_dtypes  # noqa: F401  (makes the names of its types known to NumPy)

    return np.dtype(name)


class _Hashed:
    """A file that can only be written from front to back, with the digest of what was written."""

    def __init__(self, file: BinaryIO | io.BufferedIOBase):
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


_FILE_NAME = re.compile(r"[0-9]{8,}\.npz")
_HALF_WRITTEN = re.compile(r"[0-9]{8,}\.npz\.[0-9a-f]{32}\.tmp")


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Writes the checkpoint durably, then deletes all but the last `keep` (from 1).

    Whenever the process is killed, every checkpoint in the folder is intact. One of the same number
    is replaced.

    Raises:
      JobError: the folder cannot be written (exit code 3); the earlier checkpoints are unchanged.
    """
    path = folder / f"{checkpoint.number:08d}.npz"
    try:
        workdir.own_folder(folder).mkdir(exist_ok=True)
        with replacing(path) as file:
            write_sealed(file, checkpoint)
        for old in saved_files(folder)[:-keep]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise JobError(
            f"The checkpoint {path} cannot be written: {error.strerror or error}. The earlier ones "
            "are intact: fix that and repeat the command, which resumes the job.",
            WORKDIR,
        ) from error


def restore(folder: Path, job: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint (None: there is none), and a warning for each damaged one.

    A damaged one is renamed to *.damaged, and the one before it is tried. Half-written files are
    deleted, so only the holder of the folder's lock may call this.

    Args:
      folder: of the checkpoints; it need not exist.
      job: the digest of the job's identity.

    Raises:
      JobError: the newest intact one belongs to another job or has another format, or the folder
        cannot be read (exit code 3).
    """
    warnings: list[str] = []
    try:
        for half in half_written_in(workdir.own_folder(folder)):
            half.unlink(missing_ok=True)
        for path in reversed(saved_files(folder)):
            try:
                return _of_job(read_sealed(path), path, job), warnings
            except DamagedError as error:
                aside = path.with_name(f"{path.name}.damaged")
                path.replace(aside)
                warnings.append(
                    f"{path} is damaged: {error}. It has been renamed to {aside.name}, and is not "
                    "used."
                )
    except OSError as error:
        raise JobError(
            f"The checkpoints in {folder} cannot be used: {error.strerror or error}.", WORKDIR
        ) from error
    return None, warnings


def saved_files(folder: Path) -> list[Path]:
    """The checkpoints in the folder, ordered by number; other files are ignored."""
    with contextlib.suppress(FileNotFoundError):
        names = [name for name in os.listdir(folder) if _FILE_NAME.fullmatch(name)]
        return [folder / name for name in sorted(names, key=_number)]
    return []


def half_written_in(folder: Path) -> list[Path]:
    """What a killed process left of its saves, by the exact names that `save` gives them."""
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(folder)
        return [folder / name for name in names if _HALF_WRITTEN.fullmatch(name)]
    return []


def _of_job(checkpoint, path, job):
    if checkpoint.number != _number(path.name):
        raise DamagedError(f"it holds checkpoint {checkpoint.number}")
    if checkpoint.job != job:
        raise JobError(
            f"{path} belongs to another job. Choose another --workdir, or remove it.", WORKDIR
        )
    return checkpoint


def _number(name):
    return int(name.split(".")[0])


class Progress:
    """The checkpoints of one job: what was found at the start, and when the next one is due.

    Only the first process writes; all agree on when.

    Args:
      folder: of the checkpoints.
      job: the identity of the job.
      config: its fields `keep` and `checkpoint_seconds` are used.

    Attributes:
      arrays, pending: the state of the collection, and the remaining chunks; None for a fresh job.
      longer: whether the job was shorter when it was saved, and these chunks go on from there.
      seconds: of training in earlier runs.
      number: of the last checkpoint; 0: there is none.
      warnings: one for each damaged checkpoint.

    Raises:
      JobError: the checkpoints cannot be used (exit code 3).
    """

    def __init__(self, folder: Path, job: dict, config: ConfigDict):
        self._folder, self._digest = folder, workdir.digest(workdir.without_length(job))
        self._ended: dict[int, chunks.Pending] | None = None  # kept where a longer job may follow
        if not workdir.needs_length(job["config"]):
            self._ended = {}
        self.longer = False
        self._keep, self._every = config.keep, config.checkpoint_seconds
        found, self.warnings = restore(folder, self._digest)
        self.number = found.number if found else 0
        self.seconds = 0.0
        self._started = self._saved = time.monotonic()
        self.arrays: dict[str, np.ndarray] | None = None
        self.pending: list[chunks.Pending] | None = None
        if found:
            try:
                self.seconds = float(found.facts["seconds"])
                self.arrays, pending = _unpack_progress(found, "pending")
                self.pending = pending + self._further(found, config.num_epochs, pending)
            except Exception as error:  # sealed, and of this job, but not by this program
                raise JobError(
                    f"The newest checkpoint in {folder} does not say how to resume the job "
                    f"({type(error).__name__}: {cut(str(error), 200)}). Remove it, or choose "
                    "another --workdir.",
                    WORKDIR,
                ) from error

    def _further(self, found, num_epochs, pending):
        """The chunks that have ended, and have epochs left in a job that is longer by now."""
        if self._ended is None:
            return []
        arrays, ended = _unpack_progress(found, "ended")
        self._ended = {int(item.chunk.trials[0, 0]): item for item in ended}
        further = chunks.going_on(ended, pending, num_epochs, arrays)
        self.longer = bool(further)
        return further

    def collection(self, run: chunks.Run) -> Collection:
        """What the job has measured so far."""
        if self.arrays is None:
            return Collection(run, self._ended)
        return Collection.restored(run, self.arrays, self._ended)

    @property
    def num_trials(self) -> int:
        """How many trials the sweep has had when it was saved; 0: nothing was saved."""
        return 0 if self.arrays is None else len(self.arrays["count"])

    def training_seconds(self) -> float:
        """Seconds of training in this run and those before it."""
        return self.seconds + time.monotonic() - self._started

    def agree(self, stop: processes.Stop) -> tuple[int, bool]:
        """(the signal to stop, or 0; whether a checkpoint is due): the same in every process."""
        return processes.agree(stop.requested, time.monotonic() - self._saved >= self._every)

    def save(self, collection: Collection, epoch: chunks.Epoch) -> None:
        """Saves a checkpoint after this epoch or segment of one."""
        saved, pending = chunks.pack(chunks.pending_after(epoch))
        arrays = {f"collection/{name}": array for name, array in collection.arrays().items()}
        arrays |= {f"pending/{name}": array for name, array in saved.items()}
        saved, ended = chunks.pack(list((collection.ended or {}).values()))
        arrays |= {f"ended/{name}": array for name, array in saved.items()}
        facts = {"pending": pending, "ended": ended, "seconds": self.training_seconds()}
        self.number += 1
        if processes.is_first():
            made = Checkpoint(self.number, self._digest, arrays, facts)
            save(self._folder, made, self._keep)
        self._saved = time.monotonic()


def _unpack_progress(found, which):
    """(the arrays of the collection, the chunks that are pending or have ended)."""
    arrays, saved = (
        {
            name.removeprefix(prefix): array
            for name, array in found.arrays.items()
            if name.startswith(prefix)
        }
        for prefix in ("collection/", f"{which}/")
    )
    return arrays, chunks.unpack(saved, found.facts[which])
