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
from softmax_jax.job.config import described_fields
from tests.programs import assert_one_message, run_each

CONFIG, SHORT = "--config=configs/digits.py", "--config.num_epochs=3"
FINISHED = (
    CONFIG,
    "--config.train_split=train[:80%]",
    "--config.val_split=train[80%:]",
    "--config.test_split=test",
    SHORT,
)


# The command line.

MISTAKES = {
    (): ("--config is missing", "configs/default.py", "--config=default"),
    ("--config=digit",): ("No config is called digit", "did you mean digits?"),
    ("--config", "bigram"): ("No config is called bigram", "default", "--config=my.py"),
    ("--config=configs/no_such.py",): ("cannot be read", "configs/no_such.py"),
    ("--config=configs",): ("cannot be read", "configs"),
    (CONFIG, "--batch=3"): ("no flag --batch",),
    (CONFIG, "stray"): ("'stray' is not a flag",),
    (CONFIG, "--config.lr=0.3"): (
        "no field lr",
        "learning_rate? (of minibatch optimisers: the size of a step)",
    ),
    (CONFIG, "--config.sweep.lr=1,2"): ("Did you mean sweep.learning_rate?",),
    (CONFIG, "--lr=0.3"): ("no flag --lr", "Did you mean --config.learning_rate?"),
    (CONFIG, "--config.learnin_rate=1"): ("learnin_rate", "Did you mean learning_rate?"),
    (CONFIG, "--config.sweep.momentun=1"): ("Did you mean sweep.momentum?",),
    (CONFIG, "--config.seed=1.5"): ("config.seed=1.5",),
    (CONFIG, "--config.learning_rate=fast"): ("config.learning_rate=fast",),
    (CONFIG, "--config.sweep.l2=1e-3,abc"): ("sweep.l2", "1e-3,abc"),
    (CONFIG, "--config.sweep.l2="): ("sweep.l2", "''"),
    (CONFIG, "--config.train_split=all"): ("all", "train"),
    (CONFIG, "--config.dataset=no_such", "--config.model=x", "--config.l2=-1"): (
        *("no_such", "model must be", "l2 must be"),
    ),
    (CONFIG, "--config.train_split=all", "--config.loss=hinge"): ("all", "loss must be"),
    (CONFIG, "--config.val_split=train[:9]", "--config.num_epochs=0"): (
        *("share examples", "num_epochs must be"),
    ),
    (CONFIG, "--config.val_split=train[:10]"): ("share examples",),
}


def test_command_line_mistake_is_one_message_with_exit_2(environment):
    found = run_each(environment, MISTAKES)
    for done, texts in zip(found, MISTAKES.values(), strict=True):
        assert_one_message(done, 2, *texts)


def test_help_lists_the_flags_and_every_field_with_its_meaning(main):
    done = main("--help")
    assert "--config" in done.stdout and "--workdir" in done.stdout
    for name, field in described_fields().items():
        assert f"--config.{name}={field.default}" in done.stdout
    assert "passes over the training examples" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_help_is_given_beside_anything(environment):
    for done in run_each(environment, [[CONFIG, "-h"], ["--config=no_such", "--help"]]):
        assert (done.returncode, done.stderr) == (0, "")
        for flag in ("--config", "--workdir", "--overwrite", "--mode", "--distributed"):
            assert flag in done.stdout


def test_a_name_of_a_config_is_its_file(environment, tmp_path):
    commands = [
        [*config, SHORT, "--config.learning_rate=0.01", f"--workdir={tmp_path / str(number)}"]
        for number, config in enumerate(([CONFIG], ["--config=digits"], ["--config", "digits"]))
    ]
    for done in run_each(environment, commands):
        assert (done.returncode, done.stderr) == (0, "")
    first, *others = ((tmp_path / str(number) / "params.npz").read_bytes() for number in range(3))
    assert others == [first, first]


# The lines of a config file after `config = digits.get_config()`, which is its third.
FAULTY = {
    "    config.learnin_rate = 3": ("line 4", "Did you mean learning_rate?"),
    "    config.num_epochs = 'x'": ("line 4", "TypeError"),
    "    config.sweep.update({'l3': (1,)})": ("line 4", "l3"),
    "    with config.unlocked():\n        config.sweep.l3 = (1,)": ("sweep has no field l3",),
    "    return (": ("line 4", "never closed"),
    "    return 1 / 0": ("line 4", "ZeroDivisionError"),
    "    return {}": ("ConfigDict",),
    "    import no_such_module": ("line 4", "no_such_module"),
}


def test_error_in_a_config_file_names_the_line(environment, tmp_path):
    head = "from configs import digits\ndef get_config():\n    config = digits.get_config()\n"
    paths = [tmp_path / f"variant_{number}.py" for number in range(len(FAULTY))]
    for path, body in zip(paths, FAULTY, strict=True):
        path.write_text(f"{head}{body}\n    return config\n")
    found = run_each(environment, [[f"--config={path}"] for path in paths])
    for done, texts in zip(found, FAULTY.values(), strict=True):
        assert_one_message(done, 2, *texts)


