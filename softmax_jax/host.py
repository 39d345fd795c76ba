"""The machine under the program: errors, exit codes, files written whole, memory, cache folder."""

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class DataError(ValueError):
    """Data that was found, but is damaged, invalid or requested incorrectly."""


class DatasetNotFoundError(DataError):
    """A dataset that was not found on this machine, and could not be downloaded."""


DONE, USAGE, WORKDIR, DIVERGED, INTERRUPTED = 0, 2, 3, 4, 130  # exit codes
LOST = 134  # exit code: another process of the job was lost; JAX itself may abort with it, too


class JobError(Exception):
    """A message for the user, shown without a traceback, and an exit code."""

    def __init__(self, message: str, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_ABANDONED = 3600.0  # seconds: a temporary file this old belongs to a process that was killed


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that becomes `path` when the block ends without an error.

    The replacement is atomic and durable: after a power cut there is the old file or the new one,
    never half of it. If the block raises anything, an interrupt included, the temporary file is
    removed and `path` stays as it was. Its name is unique, so that two processes never write into
    the same file. What a killed process left behind is removed by a later call for the same path.

    Args:
      path: the file to write; its folder must exist.

    Raises:
      OSError: the folder cannot be written to.
    """
    for old in path.parent.glob(f"{path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process may be removing it, too
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
    """Makes the names in the folder durable, where the file system supports it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


_MEMORY_FRACTION = 0.8  # of the memory that may be allocated at once, at the very most


def available_memory(root: Path = Path("/")) -> int:
    """The memory of the machine in bytes, or the limit of this process's control group if lower.

    Args:
      root: where proc and sys are mounted.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(root)])


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Checks that memory suffices, before it is allocated.

    Args:
      needed: bytes.
      what: what needs them, as the subject of a sentence.
      remedy: a sentence that says what to do instead.

    Raises:
      DataError: more would be needed than may be used.
    """
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
def reading(path: Path) -> Iterator[Path]:
    """Turns every error of the block that reads `path` into a DataError of one line.

    Args:
      path: the file, named in the message.

    Raises:
      DataError: the block raised an exception other than an interrupt.

    >>> with reading(Path("no/such.npz")) as path:
    ...     path.read_bytes()
    Traceback (most recent call last):
    softmax_jax.host.DataError: no/such.npz is not there.
    """
    try:
        yield path
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # bad archives, JSON or text, nested too deep or too large
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is damaged, or of another kind: {reason}") from error


def user_cache_folder() -> Path:
    """This program's own cache: $XDG_CACHE_HOME/softmax_jax, by default ~/.cache/softmax_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "softmax_jax"


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the second run of a config compiles nothing.

    They are kept in `user_cache_folder`, unless JAX has been given another folder.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(user_cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
