"""The folder of a job: which job it holds, its lock, and files that are written atomically."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import socket
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from softmax_jax import data, host
from softmax_jax.host import (
    DIVERGED,
    DONE,
    WORKDIR,
    JobError,
    as_path,
    csv_cell,
    cut,
    half_written,
    open_regular,
    read_json,
    replacing,
)
from softmax_jax.sweep import chunks

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # Matplotlib takes long to import; only pictures need it
    Figure = Any

# The fields on which no number depends: where the data come from (they are compared themselves), on
# which devices and in what chunks the trials run, what is kept and shown meanwhile.
WITHOUT_EFFECT = (
    "checkpoint_seconds",
    "chunk",
    "data_dir",
    "dataset_fallback",
    "keep",
    "mesh",
    "tensorboard",
)


# Fields with the values at which they take no part: a job that does not use them is the same as
# one of a program that does not have them.
_UNUSED: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01}
_UNUSED |= {"l1": 0.0, "l1_group": 0.0, "l1_path": 0, "l1_group_path": 0}


def _takes_part(name, value):
    if name == "halving" and isinstance(value, dict):
        return value.get("factor") != 0
    unused = name in _UNUSED and _json_text(value) == _json_text(_UNUSED[name])
    return name not in WITHOUT_EFFECT and not unused


def job_identity(config: dict, splits: data.Splits) -> dict:
    """The identity of the job with this config on these data, as it is read back from JSON."""
    fields = {name: value for name, value in config.items() if _takes_part(name, value)}
    if isinstance(axes := fields.get("sweep"), dict):
        swept = {name: values for name, values in axes.items() if values or name not in _UNUSED}
        fields["sweep"] = swept
    roles = {role: getattr(splits, role) for role in ("train", "val", "test")}
    used = {
        "name": splits.name,
        "part_size": splits.train.shard_size,  # the order of the examples depends on it
        "shapes": {role: split.x.shape for role, split in roles.items() if split is not None},
        "fingerprint": data.fingerprint(splits),
    }
    return json.loads(json.dumps({"config": fields, "data": used}))


def needs_length(config: dict) -> str:
    """Why more epochs are another training from its start on; '': they only come after the others.

    Args:
      config: that of a `job_identity`.
    """
    if config.get("optimizer") == "lbfgs":
        return "of L-BFGS a number of epochs is no more than a limit"
    if config.get("schedule") != "constant":
        return f"the {config.get('schedule')} schedule decays over the whole training"
    if config.get("halving"):
        return "with halving the settings that stopped have no epochs left"
    for name in ("warmup", "averaging"):
        swept = config.get("sweep", {}).get(name) or ()
        if config.get(name) or any(swept):
            return f"{name} is over a fraction of the whole training"
    return ""


def without_length(job: dict) -> dict:
    """The identity, without the number of epochs where a longer job can go on from this one.

    It names the job in its checkpoints.
    """
    config = job["config"]
    if needs_length(config):
        return job
    return job | {"config": {k: v for k, v in config.items() if k != "num_epochs"}}


def is_longer(new: dict, old: dict) -> bool:
    """Whether a job is the old one with more epochs, and can go on from it."""
    lengths = [job["config"].get("num_epochs") for job in (old, new)]
    if not all(isinstance(length, int) for length in lengths) or lengths[0] >= lengths[1]:
        return False
    return digest(without_length(old)) == digest(without_length(new))


_LONGEST_FIELD = 80  # characters that are shown of the name or a value of a field


def digest(job: dict) -> str:
    """SHA-256 of an identity as JSON text, in hexadecimal; the order of its fields does not matter.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(_json_text(job).encode("utf-8", "surrogatepass")).hexdigest()


def differences(old: dict, new: dict) -> list[str]:
    """Each field in which two identities differ, as 'field: old → new', in alphabetical order.

    >>> differences({"config": {"l2": 0.0, "sweep": {"seed": [0]}}}, {"config": {"l2": 0.1}})
    ['l2: 0.0 → 0.1', 'sweep.seed: [0] → nothing']
    """
    before, after = _json_fields(old), _json_fields(new)
    return [
        f"{cut(name.removeprefix('config.'), _LONGEST_FIELD)}: "
        f"{cut(before.get(name, 'nothing'), _LONGEST_FIELD)} → "
        f"{cut(after.get(name, 'nothing'), _LONGEST_FIELD)}"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]


