"""Predictions for a file of examples: what is read, what is written, and what is refused."""

import csv
import io
import os
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from softmax_jax import host
from softmax_jax import predict as predict_module
from softmax_jax.data import DataError
from softmax_jax.host import USAGE, WORKDIR, JobError
from softmax_jax.predict import batches, predict, read_examples

NAMES = ("ant", "bee, or wasp", 'the "cat"\n')
X = np.random.default_rng(0).normal(size=(23, 2, 2)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 200, (7, 2, 2)).astype(np.uint8)
ARRAYS = pytest.mark.parametrize("name", ["x.npy", "x.npz"])
OUTPUTS = pytest.mark.parametrize("name", ["y.npz", "y.csv"])


def save(folder, name, **arrays):
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, *arrays.values())
    else:
        np.savez_compressed(path, **arrays)
    return path


def read_whole(path):
    return np.concatenate(list(batches(read_examples(path, 4))))


@ARRAYS
@pytest.mark.parametrize(
    "dtype", ["uint8", "int64", "bool", "float16", "float32", "float64", ml_dtypes.bfloat16]
)
def test_uint8_stays_and_other_numbers_become_floats_that_hold_them(tmp_path, name, dtype):
    x = IMAGES.astype(dtype)
    found = read_whole(save(tmp_path, name, x=x))
    kept = {"uint8": np.uint8, "int64": np.float64, "float64": np.float64}
    assert found.dtype == kept.get(dtype, np.float32)
    assert_array_equal(found, x.astype(found.dtype))


@ARRAYS
def test_examples_of_any_order_in_memory_and_any_rank_are_read(tmp_path, name):
    for x in (np.asfortranarray(IMAGES), IMAGES[..., None], IMAGES.reshape(7, 4), IMAGES[:0]):
        assert_array_equal(read_examples(save(tmp_path, name, x=x), 4), x)


def test_the_array_of_an_archive_is_x_or_the_only_one(tmp_path):
    assert_array_equal(read_examples(save(tmp_path, "a.npz", y=IMAGES[0], x=IMAGES), 4), IMAGES)
    assert_array_equal(read_examples(save(tmp_path, "a.npz", images=IMAGES), 4), IMAGES)
    with pytest.raises(DataError, match="holds the arrays a, b. Name the one to use 'x'"):
        read_examples(save(tmp_path, "a.npz", a=IMAGES, b=IMAGES), 4)


