"""A job as a function: config to sweep to results, its exit codes, and what it leaves alone."""

import contextlib
import csv
import json
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from softmax_jax import data, sweep
from softmax_jax.data import loading
from softmax_jax.host import DIVERGED, DONE, USAGE, WORKDIR, JobError
from softmax_jax.job import checkpoint, console, run, workdir
from softmax_jax.job.processes import Stop, Stopped
from softmax_jax.job.workdir import Workdir

# From end to end.


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, DONE),
        ({"learning_rate": -1.0}, USAGE),
        ({"class_weight": (1.0,)}, USAGE),
        ({"train_split": "nope"}, USAGE),
        ({"learning_rate": 1e38}, DIVERGED),
    ],
)
def test_exit_code_and_files_match_the_outcome(config, tmp_path, fields, code, capsys):
    config.update(fields)
    assert run.main(config, tmp_path / "w") == code
    assert (tmp_path / "w" / "summary.json").exists() == (code in (DONE, DIVERGED))
    assert (tmp_path / "w" / "params.npz").exists() == (code == DONE)
    assert bool(capsys.readouterr().err) == (code != DONE)


def times(folder):
    """{file name: time of its last change}, without the lock's."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_refused_config_replaces_nothing_and_leaves_its_folder_free(config, tmp_path, capsys):
    config.folds = 5000
    assert run.main(config, tmp_path) == USAGE
    config.folds = 0
    assert run.main(config, tmp_path) == DONE
    before = times(tmp_path)
    config.folds = 5000
    assert run.main(config, tmp_path, overwrite=True) == USAGE
    assert "folds must be" in capsys.readouterr().err
    assert times(tmp_path) == before


def test_job_that_another_process_has_ended_meanwhile_is_not_repeated(
    config, tmp_path, monkeypatch, capsys
):
    """Between the first look into the folder and its lock."""
    locked, times_between = run.locked, []

    @contextlib.contextmanager
    def locked_after_another(folder):
        if not times_between:
            times_between.append(None)
            assert run.main(config, folder) == DONE
            times_between.append(times(folder))
            capsys.readouterr()
        with locked(folder) as warning:
            yield warning

    monkeypatch.setattr(run, "locked", locked_after_another)
    assert run.main(config, tmp_path) == DONE
    assert "holds this job, finished" in capsys.readouterr().out
    assert times(tmp_path) == times_between[1]


def test_stopped_job_in_a_fresh_folder_names_the_command_that_resumes_it(
    config, tmp_path, monkeypatch, capsys
):
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


def test_fallback_replaces_only_fashion_mnist(config, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    config.dataset = "fashion_mnist"
    assert run.load_data(config).name == "digits"
    assert "TRAINING ON DIGITS INSTEAD" in capsys.readouterr().err
    config.dataset_fallback = ""
    with pytest.raises(data.DatasetNotFoundError):
        run.load_data(config)
    config.dataset, config.dataset_fallback = "cifar10", "digits"
    with pytest.raises(data.DatasetNotFoundError, match="cifar10"):
        run.load_data(config)


# The plan of a job.


@pytest.fixture
def plan(config):
    def lines(**fields):
        config.update(fields)
        splits = data.load("digits")
        return dict(
            line.split(maxsplit=1)
            for line in console.forecast_lines(splits, run.start_sweep(config, splits))
        )

    return lines


def test_plan_multiplies_the_axes(plan):
    lines = plan(
        sweep=dict(learning_rate=(0.01, 0.1, 0.2), seed=(0, 1), batch_size=(32, 1437)), folds=3
    )
    assert lines["trials"].startswith("36: 6 settings and batch sizes × 2 seeds × 3 folds")
    assert lines["steps"].startswith(f"{-(-1437 // 32) + 1} in an epoch")


def test_plan_has_chunks_of_one_shape(plan):
    lines = plan(sweep=dict(learning_rate=(0.01, 0.02, 0.1, 0.2, 0.3)), chunk=2)
    assert lines["programs"].startswith("3 chunks of at most 2 trials, compiled for 1 shapes")


def test_plan_needs_more_memory_for_more_trials(plan):
    def gib(text):
        return float(text.split()[0])

    few = gib(plan(sweep=dict(l2=(0.0, 0.1)))["memory"])
    many = gib(plan(sweep=dict(l2=tuple(i / 1000 for i in range(500))))["memory"])
    assert many > max(few, 0.1)


def test_plan_in_words_says_what_would_be_done(config):
    def told(**fields):
        config.update(fields)
        splits = run.load_data(config)
        epochs = run.start_sweep(config, splits)
        return " ".join(console.forecast_sentences(config, splits, epochs))

    text = told(num_epochs=3)
    assert "train one model on 1,437 examples of digits with 64 features and 10 classes" in text
    assert "for 3 epochs" in text and "The training takes about" in text and "choose" not in text
    text = told(sweep=dict(l2=(0.0, 0.1), seed=(0, 1, 2)), test_split="test")
    assert "6 models (2 l2 × 3 seed)" in text
    assert "choose the setting by val_loss on 360 validation examples" in text
    assert "360 test examples would be read once" in text
    text = told(folds=5, test_split="")
    assert "30 models" in text and "held out of train" in text and "trained anew on train." in text
    text = told(optimizer="lbfgs", sweep=dict(seed=()), folds=0)
    assert "within 0.0001 of its optimum" in text and "How many iterations there will be" in text


def test_time_in_the_plan_grows_with_the_work(config):
    """By the number of trials and of examples, whatever the speed of this machine."""
    splits = data.load("digits")

    def seconds(**fields):
        config.update(fields)
        return console.seconds_of_epoch(run.start_sweep(config, splits), splits)

    one = seconds()
    many = seconds(sweep=dict(l2=tuple(k / 1000 for k in range(1000))))
    assert 0 < 2 * one < many


# From the config to the sweep.


def collected(config, splits):
    return sweep.collect(run.start_sweep(config, splits))


def test_axes_of_the_config_become_trials(config, splits):
    config.sweep.learning_rate = (0.1, 0.3)
    config.sweep.batch_size = (64, 128)
    config.sweep.seed = (3, 4, 5)
    result = collected(config, splits)
    rows = {(row["learning_rate"], row["batch_size"], row["seed"]) for row in result.table()}
    assert len(result.table()) == len(rows) == 12
    assert result.run.num_epochs == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.2),
        ("momentum", 0.5),
        ("l2", 0.5),
        ("init_scale", 0.5),
        ("label_smoothing", 0.5),
        ("warmup", 0.5),
        ("schedule", "cosine"),
        ("schedule", "exponential"),
        ("averaging", 0.5),
        ("batch_size", 100),
        ("num_epochs", 3),
        ("seed", 1),
        ("model", "scratch"),
        ("precision", "bfloat16"),
        ("class_weight", "balanced"),
        ("class_weight", tuple(range(1, 11))),
        ("folds", 2),
        ("bootstraps", 2),
    ],
)
def test_field_reaches_the_training(config, splits, field, value):
    plain = collected(config, splits).classifier(0).W
    config[field] = value
    changed = collected(config, splits).classifier(0).W
    assert np.abs(plain - changed).max() > 0


def test_zipped_axes_become_a_trial_per_seed(config, splits):
    config.combine = "zip"
    config.sweep.l2 = (0.0, 0.1, 0.0)
    config.sweep.patience = (0, 0, 1)
    config.sweep.seed = (0, 1)
    rows = collected(config, splits).table()
    settings = [(row["l2"], row["patience"], row["seed"]) for row in rows]
    assert settings == [(l2, p, s) for s in (0, 1) for l2, p in ((0, 0), (0.1, 0), (0, 1))]


def test_final_rate_belongs_to_schedules_that_decay(config, splits):
    config.final_rate = 0.5
    assert collected(config, splits).table()[0]["final_rate"] == 1
    config.schedule = "cosine"
    assert collected(config, splits).table()[0]["final_rate"] == 0.5
    config.schedule, config.sweep.final_rate = "constant", (0.1, 1.0)
    with pytest.raises(JobError, match="final_rate below 1 needs a schedule"):
        run.start_sweep(config, splits)


def winner_of(config, splits, result):
    return run.refit_winner(config, splits, result, run.select_winner(config, result))


def test_patience_applies_to_folds_and_their_refit(config, splits):
    config.learning_rate, config.num_epochs, config.folds = 10.0, 30, 2
    config.early_stopping.patience = 1
    result = collected(config, splits)
    assert (result.facts["stopped_epoch"] > 0).all()
    chosen = winner_of(config, splits, result)
    assert chosen.epoch == round(result.best_epoch.mean())


def test_losses_agree_where_all_are_accurate(config, splits):
    weights = []
    for loss in ("cross_entropy", "cross_entropy_from_probabilities"):
        config.loss = loss
        weights.append(collected(config, splits).classifier(0).W)
    np.testing.assert_allclose(*weights, atol=1e-5)


def test_folds_end_in_a_refit_of_the_winner(config, splits):
    config.folds = 3
    config.sweep.learning_rate = (0.01, 0.3)
    result = collected(config, splits)
    selected = winner_of(config, splits, result)
    assert selected.refit and selected.hyperparameters["learning_rate"] == 0.3
    rate = sweep.grid(learning_rate=0.3)
    alone = sweep.fit(splits.train, None, rate, num_epochs=2, batch_size=256)
    np.testing.assert_array_equal(selected.classifier.W, alone.classifier(0).W)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"class_weight": (1.0, 2.0)}, "class_weight needs 10"),
        ({"folds": 5000}, "folds must be a whole number from 2 to the"),
    ],
)
def test_config_that_does_not_fit_the_data_is_a_job_error(config, splits, fields, text):
    config.update(fields)
    with pytest.raises(JobError, match=text):
        run.start_sweep(config, splits)


# Training, saving and stopping.


JOB = {"config": {}, "data": {"name": "digits"}}


NUM_EPOCHS = 4


@pytest.fixture
def job(config, splits, tmp_path):
    """job(stop, watch, **fields): runs the remaining training, as a new process would.

    watch(epoch) is called with every epoch before the job sees it.
    """
    config.checkpoint_seconds = 0

    def train(stop=None, watch=id, **fields):
        config.update(fields)
        progress = checkpoint.Progress(tmp_path / "checkpoints", JOB, config)
        options = {"num_epochs": NUM_EPOCHS, "batch_size": 256, "pending": progress.pending}
        epochs = sweep.epochs(splits.train, splits.val, seeds=(0, 1), **options)
        epochs._epochs = seen(epochs._epochs, watch)
        folder = Workdir(tmp_path)
        return run.train(config, epochs, progress, folder, 1437, stop or Stop())

    return train


def seen(epochs, watch):
    for epoch in epochs:
        watch(epoch)
        yield epoch


def saved(folder):
    return [int(path.stem) for path in checkpoint.saved_files(folder / "checkpoints")]


def lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_epoch_is_on_disk_before_the_next_begins(job, tmp_path):
    def watch(epoch):
        assert len(lines(tmp_path)) == 2 * (epoch.epoch - 1)
        assert saved(tmp_path) == list(range(1, epoch.epoch))

    result = job(watch=watch, keep=9)
    last = json.loads(lines(tmp_path)[-1])
    assert (last["trial"], last["epoch"]) == (1, NUM_EPOCHS)
    assert np.float32(last["val_loss"]) == result.metrics["val_loss"][1, -1]
    assert saved(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("seconds, keep, numbers", [(0, 2, [3, 4]), (1000, 2, [1])])
def test_last_checkpoints_are_kept_and_the_end_has_one(job, tmp_path, seconds, keep, numbers):
    job(checkpoint_seconds=seconds, keep=keep)
    assert saved(tmp_path) == numbers


@pytest.mark.parametrize("when", [1, 3, NUM_EPOCHS])
def test_job_resumed_after_a_signal_matches_an_uninterrupted_one(job, tmp_path, when):
    stop = Stop()

    def watch(epoch):
        if epoch.epoch == when:
            stop.handle(signal.SIGTERM, None)

    with pytest.raises(Stopped) as stopped:
        job(stop, watch, checkpoint_seconds=1000)
    assert stopped.value.exit_code == 143
    assert saved(tmp_path) == [1] and len(lines(tmp_path)) == 2 * when
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"trial": 0, "epoch": 5, "train_lo')  # as a killed process leaves it
    seen_after = []
    resumed = job(watch=lambda epoch: seen_after.append(epoch.epoch))
    assert seen_after == list(range(when + 1, NUM_EPOCHS + 1))
    interrupted = (tmp_path / "metrics.jsonl").read_text()
    for path in checkpoint.saved_files(tmp_path / "checkpoints"):
        path.unlink()
    whole = job()
    assert interrupted == (tmp_path / "metrics.jsonl").read_text()
    assert resumed.table() == whole.table()
    np.testing.assert_array_equal(resumed.classifier(1).W, whole.classifier(1).W)


def test_checkpoint_of_another_program_is_exit_3(job, tmp_path):
    """The same job and format, but the state has another leaf than this program's."""

    def stop_at_once(_):
        stop.handle(signal.SIGINT, None)

    stop = Stop()
    with pytest.raises(Stopped):
        job(stop, stop_at_once)
    made, _ = checkpoint.restore(tmp_path / "checkpoints", workdir.digest(JOB))
    made.arrays["pending/0/states/other"] = made.arrays.pop("pending/0/states/step")
    checkpoint.save(tmp_path / "checkpoints", made, 1)
    with pytest.raises(JobError, match="step is missing; states/other is not part of it") as error:
        job()
    assert error.value.exit_code == WORKDIR


