import os

import numpy as np
import pytest

from softmax_jax.data import sources
from softmax_jax.host import user_cache_folder


class Builder:
    """Builds an entry and counts how often it was asked to."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        arrays = {"x": np.arange(12, dtype=np.uint8).reshape(3, 4), "y": np.arange(3)}
        return sources.CacheEntry(arrays, {"names": ["ant", "bee"]})


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "set" / "records"
    path.parent.mkdir()
    path.write_bytes(b"records")
    return path


def assert_recalls(source, build, calls):
    entry = sources.cached("train", [source], build)
    expected = Builder()()
    assert build.calls == calls
    assert entry.facts == expected.facts
    assert set(entry.arrays) == set(expected.arrays)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(entry.arrays[name], array)
        assert entry.arrays[name].dtype == array.dtype


def test_the_second_call_builds_nothing(source):
    build = Builder()
    assert_recalls(source, build, 1)
    assert_recalls(source, build, 1)
    assert sorted(os.listdir(source.parent)) == ["records", "softmax_jax_cache"]


@pytest.mark.parametrize("name", ["train-x.npy", "train-y.npy", "train.json"])
def test_every_changed_byte_is_noticed(source, name):
    build = Builder()
    assert_recalls(source, build, 1)
    path = source.parent / "softmax_jax_cache" / name
    good = path.read_bytes()
    for call, position in enumerate(range(0, len(good), 7), start=2):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        assert_recalls(source, build, call)
        assert path.read_bytes() == good


@pytest.mark.parametrize("name", ["train-x.npy", "train.json"])
@pytest.mark.parametrize("length", [0, 1, 66, 130])
def test_a_truncated_cache_is_rebuilt(source, name, length):
    build = Builder()
    assert_recalls(source, build, 1)
    os.truncate(source.parent / "softmax_jax_cache" / name, length)
    assert_recalls(source, build, 2)
    assert_recalls(source, build, 2)


@pytest.mark.parametrize("name", ["train-x.npy", "train.json"])
def test_a_write_that_was_killed_half_way_is_no_cache(source, name):
    build = Builder()
    assert_recalls(source, build, 1)
    (source.parent / "softmax_jax_cache" / name).unlink()
    assert_recalls(source, build, 2)


def test_a_cache_of_other_sources_is_stale(source):
    build = Builder()
    assert_recalls(source, build, 1)
    source.write_bytes(b"more records")
    assert_recalls(source, build, 2)
    stat = source.stat()
    source.write_bytes(b"more RECORDS")
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert_recalls(source, build, 3)


def test_a_read_only_folder_is_left_alone_and_the_users_cache_serves(source):
    source.parent.chmod(0o555)
    build = Builder()
    assert_recalls(source, build, 1)
    assert_recalls(source, build, 1)
    assert os.listdir(source.parent) == ["records"]
    assert list(user_cache_folder().glob("decoded/*/train.json"))
    source.parent.chmod(0o755)


def test_read_only_folders_with_equal_names_do_not_share_an_entry(tmp_path):
    builders = [Builder(), Builder()]
    for place, build in zip("ab", builders, strict=True):
        source = tmp_path / place / "set" / "records"
        source.parent.mkdir(parents=True)
        source.write_bytes(b"records")
        os.utime(source, (0, 0))
        source.parent.chmod(0o555)
        assert_recalls(source, build, 1)


def test_where_nothing_can_be_written_the_entry_is_built_each_time(source, isolated, monkeypatch):
    source.parent.chmod(0o555)
    (isolated / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(isolated / "file"))
    build = Builder()
    assert_recalls(source, build, 1)
    assert_recalls(source, build, 2)
