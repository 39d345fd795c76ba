"""Arrays in .npy and .npz files: what was saved is read, and no damage does any harm."""

import io
import os
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from softmax_jax import host
from softmax_jax.data import npz
from softmax_jax.host import DataError

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
DTYPES = ("?", "u1", "i8", "f2", "f4", ">f4", "f8", ml_dtypes.bfloat16, "U5", "S3")


def saved(array, **options):
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def archive(path, content, name="x.npy", **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr(name, content)
    return path


def write(folder, kind, **given):
    """Puts arrays into a folder of .npy files, or into an .npz; returns its path."""
    if kind == "folder":
        for name, array in given.items():
            np.save(folder / f"{name}.npy", array)
        return folder
    (np.savez if kind == "npz" else np.savez_compressed)(folder / "features.npz", **given)
    return folder / "features.npz"


def read_header(content):
    return npz.read_header(io.BytesIO(content), "x.npy")


@st.composite
def any_arrays(draw):
    """An array of any supported type, of any shape and of either order in memory."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 100, shape)
    return np.asarray(values.astype(dtype), order=draw(st.sampled_from("CF")))


@settings(deadline=None, database=None, max_examples=60)
@given(any_arrays(), st.sampled_from(["npz", "compressed", "folder"]))
def test_any_array_is_read_as_it_was_saved(array, kind):
    with tempfile.TemporaryDirectory() as folder:
        found = npz.find_array(write(Path(folder), kind, x=array, other=X), "x")
        read = found.read()
        assert found.header.shape == read.shape == array.shape
        assert found.header.dtype == read.dtype == array.dtype
        assert found.header.nbytes == array.nbytes
        np.testing.assert_array_equal(read, array)


@settings(deadline=None, database=None)
@given(any_arrays())
def test_a_header_tells_shape_type_order_and_where_the_values_begin(array):
    content = saved(array)
    header = read_header(content)
    assert (header.shape, header.dtype, header.nbytes) == (array.shape, array.dtype, array.nbytes)
    assert header.fortran_order == (array.flags.f_contiguous and not array.flags.c_contiguous)
    assert len(content) - header.offset == array.nbytes


@settings(deadline=None, database=None, max_examples=300)
@given(any_arrays(), st.data())
def test_a_damaged_header_is_refused_or_another_header(array, data):
    """Never another error, and never a truncated one."""
    content = bytearray(saved(array))
    offset = read_header(content).offset
    with pytest.raises(DataError, match=r"x\.npy is truncated, damaged or no \.npy array"):
        read_header(content[: data.draw(st.integers(0, offset - 1))])
    for position in data.draw(st.lists(st.integers(0, offset - 1), min_size=1, max_size=3)):
        content[position] = data.draw(st.integers(0, 255) | st.sampled_from(b"'(),[]{}:-"))
    try:
        assert isinstance(read_header(content).nbytes, int)
    except DataError:
        pass


@settings(deadline=None, database=None, max_examples=200)
@given(st.sampled_from(["npz", "compressed"]), st.data())
def test_an_archive_of_which_bits_flipped_never_gives_other_numbers(kind, data):
    """They may be of a field that nobody reads, or of a name: then the array is not there."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), kind, x=X[:5])
        content = bytearray(path.read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        try:
            if "x" in npz.array_names(path):
                np.testing.assert_array_equal(npz.find_array(path, "x").read(), X[:5])
        except DataError as error:
            assert "features.npz" in str(error)


@settings(deadline=None, database=None, max_examples=60)
@given(st.sampled_from(["npz", "folder"]), st.data())
def test_a_truncated_file_is_refused(kind, data):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), kind, x=X)
        file = path / "x.npy" if kind == "folder" else path
        os.truncate(file, data.draw(st.integers(0, file.stat().st_size - 1)))
        with pytest.raises(DataError, match=rf"{file.name} is truncated"):
            npz.find_array(path, "x")


def test_most_damage_to_an_archive_is_noticed(tmp_path):
    path = write(tmp_path, "npz", x=X[:5])
    good, refused = path.read_bytes(), 0
    for position in range(0, len(good), 8):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        try:
            npz.find_array(path, "x").read()
        except DataError:
            refused += 1
    assert refused > len(good) / 16


def test_version_2_is_read():
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(3), version=(2, 0))
    assert read_header(file.getvalue()).shape == (3,)


def test_a_header_of_gigabytes_is_not_read():
    class Endless(io.BufferedIOBase):
        taken = 0

        def read(self, size=-1):
            start = b"\x93NUMPY\x02\x00\xff\xff\xff\xff" if self.taken == 0 else b""
            self.taken += size
            return (start + b" " * size)[:size]

    file = Endless()
    with pytest.raises(DataError, match="truncated, damaged"):
        npz.read_header(file, "x.npy")
    assert 0 < file.taken < 1 << 20


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_pickled_objects_are_refused(tmp_path, kind):
    path = write(tmp_path, kind, x=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="x.* holds pickled Python objects, which are not read"):
        npz.find_array(path, "x")


@pytest.mark.parametrize(
    "dtype, is_number",
    [
        ("f2", True),
        ("f8", True),
        ("u1", True),
        ("?", True),
        (ml_dtypes.bfloat16, True),
        ("V2", False),
        ("V4", False),
        ("U2", False),
        ("c8", False),
        ("M8[s]", False),
        ([("a", "f4")], False),
    ],
)
def test_numbers_are_what_becomes_a_float(dtype, is_number):
    assert npz.is_number(np.dtype(dtype)) == is_number


