"""A work folder belongs to one job and one process, and its files are whole."""

import csv
import dataclasses
import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import default
from softmax_jax import data, sweep
from softmax_jax.host import DIVERGED, DONE, WORKDIR, JobError
from softmax_jax.job import workdir
from softmax_jax.job.workdir import Workdir

JOB = {"config": {"l2": 0.0}, "data": {"name": "digits", "fingerprint": "ab"}}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
few = settings(max_examples=10, deadline=None, derandomize=True)


def refused(call, *arguments):
    with pytest.raises(JobError) as error:
        call(*arguments)
    assert error.value.exit_code == WORKDIR
    return str(error.value)


# The identity of a job.


@pytest.fixture(scope="module")
def small():
    x, y = np.arange(24.0, dtype=np.float32).reshape(8, 3), np.arange(8) % 2
    return data.from_arrays(train=(x, y), val=(x[:4].copy(), y[:4].copy()))


def identity(splits, **changes):
    return workdir.job_identity(default.get_config().to_dict() | changes, splits)


def test_identity_survives_json(small):
    job = identity(small)
    again = json.loads(json.dumps(job))
    assert again == job and workdir.digest(again) == workdir.digest(job)
    assert workdir.differences(job, again) == []


CONFIG = default.get_config().to_dict()
# Spelt out, so that a field cannot leave the table unnoticed.
WITHOUT_EFFECT = {
    *("checkpoint_seconds", "chunk", "data_dir", "dataset_fallback"),
    *("keep", "mesh", "tensorboard"),
}


@pytest.mark.parametrize("name", sorted(CONFIG))
@few
@given(SCALARS | st.lists(SCALARS, max_size=3))
def test_identity_depends_on_every_field_that_changes_the_numbers(small, name, value):
    old, new = identity(small), identity(small, **{name: value})
    same = name in WITHOUT_EFFECT or json.dumps(value) == json.dumps(CONFIG[name])
    differing = {text.split(":")[0].split(".")[0] for text in workdir.differences(old, new)}
    assert (workdir.digest(old) == workdir.digest(new)) == same
    assert differing == (set() if same else {name})


def test_identity_of_a_job_that_uses_no_later_field_is_as_without_it(small):
    """Folders of earlier programs are resumed: their digests were those of the fields named."""
    fields = identity(small)["config"]
    later = {"beta1", "beta2", "weight_decay", "l1", "l1_group", "l1_path", "l1_group_path"}
    assert not later & set(fields) and not later & set(fields["sweep"])
    assert "halving" not in fields and fields["optimizer"] == "sgd"
    unused = identity(small, halving={"factor": 0, "min_epochs": 7})
    assert workdir.digest(unused) == workdir.digest(identity(small))
    one, other = (identity(small, halving={"factor": 3, "min_epochs": n}) for n in (1, 2))
    assert workdir.differences(one, other) == ["halving.min_epochs: 1 → 2"]
    config = default.get_config()
    config.sweep.beta1 = (0.8, 0.9)
    new = workdir.job_identity(config.to_dict(), small)
    assert workdir.differences(identity(small), new) == ["sweep.beta1: nothing → [0.8, 0.9]"]


def test_identity_differs_by_a_swept_axis_and_names_it(small):
    config = default.get_config()
    config.sweep.l2 = (0.0, 1e-4)
    new = workdir.job_identity(config.to_dict(), small)
    assert workdir.differences(identity(small), new) == ["sweep.l2: [] → [0.0, 0.0001]"]


def test_identity_depends_on_the_data_and_its_shards(small):
    x, y = small.train.x.copy(), small.train.y
    x[5, 1] += 1e-3
    val = small.val.x, small.val.y
    other = data.from_arrays(train=(x, y), val=val, test=(small.train.x, y.copy()))
    found = workdir.differences(identity(small), identity(other))
    assert [text.split(":")[0] for text in found] == ["data.fingerprint", "data.shapes.test"]
    # The shards decide the order of the examples.
    sharded = dataclasses.replace(small, train=dataclasses.replace(small.train, shard_size=4))
    found = workdir.differences(identity(small), identity(sharded))
    assert found == ["data.part_size: null → 4"]


def test_differences_include_fields_that_one_side_lacks():
    old, new = {"config": {"a": 1, "gone": None}}, {"config": {"a": 1.0, "new": "x"}}
    assert workdir.differences(old, new) == [
        "a: 1 → 1.0",
        "gone: null → nothing",
        'new: nothing → "x"',
    ]


