"""The machine under the program: files written whole, memory, cache folders, errors, exit codes."""

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class DataError(ValueError):
    """Data that is there, but damaged, invalid or asked for in a wrong way."""


class DatasetNotFoundError(DataError):
    """A dataset that was not found on this machine, and could not be downloaded."""


DONE, USAGE, WORKDIR, DIVERGED, INTERRUPTED = 0, 2, 3, 4, 130
LOST = 134  # another process of the job; JAX, too, may abort with this code where one is lost


class JobError(Exception):
    """A message for the user and an exit code; shown without a traceback."""

    def __init__(self, message, exit_code=USAGE):
        super().__init__(message)
        self.exit_code = exit_code


_ABANDONED = 3600.0  # seconds: a temporary file this old belongs to a process that was killed


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that becomes `path` when the block ends well.

    After that it is durable: a power cut leaves the old file or the new one, never half of it. If
    the block raises anything, an interrupt included, the temporary file is removed and `path`
    stays as it was. Its name is unique, so that two processes do not write into one file. What
    a killed process left behind is removed by a later call for the same path.

    Raises:
      OSError: the folder cannot be written to.
    """
    for old in path.parent.glob(f"{path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process may be tidying up as well
            if time.time() - old.stat().st_mtime > _ABANDONED:
                old.unlink()
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the rename: the name must not precede the content
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Makes the names in the folder durable, where the file system knows how."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


_MEMORY_FRACTION = 0.8  # of the memory that a dataset may fill, at the very most


def available_memory(root: Path = Path("/")) -> int:
    """Bytes: the memory of the machine, or the limit of this process's control group if lower.

    Args:
      root: where proc and sys are mounted.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(root)])


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Raises a DataError where so many bytes cannot be had: before they are allocated."""
    most = _MEMORY_FRACTION * available_memory()
    if needed > most:
        raise DataError(
            f"{what} would take {needed / 2**30:,.1f} GiB of memory, more than the "
            f"{most / 2**30:,.1f} GiB that may be used. {remedy}"
        )


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of the control group (version 1 or 2) and of all groups around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        home, name = root / "sys/fs/cgroup", "memory.max"
        if "memory" in controllers.split(","):
            home, name = home / "memory", "memory.limit_in_bytes"
        folder = home / group.lstrip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(home):
                yield from _read_limit(place / name)


def _read_limit(path: Path) -> Iterator[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return
    if text.isdecimal():  # or 'max'
        yield int(text)


@contextlib.contextmanager
def reading(path: Path):
    """Turns every error of the block that reads `path` into a DataError of one line.

    >>> with reading(Path("no/such.npz")) as path:
    ...     path.read_bytes()
    Traceback (most recent call last):
    softmax_jax.data.errors.DataError: no/such.npz is not there.
    """
    try:
        yield path
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # bad zips, bad JSON, bad text, too deep, too large: all damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is damaged, or of another kind: {reason}") from error


def user_cache_folder() -> Path:
    """This program's own folder: $XDG_CACHE_HOME/softmax_jax, by default ~/.cache/softmax_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "softmax_jax"


def use_compilation_cache():
    """Compiled programs outlive the process: the second run of a config compiles nothing.

    They are kept under $XDG_CACHE_HOME/softmax_jax (default ~/.cache), unless JAX was told a place.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(user_cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
