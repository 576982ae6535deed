"""Where the jobs lie, and so what a restart means for them.

In a folder that the operator names, or in the default folder of ``python -m service``, jobs survive a restart. An
application made without either (by a test, or inside another program) keeps its jobs in a temporary folder and loses
them with itself.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from service.jobs.records import JobLimits
from service.jobs.store import JobStore
from service.scratch import own_folder
from service.settings import Settings

logger = logging.getLogger(__name__)


def open_job_store(settings: Settings, *, home: Path | None = None) -> JobStore:
    """Open the store that the settings name.

    Args:
        settings: where the folder is, and the limits.
        home: the user's home folder, for the default folder in it; None for a temporary folder instead.

    Raises:
        StartupError: the folder cannot be used.
    """
    limits = JobLimits(
        ttl_s=settings.job_ttl_s,
        max_waiting=settings.max_jobs,
        max_waiting_of_owner=settings.max_jobs_of_key,
        max_bytes=settings.job_storage_bytes,
    )
    if settings.jobs_folder is not None:
        return JobStore(settings.jobs_folder, limits)
    default = None if home is None else _default_folder(home, settings.port)
    if default is not None:
        return JobStore(default, limits, remove="if_empty")
    if home is not None:
        logger.warning("jobs are kept in a temporary folder and end with this process: set TRACEGRAD_JOBS_FOLDER")
    return JobStore(Path(tempfile.mkdtemp(prefix="jobs-", dir=own_folder())), limits, remove="always")


def _default_folder(home: Path, port: int) -> Path | None:
    """One folder for each port, so that two services of one user do not meet; None where there is no place for it."""
    folder = home / ".local" / "state" / "tracegrad" / f"jobs-{port}"
    if port == 0 or not home.is_absolute():  # any free port: the next start has another one; "~": there is no home
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
