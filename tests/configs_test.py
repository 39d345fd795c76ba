"""Every config runs; and on the real data every lab note is held to what it says."""

import csv
import importlib
import itertools
import json
from pathlib import Path

import pytest

from softmax_jax.job import config as rules

NAMES = sorted(
    path.stem for path in Path(__file__).parents[1].glob("configs/*.py") if path.stem != "__init__"
)
# What makes any config short and independent of a download.
SMALL = ("--config.dataset=digits", "--config.train_split=train[:80%]", "--config.num_epochs=2")


@pytest.mark.parametrize("name", NAMES)
def test_the_config_is_valid_and_documented(name):
    module = importlib.import_module(f"configs.{name}")
    assert rules.problems(module.get_config()) == []
    assert f"python main.py --config=configs/{name}.py" in module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_the_config_runs_on_digits(main, tmp_path, name):
    small = [*SMALL, "--config.val_split=train[80%:]", "--config.test_split=test"]
    if name == "batch_size":
        small.append("--config.sweep.batch_size=1,32,1150")
    done = main(f"--config=configs/{name}.py", *small, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["dataset"] == "digits"


def _real(main, environment, fashion_mnist_dir, folder, name, *arguments):
    done = main(
        f"--config=configs/{name}.py",
        "--config.dataset_fallback=",
        f"--workdir={folder}",
        *arguments,
        env=environment | {"TFDS_DATA_DIR": str(fashion_mnist_dir)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "summary.json").read_text())


def _means(folder, axis, figure):
    """{value of the axis: mean of the figure over the seeds}, from settings.csv."""
    with open(folder / "settings.csv", newline="") as file:
        return {row[axis]: float(row[f"{figure}_mean"]) for row in csv.DictReader(file)}


@pytest.mark.slow
def test_the_book_runs_reach_the_accuracy_they_claim(
    main, environment, fashion_mnist_dir, tmp_path
):
    reached = {}
    for name in ("default", "scratch"):
        folder = tmp_path / name
        summary = _real(main, environment, fashion_mnist_dir, folder, name)
        assert summary["num_examples"] == {"train": 60000, "val": 10000, "test": 0}
        reached[name] = summary["selected"]["val_accuracy"]
        assert summary["selected"]["val_loss"] == pytest.approx(0.48, abs=0.02)
    assert 0.82 <= reached["default"] <= 0.85
    assert abs(reached["default"] - reached["scratch"]) <= 0.01


@pytest.mark.slow
def test_digits_reach_what_their_note_claims(main, tmp_path):
    done = main("--config=configs/digits.py", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    selected = json.loads((tmp_path / "summary.json").read_text())["selected"]
    assert selected["val_loss"] == pytest.approx(0.13, abs=0.015)
    assert selected["val_accuracy"] == pytest.approx(0.96, abs=0.01)


@pytest.mark.slow
def test_the_best_learning_rate_is_an_inner_one(main, environment, fashion_mnist_dir, tmp_path):
    selected = _real(main, environment, fashion_mnist_dir, tmp_path, "learning_rate")["selected"]
    assert selected["hyperparameters"]["learning_rate"] == 0.1
    assert selected["hints"] == []
    loss = _means(tmp_path, "learning_rate", "val_loss")
    assert loss["0.1"] == pytest.approx(0.483, abs=0.01)
    assert loss["0.001"] == pytest.approx(1.03, abs=0.01)
    assert 0.5 < loss["0.2"] < loss["0.3"] < loss["1.0"]
    accuracy = _means(tmp_path, "learning_rate", "val_accuracy")
    assert accuracy["0.1"] == pytest.approx(0.83, abs=0.01)
    assert accuracy["1.0"] > 0.7


@pytest.mark.slow
def test_the_losses_leave_the_spread_of_the_seeds_where_the_note_says(
    main, environment, fashion_mnist_dir, tmp_path
):
    _real(main, environment, fashion_mnist_dir, tmp_path, "batch_size")
    loss = _means(tmp_path, "batch_size", "val_loss")
    assert min(loss, key=loss.get) == "64"
    assert loss["64"] == pytest.approx(0.472, abs=0.01)
    assert loss["256"] == pytest.approx(0.483, abs=0.01)
    large = [loss[size] for size in ("256", "1024", "4096", "16384", "60000")]
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(large))
    assert loss["16"] > 0.5 and loss["4"] > 0.8 and loss["1"] > 2


@pytest.mark.slow
def test_the_grid_reaches_the_test_figures_it_claims(
    main, environment, fashion_mnist_dir, tmp_path
):
    summary = _real(main, environment, fashion_mnist_dir, tmp_path, "grid")
    assert summary["num_examples"] == {"train": 50000, "val": 10000, "test": 10000}
    assert summary["test"]["accuracy"] == pytest.approx(0.838, abs=0.005)
    assert summary["selected"]["val_loss"] == pytest.approx(0.43, abs=0.01)
    assert summary["test"]["loss"] == pytest.approx(0.459, abs=0.015)
    assert summary["selected"]["hyperparameters"]["learning_rate"] == pytest.approx(0.2)
    assert summary["selected"]["hyperparameters"]["l2"] <= 1e-4
    low, high = summary["test"]["accuracy_interval"]
    assert low < summary["test"]["accuracy"] < high and high - low < 0.02