def test_metrics_that_cannot_be_written_leave_the_checkpoints_intact(job, tmp_path):
    def take_away(epoch):
        if epoch.epoch == 3:
            (tmp_path / "metrics.jsonl").unlink()
            (tmp_path / "metrics.jsonl").mkdir()

    with pytest.raises(JobError, match="metrics.jsonl cannot be written") as error:
        job(watch=take_away)
    assert error.value.exit_code == WORKDIR and saved(tmp_path) == [1, 2]


# More epochs.


def told_by(folder):
    """What a job has left: the bytes of its tables and models, and summary.json without times."""
    names = ["params.npz", "trials.csv", "settings.csv", "metrics.jsonl"]
    found = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    found["params.npz"] = {k: v.tobytes() for k, v in np.load(folder / "params.npz").items()}
    return found | {"summary": json.loads((folder / "summary.json").read_text()) | {"seconds": 0}}


LONGER = {
    "one trial": {},
    "momentum": {"momentum": 0.9, "sweep": {"l2": (0.0, 0.1), "seed": (0, 1)}},
    "several programs": {"sweep": {"batch_size": (64, 256), "learning_rate": (0.05, 0.1)}},
    "chunks": {"chunk": 1, "sweep": {"momentum": (0.0, 0.5, 0.9)}},
    "best epochs": {"select_epoch": "best", "learning_rate": 20.0},
    "early stopping": {"learning_rate": 20.0, "sweep": {"patience": (0, 1, 2), "seed": (0, 1)}},
    "folds": {"folds": 3, "sweep": {"l2": (0.0, 0.1)}},
    "adam": {"optimizer": "adam", "learning_rate": 0.003, "sweep": {"beta1": (0.5, 0.9)}},
}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            fields, id=name, marks=[pytest.mark.slow] * (name not in ("momentum", "folds", "adam"))
        )
        for name, fields in LONGER.items()
    ],
)
def test_more_epochs_go_on_from_a_finished_job_to_the_same_bits(config, tmp_path, fields, capsys):
    config.update(fields)
    for folder, lengths in (("longer", (2, 3, 5)), ("whole", (5,))):
        for length in lengths:
            config.num_epochs = length
            assert run.main(config, tmp_path / folder) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert said.count("with more epochs than it had") == 2
    first = said[said.index("with more epochs") :]
    assert "epoch   3/3" in first and "epoch   2/3" not in first
    assert told_by(tmp_path / "longer") == told_by(tmp_path / "whole")
    assert json.loads((tmp_path / "longer/config.json").read_text())["config"]["num_epochs"] == 5
    assert run.main(config, tmp_path / "longer") == 0
    assert "Nothing is left to do" in capsys.readouterr().out


