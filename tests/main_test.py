"""The program as a batch system sees it: files, exit codes, and what it says."""

import csv
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.special import log_softmax

from softmax_jax import data

SHORT = ("--config.num_epochs=3",)
FINISHED = (
    "--config=configs/digits.py",
    "--config.train_split=train[:80%]",
    "--config.val_split=train[80%:]",
    "--config.test_split=test",
    *SHORT,
)


@pytest.fixture(scope="module")
def finished(main, tmp_path_factory):
    """One run on digits with a test split: its folder and its output."""
    folder = tmp_path_factory.mktemp("finished")
    done = main(*FINISHED, f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    return folder, done


def _summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_the_folder_holds_what_the_contract_names(finished):
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    pictures = {"curves.png", "confusion.png", "weights.png", "mistakes.png"}
    files = {"config.json", "metrics.jsonl", "trials.csv", "summary.json", "params.npz"}
    assert names == files | pictures | {"checkpoints", ".lock"}
    for name in pictures:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_params_alone_reproduce_the_reported_figures_in_numpy(finished):
    folder, _ = finished
    summary = _summary(folder)
    with np.load(folder / "params.npz", allow_pickle=False) as params:
        W, b, mean, scale = (params[name] for name in ("W", "b", "mean", "scale"))
        assert params["label_names"].tolist() == list("0123456789")
    splits = data.load("digits", "train[:80%]", "train[80%:]", "test")
    figures = {"val": summary["selected"], "test": summary["test"]}
    for role, dataset in (("val", splits.val), ("test", splits.test)):
        x = dataset.x.reshape(len(dataset.y), -1).astype(np.float64)
        logits = ((x - mean) / scale) @ W + b
        loss = -log_softmax(logits, -1)[np.arange(len(x)), dataset.y].mean()
        prefix = "val_" if role == "val" else ""
        assert figures[role][f"{prefix}loss"] == pytest.approx(loss, rel=1e-5)
        accuracy = (logits.argmax(-1) == dataset.y).mean()
        assert figures[role][f"{prefix}accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_metrics_table_and_summary_tell_the_same_story(finished):
    folder, _ = finished
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["trial"], line["epoch"]) for line in lines] == [(0, 1), (0, 2), (0, 3)]
    with open(folder / "trials.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    selected = _summary(folder)["selected"]
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert lines[-1][name] == pytest.approx(float(row[name]))
        assert lines[-1][name] == pytest.approx(selected[name])
    assert (row["learning_rate"], row["momentum"], row["batch_size"]) == ("0.1", "0.9", "64")


def test_summary_and_config_name_the_data_and_the_machine(finished):
    folder, _ = finished
    summary, config = _summary(folder), json.loads((folder / "config.json").read_text())
    assert summary["dataset"] == config["dataset"] == "digits"
    assert summary["num_examples"] == {"train": 1150, "val": 287, "test": 360}
    assert set(summary["seconds"]) == {"data", "training", "selection", "pictures", "studies"}
    assert len(config["fingerprint"]) == 64
    assert config["device_count"] >= 1 and set(config["versions"]) >= {"jax", "flax", "optax"}
    assert config["config"]["batch_size"] == 64


def test_the_log_of_a_batch_job_has_a_line_per_epoch_and_no_control_characters(finished):
    _, done = finished
    lines = done.stdout.splitlines()
    assert "digits" in lines[0] and "cpu" in lines[0]
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout + done.stderr)


@pytest.mark.slow
def test_same_seed_same_bits_and_another_seed_other_weights(main, tmp_path):
    weights = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        arguments = (f"--workdir={tmp_path / name}", f"--config.seed={seed}", *SHORT)
        assert main("--config=configs/digits.py", *arguments).returncode == 0
        weights[name] = (tmp_path / name / "params.npz").read_bytes()
    assert weights["a"] == weights["b"] != weights["c"]


def test_without_the_dataset_the_run_falls_back_loudly(main, tmp_path, offline):
    done = main("--config=configs/default.py", f"--workdir={tmp_path / 'w'}", env=offline)
    assert done.returncode == 0, done.stderr
    assert "TRAINING ON DIGITS INSTEAD" in done.stderr and "TFDS_DATA_DIR" in done.stderr
    summary = _summary(tmp_path / "w")
    assert summary["dataset"] == "digits"
    assert summary["selected"]["val_accuracy"] > 0.85


@pytest.mark.parametrize("dataset", ["fashion_mnist", "no_such_set"])
def test_without_a_fallback_a_missing_dataset_is_exit_2(main, tmp_path, offline, dataset):
    fallback = "" if dataset == "fashion_mnist" else "digits"
    done = main(
        "--config=configs/default.py",
        f"--config.dataset={dataset}",
        f"--config.dataset_fallback={fallback}",
        f"--workdir={tmp_path / 'w'}",
        env=offline,
    )
    _is_one_message(done, 2, dataset if dataset == "no_such_set" else "Fashion-MNIST")
    assert not (tmp_path / "w").exists()


