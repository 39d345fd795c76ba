import io
import os
import zipfile

import ml_dtypes
import numpy as np
import pytest

from softmax_jax.data import npz
from softmax_jax.host import DataError

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


@pytest.fixture(params=["npz", "compressed", "folder"])
def write(request, tmp_path):
    """write(x=...) puts arrays into a file or folder and returns its path."""

    def write(**arrays):
        if request.param == "folder":
            path = tmp_path / "features"
            path.mkdir(exist_ok=True)
            for name, array in arrays.items():
                np.save(path / f"{name}.npy", array)
            return path
        path = tmp_path / "features.npz"
        (np.savez if request.param == "npz" else np.savez_compressed)(path, **arrays)
        return path

    return write


def of(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def archive(path, content, name="x.npy", **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "array",
    [
        X,
        X.astype(np.float16).T,
        X.astype(ml_dtypes.bfloat16),
        X.astype(">f8"),
        X[:0],
        np.array(["ant", "bée"]),
        np.float32(3),
    ],
)
def test_what_was_saved_is_read(write, array):
    found = npz.find_array(write(x=array, other=X), "x")
    read = found.read()
    assert found.header.shape == read.shape == np.shape(array)
    assert found.header.dtype == read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_names(write):
    path = write(y=X, x=X)
    (path / "notes.txt").write_text("") if path.is_dir() else None
    assert npz.array_names(path) == ["x", "y"]


def test_arrays_in_a_folder_are_mapped_and_cannot_be_written(tmp_path):
    np.save(tmp_path / "x.npy", X)
    array = npz.find_array(tmp_path, "x").read()
    assert isinstance(array, np.memmap) and not array.flags.writeable


@pytest.mark.parametrize("length", [0, 100, -50])
def test_a_truncated_file_in_a_folder_is_refused(tmp_path, length):
    np.save(tmp_path / "x.npy", X)
    size = (tmp_path / "x.npy").stat().st_size
    os.truncate(tmp_path / "x.npy", length if length >= 0 else size + length)
    with pytest.raises(DataError, match=r"x\.npy is truncated"):
        npz.find_array(tmp_path, "x")


@pytest.mark.parametrize("length", [0, 10, 300, 700, -1, -30])
def test_a_truncated_npz_is_refused(tmp_path, length):
    path = tmp_path / "features.npz"
    np.savez(path, x=X)
    os.truncate(path, length if length >= 0 else path.stat().st_size + length)
    with pytest.raises(DataError, match=r"features\.npz is truncated, damaged or no \.npz file"):
        npz.array_names(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_changed_byte_never_gives_other_numbers(tmp_path, save):
    path = tmp_path / "features.npz"
    save(path, x=X[:5])
    good = path.read_bytes()
    refused = 0
    for position in range(0, len(good), 2):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        try:
            if "x" in npz.array_names(path):
                np.testing.assert_array_equal(npz.find_array(path, "x").read(), X[:5])
        except DataError:
            refused += 1
    assert refused > len(good) / 4


def test_pickles_are_refused(tmp_path):
    objects = np.array([{"a": 1}], object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "features.npz", x=objects)
    for path in (tmp_path, tmp_path / "features.npz"):
        with pytest.raises(DataError, match="pickled Python objects"):
            npz.find_array(path, "x")


def test_a_header_that_promises_more_than_is_there_allocates_nothing(tmp_path):
    header = of(X[:1]).replace(b"(1, 3), }", b"(1" + b"0" * 11 + b", 3), }")[: len(of(X[:1]))]
    assert b"100000000000, 3" in header
    path = archive(tmp_path / "bomb.npz", header)
    with pytest.raises(DataError, match=r"x is truncated or damaged: with shape \(100000000000, 3"):
        npz.find_array(path, "x")
    (tmp_path / "x.npy").write_bytes(header)
    with pytest.raises(DataError, match=r"would be 1,200,000,000,\d+ bytes"):
        npz.find_array(tmp_path, "x")


def test_a_negative_size_is_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(of(X[:0]).replace(b"(0, 3)", b"(-0,3)"))
    assert npz.find_array(tmp_path, "x").header.shape == (0, 3)
    content = of(np.zeros((0, 0), np.float32)).replace(b"(0, 0)", b"(-1,0)")
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match="truncated or damaged"):
        npz.find_array(tmp_path, "x")


def test_an_archive_that_lies_about_the_size_of_a_member_is_refused(tmp_path):
    """The declared size is that of the header alone, or far more than is there."""
    path = archive(tmp_path / "bomb.npz", of(X), compression=zipfile.ZIP_DEFLATED)
    good, size = path.read_bytes(), len(of(X))
    for lie in (128, size - 4, size + 4, 1 << 31):
        path.write_bytes(good.replace(size.to_bytes(4, "little"), lie.to_bytes(4, "little")))
        with pytest.raises(DataError):
            npz.find_array(path, "x").read()


def test_an_encrypted_or_oddly_compressed_archive_is_refused(tmp_path):
    path = archive(tmp_path / "features.npz", of(X))
    good = path.read_bytes()
    directory = good.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):  # flags, compression method
        damaged = bytearray(good)
        damaged[directory + offset] = damaged[offset - 2] = value
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="no .npz file"):
            npz.find_array(path, "x")


def test_memory_grows_with_what_is_read_alone(tmp_path):
    """Names and headers cost nothing, whatever a member would unpack to."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((1 << 16, 100), np.uint8), y=np.arange(3))
    assert path.stat().st_size < 1 << 16
    import tracemalloc

    tracemalloc.start()
    npz.array_names(path)
    assert npz.find_array(path, "x").header.nbytes == 100 << 16
    np.testing.assert_array_equal(npz.find_array(path, "y").read(), np.arange(3))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
