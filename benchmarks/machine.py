"""What a benchmark ran on: the machine, in one line or by parts, and the checkpoint if none is named."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

DEFAULT_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "default"


def machine() -> str:
    """Processor, cores, threads of a process, and how busy it is."""
    processor = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    return f"{processor}, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}, load {os.getloadavg()[0]:.1f}"


def versions() -> dict[str, str]:
    """Of what counts for speed."""
    packages = ("torch", "e3nn", "numpy", "pyscf")
    return {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def describe() -> str:
    """Date, machine and versions."""
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{datetime.date.today()}; {machine()}; {found}"