SEARCH = {
    "halving": {"factor": 3, "min_epochs": 1},
    "num_epochs": 5,
    "test_split": "test",
    "checkpoint_seconds": 0,
    "sweep": {"learning_rate": (0.001, 0.003, 0.01, 0.05, 0.1), "batch_size": (64, 200)},
}


def test_tensorfloat32_selects_as_float32_and_says_what_it_is_on_a_cpu(config, tmp_path, capsys):
    rates = (0.001, 0.01, 0.1)
    config.update({"precision": "tensorfloat32", "sweep": {"learning_rate": rates}})
    assert run.main(config, tmp_path / "one") == 0
    on_cpu = jax.default_backend() == "cpu"
    assert ("is for accelerators: on a CPU it is float32" in capsys.readouterr().out) == on_cpu
    config.precision = "float32"
    assert run.main(config, tmp_path / "other") == 0
    assert "for accelerators" not in capsys.readouterr().out
    one, other = (json.loads((tmp_path / n / "summary.json").read_text()) for n in ("one", "other"))
    assert one["selected"]["trial"] == other["selected"]["trial"]
    if on_cpu:
        assert one["selected"] == other["selected"]


def test_a_search_tells_when_each_setting_stopped(config, tmp_path, capsys):
    config.update(SEARCH)
    assert run.main(config, tmp_path) == 0
    said = capsys.readouterr().out
    assert said.count("After epoch 1 the best 3 of 10 settings go on.") == 1
    assert said.count("After epoch 3 the best 1 of 3 settings go on.") == 1
    assert "10 trials, 0 diverged, 9 stopped by halving." in said
    with open(tmp_path / "trials.csv", newline="") as file:
        stops = [int(row["stopped_epoch"]) for row in csv.DictReader(file)]
    assert sorted(stops) == [0] + 7 * [1] + 2 * [3]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for trial, stop in enumerate(stops):
        own = [line["epoch"] for line in lines if line["trial"] == trial]
        assert own == list(range(1, (stop or 5) + 1))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["halved"] == 9 and stops[summary["selected"]["trial"]] == 0
    assert not summary["test"]["selected_on"] or summary["val_is_test"]
    assert run.check(config) == 0
    said = capsys.readouterr().out
    assert "After epochs 1, 3 the best 1/3 of them would go on." in said
    config.num_epochs = 9
    assert run.main(config, tmp_path) == WORKDIR
    assert "the settings that stopped have no epochs left" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param(
            {"folds": 2, "optimizer": "adam", "learning_rate": 0.01}, marks=pytest.mark.slow
        ),
    ],
    ids=["sgd", "adam with folds"],
)
@pytest.mark.filterwarnings("ignore:A few of the")  # the interval is not what is looked at
def test_a_search_that_is_killed_after_any_epoch_is_resumed_to_the_same_bits(
    config, tmp_path, monkeypatch, more
):
    config.update(SEARCH | more)
    assert run.main(config, tmp_path / "whole") == 0
    append, seen = Workdir.append_metrics, []

    def broken(self, epoch):
        if len(seen) % 2 == 1:  # every second epoch is lost, and trained again
            seen.append(0)
            raise JobError("stopped here", WORKDIR)
        append(self, epoch)
        seen.append(epoch.epoch)

    monkeypatch.setattr(Workdir, "append_metrics", broken)
    codes = []
    while not codes or codes[-1] == WORKDIR:
        codes.append(run.main(config, tmp_path / "killed"))
    assert codes[-1] == 0 and len(codes) == seen.count(0) + 1 > 5
    assert told_by(tmp_path / "killed") == told_by(tmp_path / "whole")


