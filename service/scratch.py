"""The temporary folder of this process, and the end of those that dead processes left.

A killed process removes nothing. Its folder is told from a living one's by a lock, which the system frees with the process,
whatever its number and in whatever container it ran.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

PREFIX: Final = "tracegrad-"
LOCK: Final = "in-use"


@cache
def own_folder() -> Path:
    """The folder, made and locked on first use, and removed when the process ends."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if _locked(descriptor) and folder.exists():  # else another one that starts has taken it for a dead one's
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder
        os.close(descriptor)


def remove_leftovers() -> int:
    """Remove what dead processes of this user left; how many folders."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # not one of these
        if _locked(descriptor):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        os.close(descriptor)
    return removed


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