# Which job a folder holds.


def write(folder, *names, text=""):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def folder(tmp_path):
    """A folder that holds JOB."""
    write(tmp_path, "config.json", text=json.dumps({"config": {}, "job": JOB}))
    return tmp_path


def test_folder_names_the_job_it_holds(folder):
    assert workdir.job_in(folder) == JOB
    assert workdir.holds(folder, JOB)


def test_folder_without_a_config_holds_no_job(tmp_path):
    write(tmp_path, "file", "holiday.png", "checkpoints/model.npz", "data.npz")
    for folder in (None, tmp_path, tmp_path / "missing", tmp_path / "file"):
        assert workdir.job_in(folder) is None and not workdir.holds(folder, JOB)


def test_folder_of_another_job_is_refused_with_the_differing_fields(folder):
    other = {"config": {"l2": 0.1}, "data": JOB["data"] | {"fingerprint": "cd"}}
    message = refused(workdir.holds, folder, other)
    assert '  l2: 0.0 → 0.1\n  data.fingerprint: "ab" → "cd"\n' in message
    assert "--overwrite" in message


DAMAGED = [
    *("", "{", "[]", "{}", '{"job": null}', '{"job": {"config": {}}}', "\ud800"),
    '{"job": {"config": {}, "data": {"name": 3}}}',
    '{"job": {"config": [], "data": {"name": "digits"}}}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_folder_with_a_damaged_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    message = refused(workdir.job_in, tmp_path)
    assert (
        "config.json is damaged, or not written by this program (" in message
        and "--overw" in message
    )


def test_folder_with_an_unreadable_config_is_refused(tmp_path):
    (tmp_path / "config.json").mkdir()
    assert "cannot be read: Is a directory" in refused(workdir.job_in, tmp_path)
    assert "cannot be read: File name too long" in refused(workdir.job_in, tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", ["summary.json", "params.npz", "checkpoints/00000001.npz"])
def test_folder_with_results_but_no_config_is_refused(tmp_path, name):
    write(tmp_path, name)
    assert f"holds {name}, but no config.json" in refused(workdir.job_in, tmp_path)


def test_outcome_is_read_from_the_summary(tmp_path):
    assert workdir.outcome(tmp_path) is None
    ended = '{"selected": {"trial": 0}, "seconds": {"pictures": 0.1}}'
    drawing = '{"selected": {"trial": 0}, "seconds": {"training": 0.1}}'
    codes = {ended: DONE, drawing: None, '{"selected": null}': DIVERGED}
    for text, code in (codes | dict.fromkeys(("{", "[]", "{}"))).items():
        write(tmp_path, "summary.json", text=text)
        assert workdir.outcome(tmp_path) == code


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_clear_deletes_only_files_of_a_job(folder):
    mine = ("summary.json", "trials.csv", "curves.png", "checkpoints/00000012.npz")
    mine += ("checkpoints/00000011.npz.damaged",)
    mine += ("tensorboard/trial_3/events.out.tfevents.17.softmax_jax",)
    yours = ["checkpoints/model.npz", "holiday.png", "tensorboard/notes", "trials.csv.bak"]
    write(folder, *mine, *yours)
    workdir.clear(folder)
    assert files(folder) == yours


def test_clear_deletes_the_config_last(folder):
    """So that after an interruption the rest still names its job."""
    write(folder, "params.npz/in the way", "summary.json")
    assert "params.npz cannot be written" in refused(workdir.clear, folder)
    assert files(folder) == ["config.json", "params.npz/in the way"]


def test_tidy_deletes_only_half_written_files_of_a_job(folder):
    random = os.urandom(16).hex()
    write(folder, f"metrics.jsonl.{random}.tmp", f"config.json.{random}.tmp", "params.npz")
    yours = [f"notes.txt.{random}.tmp", "params.npz.old.tmp"]
    write(folder, *yours)
    workdir.tidy(folder)
    assert files(folder) == ["config.json", *yours[:1], "params.npz", *yours[1:]]


# The lock.


HOLD = """
import sys, time
from pathlib import Path
from softmax_jax.job import workdir
with workdir.locked(Path(sys.argv[1])) as warning:
    print("held", warning, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the folder."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held \n"
            yield process
        finally:
            process.kill()


def test_lock_refuses_a_second_job_until_the_first_is_dead(tmp_path, holder):
    with pytest.raises(JobError) as error, workdir.locked(tmp_path):
        pass
    assert error.value.exit_code == WORKDIR
    host = re.escape(socket.gethostname())
    assert re.search(f"in use by process {holder.pid} on {host} since 20", str(error.value))
    holder.kill()
    holder.wait()
    with workdir.locked(tmp_path) as warning:
        assert warning == ""


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), workdir.locked(tmp_path):
        with pytest.raises(JobError, match=f"process {os.getpid()} "), workdir.locked(tmp_path):
            pass
        raise KeyError
    with workdir.locked(tmp_path):
        assert (tmp_path / ".lock").read_text().count("\n") == 1


def test_locks_of_different_folders_are_independent(tmp_path):
    (tmp_path / "a").mkdir()
    with workdir.locked(tmp_path) as one, workdir.locked(tmp_path / "a") as other:
        assert one == other == ""


def test_lock_in_a_missing_folder_is_a_job_error(tmp_path):
    def lock():
        with workdir.locked(tmp_path / "missing"):
            pass

    assert "cannot be locked" in refused(lock)


def test_lock_on_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    """Simulated: such a file system cannot be relied on here."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with workdir.locked(tmp_path) as warning:
        assert "has no locks (No locks available)" in warning


# Its files.


def opened(folder=""):
    workdir = Workdir(folder)
    workdir.open()
    return workdir


def test_fresh_folders_are_distinct_even_if_made_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: opened().path, range(32)))
    assert len(set(folders)) == 32
    assert all(folder.parent.name == "runs" and not list(folder.iterdir()) for folder in folders)