def _json_fields(value, name=""):
    """{path: JSON text} of every value in it that is not a dictionary."""
    if not isinstance(value, dict):
        return {name: _json_text(value)}
    fields: dict[str, str] = {}
    for key, item in value.items():
        fields |= _json_fields(item, f"{name}.{key}" if name else key)
    return fields


def _json_text(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_UNKNOWN_HERE = (
    *(errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL),
    errno.EBADF,  # NFS, of a folder: it cannot be opened for writing
)
_LONGEST_HOLDER = 200  # bytes of what names the holder of a lock


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Holds the lock of the folder during the block; yields a warning to be shown, or ''.

    The lock is `flock`, on the folder itself and on the file `.lock`, which stays there and names
    its last holder: the lock is released however the process ends. Network file systems may know
    the second and not the first; whoever deletes `.lock` does not release the first. On a file
    system with neither the block runs without one, and the warning says that a second job is not
    kept out.

    Raises:
      JobError: another process holds it, or the folder cannot be written (exit code 3).
    """
    with contextlib.ExitStack() as stack:
        try:
            itself = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, itself)
            file = stack.enter_context(_open_own(folder / ".lock", os.O_RDWR | os.O_CREAT))
            refusals = [_lock(locked, file, folder) for locked in (itself, file)]
            _sign(file)
        except OSError as error:
            raise JobError(
                f"{folder} cannot be locked: {error.strerror or error}. Choose another --workdir, "
                "or fix that.",
                WORKDIR,
            ) from error
        yield refusals[1] if all(refusals) else ""


def _open_own(path, flags):
    """Opens a file of the folder for writing in place: no link, and no other name of a file."""
    with contextlib.suppress(FileExistsError):
        if flags & os.O_CREAT:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
    file = open_regular(path, flags & ~os.O_CREAT, follow=False)
    if os.fstat(file.fileno()).st_nlink > 1:
        file.close()
        raise OSError(errno.EMLINK, f"{path.name} has another name elsewhere (a hard link)")
    return file


def _lock(locked, file, folder):
    """Takes a lock; why the file system has none, or ''."""
    try:
        fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            file.seek(0)
            holder = file.read(_LONGEST_HOLDER).decode(errors="replace").strip()
            raise JobError(
                f"{folder} is in use by {holder or 'another process'}. Wait for that job or stop "
                "it, or choose another --workdir.",
                WORKDIR,
            ) from error
        if error.errno not in _UNKNOWN_HERE:
            raise
        return (
            f"The file system of {folder} has no locks ({error.strerror}): make sure "
            "that no second job uses this folder."
        )
    return ""


def _sign(file):
    """Names the holder of the lock, for the message to other processes."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    file.truncate(0)
    file.seek(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
    file.flush()


class Workdir:
    """A folder for the results of one job; `''` is a new one under runs/.

    Only the first process writes. Methods raise JobError (exit code 3) where the folder cannot be
    written, or is no longer the one that was opened.

    Raises:
      DataError: no folder can have this name.
    """

    def __init__(self, folder: str | Path = ""):
        self.path: Path | None = as_path(folder, "--workdir") if folder else None
        self._itself: tuple[int, int] | None = None  # device and number of the folder in use
        self.begun = False  # whether config.json must be there

    def open(self) -> None:
        """Creates the folder if it does not exist."""
        path = self.path or Path("runs")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.path = self.path or _fresh(path)
            self._itself = _identity(self.path)
        except OSError as error:
            raise unusable(path, error) from error

    def check(self) -> None:
        """Checks that the folder is still the one that was opened, and has its config.json.

        Raises:
          JobError: somebody has moved or deleted one of them (exit code 3).
        """
        if self._itself and self._itself != _identity(self.file()):
            raise self._changed("the folder itself")
        if self.begun and not os.path.lexists(self.file("config.json")):
            raise self._changed("config.json")

    def _changed(self, what):
        return JobError(
            f"{self.file()} was changed while the job ran: {what} is gone, and the results are not "
            "whole. Repeat the command in another --workdir, or with --overwrite.",
            WORKDIR,
        )

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a file atomically."""
        if not is_writer():
            return
        path = self.file(name)
        self.check()
        try:
            with replacing(path) as file:
                file.write(content)
        except OSError as error:
            raise unusable(path, error) from error
        self.begun |= name == "config.json"

    def write_json(self, name: str, value: Any) -> None:
        """Writes indented JSON; a number that is not finite becomes null."""
        self.write_bytes(name, (json.dumps(_plain(value), indent=2) + "\n").encode())

    def write_csv(self, name: str, rows: list[dict]) -> None:
        """Writes a table with a header, from rows with equal keys; see `host.csv_cell`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {
                key: csv_cell(value) if isinstance(value, str) else value
                for key, value in row.items()
            }
            for row in rows
        )
        self.write_bytes(name, text.getvalue().encode("utf-8", "backslashreplace"))

    def write_npz(self, name: str, **arrays: np.ndarray) -> None:
        """Writes arrays by name; strings are stored as fixed-width text, never as pickles."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        self.write_bytes(name, content.getvalue())

    def write_figure(self, name: str, figure: "Figure") -> None:
        """Writes a picture as PNG; a character that the font lacks is a box in it."""
        content = io.BytesIO()
        with warnings.catch_warnings():  # about such characters, and names too long for the layout
            warnings.simplefilter("ignore")
            figure.savefig(content, format="png")
        self.write_bytes(name, content.getvalue())

    def write_metrics(self, lines: Iterable[dict]) -> None:
        """Rewrites metrics.jsonl from a checkpoint: no line is repeated, missing or torn."""
        self.write_bytes("metrics.jsonl", "".join(map(_json_line, lines)).encode())

    def append_metrics(self, epoch: chunks.Epoch) -> None:
        """Appends a line per compared trial of this epoch to metrics.jsonl, readable at once."""
        lines = [
            {"trial": trial, "epoch": epoch.reached[row]}
            | {name: values[row] for name, values in epoch.metrics.items()}
            for row, trial in enumerate(epoch.trials)
            if trial < epoch.run.num_compared
        ]
        if not is_writer():
            return
        path = self.file("metrics.jsonl")
        self.check()
        try:  # the file is there: `write_metrics` has made it
            with _open_own(path, os.O_WRONLY | os.O_APPEND) as file:
                file.write("".join(map(_json_line, lines)).encode())
        except FileNotFoundError as error:
            raise self._changed("metrics.jsonl") from error
        except OSError as error:
            raise unusable(path, error) from error

    def file(self, name: str = "") -> Path:
        """The path of a file in the folder, which must be open; by default that of the folder."""
        assert self.path is not None, "the folder is not open"
        return self.path / name


def is_writer() -> bool:
    """Whether this process writes: of several, only the first does."""
    return jax.process_index() == 0


def _json_line(values):
    return json.dumps(_plain(values)) + "\n"


def _fresh(parent):
    """A new folder named after the time; jobs that start at the same time get one each."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for name in (stamp, *(f"{stamp}_{n}" for n in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            (parent / name).mkdir()
            return parent / name
    raise FileExistsError(f"{parent} has a thousand runs of this second")


def unusable(path: Path, error: OSError) -> JobError:
    """The error to raise where the operating system refuses a write."""
    reason = error.strerror or error
    return JobError(
        f"{path} cannot be written: {reason}. Choose another --workdir, or fix that.", WORKDIR
    )


def _plain(value):
    """The value in types that JSON has: no NumPy types or tuples, null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(str(value)) if math.isfinite(value) else None  # np.float32: shortest text
    return value.item() if isinstance(value, np.generic) else value


_RESULTS = (
    "summary.json",  # it says that a job has ended, so it is deleted first
    "audit.csv",
    "coefficients.csv",
    host.ERROR_FILE,
    "learning_curve.csv",
    "metrics.jsonl",
    "out_of_fold.npz",
    "params.npz",
    "path.csv",
    "predictions.npz",
    "settings.csv",
    "trials.csv",
    "weights.csv",
    "audit.png",
    "confusion.png",
    "curves.png",
    "learning_curve.png",
    "mistakes.png",
    "settings.png",
    "sweep.png",
    "weights.png",
)
# The files of folders in the folder, and what `replacing` leaves of them when it is killed.
_CHECKPOINT = re.compile(r"[0-9]{8,}\.npz(\.damaged|\.[0-9a-f]{32}\.tmp)?")
_TRIAL = re.compile(r"trial_[0-9]+")
_EVENTS = re.compile(r"events\.out\.tfevents\.[0-9]+\.softmax_jax")
_CHOOSE = "Choose another --workdir, or replace its content with --overwrite."


def job_in(folder: Path | None) -> dict | None:
    """The identity of the job that the folder holds; None: it holds none.

    Raises:
      JobError: it cannot be read, or there are results without it (exit code 3).
    """
    if folder is None:
        return None
    path = folder / "config.json"
    try:
        found = read_json(path)["job"]
        if isinstance(found["config"], dict) and isinstance(found["data"]["name"], str):
            return found
        reason = "its job has no config or no data"
    except (FileNotFoundError, NotADirectoryError):
        _refuse_results_without_config(folder)
        return None
    except OSError as error:
        reason = error.strerror or error
        raise JobError(f"{path} cannot be read: {reason}. {_CHOOSE}", WORKDIR) from error
    except (ValueError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__}: {cut(str(error), 200)}"
    raise JobError(
        f"{path} is damaged, or not written by this program ({reason}). {_CHOOSE}", WORKDIR
    )


def holds(folder: Path | None, job: dict) -> bool:
    """Whether the folder holds this job, or a shorter one that it can go on from.

    Raises:
      JobError: it holds another one (exit code 3).
    """
    found = job_in(folder)
    if found is None:
        return False
    if digest(found) != digest(job) and not is_longer(job, found):
        lines = differences(found, job)
        different = "\n".join(f"  {line}" for line in lines)
        why = ""
        if len(lines) == 1 and lines[0].startswith("num_epochs:"):
            why = needs_length(job["config"]) or "it has more epochs already"
            why = f"This one cannot go on from it: {why}.\n"
        raise JobError(f"{folder} holds another job:\n{different}\n{why}{_CHOOSE}", WORKDIR)
    return True


def outcome(folder: Path) -> int | None:
    """The exit code with which the job in the folder has ended; None: it has not.

    summary.json is there before the pictures, and has the seconds that they took once they are.
    """
    try:
        summary = read_json(folder / "summary.json")
        if summary["selected"] is None:
            return DIVERGED
        return DONE if "pictures" in summary["seconds"] else None
    except (OSError, ValueError, LookupError, TypeError):  # it is not there, or damaged
        return None


def clear(folder: Path, results_alone: bool = False) -> None:
    """Deletes the files that a job has left in the folder, config.json last, and no others.

    Only the holder of the folder's lock may call it. results_alone: checkpoints, event files and
    config.json stay.

    Raises:
      JobError: a file cannot be deleted (exit code 3).
    """
    if results_alone:
        return _delete(folder / name for name in _RESULTS)
    _delete([*_results(folder), folder / "config.json"])


def tidy(folder: Path) -> None:
    """Deletes the half-written files of a killed process; only the holder of the lock may."""
    for name in ("config.json", *_RESULTS):
        _delete(half_written(folder / name))


def own_folder(folder: Path) -> Path:
    """A folder within a work folder, which need not exist: no link, so that it is not elsewhere.

    Raises:
      JobError: it is a link, or a file (exit code 3).
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        kind = "a link" if folder.is_symlink() else "no folder"
        raise JobError(
            f"{folder} is {kind}, and must be a folder of the work folder's own. Remove it, or "
            "choose another --workdir.",
            WORKDIR,
        )
    return folder


def _results(folder) -> list[Path]:
    """The files of a job in the folder, by their exact names; what a link leads to is not its own.

    Raises:
      JobError: one of its folders is a link (exit code 3).
    """
    found = [folder / name for name in _RESULTS if os.path.lexists(folder / name)]
    found += _named(own_folder(folder / "checkpoints"), _CHECKPOINT)
    for trial in _named(own_folder(folder / "tensorboard"), _TRIAL):
        found += _named(own_folder(trial), _EVENTS)
    return found


def _named(folder, pattern):
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return [folder / name for name in sorted(os.listdir(folder)) if pattern.fullmatch(name)]
    return []


def _identity(folder):
    """Device and number of a folder; None: it is not there."""
    with contextlib.suppress(OSError):
        found = os.stat(folder)
        return found.st_dev, found.st_ino
    return None


def _refuse_results_without_config(folder):
    names = [str(path.relative_to(folder)) for path in _results(folder)]
    if names:
        some = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        raise JobError(
            f"{folder} holds {some}, but no config.json to tell which job. {_CHOOSE}", WORKDIR
        )


def _delete(paths):
    if not is_writer():
        return
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unusable(path, error) from error
