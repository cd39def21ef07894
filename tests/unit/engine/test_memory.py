"""How much memory is left, by files as Linux writes them: no limit, a container's, one of a group above."""

import math
from pathlib import Path

import pytest
import torch

from zeroshot.engine.memory import host_bytes_left, kv_cache_bytes

MIB = 2**20
MEMINFO = "MemTotal: 8388608 kB\nMemFree: 100 kB\nMemAvailable: 4194304 kB\n"  # 4 GiB available


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "proc/meminfo", MEMINFO)
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def limit_v2(folder: Path, limit: str, usage: int, cached: int = 0) -> None:
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{usage}\n")
    write(folder / "memory.stat", f"anon 5\ninactive_file {cached}\nactive_file 7\n")


def limit_v1(folder: Path, limit: int, usage: int, cached: int = 0) -> None:
    write(folder / "memory.limit_in_bytes", f"{limit}\n")
    write(folder / "memory.usage_in_bytes", f"{usage}\n")
    write(folder / "memory.stat", f"cache 5\ninactive_file 1\ntotal_inactive_file {cached}\n")


def test_without_a_limit_it_is_what_the_machine_has(root):
    assert host_bytes_left(root) == 4096 * MIB


def test_elsewhere_nobody_says(tmp_path):
    assert host_bytes_left(tmp_path) == math.inf


@pytest.mark.parametrize("limit", ["max", str(16 * 2**30)])
def test_a_limit_above_what_there_is_is_none(root, limit):
    limit_v2(root / "sys/fs/cgroup", limit, usage=MIB)
    assert host_bytes_left(root) == 4096 * MIB


def test_a_container_with_a_namespace_of_its_own(root):
    limit_v2(root / "sys/fs/cgroup", str(1024 * MIB), usage=900 * MIB, cached=300 * MIB)
    assert host_bytes_left(root) == 424 * MIB


def test_the_tightest_group_counts(root):
    write(root / "proc/self/cgroup", "0::/pod/server\n")
    limit_v2(root / "sys/fs/cgroup/pod/server", "max", usage=MIB)
    limit_v2(root / "sys/fs/cgroup/pod", str(512 * MIB), usage=12 * MIB)
    limit_v2(root / "sys/fs/cgroup", str(1024 * MIB), usage=13 * MIB)
    assert host_bytes_left(root) == 500 * MIB


@pytest.mark.parametrize("folder", ["docker/abc", ""], ids=["as the host sees it", "as the container does"])
def test_the_first_version_of_control_groups(root, folder):
    write(root / "proc/self/cgroup", "9:name=systemd:/x\n4:cpu,cpuacct:/y\n3:memory,hugetlb:/docker/abc\n0::/\n")
    limit_v1(root / "sys/fs/cgroup/memory", 2**63 - 4096, usage=MIB)
    limit_v1(root / "sys/fs/cgroup/memory" / folder, 256 * MIB, usage=100 * MIB, cached=44 * MIB)
    assert host_bytes_left(root) == 200 * MIB


def test_a_group_above_its_limit_has_nothing_left(root):
    limit_v2(root / "sys/fs/cgroup", str(100 * MIB), usage=101 * MIB)
    assert host_bytes_left(root) == 0


def test_what_a_sandbox_hides_is_no_limit(root):
    (root / "proc/meminfo").write_text("MemTotal: 8388608 kB\n")
    limit_v2(root / "sys/fs/cgroup", str(512 * MIB), usage=12 * MIB)
    (root / "sys/fs/cgroup/memory.stat").unlink()
    assert host_bytes_left(root) == 500 * MIB
    (root / "sys/fs/cgroup/memory.current").unlink()
    assert host_bytes_left(root) == math.inf


def test_a_cache_takes_a_part_of_this_machine():
    left = host_bytes_left()
    assert 0 < kv_cache_bytes(torch.device("cpu")) <= left / 2 * 1.5  # others may give memory back in between
