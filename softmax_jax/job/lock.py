"""One job per work folder: a lock that the operating system releases when its process ends."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from softmax_jax.job.errors import WORKDIR, JobError

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_UNKNOWN_HERE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[str]:
    """Holds the lock of the folder during the block; gives a warning to be shown, or ''.

    The lock is `flock` on the file `.lock`, which stays and says who holds or held it: whatever
    kills the process, the lock is free. On a file system without such locks (some network ones)
    the block runs all the same, with the warning that nothing keeps a second job out.

    Raises JobError (exit code 3) if another process holds it, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(folder / ".lock", "a+b", buffering=0))
            warning = _lock(file, folder)
        except OSError as error:
            raise JobError(
                f"{folder} cannot be locked: {error.strerror or error}. Choose another --workdir, "
                "or mend that.",
                WORKDIR,
            ) from error
        yield warning


def _lock(file, folder):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise JobError(
                f"{folder} is in use by {holder}. Wait for that job or stop it, or choose another "
                "--workdir.",
                WORKDIR,
            ) from error
        if error.errno not in _UNKNOWN_HERE:
            raise
        return (
            f"The file system of {folder} has no locks ({error.strerror}): see to it that no "
            "second job uses this folder."
        )
    _sign(file)
    return ""


def _sign(file):
    """Says who holds the lock, for the message to whoever else wants it."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
