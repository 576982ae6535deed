"""The database file of the jobs: one process, one connection, on disk at every commit.

SQLite in WAL mode with ``synchronous=FULL``: a commit has reached the disk when it returns. The lock is exclusive for as
long as the file is open, and the system frees it when a process dies, so that two services cannot run the same jobs.
Deleted rows are overwritten with zeros and the file shrinks.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from service.errors import ServiceError, StartupError

logger = logging.getLogger(__name__)

MAGIC: Final = b"SQLite format 3\0"
APPLICATION_ID: Final = 0x54474A42
SCHEMA_VERSION: Final = 2

_KEYS: Final = """
CREATE TABLE keys (
    sequence INTEGER PRIMARY KEY,
    owner TEXT,
    key TEXT NOT NULL,
    request TEXT NOT NULL
);
CREATE INDEX keys_by_name ON keys (key);
"""
"""Idempotency keys of jobs, with a digest of what was sent under them."""

_SCHEMA: Final = """
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT,
    kind TEXT NOT NULL,
    format_out TEXT NOT NULL,
    request_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    run INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    expires REAL NOT NULL,
    stage TEXT,
    problem TEXT,
    size INTEGER NOT NULL DEFAULT 0,
    media_type TEXT,
    headers TEXT,
    sha256 TEXT
);
CREATE TABLE bodies (
    sequence INTEGER PRIMARY KEY,
    body TEXT NOT NULL
);
CREATE INDEX jobs_by_state ON jobs (state, sequence);
"""

_UPGRADES: Final = {1: f"ALTER TABLE jobs ADD COLUMN sha256 TEXT; {_KEYS}"}
"""By the version that a file has: what makes the next one of it."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Database:
    """A connection that threads may share, one transaction at a time.

    Args:
        path: made if it is not there.
        lock_wait_s: seconds to wait for a process that has the file open.

    Raises:
        OSError: the file cannot be made.
        StartupError: the file is damaged, foreign, in use, or cannot be opened. It is never changed or deleted then.
    """

    def __init__(self, path: Path, *, lock_wait_s: float) -> None:
        self._lock = threading.Lock()
        self._path = path
        # Readable by nobody else, in whatever folder; SQLite's log of it follows. An existing file is not opened here:
        # closing it again would drop the locks that this process may hold on it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self._file = -1
        try:
            self._connection = sqlite3.connect(
                path, timeout=lock_wait_s, isolation_level=None, check_same_thread=False, cached_statements=32
            )
        except sqlite3.Error as error:
            raise _startup_error(path, error) from error
        try:
            _prepare(self._connection, path)
        except sqlite3.Error as error:
            self._connection.close()
            raise _startup_error(path, error) from error
        except StartupError:
            self._connection.close()
            raise
        self._file = os.open(path, os.O_RDONLY)  # closed last: its end would drop the locks

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing of it; on disk when the block is left.

        Raises:
            ServiceError: ``storage_full``; ``not_ready`` if something else has replaced or overwritten the file.
        """
        with self._lock, storage_errors():
            self._check_file()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def forget(self) -> None:
        """Take what was deleted out of the write-ahead log, too."""
        with self._lock:
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.OperationalError as error:
                # What was committed is safe in the log; SQLite empties it when there is room again.
                logger.warning("the log of the job store could not be emptied: %s", error)

    def close(self) -> None:
        """Give the file free."""
        with self._lock:
            self._connection.close()
            os.close(self._file)

    def _check_file(self) -> None:
        """What is written goes into the file that the next start reads: still there, still the same, still a database."""
        try:
            same = os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except OSError:
            same = False
        if not same or os.pread(self._file, len(MAGIC), 0) != MAGIC:
            raise _lost(self._path)


@contextmanager
def storage_errors() -> Iterator[None]:
    """A full disk, whoever notices it, becomes ``storage_full``."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # SQLite calls ENOSPC full, and a quota or a limit on file sizes a failed write.
        if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            raise
        raise storage_full() from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise storage_full() from error


def _lost(path: Path) -> ServiceError:
    logger.critical(
        "the job store %s was replaced or overwritten while it was in use: nothing is stored any more. Stop the service, put "
        "back a copy or move the file away, and start again",
        path,
    )
    return ServiceError(
        "not_ready",
        "The job store of this server cannot be used.",
        hint="Its operator has to put it in order; the other routes answer.",
        retry_after_s=60,
    )


def storage_full() -> ServiceError:
    """The error to answer with when there is no room."""
    return ServiceError(
        "storage_full",
        "There is no room to store this job or its result.",
        hint="DELETE finished jobs that are no longer needed, ask for fewer outputs, or try again later.",
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    # Nothing is written before the file is known to be ours and sound.
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("the check of its pages failed")
    application, version = (_number(connection, name) for name in ("application_id", "user_version"))
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    is_new = (application, version, tables) == (0, 0, 0)
    if application == APPLICATION_ID and version > SCHEMA_VERSION:
        raise StartupError(
            f"The job store {path} has format {version}, which a newer version of this program wrote; this one reads "
            f"{min(_UPGRADES)} to {SCHEMA_VERSION}. Start the newer one, put back the copy from before the upgrade, or name "
            "another folder in TRACEGRAD_JOBS_FOLDER."
        )
    if not is_new and (application != APPLICATION_ID or version not in (SCHEMA_VERSION, *_UPGRADES)):
        raise StartupError(
            f"The job store {path} was written by another program or by another version of this one. Name another "
            "folder in TRACEGRAD_JOBS_FOLDER, or move the file away."
        )
    if is_new:
        connection.execute("PRAGMA auto_vacuum = FULL")
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    if is_new:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} {_KEYS} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    for old in range(SCHEMA_VERSION if is_new else version, SCHEMA_VERSION):
        connection.executescript(f"BEGIN IMMEDIATE; {_UPGRADES[old]} PRAGMA user_version = {old + 1}; COMMIT;")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _startup_error(path: Path, error: sqlite3.Error) -> StartupError:
    # The check of the pages has no code of SQLite's; extended codes keep the primary one in their low byte.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StartupError(
            f"The job store {path} is in use by another process. Stop that one, or name another folder in "
            "TRACEGRAD_JOBS_FOLDER."
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StartupError(
            f"The job store {path} is damaged ({error}). It is left as it is: restore it from a backup, or move it "
            f"and {path.name}-wal away to start with an empty one; the jobs in it are lost then."
        )
    return StartupError(
        f"The job store {path} cannot be opened: {error}. Check that the folder is writable and its disk not full, or "
        "name another one in TRACEGRAD_JOBS_FOLDER."
    )
