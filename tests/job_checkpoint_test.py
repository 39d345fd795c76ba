"""A checkpoint comes back to the bit or is refused, and the newest intact one is found."""

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from softmax_jax import sweep
from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import checkpoint
from softmax_jax.job.checkpoint import Checkpoint, DamagedError
from softmax_jax.job.processes import Stop

ROOT = Path(__file__).parents[1]
checked = settings(max_examples=200, deadline=None, derandomize=True)

# One sealed file.


ARRAYS = {
    "params/W": np.array([[1.5, -0.0, np.nan], [np.inf, 1e-45, 3]], np.float32),
    "params/b": np.zeros(0),
    "step": np.array(7, np.int32),
    "key": np.array([1, 2**32 - 1], np.uint32),
    "low": np.arange(5).astype(ml_dtypes.bfloat16),
    "count": np.array([-1, 2**62]),
    "columns": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "done": np.array([True, False]),
    "names": np.array(["shirt", "ä"]),
}


FACTS = {"position": [3, 0.1, None], "name": "ä"}


def sealed(made):
    """The content of a sealed file."""
    file = io.BytesIO()
    checkpoint.write_sealed(file, made)
    return file.getvalue()


WHOLE = sealed(Checkpoint(3, "job", ARRAYS, FACTS))


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """read(content): the checkpoint in a file of that content."""
    path = tmp_path_factory.mktemp("sealed") / "00000003.npz"

    def read(content):
        path.unlink(missing_ok=True)  # quicker than writing over it
        path.write_bytes(content)
        return checkpoint.read_sealed(path)

    return read


def forge(members, manifest=None):
    """A file with the right digest, but any content."""
    whole = {"format": checkpoint._FORMAT, "number": 3, "job": "job", "facts": {}, "dtypes": {}}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.comment = checkpoint._MARK + checkpoint._BLANK
        if manifest != "none":
            archive.writestr("manifest.json", json.dumps(whole | (manifest or {})))
        for name, data in members.items():
            archive.writestr(name, data)
    return with_digest(content.getvalue())


def with_digest(content):
    body = content[:-64]
    return body + hashlib.sha256(body + b"0" * 64).hexdigest().encode()


def npy(array):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def assert_same(found, expected):
    assert found._replace(arrays=None) == expected._replace(arrays=None)
    assert list(found.arrays) == list(expected.arrays)
    for name, array in expected.arrays.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes(), name
        assert found.arrays[name].flags.writeable


def test_sealed_arrays_of_every_kind_come_back_to_the_bit(read, tmp_path):
    assert_same(read(WHOLE), Checkpoint(3, "job", ARRAYS, FACTS))
    (tmp_path / "x.npz").write_bytes(WHOLE)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as plain:  # NumPy can open it, too
        np.testing.assert_array_equal(plain["params/W"], ARRAYS["params/W"])


@checked
@given(
    st.integers(0, 10**8),
    st.text(),
    st.dictionaries(
        st.from_regex("[a-z_/0-9]{1,9}", fullmatch=True),
        arrays_of.arrays(arrays_of.scalar_dtypes(), arrays_of.array_shapes(min_dims=0, min_side=0)),
        max_size=3,
    ),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
)
def test_sealed_checkpoint_round_trips(read, number, job, arrays, facts):
    made = Checkpoint(number, job, arrays, facts)
    content = sealed(made)
    assert_same(read(content), made)
    assert sealed(read(content)) == content  # equal states are equal files


@checked
@given(st.sets(st.integers(0, 8 * len(WHOLE) - 1), min_size=1, max_size=4))
def test_sealed_file_with_flipped_bits_is_damaged(read, bits):
    content = bytearray(WHOLE)
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedError):
        read(bytes(content))


@checked
@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)), st.binary(max_size=9))
def test_sealed_file_with_a_stretch_replaced_is_damaged(read, start, stop, other):
    content = WHOLE[:start] + other + WHOLE[max(start, stop) :]
    if content != WHOLE:
        with pytest.raises(DamagedError):
            read(content)


@checked
@given(st.integers(0, len(WHOLE) - 1))
def test_sealed_file_cut_at_any_length_is_damaged(read, length):
    with pytest.raises(DamagedError):
        read(WHOLE[:length])


