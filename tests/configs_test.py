"""Every config runs, and on the real data reaches what its lab note claims."""

import csv
import importlib
import itertools
import json

import pytest

from softmax_jax.configs import default as default_config
from softmax_jax.host import JobError
from softmax_jax.hyperparameters import TABLE
from softmax_jax.job import config
from tests.programs import run_each

NAMES = [*config.shipped_configs()]
# What makes any config short and independent of a download.
SMALL = {
    "dataset": "digits",
    "train_split": "train[:80%]",
    "val_split": "train[80%:]",
    "test_split": "test",
    "num_epochs": 2,
}
# What else some of them need.
SMALL_OF = {
    "batch_size": {"sweep.batch_size": "1,32,1150"},
    "large_vocabulary": {
        "dataset": "bigram:300",
        "train_split": "train[:2000]",
        "val_split": "train[5000:6000]",
        "num_samples": 50,
    },
    "learning_curve": {
        "learning_curve.sizes": "20,100,400",
        "learning_curve.seeds": 1,
        "audit_folds": 2,
    },
    "medical": {"dataset": "breast_cancer", "bootstraps": 2},
    "probe": {"l2_path": 3},
    "sparse_path": {"dataset": "breast_cancer", "l1_path": 3, "folds": 2},
    "imagenet_probe": {"sweep.l2": "0.001,0.1"},
}
# They compile a program for every number of remaining trials.
LONG = ("imagenet_probe", "learning_curve", "medical", "probe", "sparse_path")


@pytest.mark.parametrize("name", NAMES)
def test_config_is_valid_and_documented(name):
    module = importlib.import_module(f"configs.{name}")
    assert config.config_problems(module.get_config()) == []
    assert f"python main.py --config=configs/{name}.py" in module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_config_is_described_with_its_value_and_meaning(name):
    module = importlib.import_module(f"softmax_jax.configs.{name}")
    shown = config.describe_config(name)
    assert shown.startswith(module.__doc__.strip())
    own, default = module.get_config(), default_config.get_config()
    for field in config.RULES:
        value, usual = (config.field_value(one, field) for one in (own, default))
        line = f"\n  {field} = {value!r}" + f"  (default: {usual!r})" * (value != usual) + "\n"
        assert shown.count(line) == 1, field
        meaning = shown.partition(line)[2]
        assert meaning.startswith("      ") or field.startswith("mesh."), field
    for row in TABLE:
        assert " ".join(row.doc.split()) in " ".join(shown.split())
    for axis, values in own.sweep.items():
        assert (f"\n  sweep.{axis} = {values!r}" in shown) == bool(values)


def test_configs_are_listed_with_the_first_line_of_their_notes():
    lines = config.list_configs().splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    for name, line in zip(NAMES, lines, strict=True):
        first = importlib.import_module(f"configs.{name}").__doc__.splitlines()[0]
        assert line.split(maxsplit=1)[1] == first


def test_a_name_means_the_config_that_ships_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = config.shipped_configs()
    assert config.config_path("probe") == str(shipped["probe"])
    assert config.config_path("probe:text:more") == f"{shipped['probe']}:text:more"
    (tmp_path / "probe").mkdir()
    (tmp_path / "mine").mkdir()
    assert config.config_path("probe") == str(shipped["probe"])
    (tmp_path / "grid").touch()
    for path in ("grid", "mine", "configs/grid.py", "./probe", "probe.py", ""):
        assert config.config_path(path) == path
    for name in ("prob", "bigram", "__init__", "x" * 999):
        with pytest.raises(JobError, match="No config is called .*there are|did you mean probe"):
            config.config_path(name)


def test_configs_run_on_small_data(environment, tmp_path):
    assert_run([name for name in NAMES if name not in LONG], environment, tmp_path)


@pytest.mark.slow
def test_long_configs_run_on_small_data(environment, tmp_path):
    assert_run(LONG, environment, tmp_path)


def assert_run(names, environment, folder):
    fields = {name: SMALL | SMALL_OF.get(name, {}) for name in names}
    commands = [
        [
            f"--config=configs/{name}.py",
            *(f"--config.{field}={value}" for field, value in fields[name].items()),
            f"--workdir={folder / name}",
        ]
        for name in names
    ]
    for name, done in zip(names, run_each(environment, commands), strict=True):
        assert done.returncode == 0, (name, done.stderr)
        summary = json.loads((folder / name / "summary.json").read_text())
        assert summary["dataset"] == fields[name]["dataset"]


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


