"""IDX files, plain and compressed: what was written is read, and damage is a DataError."""

import gzip
import math
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_jax.data import sources
from softmax_jax.host import DataError

VALUES = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def idx(values):
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()


CONTENT = idx(VALUES)


def read(content, name="file", rank=3):
    """The shape in the header and the values of a file of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return sources.read_idx_sizes(path, rank), sources.read_idx(path, rank)


@settings(deadline=None, database=None, max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple), st.booleans(), st.data())
def test_any_array_is_read_as_it_was_written(shape, compressed, data):
    size = math.prod(shape)
    content = data.draw(st.binary(min_size=size, max_size=size))
    values = np.frombuffer(content, np.uint8).reshape(shape)
    packed, name = (gzip.compress(idx(values)), "a.gz") if compressed else (idx(values), "a")
    sizes, found = read(packed, name, len(shape))
    assert sizes == shape
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_a_truncated_file_is_refused(tmp_path, name):
    content = gzip.compress(CONTENT) if name.endswith(".gz") else CONTENT
    for length in range(len(content)):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(DataError, match=f"{name} is truncated"):
            sources.read_idx(tmp_path / name, 3)


def test_a_changed_byte_in_a_compressed_file_never_gives_other_values():
    packed = gzip.compress(CONTENT)
    refused = 0
    for position in range(len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0x55
        try:
            _, values = read(damaged, "file.gz")
        except DataError:
            refused += 1
        else:  # some bytes of a gzip header, such as its date, carry no data
            np.testing.assert_array_equal(values, VALUES)
    assert refused > len(packed) - 10


@pytest.mark.parametrize(
    "content, why",
    [
        (b"\x89PNG" + CONTENT[4:], "does not start as an IDX file"),
        (b"<html>not found</html>", "does not start as an IDX file"),
        (b"\0\0\x0d\x03" + CONTENT[4:], "type 13"),
        (b"\0\0\x08\x01" + CONTENT[4:], "rank 1"),
        (CONTENT + b"\0", r"promises 60 values of shape \(3, 4, 5\), and more are there"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "promises 79,"),  # 8e28 values: nothing is allocated
    ],
)
def test_a_foreign_file_is_refused(content, why):
    with pytest.raises(DataError, match=why):
        read(content)
