"""Files that are never half written: made beside their place, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to; what is there at the end takes the place of ``path``, unless an exception comes first.

    The name holds machine and process, so that two processes never write the same file, on a shared file system either. The
    contents are on the disk before the name is: after a power cut there is the old file or the new one.
    """
    temporary = path.with_name(f"{path.name}.{os.uname().nodename}.{os.getpid()}.part")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """A text file, UTF-8."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """A JSON file of one line; NaN and infinities are refused."""
    write_text(path, json.dumps(values, allow_nan=False) + "\n")
