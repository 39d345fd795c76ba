"""Checkpoints: what a job has come to, in files that verify, so that a killed job can go on.

`save` writes one file per call and keeps the last few; `restore` finds the newest one that is
whole. What they mean is the caller's: arrays by name, and facts that JSON can hold.
"""

import contextlib
import os
import re
from pathlib import Path

from softmax_jax.data.files import replacing
from softmax_jax.job import sealed
from softmax_jax.job.errors import WORKDIR, JobError
from softmax_jax.job.sealed import Checkpoint, DamagedError

_NAME = re.compile(r"[0-9]{8,}\.npz")


def save(folder: Path, checkpoint: Checkpoint, keep: int):
    """Writes the checkpoint durably, then deletes all but the last `keep` (from 1).

    Whenever the process is killed, the files that are there are whole. A checkpoint of the same
    number is replaced. Raises JobError (exit code 3) where the folder cannot be written; the
    earlier checkpoints are then as they were.
    """
    path = folder / f"{checkpoint.number:08d}.npz"
    try:
        folder.mkdir(exist_ok=True)
        with replacing(path) as file:
            sealed.write(file, checkpoint)
        for old in saved(folder)[:-keep]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise JobError(
            f"The checkpoint {path} cannot be written: {error.strerror or error}. The earlier ones "
            "are whole: mend that and give the same command again, and the job goes on from there.",
            WORKDIR,
        ) from error


def restore(folder: Path, job: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole (None: there is none), and a warning per damaged one.

    A damaged one is renamed to *.damaged, and the one before it is tried. What a killed process
    was about to write is deleted, so this is for the holder of the folder's lock. Raises JobError
    (exit code 3) for a checkpoint of another job, or of another format than this program's, and
    where the folder cannot be read.
    """
    warnings = []
    try:
        for half in folder.glob("*.npz.*.tmp"):
            half.unlink(missing_ok=True)
        for path in reversed(saved(folder)):
            try:
                return _of_job(sealed.read(path), path, job), warnings
            except DamagedError as error:
                aside = path.with_name(f"{path.name}.damaged")
                path.replace(aside)
                warnings.append(
                    f"{path} is damaged: {error}. It is now {aside.name}, and not used."
                )
    except OSError as error:
        raise JobError(
            f"The checkpoints in {folder} cannot be used: {error.strerror or error}.", WORKDIR
        ) from error
    return None, warnings


def saved(folder: Path) -> list[Path]:
    """The files of the checkpoints in the folder, by number; of other files nothing is said."""
    with contextlib.suppress(FileNotFoundError):
        names = [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
        return [folder / name for name in sorted(names, key=_number)]
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
