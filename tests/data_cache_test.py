"""The cache of decoded arrays: built once, and again after damage or a change of its sources."""

import os

import numpy as np
import pytest

from softmax_jax.data import sources
from softmax_jax.host import user_cache_folder
from tests.data_on_disk import isolate  # noqa: F401


class Builder:
    """Builds an entry and counts how often it was asked to."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        arrays = {"x": np.arange(12, dtype=np.uint8).reshape(3, 4), "y": np.arange(3)}
        return sources.CacheEntry(arrays, {"names": ["ant", "bee"]})


@pytest.fixture
def build():
    return Builder()


@pytest.fixture
def source(tmp_path):
    """A file that the entry is made from."""
    return write_source(tmp_path / "set")


def write_source(folder):
    folder.mkdir(parents=True)
    (folder / "records").write_bytes(b"records")
    return folder / "records"


def recall(source, build):
    """Asks for the entry, and says how often it has been built since the first time."""
    entry = sources.cached("train", [source], build)
    expected = Builder()()
    assert entry.facts == expected.facts
    assert set(entry.arrays) == set(expected.arrays)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(entry.arrays[name], array)
        assert entry.arrays[name].dtype == array.dtype
    return build.calls


def test_the_second_call_builds_nothing(source, build):
    assert recall(source, build) == recall(source, build) == 1
    assert sorted(os.listdir(source.parent)) == ["records", "softmax_jax_cache"]


@pytest.mark.parametrize("name", ["train-x.npy", "train-y.npy", "train.json"])
def test_every_changed_byte_is_noticed(source, build, name):
    recall(source, build)
    path = source.parent / "softmax_jax_cache" / name
    good = path.read_bytes()
    for calls, position in enumerate(range(0, len(good), 7), start=2):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        assert recall(source, build) == calls
        assert path.read_bytes() == good


@pytest.mark.parametrize("name", ["train-x.npy", "train.json"])
@pytest.mark.parametrize("length", [None, 0, 1, 66, 130])
def test_a_truncated_or_half_written_entry_is_rebuilt(source, build, name, length):
    recall(source, build)
    path = source.parent / "softmax_jax_cache" / name
    path.unlink() if length is None else os.truncate(path, length)
    assert recall(source, build) == recall(source, build) == 2


def test_an_entry_of_changed_sources_is_stale(source, build):
    recall(source, build)
    source.write_bytes(b"more records")
    assert recall(source, build) == 2
    stat = source.stat()
    source.write_bytes(b"more RECORDS")
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert recall(source, build) == 3


def test_beside_a_read_only_folder_the_users_cache_serves(source, build):
    source.parent.chmod(0o555)
    assert recall(source, build) == recall(source, build) == 1
    assert os.listdir(source.parent) == ["records"]
    assert list(user_cache_folder().glob("decoded/*/train.json"))
    source.parent.chmod(0o755)


def test_read_only_folders_of_equal_names_do_not_share_an_entry(tmp_path):
    for place in "ab":
        source = write_source(tmp_path / place / "set")
        os.utime(source, (0, 0))
        source.parent.chmod(0o555)
        assert recall(source, Builder()) == 1


def test_where_nothing_can_be_written_the_entry_is_built_each_time(
    source, build, isolated, monkeypatch
):
    source.parent.chmod(0o555)
    (isolated / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(isolated / "file"))
    assert [recall(source, build), recall(source, build)] == [1, 2]
