"""The contents of results, one file for each job: large, streamed, and gone from the disk at once when deleted.

A file is named by the numbers of the job and of its run, never by anything from a request. It exists under that name only
once it is complete and on disk.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from service.jobs.database import storage_errors


class ResultFiles:
    """A folder of results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)

    def write(self, sequence: int, run: int, content: bytes) -> None:
        """Store a result; on disk when this returns.

        Raises:
            ServiceError: ``storage_full``; nothing of the file is left then.
        """
        partial = self._path(sequence, run).with_suffix(".part")
        try:
            with storage_errors():
                with partial.open("wb") as file:
                    os.chmod(file.fileno(), 0o600)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                partial.rename(self._path(sequence, run))
                sync_folder(self._folder)
        except BaseException:
            partial.unlink(missing_ok=True)
            self.remove(sequence, run)
            raise

    def open(self, sequence: int, run: int) -> BinaryIO:
        """Open a result to read; a download that has begun survives its deletion.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._path(sequence, run).open("rb")

    def remove(self, sequence: int, run: int) -> None:
        """Delete a result, if there is one."""
        self._path(sequence, run).unlink(missing_ok=True)

    def keep_only(self, runs: Collection[tuple[int, int]]) -> None:
        """Delete what a process that died has left behind: all but the results of these jobs and runs."""
        names = {self._path(sequence, run).name for sequence, run in runs}
        for path in self._folder.iterdir():
            if path.name not in names and path.suffix in (".result", ".part"):
                path.unlink()

    def _path(self, sequence: int, run: int) -> Path:
        return self._folder / f"{sequence}-{run}.result"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
