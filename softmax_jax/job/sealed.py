"""The file of a checkpoint: an ordinary `.npz` that is sealed with a digest of itself.

It is an uncompressed zip of `.npy` members (so NumPy's own `np.load` opens it) and a JSON member,
`manifest.json`. A zip may end with a comment: here it is a mark and a SHA-256 in hexadecimal, the
last 64 bytes of the file. The digest is that of the file with the character 0 in their place, and
nothing of a file is used before it agrees: one changed bit, anywhere, is noticed.

    np.load("00000010.npz")["params/W"]
"""

import hashlib
import io
import json
import math
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from softmax_jax.job.errors import WORKDIR, JobError

_FORMAT = 2  # to be raised when the meaning of a file changes
_MANIFEST = "manifest.json"  # stored, not compressed, in this and all later formats
_MARK, _BLANK = b"softmax_jax checkpoint, SHA-256 ", b"0" * 64


class Checkpoint(NamedTuple):
    """The state of a job: arrays by name, and facts (anything that JSON can hold).

    number: its place among the checkpoints of the job; job: the digest of what the job is.
    """

    number: int
    job: str
    arrays: dict[str, np.ndarray]
    facts: dict


class DamagedError(Exception):
    """A file that is not, or is no longer, what `write` wrote; the message ends a sentence."""


def write(file: BinaryIO, checkpoint: Checkpoint):
    """Writes a sealed checkpoint into a new file. Raises ValueError for arrays of objects."""
    hashed = _Hashed(file)
    arrays = {name: np.asarray(array) for name, array in checkpoint.arrays.items()}
    manifest = {
        "format": _FORMAT,
        "number": checkpoint.number,
        "job": checkpoint.job,
        "facts": checkpoint.facts,
        "dtypes": {name: a.dtype.name for name, a in arrays.items() if _is_foreign(a.dtype)},
    }
    with zipfile.ZipFile(hashed, "w") as archive:  # uncompressed
        archive.comment = _MARK + _BLANK
        archive.writestr(zipfile.ZipInfo(_MANIFEST), json.dumps(manifest))
        for name, array in arrays.items():
            if _is_foreign(array.dtype):
                array = array.view(f"u{array.dtype.itemsize}")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
    file.seek(-len(_BLANK), io.SEEK_END)
    file.write(hashed.digest.hexdigest().encode())


def read(path: Path) -> Checkpoint:
    """The checkpoint, verified to the last bit.

    Raises DamagedError; JobError (exit code 3) for one of another version of this program; OSError.
    """
    content = _verified(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            manifest = _manifest(archive, path)
            members = [member for member in archive.infolist() if member.filename != _MANIFEST]
            if sum(member.file_size for member in members) > len(content):
                raise DamagedError("its parts are said to be larger than the whole")
            arrays = {
                member.filename[: -len(".npy")]: _array(archive, member) for member in members
            }
        for name, dtype in manifest["dtypes"].items():
            arrays[name] = arrays[name].view(_foreign(dtype))
        return Checkpoint(manifest["number"], manifest["job"], arrays, manifest["facts"])
    except (DamagedError, JobError, MemoryError):
        raise
    except Exception as error:  # sealed, yet not by `write`: whatever the unpacking stumbles over
        raise DamagedError(f"it makes no sense: {type(error).__name__}: {error}") from error


def _verified(path):
    """The content of a file whose digest is right."""
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - len(_MARK + _BLANK), 0))
        if not file.read().startswith(_MARK):
            raise DamagedError("it does not end as a checkpoint does")
        file.seek(0)
        content = file.read()
    digest = hashlib.sha256(memoryview(content)[: -len(_BLANK)])
    digest.update(_BLANK)
    if digest.hexdigest().encode() != content[-len(_BLANK) :]:
        raise DamagedError("its SHA-256 is not the one that it ends with")
    return content


def _manifest(archive, path):
    member = archive.getinfo(_MANIFEST)
    _check_stored(member)
    manifest = json.loads(archive.read(member))
    if manifest["format"] != _FORMAT:
        raise JobError(
            f"{path} has format {manifest['format']}, and this program reads format {_FORMAT}: go "
            "on with the version that wrote it, or choose another --workdir.",
            WORKDIR,
        )
    return manifest


def _array(archive, member):
    """An array, made only once it is known that the file holds as many bytes as it declares."""
    _check_stored(member)
    with archive.open(member) as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
            raise DamagedError(f"{member.filename} is not as long as it says")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def _check_stored(member):
    if member.compress_type != zipfile.ZIP_STORED:
        raise DamagedError(f"{member.filename} is compressed")


def _is_foreign(dtype):
    """Whether NumPy's format does not know the type: bfloat16 and its like come from ml_dtypes."""
    return dtype.kind == "V" and dtype.names is None


def _foreign(name):
    import ml_dtypes  # noqa: F401  (makes the names of its types known to NumPy)

    return np.dtype(name)


class _Hashed:
    """A file that can be written from front to back only, with the digest of what was."""

    def __init__(self, file):
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data):
        self.digest.update(data)
        return self._file.write(data)

    def flush(self):
        self._file.flush()