def test_more_epochs_that_are_interrupted_are_resumed(config, tmp_path, monkeypatch):
    """In every chunk of a job of three; with a checkpoint after every epoch."""
    config.update({"chunk": 1, "momentum": 0.5, "sweep": {"l2": (0.0, 0.1, 0.2)}})
    config.update({"num_epochs": 2, "checkpoint_seconds": 0})
    assert run.main(config, tmp_path / "longer") == 0
    config.num_epochs = 4
    assert run.main(config, tmp_path / "whole") == 0
    append, seen = Workdir.append_metrics, []

    def broken(self, epoch):
        append(self, epoch)
        seen.append(epoch.epoch)
        if len(seen) in (1, 4):
            raise JobError("stopped here", WORKDIR)

    monkeypatch.setattr(Workdir, "append_metrics", broken)
    assert [run.main(config, tmp_path / "longer") for _ in range(3)] == [WORKDIR, WORKDIR, 0]
    assert told_by(tmp_path / "longer") == told_by(tmp_path / "whole")


@pytest.mark.parametrize(
    "fields, why",
    [
        ({"averaging": 0.5}, "averaging is over a fraction of the whole training"),
        ({"sweep": {"averaging": (0.0, 0.5)}}, "averaging is over a fraction"),
        ({"warmup": 0.1}, "warmup is over a fraction"),
        ({"schedule": "cosine"}, "the cosine schedule decays over the whole training"),
        ({"optimizer": "lbfgs"}, "no more than a limit"),
        ({"num_epochs": 1}, "it has more epochs already"),
        ({"num_epochs": 4, "l2": 0.1}, "l2: 0.0 → 0.1"),
    ],
)
def test_more_epochs_are_refused_with_the_reason_where_all_would_change(
    config, tmp_path, fields, why, capsys
):
    config.num_epochs = 2
    first = {name: value for name, value in fields.items() if name not in ("num_epochs", "l2")}
    config.update(first)
    assert run.main(config, tmp_path) == 0
    before = times(tmp_path)
    config.update({"num_epochs": 4} | fields)
    assert run.main(config, tmp_path) == WORKDIR
    err = capsys.readouterr().err
    assert why in err and ("cannot go on from it" in err) == ("l2" not in fields)
    assert times(tmp_path) == before


