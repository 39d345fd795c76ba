"""The machine: files that appear whole, errors of one line, memory limits, the cache folder."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softmax_jax import data, host
from softmax_jax.host import DataError, reading, replacing

ROOT = Path(__file__).parents[1]
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_file_appears_when_it_is_complete(tmp_path):
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
def test_a_block_that_fails_leaves_the_old_file(tmp_path, error):
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


def test_only_abandoned_temporary_files_are_removed(tmp_path):
    """Those that it has named itself: whatever else ends in .tmp is somebody's."""
    own = [f"{name}.{digit * 32}.tmp" for name in ("file", "a*") for digit in "ab"]
    foreign = ["file.a.tmp", "file.keep.tmp", f"file.{'g' * 32}.tmp", f"axe.{'a' * 32}.tmp"]
    for name in own + foreign:
        (tmp_path / name).write_bytes(b"?")
        if "b" * 32 not in name:
            os.utime(tmp_path / name, (time.time() - 7200,) * 2)
    for name in ("file", "a*", "a**.csv"):
        with replacing(tmp_path / name):
            pass
    left = ["file", "a*", "a**.csv", *foreign, *own[1::2]]
    assert sorted(os.listdir(tmp_path)) == sorted(left)


@pytest.mark.parametrize(
    "error, message",
    [
        (FileNotFoundError(2, "No such file"), "^a/b.json is not there.$"),
        (PermissionError(13, "Permission denied"), "^a/b.json cannot be read: Permission denied.$"),
        (ValueError("line 3\n is odd"), "^a/b.json is damaged, or of another kind: line 3 is odd$"),
        (RecursionError(), "^a/b.json is damaged, or of another kind: RecursionError$"),
        (DataError("as it is"), "^as it is$"),
    ],
)
def test_an_error_of_reading_is_one_line_that_names_the_file(error, message):
    with pytest.raises(DataError, match=message), reading(Path("a/b.json")):
        raise error


def test_an_interrupt_of_reading_passes():
    with pytest.raises(KeyboardInterrupt), reading(Path("a")):
        raise KeyboardInterrupt


def test_a_missing_dataset_is_a_data_error_and_that_a_value_error():
    assert issubclass(data.DatasetNotFoundError, data.DataError)
    assert issubclass(data.DataError, ValueError)


def test_the_cache_folder_follows_xdg(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert host.user_cache_folder() == Path("/scratch/cache/softmax_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert host.user_cache_folder() == Path("/home/me/.cache/softmax_jax")


def mounted(root, group, limits):
    """A tree as /proc and /sys have it: the group of this process, and limits by path."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for path, text in limits.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    "group, limits, expected",
    [
        ("0::/job/task\n", {"job/task/memory.max": "1000\n"}, 1000),
        ("0::/job/task\n", {"job/memory.max": "900\n", "job/task/memory.max": "max\n"}, 900),
        ("0::/job/task\n", {"memory.max": "800\n", "job/task/memory.max": "1000\n"}, 800),
        ("0::/elsewhere\n", {"memory.max": "700\n"}, 700),  # as in a container
        ("0::/\n", {"memory.max": f"{2 * MACHINE}\n"}, MACHINE),
        ("3:cpuset:/\n2:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": "600\n"}, 600),
        ("3:cpuset:/a\n", {"memory/a/memory.limit_in_bytes": "600\n"}, MACHINE),
        ("0::/\n", {}, MACHINE),
    ],
)
def test_the_lowest_memory_limit_counts(tmp_path, group, limits, expected):
    assert host.available_memory(mounted(tmp_path, group, limits)) == expected


def test_without_control_groups_the_memory_is_that_of_the_machine(tmp_path):
    assert host.available_memory(tmp_path) == MACHINE
    assert 0 < host.available_memory() <= MACHINE


def test_what_exceeds_the_memory_is_refused_with_its_size():
    host.require_memory(host.available_memory() // 2, "It", "Split it.")
    why = r"^It would take 1,024\.0 GiB of memory, .* used\. Split it\."
    with pytest.raises(DataError, match=why):
        host.require_memory(1 << 40, "It", "Split it.")


FITS = """
import json, os, sys
import numpy as np
import jax
given = json.loads(sys.argv[1])
for name, value in given.items():
    jax.config.update(name, value)
jax.numpy.ones(3) + 1  # JAX has compiled before
from softmax_jax.optimum import Problem, prepare
prepare(Problem(np.eye(8), np.arange(8) % 2))
names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
print(json.dumps([getattr(jax.config, name) for name in names]))
"""


@pytest.mark.parametrize(
    "case, given",
    [
        ("own", {}),
        ("off", {}),
        ("open", {}),
        ("no path", {}),
        ("theirs", {"jax_compilation_cache_dir": "theirs"}),
        ("their limit", {"jax_persistent_cache_min_compile_time_secs": 1e-4}),
    ],
)
def test_the_library_keeps_its_programs_in_a_folder_of_ones_own(tmp_path, case, given):
    cache, folder = tmp_path / "cache", tmp_path / "cache" / "softmax_jax" / "xla"
    cache.mkdir()
    if case == "open":
        folder.mkdir(0o777, parents=True)
        folder.chmod(0o777)
    more = {"XDG_CACHE_HOME": "~nobody_of_this_name" if case == "no path" else str(cache)}
    more |= {"SOFTMAX_JAX_CACHE": "off"} if case == "off" else {}
    environment = {name: text for name, text in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FITS, json.dumps(given)],
        cwd=tmp_path,
        env=environment | more | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    used, least = json.loads(done.stdout)
    kept = case in ("own", "their limit")
    assert used == (str(folder) if kept else given.get("jax_compilation_cache_dir"))
    assert least == given.get("jax_persistent_cache_min_compile_time_secs", 0 if kept else 1.0)
    assert (folder.exists() and stat.S_IMODE(folder.stat().st_mode) == 0o700) == kept
    assert any(folder.glob("*-cache")) == kept