def _means(folder, axis, metric):
    """{value of the axis: mean of the metric over the seeds}, from settings.csv."""
    with open(folder / "settings.csv", newline="") as file:
        return {row[axis]: float(row[f"{metric}_mean"]) for row in csv.DictReader(file)}


@pytest.mark.slow
def test_book_runs_reach_the_accuracy_of_their_notes(
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
def test_digits_reach_the_metrics_of_their_note(main, tmp_path):
    done = main("--config=configs/digits.py", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    selected = json.loads((tmp_path / "summary.json").read_text())["selected"]
    assert selected["val_loss"] == pytest.approx(0.13, abs=0.015)
    assert selected["val_accuracy"] == pytest.approx(0.96, abs=0.01)


@pytest.mark.slow
def test_best_learning_rate_is_inside_the_swept_range(
    main, environment, fashion_mnist_dir, tmp_path
):
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
def test_losses_by_batch_size_match_the_note(main, environment, fashion_mnist_dir, tmp_path):
    _real(main, environment, fashion_mnist_dir, tmp_path, "batch_size")
    loss = _means(tmp_path, "batch_size", "val_loss")
    assert min(loss, key=loss.get) == "64"
    assert loss["64"] == pytest.approx(0.472, abs=0.01)
    assert loss["256"] == pytest.approx(0.483, abs=0.01)
    large = [loss[size] for size in ("256", "1024", "4096", "16384", "60000")]
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(large))
    assert loss["16"] > 0.5 and loss["4"] > 0.8 and loss["1"] > 2


@pytest.mark.slow
def test_grid_reaches_the_test_metrics_of_its_note(main, environment, fashion_mnist_dir, tmp_path):
    summary = _real(main, environment, fashion_mnist_dir, tmp_path, "grid")
    assert summary["num_examples"] == {"train": 50000, "val": 10000, "test": 10000}
    assert summary["test"]["accuracy"] == pytest.approx(0.842, abs=0.005)
    assert summary["selected"]["val_loss"] == pytest.approx(0.425, abs=0.01)
    assert summary["test"]["loss"] == pytest.approx(0.453, abs=0.015)
    assert summary["selected"]["hyperparameters"]["learning_rate"] == pytest.approx(0.2)
    assert summary["selected"]["hyperparameters"]["l2"] <= 1e-4
    low, high = summary["test"]["accuracy_interval"]
    assert low < summary["test"]["accuracy"] < high and high - low < 0.02


@pytest.mark.slow
def test_regularisation_helps_as_much_as_the_note_claims(
    main, environment, fashion_mnist_dir, tmp_path
):
    selected = _real(main, environment, fashion_mnist_dir, tmp_path, "overfit")["selected"]
    assert selected["trial"] == 6 and selected["hints"] == []
    with open(tmp_path / "settings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    loss = [float(row["val_loss_mean"]) for row in rows]
    assert loss == pytest.approx([0.792, 0.644, 0.647, 0.720, 0.701, 0.756, 0.633], abs=0.015)
    accuracy = [float(row["val_accuracy_mean"]) for row in rows]
    assert accuracy == pytest.approx([0.782, 0.784, 0.785, 0.783, 0.785, 0.772, 0.790], abs=0.007)
    assert float(rows[1]["val_loss_sd"]) > 0.005 > 0.001 > float(rows[6]["val_loss_sd"])
    with open(tmp_path / "trials.csv", newline="") as file:
        stopped = [row for row in csv.DictReader(file) if float(row["patience"])]
    for row in stopped:
        assert 45 <= int(row["best_epoch"]) <= 70
        assert int(row["stopped_epoch"]) == int(row["best_epoch"]) + 20


@pytest.mark.slow
def test_unregularised_validation_loss_rises_while_accuracy_stays(
    main, environment, fashion_mnist_dir, tmp_path
):
    alone = ("--config.combine=product", "--config.schedule=constant", "--config.sweep.seed=0")
    none = [f"--config.sweep.{name}=()" for name in importlib.import_module("configs.overfit").OFF]
    _real(main, environment, fashion_mnist_dir, tmp_path, "overfit", *alone, *none)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    curve = {line["epoch"]: line for line in map(json.loads, lines)}
    train = [curve[epoch]["train_loss"] for epoch in range(50, 501, 50)]
    assert all(later < earlier for earlier, later in itertools.pairwise(train))
    assert train[-1] < 0.05 and curve[500]["train_accuracy"] == 1
    best = min(curve, key=lambda epoch: curve[epoch]["val_loss"])
    assert 45 <= best <= 70 and curve[best]["val_loss"] == pytest.approx(0.65, abs=0.01)
    assert curve[500]["val_loss"] > 1.18 * curve[best]["val_loss"]
    late = [curve[epoch]["val_accuracy"] for epoch in range(481, 501)]
    peak = [curve[epoch]["val_accuracy"] for epoch in range(80, 221)]
    assert abs(sum(peak) / len(peak) - sum(late) / len(late)) < 0.004


@pytest.mark.slow
def test_probe_reaches_the_test_metrics_of_its_note(main, environment, fashion_mnist_dir, tmp_path):
    splits = ("--config.train_split=train[:50000]", "--config.val_split=train[50000:]")
    # A few penalties of the path, around the one that wins on the whole of it.
    path = ("--config.l2_path=0", "--config.sweep.l2=1.2e-3,3.32e-3,9.17e-3")
    summary = _real(main, environment, fashion_mnist_dir, tmp_path, "probe", *splits, *path)
    selected, test = summary["selected"], summary["test"]
    assert selected["refit"] and selected["hyperparameters"]["l2"] == pytest.approx(3.32e-3)
    assert selected["val_loss"] == pytest.approx(0.411, abs=0.003)
    assert test["accuracy"] >= 0.842 and test["loss"] <= 0.440
    assert selected["gap_bound"] <= 1e-4 * selected["objective"]


@pytest.mark.slow
def test_cost_rule_saves_what_the_medical_note_claims(main, tmp_path):
    done = main("--config=configs/medical.py", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    resampled = json.loads((tmp_path / "summary.json").read_text())["decisions"]["resampled"]
    assert resampled["argmax"]["cost"]["mean"] == pytest.approx(0.201, abs=0.01)
    assert resampled["bayes"]["cost"]["mean"] == pytest.approx(0.122, abs=0.01)
    assert resampled["saving"]["mean"] == pytest.approx(0.079, abs=0.01)
    recall = {rule: resampled[rule]["recall"]["malignant"]["mean"] for rule in ("argmax", "bayes")}
    assert recall["bayes"] > recall["argmax"]


@pytest.mark.slow
def test_the_sparse_path_leaves_as_few_features_as_its_note_says(main, tmp_path):
    done = main("--config=configs/sparse_path.py", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    selected = summary["selected"]
    assert selected["hyperparameters"]["l1"] == pytest.approx(0.0136, rel=0.1)
    assert selected["val_loss"] == pytest.approx(0.111, abs=0.005)
    assert selected["gap_bound"] <= 1e-4 * selected["objective"]
    assert summary["test"]["accuracy"] == pytest.approx(0.974, abs=0.01)
    with open(tmp_path / "settings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    best = min(rows, key=lambda row: float(row["val_loss_mean"]))
    assert len(rows) == 100 and float(best["val_loss_mean"]) == pytest.approx(0.085, abs=0.003)
    assert float(best["l1"]) == pytest.approx(0.002, rel=0.3)
    with open(tmp_path / "coefficients.csv", newline="") as file:
        features = {row["feature"] for row in csv.DictReader(file)} - {"intercept"}
    assert 8 <= len(features) <= 10
    assert (tmp_path / "path.png").exists()


@pytest.mark.slow
def test_more_data_improve_accuracy_as_the_learning_curve_claims(
    main, environment, fashion_mnist_dir, tmp_path
):
    summary = _real(main, environment, fashion_mnist_dir, tmp_path, "learning_curve")
    with open(tmp_path / "learning_curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for size, expected in ((100, 0.714), (10_000, 0.835), (60_000, 0.846)):
        own = [float(row["val_accuracy"]) for row in rows if row["size"] == str(size)]
        assert sum(own) / 3 == pytest.approx(expected, abs=0.01)
    assert summary["learning_curve"]["c"] == pytest.approx(0.39, abs=0.05)
    assert (tmp_path / "audit.png").exists()


@pytest.mark.slow
def test_large_vocabulary_reaches_the_divergence_of_its_note(main, tmp_path):
    done = main("--config=configs/large_vocabulary.py", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["selected"]["val_loss"] == pytest.approx(7.5, abs=0.02)
    assert summary["language"]["kl"] == pytest.approx(0.84, abs=0.01)
    assert summary["language"]["entropy"] == pytest.approx(6.67, abs=0.005)
