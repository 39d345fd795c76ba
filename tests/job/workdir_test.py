"""Files appear whole or not at all, and say what they hold in plain JSON and CSV."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job.workdir import Workdir
from tests import flat


def opened(folder=""):
    workdir = Workdir(folder)
    workdir.open()
    return workdir


def test_a_fresh_folder_is_new_every_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [opened().path for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.parent.name == "runs" and not list(folder.iterdir()) for folder in folders)


def test_nothing_is_made_before_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Workdir().path is None and Workdir("a/b").path.name == "b"
    assert list(tmp_path.iterdir()) == []
    assert opened("a/b").path.is_dir() and opened("a/b").path.is_dir()


def test_two_jobs_that_start_at_once_get_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: opened().path, range(32)))
    assert len(set(folders)) == 32


def test_json_has_null_for_what_is_not_finite_and_short_numbers(tmp_path):
    workdir = Workdir(tmp_path)
    value = {"a": np.float32(0.1), "b": float("nan"), "c": (np.int64(3), np.inf), "d": None}
    workdir.write_json("x.json", value)
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "a": 0.1,
        "b": None,
        "c": [3, None],
        "d": None,
    }


def test_csv_and_npz_come_back_as_they_were(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.write_csv("t.csv", [{"a": 1, "b": "x,y"}, {"a": 2, "b": "z"}])
    with open(tmp_path / "t.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "x,y"}, {"a": "2", "b": "z"}]
    workdir.write_npz("p.npz", W=np.eye(2), label_names=np.array(["ä", "b"]))
    with np.load(tmp_path / "p.npz", allow_pickle=False) as params:
        assert params["W"].tolist() == [[1, 0], [0, 1]] and params["label_names"][0] == "ä"


def test_a_file_that_cannot_be_written_is_a_job_error_and_leaves_nothing(tmp_path):
    workdir = opened(tmp_path / "w")
    (tmp_path / "w" / "taken.json").mkdir()
    with pytest.raises(JobError, match="taken.json cannot be written") as caught:
        workdir.write_json("taken.json", {})
    assert caught.value.exit_code == WORKDIR
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["taken.json"]


def test_a_folder_under_a_file_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot be written") as caught:
        opened(tmp_path / "file" / "w")
    assert caught.value.exit_code == WORKDIR


def test_the_metrics_are_what_was_written_at_once_and_what_came_after(tmp_path, splits):
    """Whatever stood there before, a torn line included."""
    workdir = Workdir(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"trial": 0, "epoch": 9}\n{"trial": 0, "ep')
    epochs = list(flat.epochs(splits.train, splits.val, num_epochs=2, batch_size=256, seeds=(0, 1)))
    figures = {name: values[0] for name, values in epochs[0].metrics.items()}
    workdir.write_metrics([{"trial": np.int64(0), "epoch": 1} | figures])
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
