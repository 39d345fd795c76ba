import os
import stat
import time

import pytest

from softmax_jax.host import replacing


def test_the_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_durable_before_the_name_and_the_name_at_the_end(tmp_path, monkeypatch):
    path, steps = tmp_path / "file", []
    fsync, rename = os.fsync, os.replace

    def note_fsync(descriptor):
        what = os.fstat(descriptor)
        steps.append("folder" if stat.S_ISDIR(what.st_mode) else what.st_size)
        fsync(descriptor)

    def note_rename(*names):
        steps.append("renamed")
        rename(*names)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_rename)
    with replacing(path) as file:
        file.write(b"five!")
    assert steps == [5, "renamed", "folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing_behind(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_two_writers_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as first:
        first.write(b"fir")
        with replacing(path) as second:
            second.write(b"second")
        first.write(b"st")
    assert path.read_bytes() == b"first"


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    old, new = tmp_path / "file.a.tmp", tmp_path / "file.b.tmp"
    old.write_bytes(b"?")
    new.write_bytes(b"?")
    os.utime(old, (time.time() - 7200,) * 2)
    with replacing(tmp_path / "file"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file", "file.b.tmp"]
