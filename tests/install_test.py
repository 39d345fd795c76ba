"""What an installation brings: the extras and what is said without them."""

import sys

import numpy as np
import pytest

from softmax_jax import data, host, plots
from softmax_jax.__main__ import main as run_command
from softmax_jax.data import tfds
from softmax_jax.job import run
from tests.data_on_disk import IMAGES, LABELS, isolate, write_prepared  # noqa: F401

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


def test_a_missing_dependency_of_an_extra_is_named_itself(without):
    without("PIL")
    without("matplotlib")
    sys.modules.pop("matplotlib")
    with pytest.raises(host.NotInstalledError, match="PIL is not installed"):
        host.require("matplotlib.image", "plots")


def test_features_and_slices_need_no_extra(without, tmp_path):
    for package in ("tensorflow_datasets", "array_record", "matplotlib", "PIL", "tensorboardX"):
        without(package)
    np.savez(tmp_path / "x.npz", x=np.eye(20), y=np.arange(20) % 2)
    splits = data.load(str(tmp_path / "x.npz"), "train[:50%]", "train[-5:]+train[12:14]")
    assert (len(splits.train), len(splits.val)) == (10, 7)
