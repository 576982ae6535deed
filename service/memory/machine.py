"""What this process may use: memory and processor time as a control group (v1 or v2) and the machine set them.

A container's limits are those of its control group, which ``os.cpu_count`` and the size of the machine know nothing of.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

UNLIMITED: Final = 1 << 60
"""Limits of control groups from here on mean none."""

_CGROUPS: Final = Path("/sys/fs/cgroup")


def memory_limit(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that this process and its children may hold: the least of the machine's and of all control groups above it.

    Args:
        root: where control groups are mounted.
        membership: which group the process is in.

    Returns:
        None where the system tells neither.
    """
    found = [_number(folder / name) for folder, name in _memory_files(root, membership)]
    limits = [limit for limit in (*found, _machine_bytes()) if limit is not None and limit < UNLIMITED]
    return min(limits, default=None)


def usable_cores(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may keep busy, at least 1: its affinity, and the quota of its control group rounded up."""
    cores = len(os.sched_getaffinity(0))
    quotas = list(_quotas(root, membership))
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def out_of_memory_kills(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """How many processes of this control group the kernel has killed for memory so far; 0 where it does not say."""
    for folder in (*_folders(root, "", membership), *_folders(root, "memory", membership)):
        for name in ("memory.events", "memory.oom_control"):
            for line in _text(folder / name).splitlines():
                if line.startswith("oom_kill ") and line.split()[1].isdigit():
                    return int(line.split()[1])
    return 0


def _memory_files(root: Path, membership: Path) -> Iterator[tuple[Path, str]]:
    for folder in _folders(root, "", membership):
        yield folder, "memory.max"
    for folder in _folders(root, "memory", membership):
        yield folder, "memory.limit_in_bytes"


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    for folder in _folders(root, "", membership):
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)
    for folder in _folders(root, "cpu", membership):
        microseconds, length = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if microseconds and length:
            yield microseconds / length


def _folders(root: Path, controller: str, membership: Path) -> Iterator[Path]:
    """The process's group of a controller (v1), or the one of all (v2: ""), and those above it.

    In a container the group is the root of what is mounted there, whatever path the process has outside.
    """
    path = ""
    for line in _text(membership).splitlines():
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            path = own.strip("/")
    top = root / controller if controller else root
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:depth])


def _machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