# A finished run.


@pytest.fixture(scope="module")
def finished(main, tmp_path_factory):
    """A finished run on digits with a test split: its folder and its output."""
    folder = tmp_path_factory.mktemp("finished")
    done = main(*FINISHED, f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    return folder, done


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_folder_holds_the_documented_files(finished):
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    pictures = {"curves.png", "confusion.png", "weights.png", "mistakes.png"}
    files = {"config.json", "metrics.jsonl", "trials.csv", "summary.json", "params.npz"}
    assert names == files | pictures | {"checkpoints", ".lock"}
    for name in pictures:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_params_reproduce_the_reported_metrics_in_numpy(finished):
    folder, _ = finished
    summary = summary_of(folder)
    with np.load(folder / "params.npz", allow_pickle=False) as params:
        W, b, mean, scale = (params[name] for name in ("W", "b", "mean", "scale"))
        assert params["label_names"].tolist() == list("0123456789")
    splits = data.load("digits", "train[:80%]", "train[80%:]", "test")
    metrics = {"val": summary["selected"], "test": summary["test"]}
    for role, dataset in (("val", splits.val), ("test", splits.test)):
        x = dataset.x.reshape(len(dataset.y), -1).astype(np.float64)
        logits = ((x - mean) / scale) @ W + b
        loss = -log_softmax(logits, -1)[np.arange(len(x)), dataset.y].mean()
        prefix = "val_" if role == "val" else ""
        assert metrics[role][f"{prefix}loss"] == pytest.approx(loss, rel=1e-5)
        accuracy = (logits.argmax(-1) == dataset.y).mean()
        assert metrics[role][f"{prefix}accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_metrics_table_andsummary_of_agree(finished):
    folder, _ = finished
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["trial"], line["epoch"]) for line in lines] == [(0, 1), (0, 2), (0, 3)]
    with open(folder / "trials.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    selected = summary_of(folder)["selected"]
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert lines[-1][name] == pytest.approx(float(row[name]))
        assert lines[-1][name] == pytest.approx(selected[name])
    assert (row["learning_rate"], row["momentum"], row["batch_size"]) == ("0.1", "0.9", "64")


def test_summary_and_config_name_the_data_and_the_machine(finished):
    folder, _ = finished
    summary, config = summary_of(folder), json.loads((folder / "config.json").read_text())
    assert summary["dataset"] == config["dataset"] == "digits"
    assert summary["num_examples"] == {"train": 1150, "val": 287, "test": 360}
    assert set(summary["seconds"]) == {"data", "training", "selection", "pictures", "studies"}
    assert len(config["fingerprint"]) == 64
    assert config["device_count"] >= 1 and set(config["versions"]) >= {"jax", "flax", "optax"}
    assert config["config"]["batch_size"] == 64


def test_log_has_a_line_per_epoch_and_no_control_characters(finished):
    _, done = finished
    lines = done.stdout.splitlines()
    assert "digits" in lines[0] and "cpu" in lines[0]
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout + done.stderr)


def test_finished_folder_is_left_alone(environment, finished):
    """By another job, and by the same one, to which nothing is left to do."""
    folder, _ = finished
    before, workdir = times(folder), f"--workdir={folder}"
    other, same = run_each(
        environment,
        [
            [*FINISHED, "--config.l2=0.5", "--config.test_split=", workdir],
            [*FINISHED, "--config.chunk=1", "--config.keep=9", workdir],
        ],
    )
    assert_one_message(other, 3, f"{folder} holds another job:", "--overwrite")
    different = [line for line in other.stderr.splitlines() if "→" in line]
    assert different[0] == "  l2: 0.0 → 0.5" and different[1].startswith("  test_split: ")
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout == f"{folder} holds this job, finished. Nothing is left to do.\n"
    assert times(folder) == before


# Other runs.


@pytest.mark.slow
def test_runs_repeat_under_a_seed_and_share_compiled_programs(main, environment, tmp_path):
    cache = tmp_path / "cache"
    env, weights, compiled = environment | {"XDG_CACHE_HOME": str(cache)}, {}, {}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # the tests' own
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        arguments = (f"--workdir={tmp_path / name}", f"--config.seed={seed}", SHORT)
        assert main(CONFIG, *arguments, env=env).returncode == 0
        weights[name] = (tmp_path / name / "params.npz").read_bytes()
        compiled[name] = set((cache / "softmax_jax" / "xla").glob("*-cache"))
    assert weights["a"] == weights["b"] != weights["c"]
    assert compiled["a"] == compiled["b"] != set()


def test_missing_dataset_falls_back_loudly_or_is_exit_2(tmp_path, offline):
    default, none = "--config=configs/default.py", "--config.dataset_fallback="
    folders = [f"--workdir={tmp_path / name}" for name in "abc"]
    fallen, missing, unknown = run_each(
        offline,
        [
            [default, folders[0]],
            [default, none, folders[1]],
            [default, "--config.dataset=no_such_set", folders[2]],
        ],
    )
    assert fallen.returncode == 0, fallen.stderr
    assert "TRAINING ON DIGITS INSTEAD" in fallen.stderr and "TFDS_DATA_DIR" in fallen.stderr
    summary = summary_of(tmp_path / "a")
    assert summary["dataset"] == "digits" and summary["selected"]["val_accuracy"] > 0.85
    assert_one_message(missing, 2, "Fashion-MNIST")
    assert_one_message(unknown, 2, "no_such_set")
    assert not (tmp_path / "b").exists() and not (tmp_path / "c").exists()


