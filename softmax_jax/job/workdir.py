"""The folder of a job: which job it holds, its lock, and files that appear whole or not at all."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from softmax_jax import data
from softmax_jax.host import DIVERGED, DONE, WORKDIR, JobError, replacing

# Where the data come from (they are compared themselves), on which devices and in what portions the
# trials run, what is kept and shown meanwhile: fields on which no number depends.
WITHOUT_EFFECT = (
    "checkpoint_seconds",
    "chunk",
    "data_dir",
    "dataset_fallback",
    "keep",
    "mesh",
    "tensorboard",
)


def job_identity(config: dict, splits: data.Splits) -> dict:
    """The identity of the job with this config on these data, as it comes back out of JSON."""
    fields = {name: value for name, value in config.items() if name not in WITHOUT_EFFECT}
    roles = {role: getattr(splits, role) for role in ("train", "val", "test")}
    used = {
        "name": splits.name,
        "part_size": splits.train.shard_size,  # decides the order of what is read by shards
        "shapes": {role: split.x.shape for role, split in roles.items() if split is not None},
        "fingerprint": data.fingerprint(splits),
    }
    return json.loads(json.dumps({"config": fields, "data": used}))


def digest(job: dict) -> str:
    """SHA-256 of an identity as JSON text, in hexadecimal; the order of its fields is nothing.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(_json_text(job).encode()).hexdigest()


def differences(old: dict, new: dict) -> list[str]:
    """Each field in which two identities differ, as 'field: old → new', by name.

    >>> differences({"config": {"l2": 0.0, "sweep": {"seed": [0]}}}, {"config": {"l2": 0.1}})
    ['l2: 0.0 → 0.1', 'sweep.seed: [0] → nothing']
    """
    before, after = _json_fields(old), _json_fields(new)
    return [
        f"{name.removeprefix('config.')}: {before.get(name, 'nothing')} → "
        f"{after.get(name, 'nothing')}"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]


def _json_fields(value, name=""):
    """{path: JSON text} of everything in it that is not itself a dictionary."""
    if not isinstance(value, dict):
        return {name: _json_text(value)}
    fields = {}
    for key, item in value.items():
        fields |= _json_fields(item, f"{name}.{key}" if name else key)
    return fields


def _json_text(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_UNKNOWN_HERE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[str]:
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
                "or correct that.",
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
    """Says who holds the lock, for the message to other processes."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())


class Workdir:
    """A folder for the results of one job; `''` is a new one under runs/.

    Only the first process writes. Raises JobError (exit code 3) where the folder cannot be used.
    """

    def __init__(self, folder=""):
        self.path = Path(folder) if folder else None

    def open(self):
        """Makes the folder, if it is not there."""
        path = self.path or Path("runs")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.path = self.path or _fresh(path)
        except OSError as error:
            raise unusable(path, error) from error

    def write_bytes(self, name, content: bytes):
        """A file that appears whole or not at all."""
        if not is_writer():
            return
        try:
            with replacing(self.path / name) as file:
                file.write(content)
        except OSError as error:
            raise unusable(self.path / name, error) from error

    def write_json(self, name, value):
        """Indented JSON; a number that is not finite becomes null."""
        self.write_bytes(name, (json.dumps(_plain(value), indent=2) + "\n").encode())

    def write_csv(self, name, rows: list[dict]):
        """A table with a header, from rows with equal keys."""
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_bytes(name, text.getvalue().encode())

    def write_npz(self, name, **arrays):
        """Arrays by name; strings are stored as fixed-width text, never as pickles."""
        content = io.BytesIO()
        np.savez(content, **arrays)
        self.write_bytes(name, content.getvalue())

    def write_figure(self, name, figure):
        """A picture as PNG."""
        content = io.BytesIO()
        figure.savefig(content, format="png")
        self.write_bytes(name, content.getvalue())

    def write_metrics(self, lines):
        """metrics.jsonl from its start, as the checkpoint has it: nothing doubled, lost or torn."""
        self.write_bytes("metrics.jsonl", "".join(map(_json_line, lines)).encode())

    def append_metrics(self, epoch):
        """A line per trial of this epoch to metrics.jsonl, readable at once."""
        lines = [
            {"trial": trial, "epoch": epoch.reached[row]}
            | {name: values[row] for name, values in epoch.metrics.items()}
            for row, trial in enumerate(epoch.trials)
        ]
        if not is_writer():
            return
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write("".join(map(_json_line, lines)))
        except OSError as error:
            raise unusable(self.path / "metrics.jsonl", error) from error


def is_writer():
    """Whether this process writes: of several, only the first does."""
    return jax.process_index() == 0


def _json_line(values):
    return json.dumps(_plain(values)) + "\n"


def _fresh(parent):
    """A new folder named after the time; two jobs that start at once get one each."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for name in (stamp, *(f"{stamp}_{n}" for n in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            (parent / name).mkdir()
            return parent / name
    raise FileExistsError(f"{parent} has a thousand runs of this second")


def unusable(path, error) -> JobError:
    """What to raise where the operating system refuses to have something written."""
    reason = error.strerror or error
    return JobError(
        f"{path} cannot be written: {reason}. Choose another --workdir, or correct that.", WORKDIR
    )


def _plain(value):
    """Only what JSON has: no NumPy types, no tuples, null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(str(value)) if math.isfinite(value) else None  # np.float32: shortest text
    return value.item() if isinstance(value, np.generic) else value


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

    Raises JobError (exit code 3) where it cannot be read.
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
    if digest(found) != digest(job):
        different = "\n".join(f"  {line}" for line in differences(found, job))
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
