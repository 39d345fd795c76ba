import io

import ml_dtypes
import numpy as np
import pytest

from softmax_jax.data import npz
from softmax_jax.host import DataError


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def read(content):
    return npz.read_header(io.BytesIO(content), "x.npy")


@pytest.mark.parametrize(
    "dtype", [np.float16, ">f4", np.float64, np.uint8, ml_dtypes.bfloat16, bool, "U5", "S3"]
)
@pytest.mark.parametrize("order", "CF")
def test_the_header_says_what_the_array_is(dtype, order):
    array = np.zeros((3, 4, 2), dtype, order=order)
    content = saved(array)
    header = read(content)
    assert (header.shape, header.dtype, header.nbytes) == (array.shape, dtype, array.nbytes)
    assert header.fortran_order == (order == "F")
    assert len(content) - header.offset == array.nbytes


def test_version_2_is_read():
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(3), version=(2, 0))
    assert read(file.getvalue()).shape == (3,)


def test_pickled_objects_are_refused():
    content = saved(np.array([{}, None], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy holds pickled Python objects, which are not read"):
        read(content)


@pytest.mark.parametrize("length", [0, 5, 8, 40, 127])
def test_half_a_header_is_refused(length):
    with pytest.raises(DataError, match=r"x\.npy is truncated, damaged or no \.npy array"):
        read(saved(np.zeros((3, 4)))[:length])


def test_no_damage_to_the_header_does_any_harm():
    """Another header, or a DataError: never another error, never more memory."""
    good = saved(np.zeros((3, 4)))
    refused = 0
    for position in range(read(good).offset):
        for byte in (0x00, 0xFF, good[position] ^ 0x01, ord("'"), ord("(")):
            try:
                header = read(good[:position] + bytes([byte]) + good[position + 1 :])
            except DataError:
                refused += 1
            else:
                assert isinstance(header.nbytes, int)
    assert refused > 200


def test_a_header_of_gigabytes_is_not_read():
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size=-1):
            start = b"\x93NUMPY\x02\x00\xff\xff\xff\xff" if self.taken == 0 else b""
            self.taken += size
            return (start + b" " * size)[:size]

    file = Endless()
    with pytest.raises(DataError, match="truncated, damaged"):
        npz.read_header(file, "x.npy")
    assert 0 < file.taken < 1 << 20


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
def test_what_counts_as_a_number(dtype, is_number):
    assert npz.is_number(np.dtype(dtype)) == is_number


def test_two_bytes_without_a_meaning_are_bfloat16():
    for dtype in (ml_dtypes.bfloat16, "V2"):
        assert npz.number_dtype(np.dtype(dtype)) == ml_dtypes.bfloat16
    for dtype in ("V1", "V4", "f2", [("a", "u1"), ("b", "u1")], ("u1", 2)):
        assert npz.number_dtype(np.dtype(dtype)) == np.dtype(dtype)
