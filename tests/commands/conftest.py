"""Folders of runs as the contract describes them, written by hand: whole, unfinished, hostile."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

RATES, PENALTIES, SEEDS, EPOCHS = (0.1, 0.5), (0.0, 0.01), (0, 1), 4
NAMES = ("ant", "bee", "cat")
FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


@pytest.fixture(scope="session")
def picture():
    """A small PNG."""
    content = io.BytesIO()
    Image.new("RGB", (3, 2), "teal").save(content, "png")
    return content.getvalue()


@pytest.fixture(scope="session")
def write_run(picture):
    """write_run(folder, label_names): the folder of a finished sweep of 4 settings × 2 seeds."""

    def write(folder, label_names=NAMES):
        folder.mkdir(parents=True, exist_ok=True)
        trials = [(rate, l2, seed) for rate in RATES for l2 in PENALTIES for seed in SEEDS]
        values = np.random.default_rng(0).uniform(0.2, 0.8, (EPOCHS, len(trials), len(FIGURES)))
        values[:, 5, 2] += 1.0  # trial 5 is by far the worst
        values = values.round(4)
        _write_config(folder)
        _write_metrics(folder, values)
        _write_tables(folder, trials, values[-1])
        _write_summary(folder, trials, values[-1])
        write_params(folder, label_names)
        for name in ("curves", "sweep", "confusion", "weights"):
            (folder / f"{name}.png").write_bytes(picture)
        return folder

    return write


@pytest.fixture
def run_folder(write_run, tmp_path):
    """The folder of a finished sweep."""
    return write_run(tmp_path / "my run")


def write_params(folder, names=NAMES, **changes):
    """params.npz of a model of 4 features, with the given arrays instead of its own."""
    rng = np.random.default_rng(1)
    arrays = {
        "W": rng.normal(size=(4, len(names))).astype(np.float32),
        "b": rng.normal(size=len(names)).astype(np.float32),
        "mean": np.arange(4, dtype=np.float32),
        "scale": np.float32(2.0),
        "label_names": np.array(names),
    }
    np.savez(folder / "params.npz", **(arrays | changes))


@pytest.fixture(name="write_params", scope="session")
def _write_params():
    return write_params


def _write_config(folder):
    config = {
        "dataset": "digits",
        "dataset_fallback": "digits",
        "num_epochs": EPOCHS,
        "select_metric": "val_loss",
        "learning_rate": 0.1,
        "sweep": {"learning_rate": RATES, "l2": PENALTIES, "seed": SEEDS, "batch_size": []},
    }
    content = {
        "config": config,
        "versions": {"jax": "0.10.2"},
        "backend": "cpu",
        "dataset": "digits",
        "fingerprint": "3aeeb91e",
    }
    (folder / "config.json").write_text(json.dumps(content))


def _write_metrics(folder, values):
    lines = [
        {"trial": trial, "epoch": epoch} | dict(zip(FIGURES, figures, strict=True))
        for epoch, trials in enumerate(values.tolist(), 1)
        for trial, figures in enumerate(trials)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_tables(folder, trials, last):
    rows = [
        {"trial": number, "learning_rate": rate, "l2": l2, "seed": seed, "batch_size": 64}
        | dict(zip(FIGURES, last[number].tolist(), strict=True))
        for number, (rate, l2, seed) in enumerate(trials)
    ]
    _write_csv(folder / "trials.csv", rows)
    pairs = last.reshape(-1, len(SEEDS), len(FIGURES))
    rows = []
    for number, figures in enumerate(pairs):
        row = {
            "setting": number,
            "learning_rate": trials[2 * number][0],
            "l2": trials[2 * number][1],
        }
        for name, column in zip(FIGURES, figures.T, strict=True):
            row |= {f"{name}_mean": column.mean(), f"{name}_sd": column.std(ddof=1)}
        rows.append(row | {"batch_size": 64})
    _write_csv(folder / "settings.csv", rows)


def _write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _write_summary(folder, trials, last):
    best = int(last.reshape(-1, len(SEEDS), len(FIGURES))[..., 2].mean(1).argmin()) * len(SEEDS)
    rate, l2, seed = trials[best]
    summary = {
        "dataset": "digits",
        "num_examples": {"train": 1437, "val": 360, "test": 180},
        "val_is_test": False,
        "trials": len(trials),
        "diverged": 0,
        "selected": {
            "trial": best,
            "hyperparameters": {"learning_rate": rate, "l2": l2, "seed": seed, "batch_size": 64},
            "epoch": EPOCHS,
            **dict(zip(FIGURES, last[best].tolist(), strict=True)),
            "refit": False,
            "why": "smallest val_loss of 4 settings",
            "hints": ["extend l2 downwards"],
        },
        "resampled": None,
        "test": {
            "loss": 0.5101,
            "accuracy": 0.8222,
            "loss_interval": [0.4901, 0.5301],
            "accuracy_interval": [0.7601, 0.8712],
        },
        "seconds": {"data": 0.5, "training": 1.5},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