# An automatic path of penalties.


@pytest.fixture
def probe(config, tmp_path):
    """Three classes that differ in directions in which the features hardly vary."""
    rng = np.random.default_rng(0)
    z, turn = rng.normal(size=(300, 8)), np.linalg.qr(rng.normal(size=(8, 8)))[0]
    y = (2 * z @ rng.normal(size=(8, 3)) + rng.gumbel(size=(300, 3))).argmax(1)
    np.savez(tmp_path / "x.npz", x=z * np.logspace(0, -2.3, 8) @ turn, y=y)
    fields = {"optimizer": "lbfgs", "l2_path": 3, "standardize": True, "num_epochs": 400}
    config.update(fields | {"dataset": str(tmp_path / "x.npz"), "checkpoint_seconds": 0})
    config.update({"train_split": "auto", "val_split": "auto", "test_split": "auto"})
    return config


class StopsInFirstStep(Workdir):
    """A folder in which a job gets one step further, and is stopped."""

    def __init__(self, path, stop):
        super().__init__(path)
        self.stop = stop

    def append_metrics(self, epoch):
        super().append_metrics(epoch)
        self.stop.handle(signal.SIGTERM, None)


@pytest.mark.parametrize("folds", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_path_goes_on_until_the_choice_lies_inside_and_resumes_there(
    probe, tmp_path, capsys, folds
):
    probe.folds = folds
    assert run.run(probe, Workdir(tmp_path / "whole"), Stop()) == DONE
    assert "the path goes on to" in capsys.readouterr().out
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    chosen = summary["selected"]["hyperparameters"]["l2"]
    tried = run.penalties(probe, run.load_checked(probe), 99)
    own, further = tried[:3], tried[3:]
    assert min(further) < chosen < min(own)  # inside the path as it is, below the path as it was
    stops = [Stop()]
    while len(stops) < 99:
        with contextlib.suppress(Stopped):
            run.run(probe, StopsInFirstStep(tmp_path / "parts", stops[-1]), stops[-1])
            break
        stops.append(Stop())
    assert 3 < len(stops) < 99
    for name in ("metrics.jsonl", "trials.csv", "settings.csv", "params.npz"):
        whole, resumed = (tmp_path / folder / name for folder in ("whole", "parts"))
        assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.slow
def test_job_in_passes_over_files_resumes_to_the_same_bits(probe, tmp_path, monkeypatch):
    """From a folder of .npy files that are read by shards."""
    (tmp_path / "data").mkdir()
    with np.load(tmp_path / "x.npz") as arrays:
        for name, rows in (("train", slice(200)), ("val", slice(200, None))):
            np.save(tmp_path / f"data/x_{name}.npy", arrays["x"][rows].astype(np.float32))
            np.save(tmp_path / f"data/y_{name}.npy", arrays["y"][rows])
    probe.update({"dataset": str(tmp_path / "data"), "num_epochs": 60})
    monkeypatch.setattr(loading, "_SHARD_BYTES", 1600)
    monkeypatch.setattr(loading, "_MEMORY_FRACTION", 1e-12)  # any file is larger than that
    assert run.load_checked(probe).train.shard_size == 50
    assert run.run(probe, Workdir(tmp_path / "whole"), Stop()) == DONE
    stops = [Stop()]
    while len(stops) < 99:
        with contextlib.suppress(Stopped):
            run.run(probe, StopsInFirstStep(tmp_path / "parts", stops[-1]), stops[-1])
            break
        stops.append(Stop())
    assert 2 < len(stops) < 99
    for name in ("metrics.jsonl", "trials.csv", "path.csv", "params.npz"):
        whole, resumed = (tmp_path / folder / name for folder in ("whole", "parts"))
        assert whole.read_bytes() == resumed.read_bytes()
    probe.update({"l2_path": 0, "sweep": {"l2": (0.01, 0.1)}})
    assert run.run(probe, Workdir(tmp_path / "passed"), Stop()) == DONE
    splits = run.load_checked(probe)
    plan = console.forecast_sentences(probe, splits, run.start_sweep(probe, splits))
    assert "passed over in tiles of" in " ".join(plan)
    monkeypatch.undo()
    assert run.run(probe, Workdir(tmp_path / "held"), Stop()) == DONE
    held, passed = (
        np.genfromtxt(tmp_path / folder / "path.csv", delimiter=",", names=True, dtype=None)
        for folder in ("held", "passed")
    )
    np.testing.assert_allclose(passed["objective"], held["objective"], rtol=2e-4)
    assert passed["converged"].all()


def test_path_stays_as_it_is_where_the_choice_lies_inside(probe, tmp_path, capsys):
    splits = run.load_checked(probe)
    own = run.penalties(probe, splits)
    assert own == sweep.l2_path(splits.train, 3, standardize=True)
    assert run.penalties(probe, splits, 5)[:3] == own
    probe.train_split, probe.val_split = "train[:100]", "train[100:200]"
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=300)
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(300, 8)) + 0.3 * y[:, None], y=y)
    assert run.run(probe, Workdir(tmp_path / "whole"), Stop()) == DONE
    assert "goes on" not in capsys.readouterr().out


