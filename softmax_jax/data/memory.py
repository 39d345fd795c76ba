"""How much memory there is, and what is refused because it would not fit."""

import os
from collections.abc import Iterator
from pathlib import Path

from softmax_jax.data.errors import DataError

_SHARE = 0.8  # of the memory that a dataset may fill, at the very most


def available(root: Path = Path("/")) -> int:
    """Bytes: the memory of the machine, or the limit of this process's control group if lower.

    Args:
      root: where proc and sys are mounted.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(root)])


def require(needed: int, what: str, mend: str) -> None:
    """Raises a DataError where so many bytes cannot be had: before they are allocated."""
    most = _SHARE * available()
    if needed > most:
        raise DataError(
            f"{what} would take {needed / 2**30:,.1f} GiB of memory, more than the "
            f"{most / 2**30:,.1f} GiB that can be had. {mend}"
        )


def _limits(root: Path) -> Iterator[int]:
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
                yield from _read(place / name)


def _read(path: Path) -> Iterator[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return
    if text.isdecimal():  # or 'max'
        yield int(text)
