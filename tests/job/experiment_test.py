"""The job as a function: its exit codes, and what it leaves alone."""

import contextlib
import os
import signal
import threading
import time

import pytest

from softmax_jax.host import DIVERGED, DONE, USAGE, WORKDIR
from softmax_jax.job import run


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, DONE),
        ({"learning_rate": -1.0}, USAGE),
        ({"batch_size": 10**6}, USAGE),
        ({"train_split": "nope"}, USAGE),
        ({"learning_rate": 1e38}, DIVERGED),
    ],
)
def test_the_exit_code_tells_what_happened(config, tmp_path, fields, code, capsys):
    config.update(fields)
    assert run.main(config, tmp_path / "w") == code
    assert (tmp_path / "w" / "summary.json").exists() == (code in (DONE, DIVERGED))
    assert (tmp_path / "w" / "params.npz").exists() == (code == DONE)
    assert bool(capsys.readouterr().err) == (code != DONE)


def test_an_unusable_folder_has_a_code_of_its_own(config, tmp_path):
    (tmp_path / "file").write_text("")
    assert run.main(config, tmp_path / "file" / "w") == WORKDIR


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_cannot_be_run_replaces_nothing_even_if_it_may(config, tmp_path, capsys):
    assert run.main(config, tmp_path) == DONE
    before = times(tmp_path)
    config.folds = 500
    assert run.main(config, tmp_path, overwrite=True) == USAGE
    assert "folds must be" in capsys.readouterr().err
    assert before.pop(".lock") and before == {
        name: when for name, when in times(tmp_path).items() if name != ".lock"
    }


def test_a_refused_config_does_not_keep_its_folder(config, tmp_path):
    config.folds = 500
    assert run.main(config, tmp_path) == USAGE
    config.folds = 0
    assert run.main(config, tmp_path) == DONE


def test_a_job_that_another_process_ended_meanwhile_is_not_begun_anew(
    config, tmp_path, monkeypatch, capsys
):
    """Between the first look into the folder and its lock."""
    held, times_between = run.locked, []

    @contextlib.contextmanager
    def held_after_another(folder):
        if not times_between:
            times_between.append(None)
            assert run.main(config, folder) == DONE
            times_between.append(times(folder))
            capsys.readouterr()
        with held(folder) as warning:
            yield warning

    monkeypatch.setattr(run, "locked", held_after_another)
    assert run.main(config, tmp_path) == DONE
    assert "holds this job, finished" in capsys.readouterr().out
    after = times(tmp_path)
    del after[".lock"], times_between[1][".lock"]
    assert after == times_between[1]


def test_a_job_in_a_fresh_folder_says_how_it_is_gone_on_with(config, tmp_path, monkeypatch, capsys):
    def stop_it():
        while not list(tmp_path.glob("runs/*/metrics.jsonl")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    config.num_epochs = 10**4
    watcher = threading.Thread(target=stop_it)
    watcher.start()
    assert run.main(config) == 143
    watcher.join()
    (folder,) = tmp_path.glob("runs/*")
    said = capsys.readouterr().err
    assert said == (
        f"main.py: stopped by SIGTERM; the same command with --workdir=runs/{folder.name} "
        "resumes it.\n"
    )
