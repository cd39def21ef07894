"""How many CPUs' time there is, by files as Linux writes them. (How much memory: test_memory.py.)"""

import math
from pathlib import Path

import pytest

from zeroshot.engine.cgroup import cpus


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_elsewhere_nobody_says(tmp_path: Path) -> None:
    assert cpus(tmp_path) == math.inf


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", math.inf), ("150000 100000", 1.5), ("25000 50000", 0.5)]
)
def test_a_container_with_a_namespace_of_its_own(tmp_path: Path, limit: str, expected: float) -> None:
    write(tmp_path, **{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{limit}\n"})
    assert cpus(tmp_path) == expected


def test_the_tightest_group_counts(tmp_path: Path) -> None:
    write(tmp_path, **{"proc/self/cgroup": "0::/pod/server\n"})
    write(tmp_path / "sys/fs/cgroup/pod", **{"server/cpu.max": "max 100000\n", "cpu.max": "200000 100000\n"})
    write(tmp_path / "sys/fs/cgroup", **{"cpu.max": "400000 100000\n"})
    assert cpus(tmp_path) == 2.0


@pytest.mark.parametrize("folder", ["docker/abc", ""], ids=["as the host sees it", "as the container does"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", math.inf), ("350000", 3.5)])
def test_the_first_version_of_control_groups(tmp_path: Path, folder: str, quota: str, expected: float) -> None:
    write(tmp_path, **{"proc/self/cgroup": "9:name=systemd:/x\n4:cpu,cpuacct:/docker/abc\n3:memory:/y\n0::/\n"})
    write(
        tmp_path / "sys/fs/cgroup/cpu" / folder,
        **{"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": "100000\n"},
    )
    assert cpus(tmp_path) == expected
