"""What tests of several rooms share: programs, a small sweep, and folders of runs by hand."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from PIL import Image

# Every call that the tests make in this process is held to annotations, shapes included; an int
# passes for a float. SOFTMAX_JAX_TYPES=0 leaves that out.
if os.environ.get("SOFTMAX_JAX_TYPES") != "0":
    jaxtyping.install_import_hook(
        "softmax_jax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    )

RATES, PENALTIES, SEEDS, EPOCHS = (0.1, 0.5), (0.0, 0.01), (0, 1), 4
NAMES = ("ant", "bee", "cat")
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def pytest_configure(config):
    """Compiled programs are kept in .pytest_cache, for all workers and the programs they start."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and hasattr(config, "cache"):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("xla"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # The plain tests compile more than they compute, and compile in half the time like this. The
    # slow ones, and the numerical ones of .ci/run, have the programs that users run.
    if config.option.markexpr == "not slow":
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="module", autouse=True)
def programs_of_this_file():
    """Compiled programs go with the file that made them; a process has 65,530 memory maps."""
    yield
    import jax  # after `pytest_configure`, which says where compiled programs are kept

    jax.clear_caches()


@pytest.fixture
def untyped():
    """The test breaks the annotations on purpose, for the messages of the package's own checks."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def fashion_mnist_dir() -> Path:
    """The TFDS data folder that holds Fashion-MNIST; the test is skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "tensorflow_datasets"
    for folder in (os.environ.get("TFDS_DATA_DIR"), beside):
        if folder and (Path(folder) / "fashion_mnist").is_dir():
            return Path(folder)
    pytest.skip("Fashion-MNIST is not prepared here: set TFDS_DATA_DIR to the folder that holds it")


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict:
    """The environment of the programs that tests start: caches of their own, for this session."""
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def offline(environment, tmp_path) -> dict:
    """No prepared dataset, and a network that refuses at once: its proxy is a closed port."""
    hidden = {"HOME": str(tmp_path), "http_proxy": "http://127.0.0.1:9", "TFDS_DATA_DIR": ""}
    return environment | hidden | {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture(scope="session")
def main(environment):
    """main(*arguments, env=...) runs `python main.py` and returns the finished process."""

    def run(*arguments, env=environment):
        command = [sys.executable, "main.py", *arguments]
        root = Path(__file__).parents[1]
        return subprocess.run(
            command, cwd=root, env=env, capture_output=True, text=True, timeout=300, check=False
        )

    return run


@pytest.fixture
def config():
    """The default config for a short job on digits, unlocked."""
    from configs import default

    config = default.get_config().unlock()
    config.dataset = "digits"
    config.num_epochs = 2
    return config


@pytest.fixture(scope="session")
def splits():
    """Digits: 1,437 train, 360 val, and the same 360 as test."""
    from softmax_jax import data

    return data.load("digits", test="test")


@pytest.fixture(scope="session")
def result(splits):
    """Learning rate × l2 under two seeds, three epochs; trials 0..3 are seed 0, 4..7 seed 1."""
    from softmax_jax import sweep

    settings = sweep.grid(learning_rate=(0.1, 0.5), l2=(0.0, 0.1))
    return sweep.fit(splits.train, splits.val, settings, num_epochs=3, batch_size=64, seeds=(0, 1))


@pytest.fixture
def compilations():
    """A list that grows by one with every program that XLA compiles."""
    import jax

    seen = []

    def listen(event, _seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


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
        values = np.random.default_rng(0).uniform(0.2, 0.8, (EPOCHS, len(trials), len(METRICS)))
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
        {"trial": trial, "epoch": epoch} | dict(zip(METRICS, values, strict=True))
        for epoch, trials in enumerate(values.tolist(), 1)
        for trial, values in enumerate(trials)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_tables(folder, trials, last):
    rows = [
        {"trial": number, "learning_rate": rate, "l2": l2, "seed": seed, "batch_size": 64}
        | dict(zip(METRICS, last[number].tolist(), strict=True))
        for number, (rate, l2, seed) in enumerate(trials)
    ]
    _write_csv(folder / "trials.csv", rows)
    pairs = last.reshape(-1, len(SEEDS), len(METRICS))
    rows = []
    for number, values in enumerate(pairs):
        row = {
            "setting": number,
            "learning_rate": trials[2 * number][0],
            "l2": trials[2 * number][1],
        }
        for name, column in zip(METRICS, values.T, strict=True):
            row |= {f"{name}_mean": column.mean(), f"{name}_sd": column.std(ddof=1)}
        rows.append(row | {"batch_size": 64})
    _write_csv(folder / "settings.csv", rows)


def _write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _write_summary(folder, trials, last):
    best = int(last.reshape(-1, len(SEEDS), len(METRICS))[..., 2].mean(1).argmin()) * len(SEEDS)
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
            **dict(zip(METRICS, last[best].tolist(), strict=True)),
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