@pytest.mark.slow
def test_overwrite_replaces_all_files_of_a_job_and_no_others(main, tmp_path):
    """Every kind of result: a new one must be added to those that `workdir.clear` deletes."""
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


def test_divergence_and_an_unusable_folder_have_their_exit_codes(environment, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder, rate = tmp_path / "w", "--config.learning_rate=1e38"
    diverging = [CONFIG, rate, f"--workdir={folder}", SHORT]
    # The naive loss near the largest rate that it bears: some seeds diverge, some do not.
    seeds = ["--config=configs/scratch.py", "--config.dataset=digits", "--config.learning_rate=9"]
    seeds += ["--config.sweep.seed=0,1,2,3,4,5", f"--workdir={tmp_path / 'seeds'}", SHORT]
    unusable, done, again, some = run_each(
        environment,
        [[CONFIG, f"--workdir={tmp_path / 'file' / 'w'}"], diverging, diverging, seeds],
    )
    assert_one_message(unusable, 3, "file")
    assert "epoch" not in unusable.stdout
    assert (done.returncode, again.returncode, some.returncode) == (4, 4, 4)
    assert "diverged" in done.stderr and "learning_rate" in done.stderr
    assert "Traceback" not in done.stderr + some.stderr
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and lines[-1]["val_loss"] is None
    assert summary_of(folder)["selected"] is None
    assert "True" in (folder / "trials.csv").read_text()
    assert "Every setting has a diverged trial" in some.stderr
    summary = summary_of(tmp_path / "seeds")
    assert 0 < summary["diverged"] <= 6 and summary["selected"] is None


def test_a_learning_rate_that_leads_nowhere_is_divergence_with_a_message(environment, tmp_path):
    """Its loss is finite, and as large as the rate."""
    command = [CONFIG, "--config.learning_rate=1e30", f"--workdir={tmp_path / 'w'}", SHORT]
    (done,) = run_each(environment, [command])
    assert done.returncode == 4
    assert "100 times that of guessing: try a smaller learning rate" in " ".join(
        done.stderr.split()
    )
    assert summary_of(tmp_path / "w")["selected"] is None


def test_sweeps_and_resampling_are_set_from_the_command_line(environment, tmp_path):
    rates, swept = "--config.sweep.learning_rate=0.01,0.1", tmp_path / "swept"
    more = ["--config.sweep.seed=0,1", "--config.sweep.batch_size=64,256"]
    common = [CONFIG, rates, "--config.train_split=train", "--config.test_split=test", SHORT]
    fields = {"folds": 4, "bootstraps": 4}  # one program serves both
    done, *resampled = run_each(
        environment,
        [
            [CONFIG, rates, *more, "--config.test_split=", f"--workdir={swept}", SHORT],
            *(
                [*common, f"--config.{name}={number}", f"--workdir={tmp_path / name}"]
                for name, number in fields.items()
            ),
        ],
    )
    assert done.returncode == 0, done.stderr
    with open(swept / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    settings = {(row["learning_rate"], row["seed"], row["batch_size"]) for row in rows}
    assert len(rows) == len(settings) == 8
    assert (swept / "sweep.png").exists()
    assert len((swept / "metrics.jsonl").read_text().splitlines()) == 8 * 3
    for (name, number), done in zip(fields.items(), resampled, strict=True):
        assert done.returncode == 0, done.stderr
        _assert_refitted(tmp_path / name, number, done.stdout, has_interval=name == "bootstraps")


def _assert_refitted(folder, number, said, has_interval):
    """The winner over so many resamples has been trained on all of train."""
    summary = summary_of(folder)
    selected, spread = summary["selected"], summary["resampled"]
    assert selected["refit"] is True and summary["trials"] == 2 * number
    assert spread["resamples"] == number
    mean = spread["val_accuracy"]["mean"]
    assert selected["val_accuracy"] == pytest.approx(mean)
    assert f"over {number} resamples: loss" in said and "optimistic" not in said
    if has_interval:
        low, high = spread["val_accuracy"]["interval"]
        assert low <= mean <= high and "95 % in [" in said
    test = data.load("digits", test="test").test
    with np.load(folder / "params.npz") as params:
        x = test.x.reshape(len(test.y), -1) / params["scale"]
        predicted = (x @ params["W"] + params["b"]).argmax(-1)
    assert summary["test"]["accuracy"] == pytest.approx((predicted == test.y).mean())


def test_interrupt_ends_the_job_with_one_message(tmp_path, environment):
    command = [sys.executable, "main.py", CONFIG, f"--workdir={tmp_path}"]
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
