"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
