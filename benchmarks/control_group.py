"""A control group with a memory limit, of version 1 or 2, as a container engine makes one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GROUPS: Final = Path("/sys/fs/cgroup")
PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class MemoryGroup:
    """A group of processes that together may hold so much.

    Attributes:
        folder: of the group; a process enters by writing its number into ``cgroup.procs`` there.
        version: of control groups.
    """

    folder: Path
    version: int

    def kills(self) -> int:
        """Processes that the kernel has killed for memory."""
        text = (self.folder / ("memory.oom_control" if self.version == 1 else "memory.events")).read_text()
        (count,) = [int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")]
        return count

    def peak_bytes(self) -> int | None:
        """Most that the group has held, files in the page cache included; None where the kernel does not say."""
        file = self.folder / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        return int(file.read_text()) if file.is_file() else None


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A new group; its processes must have ended when the block does.

    Raises:
        OSError: no groups can be made here; that takes root, or a group that was handed over.
    """
    old = (GROUPS / "memory").is_dir()
    group = MemoryGroup((GROUPS / "memory" if old else GROUPS) / f"tracegrad-benchmark-{os.getpid()}", 1 if old else 2)
    group.folder.mkdir()
    try:
        (group.folder / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit_bytes))
        yield group
    finally:
        end = time.monotonic() + PATIENCE_S
        while (group.folder / "cgroup.procs").read_text().strip() and time.monotonic() < end:
            time.sleep(0.1)
        group.folder.rmdir()