def test_a_folder_that_cannot_be_written_is_exit_3_before_training(main, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = main("--config=configs/digits.py", f"--workdir={tmp_path / 'file' / 'w'}")
    _is_one_message(done, 3, "file")
    assert "epoch" not in done.stdout


def test_a_folder_that_holds_another_job_is_left_alone(main, finished):
    folder, _ = finished
    before = _times(folder)
    done = main(*FINISHED, "--config.l2=0.5", "--config.test_split=", f"--workdir={folder}")
    _is_one_message(done, 3, f"{folder} holds another job:", "--overwrite")
    different = [line for line in done.stderr.splitlines() if "→" in line]
    assert different[0] == "  l2: 0.0 → 0.5" and different[1].startswith("  test_split: ")
    assert _times(folder) == before


def test_the_same_job_again_has_nothing_to_do(main, finished):
    folder, _ = finished
    before = _times(folder)
    done = main(*FINISHED, "--config.chunk=1", "--config.keep=9", f"--workdir={folder}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder} holds this job, finished. Nothing is left to do.\n"
    assert _times(folder) == before


@pytest.mark.slow
def test_overwrite_replaces_all_that_a_job_has_left_and_nothing_else(main, tmp_path):
    """Every kind of result: a new one has to be made known to `contents.clear`."""
    studies = ("--config.audit_folds=2", "--config.learning_curve.sizes=100,200,400")
    more = ("--config.predictions=True", "--config.tensorboard=True")
    swept = ("--config.sweep.learning_rate=0.01,0.1", "--config.sweep.l2=0.0,0.1")
    (tmp_path / "holiday.png").write_bytes(b"mine")
    done = main(*FINISHED, *studies, *more, *swept, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    everything = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert {"audit.png", "sweep.png", "settings.csv", "predictions.npz"} <= everything
    done = main(*FINISHED, "--config.learning_rate=1e38", f"--workdir={tmp_path}", "--overwrite")
    assert done.returncode == 4, done.stderr
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    fresh = {"config.json", "metrics.jsonl", "trials.csv", "summary.json", ".lock"}
    assert left == fresh | {"holiday.png", "checkpoints/00000001.npz"}


def test_divergence_is_exit_4_with_the_rows_kept(main, tmp_path):
    rate = "--config.learning_rate=1e38"
    command = ("--config=configs/digits.py", rate, f"--workdir={tmp_path}", *SHORT)
    done = main(*command)
    assert done.returncode == 4
    assert "diverged" in done.stderr and "learning_rate" in done.stderr
    assert "Traceback" not in done.stderr
    assert main(*command).returncode == 4  # again, though it has nothing left to do
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and lines[-1]["val_loss"] is None
    assert _summary(tmp_path)["selected"] is None
    assert "True" in (tmp_path / "trials.csv").read_text()


def test_seeds_of_which_one_diverges_everywhere_are_exit_4(main, tmp_path):
    """The naive loss near the largest rate that it bears: some seeds diverge, some do not."""
    done = main(
        "--config=configs/scratch.py",
        "--config.dataset=digits",
        "--config.learning_rate=9",
        "--config.sweep.seed=0,1,2,3,4,5",
        f"--workdir={tmp_path}",
        *SHORT,
    )
    assert done.returncode == 4 and "Traceback" not in done.stderr
    assert "Every setting has a diverged trial" in done.stderr
    assert 0 < _summary(tmp_path)["diverged"] <= 6 and _summary(tmp_path)["selected"] is None


def test_any_config_is_sweepable_from_the_shell(main, tmp_path):
    done = main(
        "--config=configs/digits.py",
        "--config.sweep.learning_rate=0.01,0.1",
        "--config.sweep.seed=0,1",
        "--config.sweep.batch_size=64,256",
        "--config.test_split=",
        f"--workdir={tmp_path}",
        *SHORT,
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    settings = {(row["learning_rate"], row["seed"], row["batch_size"]) for row in rows}
    assert len(rows) == len(settings) == 8
    assert (tmp_path / "sweep.png").exists()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 8 * 3


@pytest.mark.parametrize("field", ["folds=3", "bootstraps=4"])
def test_resampling_ends_in_a_refit_on_all_of_train(main, tmp_path, field):
    done = main(
        "--config=configs/digits.py",
        f"--config.{field}",
        "--config.train_split=train",
        "--config.test_split=test",
        "--config.sweep.learning_rate=0.01,0.1",
        f"--workdir={tmp_path}",
        *SHORT,
    )
    assert done.returncode == 0, done.stderr
    summary = _summary(tmp_path)
    assert summary["selected"]["refit"] is True
    assert summary["trials"] == 2 * int(field[-1])
    spread = summary["resampled"]
    assert spread["resamples"] == int(field[-1])
    mean = spread["val_accuracy"]["mean"]
    assert summary["selected"]["val_accuracy"] == pytest.approx(mean)
    assert f"over {field[-1]} resamples: loss" in done.stdout and "optimistic" not in done.stdout
    if field.startswith("bootstraps"):
        low, high = spread["val_accuracy"]["interval"]
        assert low <= mean <= high and "95 % in [" in done.stdout
    splits = data.load("digits", test="test")
    with np.load(tmp_path / "params.npz") as params:
        x = splits.test.x.reshape(len(splits.test.y), -1) / params["scale"]
        predicted = (x @ params["W"] + params["b"]).argmax(-1)
    accuracy = (predicted == splits.test.y).mean()
    assert summary["test"]["accuracy"] == pytest.approx(accuracy)


def test_an_interrupt_ends_the_job_without_a_traceback(tmp_path, environment):
    command = [sys.executable, "main.py", "--config=configs/digits.py", f"--workdir={tmp_path}"]
    job = subprocess.Popen(
        [*command, "--config.num_epochs=1000000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 130
    assert errors == "main.py: stopped by SIGINT; the same command resumes it.\n"
    for line in metrics.read_text().splitlines():
        json.loads(line)


def _times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def _is_one_message(done, code, *texts):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("main.py:") == 1
    for text in texts:
        assert text in done.stderr


def test_help_lists_the_flags(main):
    done = main("--help")
    assert "--config" in done.stdout and "--workdir" in done.stdout