def test_sealed_file_is_damaged_by_each_bit_of_its_first_and_last_bytes(read):
    """The ends of the file, where a hole in the digest would be, are tried bit by bit."""
    places = [*range(64), *range(len(WHOLE) - 200, len(WHOLE))]
    for place, bit in itertools.product(places, range(8)):
        content = bytearray(WHOLE)
        content[place] ^= 1 << bit
        with pytest.raises(DamagedError):
            read(bytes(content))


def test_foreign_file_is_not_a_checkpoint(read):
    content = io.BytesIO()
    np.savez(content, W=np.eye(2))
    with pytest.raises(DamagedError, match="does not end as a checkpoint does"):
        read(content.getvalue())


@pytest.mark.parametrize("other", [1, checkpoint._FORMAT - 1, checkpoint._FORMAT + 1])
def test_another_format_is_an_error_that_names_both_formats(read, other):
    message = f"format {other}, and this program reads format {checkpoint._FORMAT}"
    with pytest.raises(JobError, match=message) as error:
        read(forge({"W.new": b"?"}, {"format": other}))
    assert error.value.exit_code == WORKDIR


@pytest.mark.parametrize(
    "members, manifest, reason",
    [
        ({"W.npy": npy(0)}, "none", "manifest"),
        ({"W.npy": npy(0)}, {"dtypes": {"b": "bfloat16"}}, "KeyError: 'b'"),
        ({"W.npy": npy(0)[:-1]}, {}, "ValueError"),
        ({"W.npy": b"?"}, {}, "no .npy array"),
        ({"W.npy": npy([{}])}, {}, "pickled Python objects"),
    ],
)
def test_sealed_file_with_invalid_content_is_damaged(read, members, manifest, reason):
    assert read(forge({"W.npy": npy(0)})).arrays["W"] == 0
    with pytest.raises(DamagedError, match=reason):
        read(forge(members, manifest))


def test_sealed_file_that_is_no_zip_is_damaged(read):
    with pytest.raises(DamagedError, match="BadZipFile"):
        read(with_digest(checkpoint._MARK + checkpoint._BLANK))


def test_objects_are_never_pickled():
    with pytest.raises(ValueError, match="allow_pickle"):
        sealed(Checkpoint(0, "", {"a": np.array([print])}, {}))


# The checkpoints of a folder.


def state(number, job="job"):
    return Checkpoint(number, job, {"W": np.full(50, number)}, {"epoch": number})


