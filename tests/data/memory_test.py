import os

import pytest

from softmax_jax import host
from softmax_jax.host import DataError

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def make(root, group, limits):
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
def test_the_lowest_limit_counts(tmp_path, group, limits, expected):
    assert host.available_memory(make(tmp_path, group, limits)) == expected


def test_where_there_are_no_groups_the_machine_counts(tmp_path):
    assert host.available_memory(tmp_path) == MACHINE
    assert 0 < host.available_memory() <= MACHINE


def test_what_does_not_fit_is_refused_with_its_size():
    host.require_memory(host.available_memory() // 2, "It", "Mend.")
    with pytest.raises(DataError, match=r"^It would take 1,024\.0 GiB of memory, .* used\. Mend\."):
        host.require_memory(1 << 40, "It", "Mend.")
