"""Where jobs run: in processes of their own, or beside the requests where that cannot be."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Final

from service.job_answers import check_job, compute_job
from service.job_process.pool import PROCESS_BYTES, JobProcesses
from service.jobs.runner import JobRunner
from service.jobs.store import JobStore
from service.memory.budget import MemoryBudget, too_large
from service.state import Services

logger = logging.getLogger(__name__)

GRACE_S: Final = 2.0
"""What a job in a process of its own has to end in when the service stops; then the process is ended, and the job waits."""

MOST_FOR_PROCESSES: Final = 0.5
"""Of the memory for structures; where processes would take more, jobs run beside the requests."""


def start_jobs(services: Services, store: JobStore, memory: MemoryBudget) -> JobRunner:
    """The runner of the jobs, at work.

    Args:
        services: what the requests use.
        store: open; the runner closes it.
        memory: of ``services``.
    """
    settings = services.settings
    reserved = PROCESS_BYTES * settings.job_workers
    # models that were not loaded from a folder cannot be loaded by another process
    own = settings.jobs == "process" and services.registry.loader is not None
    if own and memory.capacity is not None and reserved > MOST_FOR_PROCESSES * memory.capacity:
        logger.warning("memory: too little for processes of jobs; they run beside the requests")
        own = False
    processes = JobProcesses(services, memory) if own else None
    checked = replace(services, memory=_Beside(memory, reserved)) if own else services
    runner = JobRunner(
        store,
        partial(compute_job, services) if processes is None else processes.compute,
        check=partial(check_job, checked),
        workers=settings.job_workers,
        timeout_s=settings.job_timeout_s,
        grace_s=GRACE_S,
        after=None if processes is None else processes.close,
    )
    runner.start()
    return runner


class _Beside:
    """Memory beside the processes of the jobs.

    Args:
        memory: of the service.
        reserved: bytes of the processes.
    """

    def __init__(self, memory: MemoryBudget, reserved: int) -> None:
        self._memory = memory
        self._reserved = reserved

    def check(self, need: int) -> None:
        """Refuse what can never fit."""
        if self._memory.largest is not None and need + self._reserved > self._memory.largest:
            raise too_large(need, self._memory.largest - self._reserved)

    def hold(self, need: int, *, patient: bool = False) -> AbstractAsyncContextManager[None]:
        """As of the service's memory."""
        return self._memory.hold(need, patient=patient)
