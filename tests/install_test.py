"""What an installation brings: the wheel, and what is said without its extras."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from softmax_jax import data, host, plots
from softmax_jax.__main__ import main as run_command
from softmax_jax.data import tfds
from softmax_jax.job import run
from tests.data_on_disk import IMAGES, LABELS, isolate, write_prepared  # noqa: F401

ROOT = Path(__file__).parents[1]
PLOTS, DATA = "pip install 'softmax_jax[plots]'", "pip install 'softmax_jax[data]'"


@pytest.fixture
def without(monkeypatch):
    """without(package): it cannot be imported, nor any of its modules."""

    def hide(package):
        names = [name for name in sys.modules if name.partition(".")[0] == package]
        for name in {package, *names}:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


def test_a_picture_without_matplotlib_names_the_line_to_type(without):
    without("matplotlib")
    for draw in (
        lambda: plots.show_images(np.zeros((1, 2, 2)), [""]),
        lambda: plots.confusion(np.arange(2), np.arange(2), ("a", "b"), ""),
    ):
        with pytest.raises(host.NotInstalledError, match="matplotlib is not installed") as error:
            draw()
        assert PLOTS in str(error.value) and isinstance(error.value, ImportError)


def test_a_job_without_matplotlib_is_done_and_says_so_once(without, config, tmp_path, capsys):
    without("matplotlib")
    assert run.main(config, tmp_path / "run") == host.DONE
    assert capsys.readouterr().err.count(PLOTS) == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"summary.json", "params.npz"} < names and not any(".png" in name for name in names)


def test_a_report_without_matplotlib_is_one_message(without, run_folder, tmp_path, capsys):
    without("matplotlib")
    assert run_command(["report", str(run_folder), f"--output={tmp_path}/page.html"]) == host.USAGE
    err = capsys.readouterr().err
    assert PLOTS in err and err.count("\n") == 1 and not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("package", ["tensorflow_datasets", "array_record"])
def test_a_prepared_set_without_tfds_names_the_line_to_type(without, package, tmp_path):
    folder = write_prepared(tmp_path, "toy", {"train": (IMAGES, LABELS)})
    without(package)
    with pytest.raises(host.NotInstalledError, match=f"{package} is not installed") as error:
        tfds.describe(folder)
    assert DATA in str(error.value)
    with pytest.raises(host.NotInstalledError):  # and is not taken for one that is not there
        data.load("toy", data_dir=tmp_path, val="train")


def test_a_missing_dependency_of_an_extra_is_named_itself(without, tmp_path, monkeypatch):
    without("PIL")
    (tmp_path / "draws_with_pillow.py").write_text("import PIL.Image")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(host.NotInstalledError, match="PIL is not installed"):
        host.require("draws_with_pillow", "plots")


def test_features_and_slices_need_no_extra(without, tmp_path):
    for package in ("tensorflow_datasets", "array_record", "matplotlib", "PIL", "tensorboardX"):
        without(package)
    np.savez(tmp_path / "x.npz", x=np.eye(20), y=np.arange(20) % 2)
    splits = data.load(str(tmp_path / "x.npz"), "train[:50%]", "train[-5:]+train[12:14]")
    assert (len(splits.train), len(splits.val)) == (10, 7)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of what git would take, built as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(lambda name: (ROOT / name).exists(), names.splitlines()):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "source" / name, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "./source"]
    subprocess.run(command, cwd=folder, check=True, timeout=600)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    expected = {
        str(path.relative_to(ROOT))
        for folder in (ROOT / "softmax_jax", ROOT / "softmax_jax" / "configs")
        for path in folder.rglob("*")
        if path.suffix in (".py", ".html", ".css", ".js", ".typed")
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert "softmax_jax/configs/default.py" in found and "softmax_jax/configs/bigram.py" in found
    assert found == expected


@pytest.mark.slow
def test_a_stranger_installs_the_wheel_trains_predicts_exports_and_reports(wheel, tmp_path):
    """In an empty environment, outside of the checkout; pictures come with the extra."""
    variables = {"HOME": str(tmp_path), "JAX_PLATFORMS": "cpu", "TFDS_DATA_DIR": ""}
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables

    def call(*command, code=0):
        options = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
        done = subprocess.run(list(map(str, command)), timeout=600, check=False, **options)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    env.pop("HOME")  # of pip, which may have to be told where packages are
    call(sys.executable, "-m", "venv", tmp_path / "empty")
    call(tmp_path / "empty/bin/pip", "install", "--quiet", wheel)
    env |= variables
    program = tmp_path / "empty/bin/softmax-jax"
    assert "A linear probe" in call(program, "configs").stdout
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    x = rng.normal(size=(300, 5)) + 3 * np.eye(3, 5)[y]
    np.savez(tmp_path / "mine.npz", x=x, y=np.array(["ant", "bee", "cat"])[y])
    np.save(tmp_path / "new.npy", x)
    line = program, "train", "--config=probe", "--config.dataset=mine.npz", "--config.l2_path=3"
    assert PLOTS in call(*line, "--workdir=run").stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["selected"]["val_accuracy"] > 0.9
    call(program, "predict", "run", "--input=new.npy", "--output=out.npz")
    predicted = np.load(tmp_path / "out.npz")["predicted_names"]
    assert (predicted == np.array(["ant", "bee", "cat"])[y]).mean() > 0.9
    assert PLOTS in call(program, "report", "run", code=2).stderr
    call(tmp_path / "empty/bin/pip", "install", "--quiet", f"{wheel}[plots]")
    call(program, "report", "run")
    assert "ant" in (tmp_path / "report.html").read_text()
    bigram = "--config.dataset=bigram:300", "--config.num_samples=50", "--config.num_epochs=1"
    call(program, "train", "--config=large_vocabulary", *bigram, "--workdir=words")
    assert (tmp_path / "words/curves.png").exists()
