"""Whose a folder is and how far the job in it came is told from its files, and only its own go."""

import json
import os

import pytest

from softmax_jax.host import DIVERGED, DONE, WORKDIR, JobError
from softmax_jax.job import workdir

JOB = {"config": {"l2": 0.0}, "data": {"name": "digits", "fingerprint": "ab"}}


def write(folder, *names, text=""):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def folder(tmp_path):
    """A folder that holds JOB."""
    write(tmp_path, "config.json", text=json.dumps({"config": {}, "job": JOB}))
    return tmp_path


def refused(call, *arguments):
    with pytest.raises(JobError) as error:
        call(*arguments)
    assert error.value.exit_code == WORKDIR
    return str(error.value)


def test_a_folder_says_which_job_it_holds(folder):
    assert workdir.job_in(folder) == JOB
    assert workdir.holds(folder, JOB)


def test_no_folder_an_empty_one_and_one_of_other_things_hold_none(tmp_path):
    write(tmp_path, "file", "holiday.png", "checkpoints/model.npz", "data.npz")
    for folder in (None, tmp_path, tmp_path / "missing", tmp_path / "file"):
        assert workdir.job_in(folder) is None and not workdir.holds(folder, JOB)


def test_another_job_is_refused_with_the_fields_that_differ(folder):
    other = {"config": {"l2": 0.1}, "data": JOB["data"] | {"fingerprint": "cd"}}
    message = refused(workdir.holds, folder, other)
    assert '  l2: 0.0 → 0.1\n  data.fingerprint: "ab" → "cd"\n' in message
    assert "--overwrite" in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"job": null}',
        '{"job": {"config": {}}}',
        '{"job": {"config": {}, "data": {"name": 3}}}',
        '{"job": {"config": [], "data": {"name": "digits"}}}',
        "\ud800",
    ],
)
def test_a_damaged_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    message = refused(workdir.job_in, tmp_path)
    assert "config.json is not this program's, or damaged (" in message and "--overw" in message


def test_a_config_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "config.json").mkdir()
    assert "cannot be read: Is a directory" in refused(workdir.job_in, tmp_path)
    assert "cannot be read: File name too long" in refused(workdir.job_in, tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", ["summary.json", "params.npz", "checkpoints/00000001.npz"])
def test_results_without_a_config_are_refused_as_nobody_knows_of_which_job(tmp_path, name):
    write(tmp_path, name)
    assert f"holds {name}, and no config.json" in refused(workdir.job_in, tmp_path)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"selected": {"trial": 0}}', DONE),
        ('{"selected": null}', DIVERGED),
        ("{", None),
        ("[]", None),
        ("{}", None),
    ],
)
def test_the_summary_tells_how_the_job_ended(tmp_path, text, code):
    assert workdir.outcome(tmp_path) is None
    write(tmp_path, "summary.json", text=text)
    assert workdir.outcome(tmp_path) == code


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_a_job_left_is_deleted_and_nothing_else(folder):
    mine = ("summary.json", "trials.csv", "curves.png", "checkpoints/00000012.npz")
    mine += ("checkpoints/00000011.npz.damaged",)
    mine += ("tensorboard/trial_3/events.out.tfevents.17.softmax_jax",)
    yours = ["checkpoints/model.npz", "holiday.png", "tensorboard/notes", "trials.csv.bak"]
    write(folder, *mine, *yours)
    workdir.clear(folder)
    assert files(folder) == yours


def test_the_config_is_the_last_to_go(folder):
    """So that whatever interrupts it, the rest still belongs to somebody."""
    write(folder, "params.npz/in the way", "summary.json")
    assert "params.npz cannot be written" in refused(workdir.clear, folder)
    assert files(folder) == ["config.json", "params.npz/in the way"]


def test_only_half_written_files_of_ours_are_tidied_up(folder):
    random = os.urandom(16).hex()
    write(folder, f"metrics.jsonl.{random}.tmp", f"config.json.{random}.tmp", "params.npz")
    yours = [f"notes.txt.{random}.tmp", "params.npz.old.tmp"]
    write(folder, *yours)
    workdir.tidy(folder)
    assert files(folder) == ["config.json", *yours[:1], "params.npz", *yours[1:]]