@settings(deadline=None, database=None)
@given(st.integers(1, 40))
def test_batches_are_the_examples_in_order_whatever_their_size(values):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_module, "_BATCH_VALUES", values)
        found = list(batches(IMAGES))
    assert_array_equal(np.concatenate(found), IMAGES)
    assert max(map(len, found)) == max(1, min(7, values // 4))


@ARRAYS
@pytest.mark.parametrize(
    "x, message",
    [
        (IMAGES.reshape(7, 4)[:, :3], r"trained on 4 features an example; .* \(7, 3\) has 3"),
        (IMAGES.ravel(), r"has shape \(28,\), and \[N, ...\] is needed"),
        (IMAGES.astype(str), "holds <U3, and numbers are needed"),
        (IMAGES.astype(complex), "holds complex128, and numbers are needed"),
        (IMAGES.astype(object), "pickle"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(tmp_path, name, x, message):
    with pytest.raises(DataError, match=message):
        read_examples(save(tmp_path, name, x=x), 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_value_that_is_no_float32_is_named_by_row_and_column(tmp_path, monkeypatch, value):
    monkeypatch.setattr(predict_module, "_BATCH_VALUES", 8)
    x = IMAGES.astype(np.float64)
    x[5, 1, 0] = value
    with pytest.raises(DataError, match="in row 5, column 2 is not a finite float32"):
        read_whole(save(tmp_path, "x.npy", x=x))


def test_a_missing_damaged_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="none.npy is not there"):
        read_examples(tmp_path / "none.npy", 4)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_examples(tmp_path, 4)
    path = save(tmp_path, "x.npy", x=IMAGES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="x.npy is truncated"):
        read_examples(path, 4)
    (tmp_path / "x.txt").write_bytes(whole)
    with pytest.raises(DataError, match="x.txt is neither .npy nor .npz"):
        read_examples(tmp_path / "x.txt", 4)


@pytest.mark.parametrize("really", [0, 1 << 20])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, really):
    """A small archive that declares more than any memory, and holds another number of bytes."""
    header, path = io.BytesIO(), tmp_path / "bomb.npz"
    declared = {"descr": "|u1", "fortran_order": False, "shape": (1 << 42, 4)}
    np.lib.format.write_array_header_1_0(header, declared)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(really))
    with pytest.raises(DataError, match="bomb.npz: x is truncated or damaged"):
        read_examples(path, 4)


def test_an_archive_larger_than_the_memory_is_refused_and_a_npy_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "available_memory", lambda: 20)
    with pytest.raises(DataError, match="memory.*Save it as .npy, which is read by shards"):
        read_examples(save(tmp_path, "x.npz", x=IMAGES), 4)
    assert len(read_examples(save(tmp_path, "x.npy", x=IMAGES), 4)) == 7


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


@pytest.mark.parametrize("values", [1 << 24, 4 * 5])
def test_npz_holds_the_probabilities_of_numpy_and_their_classes(folder, monkeypatch, values):
    monkeypatch.setattr(predict_module, "_BATCH_VALUES", values)
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


@OUTPUTS
def test_equal_inputs_make_equal_files(folder, name):
    predict(folder, folder / "x.npy", folder / name)
    first = (folder / name).read_bytes()
    predict(folder, folder / "x.npy", folder / name)
    assert (folder / name).read_bytes() == first


@OUTPUTS
def test_no_examples_make_no_predictions(folder, name):
    np.save(folder / "x.npy", X[:0])
    assert predict(folder, folder / "x.npy", folder / name) == 0
    if name == "y.npz":
        with np.load(folder / name) as file:
            assert file["probabilities"].shape == (0, 3)
            assert file["predicted_names"].shape == (0,)
    else:
        assert (folder / name).read_text().startswith("predicted,")


@OUTPUTS
def test_a_bad_value_late_in_the_input_leaves_the_old_file(folder, monkeypatch, name):
    monkeypatch.setattr(predict_module, "_BATCH_VALUES", 4 * 5)
    (folder / name).write_text("old")
    x = X.copy()
    x[20, 0, 1] = np.nan
    np.save(folder / "x.npy", x)
    before = sorted(os.listdir(folder))
    with pytest.raises(DataError, match="row 20, column 1"):
        predict(folder, folder / "x.npy", folder / name)
    assert (folder / name).read_text() == "old"
    assert sorted(os.listdir(folder)) == before


def test_an_output_that_cannot_be_written_has_its_exit_code(folder):
    with pytest.raises(JobError, match="must end in .npz or .csv") as caught:
        predict(folder, folder / "x.npy", folder / "y.txt")
    assert caught.value.exit_code == USAGE
    with pytest.raises(JobError, match="cannot be written: No such file or directory") as caught:
        predict(folder, folder / "x.npy", folder / "none" / "y.csv")
    assert caught.value.exit_code == WORKDIR


def test_an_input_that_was_divided_already_is_remarked_on(folder, write_params, capsys):
    predict(folder, folder / "x.npy", folder / "y.npz")  # values above 1
    assert capsys.readouterr().err == ""
    write_params(folder, NAMES, scale=np.float32(255), mean=np.float32(0))
    np.save(folder / "x.npy", np.abs(X) / np.abs(X).max())
    predict(folder, folder / "x.npy", folder / "y.npz")
    assert "divides its input by 255" in capsys.readouterr().err
    write_params(folder, NAMES, mean=np.float32(0), scale=np.full(4, 2, np.float32))
    predict(folder, folder / "x.npy", folder / "y.npz")  # standardised: nothing to remark on
    assert capsys.readouterr().err == ""
