"""What a work folder holds: no job, one that was broken off, or one that has ended."""

import json
from collections.abc import Iterator
from pathlib import Path

from softmax_jax.job import identity
from softmax_jax.job.errors import DIVERGED, DONE, WORKDIR, JobError
from softmax_jax.job.workdir import is_writer, unusable

_RESULTS = (
    "summary.json",  # the last to be written, so the first to go
    "audit.csv",
    "learning_curve.csv",
    "metrics.jsonl",
    "params.npz",
    "predictions.npz",
    "settings.csv",
    "trials.csv",
    "audit.png",
    "confusion.png",
    "curves.png",
    "learning_curve.png",
    "mistakes.png",
    "settings.png",
    "sweep.png",
    "weights.png",
    f"checkpoints/{'[0-9]' * 8}*.npz*",
    "tensorboard/trial_*/events.out.tfevents.*.softmax_jax",
)
_CHOOSE = "Choose another --workdir, or replace what is there by --overwrite."


def job_in(folder: Path | None) -> dict | None:
    """The identity of the job that the folder holds; None: it holds none.

    Raises JobError (exit code 3) where that cannot be told.
    """
    if folder is None:
        return None
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text("utf-8"))["job"]
        if isinstance(found["config"], dict) and isinstance(found["data"]["name"], str):
            return found
        reason = "its job has no config or no data"
    except (FileNotFoundError, NotADirectoryError):
        _refuse_results_of_nobody(folder)
        return None
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror}. {_CHOOSE}", WORKDIR) from error
    except (ValueError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise JobError(f"{path} is not this program's, or damaged ({reason}). {_CHOOSE}", WORKDIR)


def holds(folder: Path | None, job: dict) -> bool:
    """Whether the folder holds this job. Raises JobError (exit code 3) where it holds another."""
    found = job_in(folder)
    if found is None:
        return False
    if identity.digest(found) != identity.digest(job):
        different = "\n".join(f"  {line}" for line in identity.differences(found, job))
        raise JobError(f"{folder} holds another job:\n{different}\n{_CHOOSE}", WORKDIR)
    return True


def outcome(folder: Path) -> int | None:
    """The exit code with which the job in the folder has ended; None: it has not."""
    try:
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        return DIVERGED if summary["selected"] is None else DONE
    except (OSError, ValueError, LookupError, TypeError):  # there is none, or none any more
        return None


def clear(folder: Path):
    """Deletes what a job has left in the folder, and nothing else; the last is config.json.

    For the holder of the folder's lock. Raises JobError (exit code 3).
    """
    _delete([*_results(folder), folder / "config.json"])


def tidy(folder: Path):
    """Deletes what a killed process was about to write, for the holder of the folder's lock."""
    ending = f".{'[0-9a-f]' * 32}.tmp"
    for name in ("config.json", *_RESULTS):
        _delete(folder.glob(name + ending))


def _results(folder) -> Iterator[Path]:
    for pattern in _RESULTS:
        yield from folder.glob(pattern)


def _refuse_results_of_nobody(folder):
    names = [str(path.relative_to(folder)) for path in _results(folder)]
    if names:
        some = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        raise JobError(
            f"{folder} holds {some}, and no config.json that says of which job. {_CHOOSE}", WORKDIR
        )


def _delete(paths):
    if not is_writer():
        return
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unusable(path, error) from error
