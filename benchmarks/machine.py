"""What a benchmark ran on: the machine, as one line for docs/benchmarks.md, and the checkpoint if none is named."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

DEFAULT_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "default"


def describe() -> str:
    """Date, processor, cores, threads and versions."""
    processor = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "e3nn", "numpy", "pyscf"))
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    return (
        f"{datetime.date.today()}; {processor}, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}; "
        f"Python {platform.python_version()}, {versions}"
    )