def test_two_bytes_without_a_meaning_are_bfloat16():
    for dtype in (ml_dtypes.bfloat16, "V2"):
        assert npz.number_dtype(np.dtype(dtype)) == ml_dtypes.bfloat16
    for dtype in ("V1", "V4", "f2", [("a", "u1"), ("b", "u1")], ("u1", 2)):
        assert npz.number_dtype(np.dtype(dtype)) == np.dtype(dtype)


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_names_are_those_of_the_arrays(tmp_path, kind):
    (tmp_path / "notes.txt").write_text("")
    assert npz.array_names(write(tmp_path, kind, y=X, x=X)) == ["x", "y"]


def test_arrays_in_a_folder_are_mapped_and_cannot_be_written(tmp_path):
    array = npz.find_array(write(tmp_path, "folder", x=X), "x").read()
    assert isinstance(array, np.memmap) and not array.flags.writeable


def test_a_header_that_promises_more_than_is_there_allocates_nothing(tmp_path):
    content = saved(X[:1])
    header = content.replace(b"(1, 3), }", b"(1" + b"0" * 11 + b", 3), }")[: len(content)]
    assert b"100000000000, 3" in header
    path = archive(tmp_path / "bomb.npz", header)
    with pytest.raises(DataError, match=r"x is truncated or damaged: with shape \(100000000000, 3"):
        npz.find_array(path, "x")
    (tmp_path / "x.npy").write_bytes(header)
    with pytest.raises(DataError, match=r"would be 1,200,000,000,\d+ bytes"):
        npz.find_array(tmp_path, "x")


def test_a_negative_size_is_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(saved(X[:0]).replace(b"(0, 3)", b"(-0,3)"))
    assert npz.find_array(tmp_path, "x").header.shape == (0, 3)
    content = saved(np.zeros((0, 0), np.float32)).replace(b"(0, 0)", b"(-1,0)")
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match="truncated or damaged"):
        npz.find_array(tmp_path, "x")


def test_an_archive_that_lies_about_the_size_of_a_member_is_refused(tmp_path):
    """The declared size is that of the header alone, or far more than is there."""
    path = archive(tmp_path / "bomb.npz", saved(X), compression=zipfile.ZIP_DEFLATED)
    good, size = path.read_bytes(), len(saved(X))
    for lie in (128, size - 4, size + 4, 1 << 31):
        path.write_bytes(good.replace(size.to_bytes(4, "little"), lie.to_bytes(4, "little")))
        with pytest.raises(DataError):
            npz.find_array(path, "x").read()


def test_an_encrypted_or_oddly_compressed_archive_is_refused(tmp_path):
    path = archive(tmp_path / "features.npz", saved(X))
    good = path.read_bytes()
    directory = good.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):  # flags, compression method
        damaged = bytearray(good)
        damaged[directory + offset] = damaged[offset - 2] = value
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="no .npz file"):
            npz.find_array(path, "x")


def test_memory_grows_only_with_what_is_read(tmp_path):
    """Names and headers cost nothing, whatever a member would unpack to."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((1 << 16, 100), np.uint8), y=np.arange(3))
    assert path.stat().st_size < 1 << 16
    tracemalloc.start()
    npz.array_names(path)
    assert npz.find_array(path, "x").header.nbytes == 100 << 16
    np.testing.assert_array_equal(npz.find_array(path, "y").read(), np.arange(3))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_file_that_unpacks_to_more_than_the_memory_is_refused_unread(tmp_path, monkeypatch):
    x = np.zeros((1 << 14, 64), np.float16)
    np.savez_compressed(tmp_path / "bomb.npz", x=x, y=np.arange(1 << 14) % 2)
    assert (tmp_path / "bomb.npz").stat().st_size < x.nbytes / 20
    monkeypatch.setattr(host, "available_memory", lambda: x.nbytes)
    with pytest.raises(DataError, match=r"bomb\.npz unpacks to would take .*folder"):
        npz.file_source(str(tmp_path / "bomb.npz"))


@pytest.mark.parametrize("kind", ["npz", "folder"])
@pytest.mark.parametrize(
    "extra, there",
    [
        ("w_val", ("x_train", "y_train")),
        ("w_test", ("x", "y")),
        ("w", ("x_train", "y_train")),
        ("w_train", ("x", "y")),
    ],
)
def test_weights_that_nothing_reads_are_refused(tmp_path, kind, extra, there):
    given = {name: X if name[0] == "x" else np.arange(50) % 2 for name in there}
    npz.file_source(str(write(tmp_path, kind, **given)))
    path = write(tmp_path, kind, **given, **{extra: np.ones(50)})
    with pytest.raises(DataError, match=f"holds {extra}, which would be ignored"):
        npz.file_source(str(path))


def test_paths_are_told_from_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("features", "set/features", "fashion_mnist"):
        os.makedirs(folder)
    np.save("features/x_train.npy", X)
    np.save("set/features/x.npy", X)
    paths = ["a.npz", "set/a.npz", "features", "features/", "set/features", "./a", "/a", "../a"]
    assert [name for name in paths if not npz.is_path(name)] == []
    names = ["digits", "fashion_mnist", "set/config", "set/config:1.0.0", "toy:1.0.0", "set", ""]
    assert [name for name in names if npz.is_path(name)] == []
