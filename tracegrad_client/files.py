"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file so that under its name there is either the old content or all of the new one.

    A link is followed. What is no regular file (a device, a pipe, ``/dev/stdout``) is written to, never replaced.

    Raises:
        OSError: nothing was written; the old file, if any, is untouched.
    """
    target = target.resolve() if target.is_symlink() else target
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            stream.write(content)
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder to write to", str(target))
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
