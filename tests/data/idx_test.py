import gzip
import struct

import numpy as np
import pytest

from softmax_jax.data import sources
from softmax_jax.host import DataError

VALUES = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
CONTENT = b"\0\0\x08\x03" + struct.pack(">3I", 3, 4, 5) + VALUES.tobytes()


def write(folder, content, name="file"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_reads_what_was_written(tmp_path, name):
    packed = gzip.compress(CONTENT) if name.endswith(".gz") else CONTENT
    path = write(tmp_path, packed, name)
    assert sources.read_idx_sizes(path, 3) == (3, 4, 5)
    np.testing.assert_array_equal(sources.read_idx(path, 3), VALUES)


@pytest.mark.parametrize("length", range(len(CONTENT)))
def test_a_truncated_file_is_refused(tmp_path, length):
    with pytest.raises(DataError, match="truncated"):
        sources.read_idx(write(tmp_path, CONTENT[:length]), 3)


def test_a_file_cut_anywhere_in_its_compressed_form_is_refused(tmp_path):
    packed = gzip.compress(CONTENT)
    for length in range(len(packed)):
        with pytest.raises(DataError, match=r"file\.gz.*truncated"):
            sources.read_idx(write(tmp_path, packed[:length], "file.gz"), 3)


def test_a_changed_byte_in_the_compressed_form_never_gives_other_values(tmp_path):
    packed = gzip.compress(CONTENT)
    refused = 0
    for position in range(len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0x55
        try:
            values = sources.read_idx(write(tmp_path, damaged, "file.gz"), 3)
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
        (CONTENT + b"\0", r"promises 60 values of shape \(3, 4, 5\), and 61 are there"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content, why):
    with pytest.raises(DataError, match=why):
        sources.read_idx(write(tmp_path, content), 3)


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path):
    header = b"\0\0\x08\x03" + b"\xff" * 12  # 8e28 values
    with pytest.raises(DataError, match="promises"):
        sources.read_idx(write(tmp_path, header), 3)
