import io
import zipfile

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from softmax_jax import host, predict
from softmax_jax.data import DataError

X = np.random.default_rng(0).integers(0, 200, (7, 2, 2)).astype(np.uint8)


def save(folder, name, **arrays):
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, *arrays.values())
    else:
        np.savez_compressed(path, **arrays)
    return path


def read_whole(path, D=4):
    return np.concatenate(list(predict.batches(predict.read_examples(path, D))))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int64", "bool", "float16", "float32", "float64", ml_dtypes.bfloat16]
)
def test_numbers_of_any_type_are_uint8_as_they_are_or_become_float32(tmp_path, name, dtype):
    x = X.astype(dtype)
    found = read_whole(save(tmp_path, name, x=x))
    assert found.dtype == (np.uint8 if dtype == "uint8" else np.float32)
    assert_array_equal(found, x.astype(np.float32))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_order_in_memory_and_rank_do_not_matter(tmp_path, name):
    for x in (np.asfortranarray(X), X[..., None], X.reshape(7, 4), X[:0]):
        assert_array_equal(predict.read_examples(save(tmp_path, name, x=x), 4), x)


def test_the_array_of_an_archive_is_x_or_the_only_one(tmp_path):
    assert_array_equal(predict.read_examples(save(tmp_path, "a.npz", y=X[0], x=X), 4), X)
    assert_array_equal(predict.read_examples(save(tmp_path, "a.npz", images=X), 4), X)
    with pytest.raises(DataError, match="holds the arrays a, b. Name the one to use 'x'"):
        predict.read_examples(save(tmp_path, "a.npz", a=X, b=X), 4)


def test_blocks_are_the_examples_in_order_whatever_their_size(monkeypatch):
    for values in (1, 4, 9, 12, 100):
        monkeypatch.setattr(predict, "_BLOCK_VALUES", values)
        blocks = list(predict.batches(X))
        assert_array_equal(np.concatenate(blocks), X)
        assert max(map(len, blocks)) == max(1, min(7, values // 4))


@pytest.mark.parametrize(
    "x, message",
    [
        (X.reshape(7, 4)[:, :3], r"trained on 4 features an example; .* \(7, 3\) has 3"),
        (X.ravel(), r"has shape \(28,\), and \[N, ...\] is needed"),
        (X.astype(str), "holds <U3, and numbers are needed"),
        (X.astype(complex), "holds complex128, and numbers are needed"),
        (X.astype(object), "pickle"),
    ],
)
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_what_does_not_fit_is_a_clear_error(tmp_path, name, x, message):
    with pytest.raises(DataError, match=message):
        predict.read_examples(save(tmp_path, name, x=x), 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_value_that_is_no_float32_is_named_by_row_and_column(tmp_path, monkeypatch, value):
    monkeypatch.setattr(predict, "_BLOCK_VALUES", 8)
    x = X.astype(np.float64)
    x[5, 1, 0] = value
    with pytest.raises(DataError, match="in row 5, column 2 is not a finite float32"):
        read_whole(save(tmp_path, "x.npy", x=x))


def test_files_that_are_missing_damaged_or_foreign(tmp_path):
    with pytest.raises(DataError, match="none.npy is not there"):
        predict.read_examples(tmp_path / "none.npy", 4)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        predict.read_examples(tmp_path, 4)
    path = save(tmp_path, "x.npy", x=X)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="x.npy is truncated"):
        predict.read_examples(path, 4)
    (tmp_path / "x.txt").write_bytes(whole)
    with pytest.raises(DataError, match="x.txt is neither .npy nor .npz"):
        predict.read_examples(tmp_path / "x.txt", 4)


@pytest.mark.parametrize("really", [0, 1 << 20])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, really):
    """A small archive that declares more than any memory, and holds another number of bytes."""
    header, path = io.BytesIO(), tmp_path / "bomb.npz"
    declared = {"descr": "|u1", "fortran_order": False, "shape": (1 << 42, 4)}
    np.lib.format.write_array_header_1_0(header, declared)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(really))
    with pytest.raises(DataError, match="bomb.npz: x is truncated or damaged"):
        predict.read_examples(path, 4)


def test_an_archive_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path, "x.npz", x=X)
    monkeypatch.setattr(host, "available_memory", lambda: 20)
    with pytest.raises(DataError, match="memory.*Save it as .npy, which is read by shards"):
        predict.read_examples(path, 4)
    assert len(predict.read_examples(save(tmp_path, "x.npy", x=X), 4)) == 7
