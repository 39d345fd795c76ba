"""Hostile files, folders, names and surroundings: one message, the promised exit code, no harm."""

import contextlib
import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from configs import default
from softmax_jax import data, host, plots
from softmax_jax.__main__ import main as run_command
from softmax_jax.configs import bigram
from softmax_jax.data import DataError, sources
from softmax_jax.host import JobError, as_path, open_regular, read_json
from softmax_jax.job import run, workdir
from softmax_jax.job.workdir import Workdir, locked
from tests import programs
from tests.data_on_disk import IMAGES, LABELS, isolate, write_prepared  # noqa: F401

ROOT = Path(__file__).parents[1]
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_waiting():
    """What waits for ever is an error after a minute."""

    def late(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def write_examples(path, labels=("ant", "bee", "cat"), images=False):
    """A small dataset: features of three classes, or images."""
    rng = np.random.default_rng(0)
    y = np.array(labels)[np.arange(48) % len(labels)]
    x = rng.integers(0, 256, (96, 3, 4), np.uint8) if images else rng.random((96, 4), np.float32)
    np.savez(path, x_train=x[:48], y_train=y, x_val=x[48:], y_val=y)
    return path


@pytest.fixture
def job(tmp_path, capsys):
    """job(folder, **fields): the exit code and the error messages of a short job."""

    def start(folder, overwrite=False, labels=("ant", "bee", "cat"), images=False, **fields):
        config = default.get_config().unlock()
        config.dataset = str(write_examples(tmp_path / "examples.npz", labels, images))
        config.val_split, config.batch_size, config.num_epochs = "val", 8, 1
        config.learning_rate = 0.01
        with config.ignore_type():
            for name, value in fields.items():
                holder, _, leaf = name.rpartition("__")
                (config[holder] if holder else config)[leaf] = value
        capsys.readouterr()
        code = run.main(config, folder, overwrite=overwrite)
        out, err = capsys.readouterr()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
        return code, err

    return start


def assert_one_message(err, *texts):
    """One message of a few hundred characters in a line, without control characters."""
    assert err.count("main.py: ") + err.count("softmax_jax: ") == 1, err
    assert "Traceback" not in err and "nobody foresaw" not in err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", err)
    assert max(map(len, err.splitlines())) < 1200 and err.count("\n") < 40
    for text in texts:
        assert text in err


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Code from data.


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module whose import leaves a trace."""
    (tmp_path / "canary_of_tests.py").write_text(
        "from tensorflow_datasets.core.features.image_feature import Image as Base\n"
        "class Image(Base): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "canary_of_tests.Image"


def _class(names, name):
    return {"pythonClassName": names} | name


@pytest.mark.parametrize("place", ["image", "spare", "snake", "sequence", "top", "json", "legacy"])
def test_a_description_cannot_make_tfds_import_a_module(tmp_path, canary, place):
    folder = write_prepared(tmp_path, "toy", {"train": (IMAGES, LABELS)})
    path = folder / "features.json"
    value = json.loads(path.read_text())
    features = value["featuresDict"]["features"]
    inner = {"type": canary, "content": {"shape": [4, 5, 1]}}
    tfds = "tensorflow_datasets.core.features."
    if place == "image":
        features["image"]["pythonClassName"] = canary
    elif place == "snake":
        del features["image"]["pythonClassName"]
        features["image"]["python_class_name"] = canary
    elif place == "spare":
        features["spare"] = features["image"] | {"pythonClassName": canary}
    elif place == "sequence":
        named = features["image"] | {"pythonClassName": canary}
        of = {"pythonClassName": f"{tfds}sequence_feature.Sequence"}
        features["spare"] = of | {"sequence": {"feature": named}}
    elif place == "json":
        of = {"pythonClassName": f"{tfds}sequence_feature.Sequence"}
        text = json.dumps({"feature": inner, "length": None})
        features["spare"] = of | {"jsonFeature": {"json": text}}
    elif place == "top":
        value["pythonClassName"] = canary
    else:
        value = {"type": f"{tfds}features_dict.FeaturesDict", "content": {"image": inner}}
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="repare"):
        data.load("toy", train="train[:5]", val="train[5:]", data_dir=tmp_path)
    assert "canary_of_tests" not in sys.modules


def test_a_description_cannot_take_the_memory(tmp_path):
    for size, shape in (("10000000000000", "4"), ("3", "100000000000")):
        shutil.rmtree(tmp_path / "toy", ignore_errors=True)
        folder = write_prepared(tmp_path, "toy", {"train": (IMAGES, LABELS)})
        value = json.loads((folder / "features.json").read_text())
        features = value["featuresDict"]["features"]
        features["label"]["classLabel"]["numClasses"] = size
        features["image"]["image"]["shape"]["dimensions"][0] = shape
        (folder / "features.json").write_text(json.dumps(value))
        with pytest.raises(DataError, match="taken for a mistake|would take"):
            data.load("toy", train="train[:5]", val="train[5:]", data_dir=tmp_path)


# Links, and names that are not ours.


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_a_lock_that_is_no_file_of_the_folder_is_refused(job, tmp_path, kind):
    mine, folder = tmp_path / "mine", tmp_path / "w"
    mine.write_text("precious")
    folder.mkdir()
    lock = folder / ".lock"
    {
        "link": lambda: lock.symlink_to(mine),
        "hard link": lambda: lock.hardlink_to(mine),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
    }[kind]()
    code, err = job(folder)
    assert code == 3
    assert_one_message(err, "cannot be locked")
    assert mine.read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["checkpoints", "tensorboard", "tensorboard/trial_0"])
def test_a_folder_that_is_a_link_is_refused(job, tmp_path, place, overwrite):
    mine, link = tmp_path / "mine", tmp_path / "w" / place
    mine.mkdir()
    for name in ("00000007.npz", "00000001.npz.bak", "events.out.tfevents.1.softmax_jax"):
        (mine / name).write_text("precious")
    link.parent.mkdir(parents=True)
    link.symlink_to(mine)
    before = contents(mine)
    code, err = job(tmp_path / "w", overwrite, tensorboard=True)
    assert code == 3
    assert_one_message(err, f"{place} is a link")
    assert contents(mine) == before


def test_overwriting_deletes_the_exact_names_of_a_job(job, tmp_path):
    folder = tmp_path / "w"
    assert job(folder)[0] == 0
    mine = [
        *("00000001.npz.bak", "100000001.npz.old", "00000009.npz.tmp", "0000001.npz"),
        *("x00000001.npz", "00000001.npzz", "00000001.npz.damaged.txt"),
    ]
    for name in mine:
        (folder / "checkpoints" / name).write_text("precious")
    for name in ("trials.csv.bak", f"trials.csv.{'x' * 32}.tmp", "curves.png~"):
        (folder / name).write_text("precious")
    assert job(folder, overwrite=True, num_epochs=2)[0] == 0
    kept = [path for path, content in contents(folder).items() if content == b"precious"]
    assert len(kept) == len(mine) + 3


@pytest.mark.parametrize("name", ["config.json", "summary.json", "params.npz", "metrics.jsonl"])
def test_a_link_in_a_run_is_not_followed(run_folder, tmp_path, capsys, name):
    """The page would show whatever file it leads to."""
    (run_folder / name).rename(tmp_path / "elsewhere")
    (run_folder / name).symlink_to(tmp_path / "elsewhere")
    assert run_command(["report", str(run_folder), f"--output={tmp_path}/r.html"]) == 2
    assert_one_message(capsys.readouterr().err, f"{name} cannot be read", "is a link")


def test_what_is_written_does_not_go_through_a_link(job, tmp_path):
    mine, folder = tmp_path / "mine", tmp_path / "w"
    mine.write_text("precious")
    folder.mkdir()
    for name in ("metrics.jsonl", "trials.csv", "summary.json", "curves.png"):
        (folder / name).symlink_to(mine)
    assert job(folder)[0] == 3  # results without a config
    assert job(folder, overwrite=True)[0] == 0
    assert mine.read_text() == "precious" and not (folder / "metrics.jsonl").is_symlink()


# Refused before anything is deleted.


TOO_MUCH = [
    {"audit_folds": 1000},
    {"learning_curve__sizes": (1_000_000,)},
    {"learning_curve__sizes": (2,)},
    {"learning_curve__sizes": (48,), "learning_curve__seeds": 10**12},
    {"class_weight": (1e308, 1e308, 1e308)},
    {"class_weight": (1.0, 1.0)},
    {"cost_matrix": ((1e308, 1.0), (1.0, 1.0), (1.0, 1.0))},
    {"cost_matrix": ((1.0,),)},
    {"folds": 1000},
    {"bootstraps": 2**62},
    {"num_epochs": 2**62},
    {"l2_path": 2**62},
    {"sweep__seed": tuple(range(1000)), "num_epochs": 10**9},
    {"mesh__trials": 2**62},
    {"loss": "sampled_softmax", "num_samples": 2**40},
]


@pytest.mark.parametrize("fields", TOO_MUCH, ids=lambda fields: "-".join(fields))
def test_what_cannot_be_run_deletes_nothing(job, tmp_path, fields):
    folder = tmp_path / "w"
    workdir.Workdir(folder).open()
    for name in ("summary.json", "config.json", "trials.csv", "params.npz"):
        (folder / name).write_text("a finished job")
    before = contents(folder)
    code, err = job(folder, overwrite=True, **fields)
    assert code == 2
    assert_one_message(err)
    assert before.items() <= contents(folder).items()


# Labels and pictures.

NASTY = [
    ("$", "$$", "$$$"),
    ("$\\frac{$", "x$y$z", "\\$1 $2$"),
    ("\ud800", "a\x1b[31mb", "tab\there"),
    ("猫", "犬", "鳥"),
    ("=cmd|' /C calc'!A0", "+1", "@x"),
    ("a\nb", "\u202eabc", "x" * 1000),
    ("%s%d{0}", "<b>&amp;", '"quoted", and\rmore'),
]


@pytest.mark.parametrize("labels", NASTY, ids=range(len(NASTY)))
@pytest.mark.parametrize("images", [False, True])
def test_any_label_is_drawn_as_text(job, tmp_path, labels, images):
    folder = tmp_path / "a_{$ $x^2$"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        more = {"cost_matrix": ((0.0, 1.0), (1.0, 0.0), (1.0, 0.0))}
        code, err = job(folder, labels=labels, images=images, num_epochs=2, **more)
    assert code == 0, err
    assert "Glyph" not in err and "could not be drawn" not in err
    wanted = {"curves.png", "confusion.png"} | (
        {"weights.png", "mistakes.png"} if images else set()
    )
    assert wanted <= set(os.listdir(folder))
    named = json.loads((folder / "summary.json").read_text())["classes"]["by_class"]
    assert sorted(named) == sorted(labels)


def test_drawn_text_is_never_mathematics():
    from matplotlib import cbook

    for labels in NASTY:
        for text in (*labels, "".join(labels), "\n".join(labels)):
            assert not any(map(cbook.is_math_text, plots.plain_text(text).split("\n")))


@slow
def test_a_picture_that_fails_is_one_warning(job, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ValueError("no font\x1b[31m")

    monkeypatch.setattr(plots, "confusion", broken)
    monkeypatch.setattr(plots, "learning_curve", broken)
    sizes = {"learning_curve__sizes": (12, 24, 48), "learning_curve__seeds": 1}
    code, err = job(tmp_path / "w", **sizes)
    assert code == 0
    assert err.count("could not be drawn") == 2 and "confusion.png could not be drawn" in err
    assert "\x1b" not in err
    files = set(os.listdir(tmp_path / "w"))
    assert {"curves.png", "learning_curve.csv", "params.npz", "summary.json"} <= files


def test_a_job_killed_while_it_draws_has_its_numbers_and_draws_them_again(job, tmp_path):
    folder = tmp_path / "w"
    assert job(folder)[0] == 0
    whole = contents(folder)
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"]["pictures"]  # as it is before the pictures
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "curves.png").unlink()
    assert job(folder)[0] == 0
    after = contents(folder)
    for name in ("curves.png", "metrics.jsonl", "params.npz", "trials.csv"):
        assert after[folder / name] == whole[folder / name]


# Locks, and a folder that changes under a job.


def test_the_lock_holds_without_its_file(tmp_path):
    with locked(tmp_path):
        (tmp_path / ".lock").unlink()
        with pytest.raises(JobError, match="in use by another process"), locked(tmp_path):
            pass
    with locked(tmp_path) as warning:
        assert warning == ""


@pytest.mark.usefixtures("untyped")  # an epoch by hand
@pytest.mark.parametrize("what", ["config.json", "metrics.jsonl", "folder", "another folder"])
def test_a_folder_that_is_gone_or_another_is_noticed(tmp_path, what):
    opened = Workdir(tmp_path / "w")
    opened.open()
    opened.write_json("config.json", {})
    opened.write_metrics([])
    if what.endswith("folder"):
        (tmp_path / "w").rename(tmp_path / "moved")
        if what.startswith("another"):
            shutil.copytree(tmp_path / "moved", tmp_path / "w")
    else:
        (tmp_path / "w" / what).unlink()
    with pytest.raises(JobError, match="was changed while the job ran") as caught:
        opened.append_metrics(_Epoch())
    assert caught.value.exit_code == 3
    if what != "metrics.jsonl":
        with pytest.raises(JobError, match="was changed while the job ran"):
            opened.write_json("summary.json", {})


class _Epoch:
    """An epoch of no trials."""

    trials, metrics, reached = (), {}, ()


@slow
@pytest.mark.parametrize("what", ["config.json", ".", "metrics.jsonl"])
def test_a_job_whose_files_are_deleted_does_not_end_well(environment, tmp_path, what):
    folder = tmp_path / "w"
    command = [sys.executable, "main.py", "--config=configs/digits.py", f"--workdir={folder}"]
    job = subprocess.Popen(
        [*command, "--config.num_epochs=1000000"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "metrics.jsonl").exists():
        assert job.poll() is None
    if what == ".":
        folder.rename(tmp_path / "moved")
    else:
        (folder / what).unlink()
    _, err = job.communicate(timeout=50)
    assert job.returncode == 3
    assert_one_message(err, "was changed while the job ran")


# Bombs, pipes and devices.


@pytest.mark.parametrize(
    "name, num",
    [("l2_path", 2**31), ("l2_path", 2**53), ("l1_path", 2**53), ("l1_group_path", 2**40)],
)
def test_a_path_of_more_penalties_than_fit_is_refused_before_it_is_made(name, num, tmp_path, capfd):
    config = default.get_config()
    config.dataset, config.train_split, config.val_split = "digits", "train[:100]", "train[100:200]"
    config.test_split, config.optimizer = "", "lbfgs"
    config[name] = num
    assert run.main(config, tmp_path / "w", mode="check") == 2
    assert_one_message(capfd.readouterr().err, f"A path of {num:,} penalties would take", name)


def test_an_idx_file_is_read_as_far_as_its_header_promises(tmp_path):
    path = tmp_path / "images.gz"
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 30, 32)
    path.write_bytes(gzip.compress(header + bytes(200 << 20)))
    tracemalloc.start()
    with pytest.raises(DataError, match="promises 960 values .* and more are there"):
        sources.read_idx(path, 3)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2000, 1000, 1000)))
    with pytest.raises(DataError, match="promises 2,000,000,000 values, and it has"):
        sources.read_idx(path, 3)


@pytest.mark.parametrize("size", ["2000000000", "9" * 12, "9" * 20, "9" * 5000, "²", "1e9", " 5"])
def test_the_size_of_a_language_is_checked_first(size):
    with pytest.raises(DataError, match="would take|must be 'bigram'"):
        data.load(f"bigram:{size}")
    if len(size) < 13 and size.isdecimal():
        with pytest.raises(DataError, match="would take"):
            bigram.bigrams(num_train=int(size), vocabulary_size=100, num_contexts=10)


@pytest.fixture(params=["pipe", "socket", "device", "folder"])
def odd(request):
    """odd(path) puts what is no regular file there."""
    sockets = []

    def make(path):
        path.unlink(missing_ok=True)
        if request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "socket":
            sockets.append(socket.socket(socket.AF_UNIX))
            os.chdir(path.parent)  # the name of a socket is short
            sockets[-1].bind(path.name)
        elif request.param == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()

    before = os.getcwd()
    yield make
    os.chdir(before)
    for one in sockets:
        one.close()


def test_the_files_of_a_folder_are_regular(job, odd, run_folder, tmp_path, capsys):
    folder = tmp_path / "w"
    folder.mkdir()
    odd(folder / "config.json")
    code, err = job(folder)
    assert code == 3
    assert_one_message(err, "config.json cannot be read")
    for name in ("config.json", "summary.json", "metrics.jsonl", "trials.csv", "curves.png"):
        shutil.copytree(run_folder, tmp_path / name)
        odd(tmp_path / name / name)
        assert run_command(["report", str(tmp_path / name), f"--output={tmp_path}/r.html"]) == 2
        assert_one_message(capsys.readouterr().err, f"{name} cannot be read")


def test_datasets_are_regular_files(job, odd, tmp_path):
    for name, file in (("set.npz", "set.npz"), ("folder", "folder/x_train.npy")):
        (tmp_path / "folder").mkdir(exist_ok=True)
        odd(tmp_path / file)
        np.save(tmp_path / "folder" / "y_train.npy", np.arange(4) % 2)
        code, err = job(tmp_path / "w", dataset=str(tmp_path / name))
        assert code == 2
        assert_one_message(err)


def test_the_input_of_predict_is_a_regular_file(odd, run_folder, tmp_path, capsys):
    odd(tmp_path / "x.npy")
    given = [f"--input={tmp_path}/x.npy", f"--output={tmp_path}/p.csv"]
    assert run_command(["predict", str(run_folder), *given]) == 2
    assert_one_message(capsys.readouterr().err, "x.npy cannot be read")
    odd(run_folder / "params.npz")
    np.save(tmp_path / "y.npy", np.zeros((2, 4)))
    given = [f"--input={tmp_path}/y.npy", f"--output={tmp_path}/p.csv"]
    assert run_command(["predict", str(run_folder), *given]) == 2
    assert_one_message(capsys.readouterr().err, "params.npz cannot be read")


@pytest.mark.parametrize("save", [np.save, lambda file, x: np.savez(file, x=x)])
def test_predict_reads_the_standard_input(run_folder, tmp_path, monkeypatch, save):
    x, content = np.random.default_rng(0).normal(size=(5, 4)), io.BytesIO()
    save(content, x)
    np.save(tmp_path / "x.npy", x)
    pages = []
    for name, given in (("a", "-"), ("b", tmp_path / "x.npy")):
        content.seek(0)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.getvalue())))
        output = tmp_path / f"{name}.csv"
        assert (
            run_command(["predict", str(run_folder), f"--input={given}", f"--output={output}"]) == 0
        )
        pages.append(output.read_text())
    assert pages[0] == pages[1]
    monkeypatch.setattr("softmax_jax.predict._MOST_INPUT", 10)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.getvalue())))
    assert run_command(["predict", str(run_folder), "--input=-", f"--output={output}"]) == 2


# Paths.

NOWHERE = "~nosuchuser_of_the_tests/x"
UNDECODABLE = os.fsdecode(b"caf\xe9.npz")


@pytest.mark.parametrize("name", ["dataset", "data_dir"])
@pytest.mark.parametrize(
    "path", [NOWHERE, "~nosuchuser_of_the_tests/x.npz", "a\0b.npz", "./\ud800"]
)
def test_a_path_that_is_none_is_one_message(job, tmp_path, name, path):
    more = {} if name == "dataset" else {"dataset": "toy"}
    code, err = job(tmp_path / "w", **more | {name: path})
    assert code == 2
    assert_one_message(err)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("variable", ["TFDS_DATA_DIR", "XDG_CACHE_HOME"])
def test_a_variable_that_is_no_path_is_one_message(job, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, NOWHERE)
    code, err = job(tmp_path / "w", dataset="toy")
    assert code == 2
    assert_one_message(err)


def test_a_path_that_is_not_utf8_is_a_path(tmp_path, capsys):
    config = default.get_config().unlock()
    config.dataset = str(write_examples(tmp_path / UNDECODABLE))
    config.val_split, config.batch_size, config.num_epochs = "val", 8, 1
    folder = tmp_path / os.fsdecode(b"w\xff\x1b[31m")
    assert run.main(config, folder) == 0
    assert run.main(config, folder) == 0
    config.l2 = 0.5
    assert run.main(config, folder) == 3
    said = "".join(capsys.readouterr())
    assert "\\udcff" in said and "\x1b" not in said
    assert run_command(["report", str(folder), f"--output={tmp_path}/r.html"]) == 0
    assert "\x1b" not in (tmp_path / "r.html").read_text("utf-8")


def test_a_home_folder_is_known_or_not_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/x", "data_dir") == tmp_path / "x"
    assert sources.data_folders(None) == [tmp_path / "tensorflow_datasets"]


# JSON of a work folder.

STRANGE = {
    "deep": "[" * 100_000,
    "deep object": '{"job": ' + '{"a":' * 900 + "1" + "}" * 901,
    "surrogate": '{"job": {"config": {"a": "\\ud800\\u001b[31m"}, "data": {"name": "x"}}}',
    "number": '{"job": ' + "9" * 5000 + "}",
    "none": "null",
    "text": '"' + "x" * 10**6 + '"',
    "latin": b'{"job": "\xe9"}',
    "empty": "",
    "huge": json.dumps({"job": {"config": {"x" * 10**6: "y" * 10**7}, "data": {"name": "x"}}}),
    "many": json.dumps(
        {"job": {"config": dict.fromkeys(map(str, range(10**5)), 1), "data": {"name": "x"}}}
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_config_json_is_one_message_of_bounded_size(job, tmp_path, name):
    text = STRANGE[name]
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "config.json").write_bytes(content)
    code, err = job(tmp_path / "w")
    assert code == 3
    assert_one_message(err, "--overwrite")
    assert len(err) < 10_000
    (tmp_path / "w" / "config.json").unlink()
    (tmp_path / "w" / "summary.json").write_bytes(content)
    assert workdir.outcome(tmp_path / "w") is None


def test_a_long_value_is_cut(job, tmp_path):
    for fields in (
        {"model": "x" * 300_000},
        {"dataset": "x" * 300_000},
        {"cost_matrix": (("y" * 300_000,),)},
        {"sweep__l2": tuple(["z" * 300_000] * 1000)},
        {"x" * 300_000: 1},
    ):
        code, err = job(tmp_path / "w", **fields)
        assert code == 2
        assert_one_message(err)
        assert len(err) < 3000


@pytest.mark.parametrize("error", [DataError, JobError])
def test_every_error_message_is_cut_and_shows_control_characters(error):
    text = str(error("begin \x1b[31m\r\x07\u202e" + "x" * 10**6 + " end"))
    assert len(text) < 1200 and text.startswith("begin \\x1b[31m\\r") and text.endswith(" end")
    lines = str(error("\n".join(f"line {n}" for n in range(1000)))).splitlines()
    assert len(lines) < 40 and lines[-1] == "line 999"


# Config files and command lines.

HEAD = (
    "import numpy as np\nfrom ml_collections import config_dict\nfrom configs import default\n"
    "def get_config():\n    config = default.get_config().unlock()\n"
)
BODIES = {
    "config[1] = 2": "the name of each field must be text",
    "config.sweep[(1, 2)] = 2": "the name of each field must be text",
    "del config['sweep']; config.sweep = 5": "config.sweep must have a field per axis",
    "del config['mesh']; config.mesh = 5": "mesh",
    "del config['dataset']; config.dataset = config_dict.required_placeholder(str)": "required",
    "del config['optimizer']; config.optimizer = np.arange(3)": "optimizer must be",
    "del config['precision']; config.precision = np.arange(3)": "precision must be",
    "del config['cost_matrix']; config.cost_matrix = np.eye(2)": "cost_matrix must be",
    "del config['learning_rate']; config.learning_rate = 10**400": "learning_rate must be",
    "del config['tolerance']; config.tolerance = 10**400": "tolerance must be",
    "del config['dataset']; config.dataset = b'x'": "dataset must be",
    "config.me = config": "no field me",
    "config.sweep.seed = (np.arange(3), [1])": "seed must be",
    "raise OSError()": "OSError: no message",
    "raise OSError('\\x1b[31m')": "\\x1b[31m",
    "raise ValueError": "ValueError: no message",
    "raise SyntaxError": "",
    "raise ValueError('x' * 10**6)": "ValueError: x",
    "raise SystemExit(1)": "ends the program",
    "return None": "ConfigDict",
    "return 5": "ConfigDict",
    "return [1]": "ConfigDict",
}
LINES = {
    ("--config=configs/default.py:foo",): "get_config(TEXT)",
    ("--config=configs/default.py", "--flagfile=/nonexistent"): "/nonexistent",
    ("--config=configs/default.py", "--flagfile=/dev/zero"): "not a regular file",
    ("--config=configs/default.py", "--flagfile", "/dev/zero"): "not a regular file",
    ("--config=/dev/zero",): "not a regular file",
    ("--config=/dev/zero:text",): "not a regular file",
    ("--config=configs/digits.py", "--config.l2=\x1b[31m"): "\\x1b[31m",
    ("--config=configs/digits.py", "--config." + "x" * 10**5 + "=1"): "no field xxx",
    ("--config=configs/digits.py", "--config.dataset=~nosuchuser_of_the_tests/x"): "whole path",
    ("--config=" + "x" * 5000,): "",
    ("--config=configs/digits.py", "--workdir=~nosuchuser_of_the_tests/x"): "--workdir",
    ("--config=configs/digits.py", "--mode=\x1b"): "",
    ("--config=configs/digits.py", UNDECODABLE): "caf\\udce9",
}


def test_strange_config_files_and_command_lines_are_one_message(environment, tmp_path):
    commands, wanted = [], [*BODIES.values(), *LINES.values()]
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "outer").write_text("--config.l2=0\n--flagfile=/dev/zero\n")
    (tmp_path / "long").write_bytes(b"#" * (1 << 21))
    for number, body in enumerate(BODIES):
        path = tmp_path / f"strange_{number}.py"
        path.write_text(f"{HEAD}    {body}\n    return config\n")
        commands.append([f"--config={path}", f"--workdir={tmp_path}/w"])
    commands += map(list, LINES)
    commands += [[f"--config={tmp_path}/pipe.py"], [f"--flagfile={tmp_path}/pipe.py"]]
    commands += [[f"--flagfile={tmp_path}/outer"], [f"--config={tmp_path}/long"]]
    wanted += [*["not a regular file"] * 3, "larger than 1 MiB"]
    found = programs.run_each(environment, commands)
    for command, done, text in zip(commands, found, wanted, strict=True):
        assert done.returncode == 2, (command, done)
        assert_one_message(done.stderr, text)
        assert len(done.stderr) < 6000
    assert not (tmp_path / "w").exists()


# Surroundings.


def program(environment, *arguments, shell="", **variables):
    """The finished process of main.py or of a module, in a shell that redirects."""
    command = " ".join(f"'{argument}'" for argument in (sys.executable, *arguments))
    return subprocess.run(
        ["bash", "-c", f"exec {command} {shell}"],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=100,
    )


SHORT = ("main.py", "--config=configs/digits.py", "--config.num_epochs=1")


def test_a_variable_that_jax_refuses_is_one_message(environment, run_folder):
    done = program(environment, *SHORT, JAX_ENABLE_X64="maybe")
    assert done.returncode == 2
    assert_one_message(done.stderr, "JAX_ENABLE_X64")
    done = program(environment, "-m", "softmax_jax", "report", run_folder, JAX_ENABLE_X64="maybe")
    assert done.returncode == 2
    assert_one_message(done.stderr, "JAX_ENABLE_X64")


@slow
@pytest.mark.parametrize("shell", ["", ">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full"])
def test_a_job_needs_no_streams_and_no_window_system(environment, tmp_path, shell):
    folder = tmp_path / "größe"
    variables = {"MPLBACKEND": "nonsense", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = program(environment, *SHORT, f"--workdir={folder}", shell=shell, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"summary.json", "curves.png"} <= set(os.listdir(folder))
    with open(folder / ".lock", "rb") as file:  # no stream of a library has gone into a file
        assert file.read().count(b"\n") == 1
    wrong = program(environment, *SHORT, "--config.l2=-1", shell=shell, **variables)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr


def test_an_error_that_nobody_foresaw_is_one_line_and_a_file(tmp_path, capsys):
    def command():
        raise ZeroDivisionError("odd \x1b[31m\n" + "x" * 10**5)

    code = host.guarded("main.py", command, tmp_path)
    err = capsys.readouterr().err
    assert code == 1
    assert err.count("\n") == 1 and len(err) < 1000 and "\x1b" not in err
    assert "ZeroDivisionError" in err and "please report it" in err
    assert f"{tmp_path}/{host.ERROR_FILE}" in err
    assert "Traceback" in (tmp_path / host.ERROR_FILE).read_text("utf-8")
    assert host.guarded("main.py", command, tmp_path / "none") == 1
    kept = Path(re.search(r"traceback is in (\S+):", capsys.readouterr().err)[1])
    assert "ZeroDivisionError" in kept.read_text("utf-8")
    kept.unlink()


def test_a_job_keeps_the_traceback_of_what_nobody_foresaw(job, tmp_path, monkeypatch):
    def broken(*_):
        raise RecursionError

    monkeypatch.setattr(run.outputs, "write_tables", broken)
    code, err = job(tmp_path / "w")
    assert code == 1 and "please report it" in err and err.count("\n") == 1
    assert "RecursionError" in (tmp_path / "w" / host.ERROR_FILE).read_text()
    monkeypatch.undo()
    assert job(tmp_path / "w", overwrite=True)[0] == 0
    assert not (tmp_path / "w" / host.ERROR_FILE).exists()


# What a terminal, a page and a spreadsheet receive.


def test_no_cell_of_a_table_is_a_formula(write_run, tmp_path):
    names = ("=cmd|' /C calc'!A0", "\t=1", "-1+1", "@sum", "+x", "a=b")
    folder = write_run(tmp_path / "run", names)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 4)))
    for raw, expected in (((), [f"'{n}" for n in names[:5]] + ["a=b"]), (("--raw",), list(names))):
        output = tmp_path / "p.csv"
        given = [f"--input={tmp_path}/x.npy", f"--output={output}", *raw]
        assert run_command(["predict", str(folder), *given]) == 0
        with open(output, newline="") as file:
            head, *rows = csv.reader(file)
        assert head[2:] == [f"p({name})" for name in expected]
        assert {row[1] for row in rows} <= set(expected)
        cells = [cell for row in [head, *rows] for cell in row]
        assert raw or not [cell for cell in cells if cell[0] in "=+-@\t"]


@slow
def test_the_audit_is_no_formula_either(job, tmp_path):
    labels = ("=1+1", "@b", "c")
    assert job(tmp_path / "w", labels=labels, audit_folds=2)[0] == 0
    with open(tmp_path / "w" / "audit.csv", newline="") as file:
        given = {row["given"] for row in csv.DictReader(file)}
    assert given == {"'=1+1", "'@b", "c"}


def test_escape_sequences_do_not_reach_the_terminal(job, run_folder, tmp_path, capsys):
    evil = "\x1b]0;owned\x07\x9b31m"
    (tmp_path / evil).mkdir()
    code, first = job(tmp_path / evil / "w", labels=(evil, "b"), cost_matrix=((0, 1), (1, 0)))
    assert code == 0
    code, second = job(tmp_path / evil / "w", labels=(evil, "c"))
    assert code == 3
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"job": {"config": {evil: evil}, "data": {"name": evil}}})
    )
    code, third = job(folder)
    assert code == 3
    config = json.loads((run_folder / "config.json").read_text())
    config["config"][evil] = config["dataset"] = evil
    (run_folder / "config.json").write_text(json.dumps(config))
    assert run_command(["report", str(run_folder), f"--output={tmp_path}/r.html"]) == 0
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", (tmp_path / "r.html").read_text())
    said = "".join([*capsys.readouterr(), first, second, third])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)


# Models and runs from elsewhere.


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", ">f8", "f16", "c8", "i4"])
def test_weights_of_any_type_are_used_or_refused(run_folder, write_params, tmp_path, capsys, dtype):
    np.save(tmp_path / "x.npy", np.zeros((2, 4)))
    write_params(run_folder, W=np.ones((4, 3)).astype(dtype), b=np.zeros(3, "f4"))
    given = [f"--input={tmp_path}/x.npy", f"--output={tmp_path}/p.csv"]
    code = run_command(["predict", str(run_folder), *given])
    err = capsys.readouterr().err
    assert code == (2 if dtype in ("f16", "c8", "i4") else 0), err
    assert code == 0 or assert_one_message(err, "is damaged") is None


@pytest.mark.parametrize("value", [1e308, -1e308, 1e-320, 0.0, 5e-324])
def test_a_report_draws_any_loss(run_folder, tmp_path, value):
    rng, lines = np.random.default_rng(0), []
    for line in (run_folder / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        for name in values:
            if name not in ("trial", "epoch") and rng.random() < 0.5:
                values[name] = value * rng.choice([1, -1])
        lines.append(json.dumps(values))
    (run_folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for name in ("settings.csv", "trials.csv"):
        text = (run_folder / name).read_text()
        text = re.sub(r"0\.\d+", lambda m: str(value) if rng.random() < 0.3 else m[0], text)
        (run_folder / name).write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_command(["report", str(run_folder), f"--output={tmp_path}/r.html"]) == 0


# Processes and caches.

FORKED = """
import multiprocessing, warnings, numpy as np
warnings.simplefilter("ignore")
from softmax_jax import SoftmaxRegression, sweep, data, optimum
x = np.random.default_rng(0).normal(size=(60, 3)); y = x.argmax(1)
def fits(queue, which):
    try:
        if which == "estimator": SoftmaxRegression().fit(x, y)
        if which == "sweep":
            sweep.fit(data.from_arrays((x, y), (x[:9] + 1, y[:9])).train, None, num_epochs=1)
        if which == "optimum": optimum.minimise(optimum.Problem(x, y), [0.1])
        queue.put("fitted")
    except Exception as error: queue.put(repr(error))
context = multiprocessing.get_context("fork")
def child(which):
    queue = context.Queue()
    process = context.Process(target=fits, args=(queue, which))
    process.start()
    found = queue.get(timeout=30)
    process.join()
    return found
print(child("estimator"))  # JAX has not started here
SoftmaxRegression().fit(x, y)
for which in ("estimator", "sweep", "optimum"): print(child(which))
"""


@slow
def test_a_fork_after_jax_has_started_is_an_error(environment):
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    first, *rest = done.stdout.splitlines()
    assert first == "fitted" and len(rest) == 3, done
    for line in rest:
        assert "RuntimeError" in line and "loky" in line and "spawn" in line


@pytest.mark.parametrize("where", ["xla", "softmax_jax", "cache"])
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o755])
def test_compiled_programs_come_from_a_folder_of_ones_own(tmp_path, monkeypatch, where, mode):
    import jax

    before = jax.config.jax_compilation_cache_dir
    folder = tmp_path / "cache" / "softmax_jax" / "xla"
    folder.mkdir(parents=True)
    place = {"xla": folder, "softmax_jax": folder.parent, "cache": tmp_path / "cache"}[where]
    place.chmod(mode)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(host, "_is_own_group", lambda _: False)
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        word = host.use_compilation_cache()
        used = jax.config.jax_compilation_cache_dir
        fine = mode == 0o755 or (mode == 0o1777 and where != "xla")
        assert (used == str(folder), word == "") == (fine, fine), word
        if not fine:
            assert used is None and f"others may write to {place}" in word
        jax.config.update("jax_compilation_cache_dir", str(folder))  # as JAX's variable does
        assert (host.use_compilation_cache() == "") == fine
        if os.geteuid() == 0:
            place.chmod(0o755)
            os.chown(place, 12345, -1)
            assert "belongs to another user" in host.use_compilation_cache()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


# What all of it is made of.


def test_open_regular_opens_files_alone(tmp_path, odd):
    odd(tmp_path / "odd")
    with pytest.raises(OSError):
        open_regular(tmp_path / "odd")
    (tmp_path / "file").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"1"
    with pytest.raises(OSError, match="link"):
        open_regular(tmp_path / "link", follow=False)
    with pytest.raises(OSError, match="link"):
        read_json(tmp_path / "link")
    with contextlib.suppress(OSError):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="regular"):
            open_regular(tmp_path / "pipe", os.O_WRONLY | os.O_APPEND)
