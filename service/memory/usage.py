"""What a process holds in memory, as Linux counts it; None elsewhere."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_PROC = Path("/proc/self")


def resident_bytes() -> int | None:
    """Resident memory of this process."""
    return _status("VmRSS")


def peak_bytes(*, reset: bool = False) -> int | None:
    """Largest resident memory of this process so far.

    Args:
        reset: begin anew from now on, after reading.
    """
    peak = _status("VmHWM")
    if reset and peak is not None:
        (_PROC / "clear_refs").write_text("5")
    return peak


def give_back() -> None:
    """Hand free pages of the C library's heap back to the system: it keeps what lies below a block that is in use."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)


def _status(name: str) -> int | None:
    try:
        lines = (_PROC / "status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":")), None)
