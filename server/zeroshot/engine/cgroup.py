"""What the control groups that this process is in leave it: a container's, a systemd unit's, a pod's.

A container may see its group as the root of the file system, at a path that says otherwise: what isn't there is no
limit. Throughout, `root` is where `proc` and `sys` are.
"""

import math
from collections.abc import Iterator
from pathlib import Path

_MEMORY_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_MEMORY_V2 = ("memory.max", "memory.current", "inactive_file")


def bytes_left(root: Path = Path("/")) -> float:
    """Memory until the tightest of them ends this process; inf without a limit."""
    return max(0, min(_bytes_left(root), default=math.inf))


def cpus(root: Path = Path("/")) -> float:
    """How many CPUs' time the tightest of them gives: `docker run --cpus`, a pod's CPU limit. inf without one."""
    return min(_cpus(root), default=math.inf)


def _bytes_left(root: Path) -> Iterator[int]:
    for version, group in _groups("memory", root):
        limit_name, usage_name, cached_name = _MEMORY_V1 if version == 1 else _MEMORY_V2
        limit, usage = lines(group / limit_name), lines(group / usage_name)
        if limit and usage and limit[0] != "max":
            cached = number(group / "memory.stat", cached_name) or 0  # files' pages, which make room
            yield int(limit[0]) - int(usage[0]) + cached


def _cpus(root: Path) -> Iterator[float]:
    for version, group in _groups("cpu", root):
        if version == 1:
            words = lines(group / "cpu.cfs_quota_us") + lines(group / "cpu.cfs_period_us")
        else:
            words = " ".join(lines(group / "cpu.max")).split()
        if len(words) == 2 and words[0] not in ("max", "-1"):
            yield int(words[0]) / int(words[1])


def _groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """The version, 1 or 2, and the folder of each group that may have this controller's limits."""
    for line in lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        innermost = mount / path.lstrip("/")
        for group in [innermost, *innermost.parents][: len(Path(path).parts)]:
            yield (1 if controllers else 2), group


def number(path: Path, name: str) -> int | None:
    """Of the line that begins with this name. None if there is none."""
    return next((int(words[1]) for words in map(str.split, lines(path)) if words[:1] == [name]), None)


def lines(path: Path) -> list[str]:
    """None of a file that isn't there, or that this process may not read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
