import csv
import os

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from softmax_jax import predict as predict_module
from softmax_jax.data import DataError
from softmax_jax.host import USAGE, WORKDIR, JobError
from softmax_jax.predict import predict

NAMES = ("ant", "bee, or wasp", 'the "cat"\n')
X = np.random.default_rng(0).normal(size=(23, 2, 2)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, write_params):
    """The folder of a run with a model, and X in x.npy beside it."""
    write_params(tmp_path, NAMES)
    np.save(tmp_path / "x.npy", X)
    return tmp_path


def in_numpy(folder, x=X):
    with np.load(folder / "params.npz") as file:
        features = (x.reshape(len(x), -1) - file["mean"].astype(float)) / file["scale"]
        return softmax(features @ file["W"] + file["b"], -1)


@pytest.mark.parametrize("block", [1 << 24, 4 * 5])
def test_npz_holds_the_probabilities_of_numpy_and_their_classes(folder, monkeypatch, block):
    monkeypatch.setattr(predict_module, "_BLOCK_VALUES", block)
    assert predict(folder, folder / "x.npy", folder / "y.npz") == 23
    with np.load(folder / "y.npz", allow_pickle=False) as file:
        assert_allclose(file["probabilities"], in_numpy(folder), rtol=1e-4)
        assert file["probabilities"].dtype == np.float32
        assert_array_equal(file["predicted"], in_numpy(folder).argmax(-1))
        assert file["predicted"].dtype == np.int32
        assert_array_equal(file["label_names"], NAMES)
        assert_array_equal(file["predicted_names"], np.array(NAMES)[file["predicted"]])


def test_csv_holds_the_same_to_the_last_bit(folder):
    predict(folder, folder / "x.npy", folder / "y.npz")
    predict(folder, folder / "x.npy", folder / "y.csv")
    with open(folder / "y.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["predicted", "predicted_name", *(f"p({name})" for name in NAMES)]
    with np.load(folder / "y.npz") as file:
        assert [row[0] for row in rows] == [str(label) for label in file["predicted"]]
        assert [row[1] for row in rows] == file["predicted_names"].tolist()
        written = np.array([row[2:] for row in rows], np.float32)
        assert_array_equal(written, file["probabilities"])


@pytest.mark.parametrize("name", ["y.npz", "y.csv"])
def test_the_same_input_makes_the_same_file(folder, name):
    predict(folder, folder / "x.npy", folder / name)
    first = (folder / name).read_bytes()
    predict(folder, folder / "x.npy", folder / name)
    assert (folder / name).read_bytes() == first


@pytest.mark.parametrize("name", ["y.npz", "y.csv"])
def test_no_examples_make_no_predictions(folder, name):
    np.save(folder / "x.npy", X[:0])
    assert predict(folder, folder / "x.npy", folder / name) == 0
    if name == "y.npz":
        with np.load(folder / name) as file:
            assert file["probabilities"].shape == (0, 3)
            assert file["predicted_names"].shape == (0,)
    else:
        assert (folder / name).read_text().startswith("predicted,")


@pytest.mark.parametrize("name", ["y.npz", "y.csv"])
def test_a_bad_value_late_in_the_input_leaves_the_old_file_as_it_was(folder, monkeypatch, name):
    monkeypatch.setattr(predict_module, "_BLOCK_VALUES", 4 * 5)
    (folder / name).write_text("old")
    x = X.copy()
    x[20, 0, 1] = np.nan
    np.save(folder / "x.npy", x)
    before = sorted(os.listdir(folder))
    with pytest.raises(DataError, match="row 20, column 1"):
        predict(folder, folder / "x.npy", folder / name)
    assert (folder / name).read_text() == "old"
    assert sorted(os.listdir(folder)) == before


def test_an_output_that_cannot_be_written(folder):
    with pytest.raises(JobError, match="must end in .npz or .csv") as caught:
        predict(folder, folder / "x.npy", folder / "y.txt")
    assert caught.value.exit_code == USAGE
    with pytest.raises(JobError, match="cannot be written: No such file or directory") as caught:
        predict(folder, folder / "x.npy", folder / "none" / "y.csv")
    assert caught.value.exit_code == WORKDIR


def test_input_that_was_divided_already_is_remarked_on(folder, write_params, capsys):
    predict(folder, folder / "x.npy", folder / "y.npz")  # values above 1
    assert capsys.readouterr().err == ""
    write_params(folder, NAMES, scale=np.float32(255), mean=np.float32(0))
    np.save(folder / "x.npy", np.abs(X) / np.abs(X).max())
    predict(folder, folder / "x.npy", folder / "y.npz")
    assert "divides its input by 255" in capsys.readouterr().err
    write_params(folder, NAMES, mean=np.float32(0), scale=np.full(4, 2, np.float32))
    predict(folder, folder / "x.npy", folder / "y.npz")  # standardised: nothing to remark on
    assert capsys.readouterr().err == ""
