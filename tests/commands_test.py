"""The commands on finished runs as a shell sees them: output, exit codes, no tracebacks."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softmax_jax import data
from softmax_jax.__main__ import main as run_command
from softmax_jax.classifier import load
from softmax_jax.job import config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def finished(main, tmp_path_factory):
    """A short real sweep on digits, with a test split."""
    folder = tmp_path_factory.mktemp("finished")
    done = main(
        "--config=configs/digits.py",
        "--config.num_epochs=2",
        "--config.train_split=train[:80%]",
        "--config.val_split=train[80%:]",
        "--config.test_split=test",
        "--config.sweep.learning_rate=0.05,0.1",
        f"--workdir={folder}",
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_report_shows_what_the_summary_says(finished, tmp_path, capsys):
    assert run_command(["report", str(finished), f"--output={tmp_path}/report.html"]) == 0
    assert capsys.readouterr().out == f"Written to {tmp_path}/report.html.\n"
    page = (tmp_path / "report.html").read_text()
    summary = json.loads((finished / "summary.json").read_text())
    assert f"{summary['test']['accuracy']:.4f}" in page
    assert summary["selected"]["why"] in page
    assert "confusion</figcaption>" in page


def test_predictions_have_the_accuracy_in_the_summary(finished, tmp_path, capsys):
    splits = data.load("digits", "train[:80%]", "train[80%:]", "test")
    np.save(tmp_path / "images.npy", splits.test.x)
    output = tmp_path / "predictions.csv"
    options = [f"--input={tmp_path}/images.npy", f"--output={output}"]
    assert run_command(["predict", str(finished), *options]) == 0
    assert capsys.readouterr().out == f"360 examples: the predictions are in {output}.\n"
    with open(output, newline="") as file:
        predicted = [int(row["predicted"]) for row in csv.DictReader(file)]
    accuracy = json.loads((finished / "summary.json").read_text())["test"]["accuracy"]
    assert (np.array(predicted) == splits.test.y).mean() == pytest.approx(accuracy)


@pytest.mark.parametrize(
    "arguments, exit_code, message",
    [
        (["report", "none"], 2, "softmax_jax: none holds no run"),
        (["report", "RUN", "--output=none/report.html"], 3, "none/report.html cannot be written"),
        (["predict", "RUN", "--input=none.npy", "--output=x.npz"], 2, "none.npy is not there"),
        (["predict", "RUN", "--input=RUN/W.npy", "--output=x.npz"], 2, "trained on 64 features"),
        (["predict", "RUN", "--input=RUN/x.npy", "--output=x.txt"], 2, "must end in .npz or .csv"),
        (["predict", "RUN", "--input=RUN/x.npy", "--output=none/x.npz"], 3, "cannot be written"),
        (["export", "RUN", "--output=x.pt"], 2, "must end in .npz, .safetensors, .onnx"),
        (["export", "RUN", "--output=none/x.onnx"], 3, "cannot be written"),
        (["export", "none", "--output=x.onnx"], 2, "params.npz is not there"),
        (["predict", "none", "--input=RUN/x.npy", "--output=x.npz"], 2, "params.npz is not there"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(finished, capsys, arguments, exit_code, message):
    np.save(finished / "W.npy", np.zeros((3, 5)))
    np.save(finished / "x.npy", np.zeros((3, 64)))
    arguments = [argument.replace("RUN", str(finished)) for argument in arguments]
    assert run_command(arguments) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.removeprefix("Note")
    assert err.strip().count("\n") <= 1


def test_train_is_main(finished, environment, tmp_path):
    line = [sys.executable, "-m", "softmax_jax", "train", "--config=digits"]
    fields = json.loads((finished / "config.json").read_text())["config"]
    names = ("num_epochs", "train_split", "val_split", "test_split")
    line += [f"--config.{name}={fields[name]}" for name in names]
    line += ["--config.sweep.learning_rate=0.05,0.1", f"--workdir={tmp_path / 'run'}"]
    options = {"capture_output": True, "text": True, "timeout": 120, "check": False}
    env = environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=env, **options)
    assert done.returncode == 0, done.stderr
    for name in ("params.npz", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    wrong = subprocess.run([*line, "--config.num_epoch=3"], cwd=tmp_path, env=env, **options)
    assert wrong.returncode == 2 and wrong.stderr.startswith("softmax_jax: The config has no field")


@pytest.mark.parametrize("name", ["m.npz", "m.safetensors", "m.onnx"])
def test_export_writes_the_file(finished, tmp_path, capsys, name):
    output = tmp_path / name
    assert run_command(["export", str(finished), f"--output={output}"]) == 0
    assert capsys.readouterr().out == f"Written to {output}.\n" and output.stat().st_size > 2000
    if name == "m.npz":
        assert np.array_equal(load(output).W, load(finished).W)
        assert run_command(["export", str(output), f"--output={tmp_path}/again.onnx"]) == 0


def test_configs_lists_and_describes(capsys):
    assert run_command(["configs"]) == 0
    out = capsys.readouterr().out
    assert config.list_configs() in out and "softmax-jax train --config=NAME" in out
    assert run_command(["configs", "probe"]) == 0
    assert capsys.readouterr().out == f"{config.describe_config('probe')}\n"
    for name in ("prob", "configs/probe.py"):
        assert run_command(["configs", name]) == 2
        assert "probe" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, exit_code",
    [([], 2), (["conquer"], 2), (["report"], 2), (["predict", "x"], 2), (["--help"], 0)],
)
def test_help_is_shown_with_every_mistake_in_the_command(capsys, arguments, exit_code):
    with pytest.raises(SystemExit) as caught:
        run_command(arguments)
    assert caught.value.code == exit_code
    shown = "".join(capsys.readouterr())
    assert "usage: python -m softmax_jax" in shown
    assert "show this help message" in shown


def test_the_program_runs_as_a_module(environment, tmp_path):
    line = [sys.executable, "-m", "softmax_jax", "report", str(tmp_path)]
    options = {"capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run(line, cwd=ROOT, env=environment, check=False, **options)
    assert done.returncode == 2
    assert "holds no run" in done.stderr
    assert "Traceback" not in done.stderr