def test_workdir_creates_nothing_before_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Workdir().path is None and Workdir("a/b").path.name == "b"
    assert list(tmp_path.iterdir()) == []
    assert opened("a/b").path.is_dir() and opened("a/b").path.is_dir()


def test_json_has_short_numbers_and_null_for_what_is_not_finite(tmp_path):
    value = {"a": np.float32(0.1), "b": float("nan"), "c": (np.int64(3), np.inf), "d": None}
    Workdir(tmp_path).write_json("x.json", value)
    found = json.loads((tmp_path / "x.json").read_text())
    assert found == {"a": 0.1, "b": None, "c": [3, None], "d": None}


def test_csv_and_npz_round_trip(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.write_csv("t.csv", [{"a": 1, "b": "x,y"}, {"a": 2, "b": "z"}])
    with open(tmp_path / "t.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "x,y"}, {"a": "2", "b": "z"}]
    workdir.write_npz("p.npz", W=np.eye(2), label_names=np.array(["ä", "b"]))
    with np.load(tmp_path / "p.npz", allow_pickle=False) as params:
        assert params["W"].tolist() == [[1, 0], [0, 1]] and params["label_names"][0] == "ä"


def test_file_that_cannot_be_written_is_a_job_error_and_leaves_no_trace(tmp_path):
    workdir = opened(tmp_path / "w")
    (tmp_path / "w" / "taken.json").mkdir()
    assert "taken.json cannot be written" in refused(workdir.write_json, "taken.json", {})
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["taken.json"]


def test_folder_below_a_file_is_a_job_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(opened, tmp_path / "file" / "w")


def test_metrics_file_is_rewritten_then_appended_to(tmp_path, splits):
    """Whatever it held before, including a torn line."""
    workdir = Workdir(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"trial": 0, "epoch": 9}\n{"trial": 0, "ep')
    options = {"num_epochs": 2, "batch_size": 256, "seeds": (0, 1)}
    epochs = list(sweep.epochs(splits.train, splits.val, **options))
    values = {name: column[0] for name, column in epochs[0].metrics.items()}
    workdir.write_metrics([{"trial": np.int64(0), "epoch": 1} | values])
    for epoch in epochs:
        workdir.append_metrics(epoch)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["trial"], line["epoch"]) for line in lines] == [
        (0, 1),
        *((trial, epoch) for epoch in (1, 2) for trial in (0, 1)),
    ]
    assert lines[0] == lines[1]
    assert [np.float32(line["val_loss"]) for line in lines[3:]] == list(
        epochs[1].metrics["val_loss"]
    )