@pytest.mark.parametrize("folds", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_a_path_of_l1_lists_what_is_left_and_resumes(probe, tmp_path, folds):
    probe.update({"l2_path": 0, "l1_path": 6, "num_epochs": 5000, "folds": folds})
    probe.update({"tolerance": 1e-5, "select": "one_se"})
    assert run.run(probe, Workdir(tmp_path / "whole"), Stop()) == DONE
    splits = run.load_checked(probe)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    chosen = summary["selected"]["hyperparameters"]["l1"]
    assert chosen in sweep.l1_path(splits.train, 6, standardize=True)
    with open(tmp_path / "whole" / "coefficients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["class", "feature", "estimate"]
    saved = np.load(tmp_path / "whole" / "params.npz")
    W, names = np.zeros((9, 3)), [*(f"x{d}" for d in range(8)), "intercept"]
    for row in rows:
        W[names.index(row["feature"]), int(row["class"])] = float(row["estimate"])
    np.testing.assert_allclose(W, [*saved["W"], saved["b"]], rtol=1e-6)
    assert len(rows) == 3 + (saved["W"] != 0).sum()
    assert (tmp_path / "whole" / "path.png").stat().st_size > 10_000
    stops = [Stop()]
    while len(stops) < 99:
        with contextlib.suppress(Stopped):
            run.run(probe, StopsInFirstStep(tmp_path / "parts", stops[-1]), stops[-1])
            break
        stops.append(Stop())
    assert 3 < len(stops) < 99
    for name in ("metrics.jsonl", "trials.csv", "settings.csv", "params.npz", "coefficients.csv"):
        whole, resumed = (tmp_path / folder / name for folder in ("whole", "parts"))
        assert whole.read_bytes() == resumed.read_bytes()


def test_copies_of_training_examples_are_said_with_their_number(config, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(80, 3))
    arrays = {"x_train": x, "x_val": x[::4] + [0, 0, 1e-3], "x_test": x[::10]}
    for role in ("train", "val", "test"):
        arrays[f"y_{role}"] = np.arange(len(arrays[f"x_{role}"])) % 2
    np.savez(tmp_path / "x.npz", **arrays)
    config.dataset, config.val_split, config.batch_size = str(tmp_path / "x.npz"), "val", 8
    run.load_checked(config)
    assert capsys.readouterr().err == ""
    config.test_split = "test"
    run.load_checked(config)
    assert "8 of the 8 examples of test occur in train too" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields, said", [({}, True), ({"refit": True}, True), ({"folds": 2}, False)]
)
def test_copies_of_test_in_what_chooses_are_said(config, tmp_path, capsys, fields, said):
    """In the file they are two splits; of folds, val has no say."""
    x = np.random.default_rng(0).normal(size=(80, 3))
    arrays = {"x_train": x[:40], "x_val": x[40:], "x_test": x[60:]}
    for role in ("train", "val", "test"):
        arrays[f"y_{role}"] = np.arange(len(arrays[f"x_{role}"])) % 2
    np.savez(tmp_path / "x.npz", **arrays)
    config.dataset, config.val_split, config.batch_size = str(tmp_path / "x.npz"), "val", 8
    config.test_split = "test"
    config.update(fields)
    run.load_checked(config)
    found = "20 of the 20 examples of test occur in val too" in capsys.readouterr().err
    assert found == said