def run(script, folder):
    """Runs a script (which has `folder`, `state` and `checkpoint`) in another process."""
    prelude = """
import os, sys, json, numpy as np
from pathlib import Path
from softmax_jax.host import JobError
from softmax_jax.job import checkpoint
from softmax_jax.job.checkpoint import Checkpoint
folder = Path(sys.argv[1])
def state(number, size=50):
    return Checkpoint(number, "job", {"W": np.full(size, number)}, {"epoch": number})
"""
    return subprocess.run(
        [sys.executable, "-c", prelude + script, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def restored(folder):
    found, warnings = checkpoint.restore(folder, "job")
    assert (found.arrays["W"] == found.number).all() and found.facts == {"epoch": found.number}
    return found.number, warnings


def names(folder):
    return sorted(os.listdir(folder))


def test_last_checkpoints_are_kept_and_the_newest_is_restored(tmp_path):
    for number in (7, 8, 99, 100):
        checkpoint.save(tmp_path / "c", state(number), keep=2)
    assert names(tmp_path / "c") == ["00000099.npz", "00000100.npz"]
    assert restored(tmp_path / "c") == (100, [])


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path):
    for number in (10**8 - 1, 10**8, 2):
        checkpoint.save(tmp_path, state(number), keep=9)
    assert [int(path.stem) for path in checkpoint.saved_files(tmp_path)] == [2, 10**8 - 1, 10**8]


def test_restore_without_checkpoints_finds_nothing(tmp_path):
    assert checkpoint.restore(tmp_path / "missing", "job") == (None, [])
    assert checkpoint.restore(tmp_path, "job") == (None, [])


def test_restore_deletes_half_written_files_only(tmp_path):
    foreign = ["00000009.npz.ab.tmp", "00000009.npz.damaged", "model.npz", "notes.txt"]
    for name in (*foreign, f"00000009.npz.{'ab' * 16}.tmp"):
        (tmp_path / name).write_bytes(b"?")
    assert checkpoint.restore(tmp_path, "job") == (None, [])
    checkpoint.save(tmp_path, state(1), keep=1)
    assert names(tmp_path) == ["00000001.npz", *foreign]


def test_damaged_checkpoints_are_set_aside_and_the_one_before_is_used(tmp_path):
    for number in (1, 2, 3):
        checkpoint.save(tmp_path, state(number), keep=3)
    damaged = bytearray((tmp_path / "00000003.npz").read_bytes())
    damaged[700] ^= 4
    (tmp_path / "00000003.npz").write_bytes(damaged)
    np.savez(tmp_path / "00000002.npz", W=np.zeros(3))
    number, warnings = restored(tmp_path)
    assert number == 1
    assert [warning.split(": ")[0][-24:] for warning in warnings] == [
        "/00000003.npz is damaged",
        "/00000002.npz is damaged",
    ]
    assert "SHA-256" in warnings[0] and "00000003.npz.damaged" in warnings[0]
    assert (tmp_path / "00000003.npz.damaged").read_bytes() == damaged
    assert restored(tmp_path) == (1, [])


def test_restore_finds_nothing_if_all_are_damaged(tmp_path):
    checkpoint.save(tmp_path, state(1), keep=1)
    os.truncate(tmp_path / "00000001.npz", 100)
    found, warnings = checkpoint.restore(tmp_path, "job")
    assert found is None and len(warnings) == 1


def test_checkpoint_under_a_wrong_number_is_damaged(tmp_path):
    checkpoint.save(tmp_path, state(1), keep=1)
    (tmp_path / "00000005.npz").write_bytes((tmp_path / "00000001.npz").read_bytes())
    number, warnings = restored(tmp_path)
    assert number == 1 and "it holds checkpoint 1" in warnings[0]


def test_checkpoint_of_another_job_is_refused_and_kept(tmp_path):
    checkpoint.save(tmp_path, state(1, "theirs"), keep=1)
    with pytest.raises(JobError, match="belongs to another job") as error:
        checkpoint.restore(tmp_path, "job")
    assert error.value.exit_code == WORKDIR
    assert names(tmp_path) == ["00000001.npz"]


def test_checkpoint_is_intact_and_recent_after_a_kill_at_any_moment(tmp_path):
    """Kills 25 processes that only save, most of them in the middle of a save."""
    script = """
import random, signal, time
for attempt in range(25):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in range(1000 * attempt + 1, 1000 * (attempt + 1)):
                checkpoint.save(folder, state(number, 400_000), keep=2)
                os.write(writer, number.to_bytes(4, "big"))
        finally:
            os._exit(1)
    os.close(writer)
    said = os.read(reader, 4)
    time.sleep(random.Random(attempt).uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said += os.read(reader, 40_000)
    halves = len(list(folder.glob("*.tmp")))
    found, warnings = checkpoint.restore(folder, "job")
    whole = bool((found.arrays["W"] == found.number).all()) and not warnings
    ahead = found.number - int.from_bytes(said[-4:], "big")
    print(json.dumps([halves, whole, ahead]))
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    halves, whole, ahead = zip(*map(json.loads, done.stdout.splitlines()), strict=True)
    assert len(whole) == 25 and all(whole)
    assert set(ahead) <= {0, 1}
    assert sum(halves) >= 5, "too few were killed in the middle of a save"


SAVE_TOO_MUCH = """
try:
    checkpoint.save(folder, state(2, 100_000), keep=1)
except JobError as error:
    print(error, error.exit_code)
"""


def test_file_size_limit_leaves_the_earlier_checkpoint_intact(tmp_path):
    checkpoint.save(tmp_path, state(1), keep=1)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    done = run(limit + SAVE_TOO_MUCH, tmp_path)
    assert "cannot be written: File too large" in done.stdout and done.stdout.endswith("3\n")
    assert names(tmp_path) == ["00000001.npz"] and restored(tmp_path) == (1, [])


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 KiB; the test is skipped where none can be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_full_disk_leaves_the_earlier_checkpoint_intact(disk):
    checkpoint.save(disk, state(1), keep=1)
    done = run(SAVE_TOO_MUCH, disk)
    assert "cannot be written: No space left on device" in done.stdout
    assert done.stdout.endswith("3\n")
    assert names(disk) == ["00000001.npz"] and restored(disk) == (1, [])


def test_read_only_disk_leaves_the_earlier_checkpoint_intact(disk):
    checkpoint.save(disk, state(1), keep=1)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(JobError, match="Read-only file system") as error:
        checkpoint.save(disk, state(2), keep=1)
    assert error.value.exit_code == WORKDIR and restored(disk) == (1, [])


def test_lost_permission_leaves_the_earlier_checkpoint_intact(tmp_path):
    """Root may write everywhere, so the process becomes another user in between."""
    script = (
        """
os.chdir(folder)  # a relative path from here on: only root can reach the folder
folder = Path(".")
checkpoint.save(folder, state(1), keep=1)
if os.geteuid() == 0:
    os.setuid(65534)
else:
    os.chmod(folder, 0o555)
"""
        + SAVE_TOO_MUCH
    )
    done = run(script, tmp_path)
    os.chmod(tmp_path, 0o755)
    assert "cannot be written: Permission denied" in done.stdout and done.stdout.endswith("3\n")
    assert names(tmp_path) == ["00000001.npz"] and restored(tmp_path) == (1, [])


# The progress of a job.


JOB = {"config": {"l2": 0.0}, "data": {"name": "digits"}}


@pytest.fixture
def start(config, tmp_path):
    """start(job=JOB, **fields): the progress of a job in this folder, as a new process sees it."""

    def make(job=JOB, **fields):
        config.update(fields)
        return checkpoint.Progress(tmp_path, job, config)

    return make


@pytest.fixture
def epochs(splits):
    """epochs(pending=None): three epochs of two trials, in two chunks."""

    def make(pending=None):
        return sweep.epochs(
            splits.train,
            splits.val,
            sweep.grid(learning_rate=(0.1, 0.3)),
            num_epochs=3,
            batch_size=256,
            devices=sweep.Devices(chunk=1),
            pending=pending,
        )

    return make


def train(progress, running, steps=99):
    """The collection after so many steps, each saved."""
    collection = progress.collection(running.run)
    for epoch in itertools.islice(running, steps):
        collection.add(epoch)
        progress.save(collection, epoch)
    return collection


def test_progress_of_a_new_job_is_empty(start, epochs):
    progress = start()
    assert progress.pending is None and progress.warnings == [] and progress.seconds == 0
    assert progress.collection(epochs().run).arrays()["log"].size == 0


@pytest.mark.parametrize("after", [2, 3, 6])
def test_progress_continues_from_the_last_checkpoint(start, epochs, after):
    whole = train(start(keep=9), epochs(), after)
    progress = start()
    assert checkpoint.saved_files(progress._folder)[-1].stem == f"{after:08d}"
    assert sum(3 - pending.epoch for pending in progress.pending) == 6 - after
    again = progress.collection(epochs().run)
    jax.tree.map(np.testing.assert_array_equal, again.arrays(), whole.arrays())
    rest = train(progress, epochs(progress.pending))
    assert rest.count.tolist() == [3, 3] and start().pending == []
    numbers = [int(path.stem) for path in checkpoint.saved_files(progress._folder)]
    assert numbers == list(range(1, 7))


def test_seconds_of_earlier_processes_are_counted(start, epochs, monkeypatch):
    now = iter(range(0, 10**6, 100))
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(now))
    train(start(), epochs(), 1)
    spent = start().seconds
    assert spent >= 100
    assert start().training_seconds() >= spent + 100


def test_checkpoint_is_due_by_a_monotonic_clock(start, epochs, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint.time, "time", lambda: pytest.fail("a clock that may be set"))
    progress = start(checkpoint_seconds=30)
    assert progress.agree(Stop()) == (0, False)
    now[0] += 30
    assert progress.agree(Stop()) == (0, True)
    train(progress, epochs(), 1)
    assert progress.agree(Stop()) == (0, False)
    assert start(checkpoint_seconds=0).agree(Stop()) == (0, True)


def test_progress_passes_the_signal_on(start):
    stop = Stop()
    stop.requested = 15
    assert start(checkpoint_seconds=30).agree(stop) == (15, False)


def test_progress_of_another_job_is_refused(start, epochs):
    train(start(), epochs(), 1)
    with pytest.raises(JobError, match="belongs to another job") as error:
        start({"config": {"l2": 0.1}, "data": {"name": "digits"}})
    assert error.value.exit_code == WORKDIR


def test_progress_warns_of_a_damaged_checkpoint(start, epochs):
    progress = start(keep=2)
    train(progress, epochs(), 2)
    with open(checkpoint.saved_files(progress._folder)[-1], "r+b") as file:
        file.truncate(1000)
    again = start()
    assert len(again.warnings) == 1 and "00000002.npz is damaged" in again.warnings[0]
    assert again.pending[0].epoch == 1
