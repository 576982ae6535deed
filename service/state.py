"""What the routes share: settings, models, parsers, the encoding thread. Built at start, kept in ``app.state``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeVar

from service.checkpoints.registry import Registry
from service.checkpoints.swap import ModelManager
from service.jobs.runner import JobRunner
from service.memory.budget import Memory, MemoryBudget
from service.observability.logs import bind
from service.observability.metrics import Metrics
from service.serving.cache import PredictionCache
from service.serving.fair import FairPool
from service.settings import Settings
from service.structures.build import SizeLimits
from service.structures.pool import ParserPool

T = TypeVar("T")
EXPORT_THREADS: Final = 2
Phase = Literal["starting", "ready", "leaving", "draining"]
"""``leaving``: not ready any more for who asks, so that a balancer sends nothing new, and yet all that comes is answered."""


@dataclass(frozen=True)
class Services:
    """The running parts.

    ``jobs`` is None where this process takes none. The encoder is one thread for JSON and binary formats, which take
    milliseconds. Exports by PySCF, which may take seconds, have threads of their own, shared out by caller.
    """

    settings: Settings
    registry: Registry
    parsers: ParserPool
    cache: PredictionCache
    metrics: Metrics
    manager: ModelManager
    memory: Memory = field(default_factory=partial(MemoryBudget, None))
    jobs: JobRunner | None = None
    encoder: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, thread_name_prefix="encoder"))
    exporter: FairPool = field(default_factory=partial(FairPool, EXPORT_THREADS, "export"))

    async def encode(self, function: Callable[..., T], *arguments: object) -> T:
        """Run an encoder in the encoding thread, with the log fields and the trace of the request."""
        return await asyncio.get_running_loop().run_in_executor(self.encoder, bind(function), *arguments)

    async def export(self, function: Callable[..., T], *arguments: object, dear: bool = False) -> T:
        """Run a writer of files in one of its threads, when the caller's turn comes; see ``FairPool.run``."""
        return await self.exporter.run(function, *arguments, dear=dear)

    def time_left_s(self, started: float) -> float:
        """Seconds until nobody waits for a request's answer any more; it began at this ``time.perf_counter()``."""
        return self.settings.request_timeout_s - (time.perf_counter() - started)

    def close(self) -> None:
        """Finish what runs, end threads and processes."""
        self.manager.close()
        self.registry.close()
        self.parsers.close()
        self.exporter.close()
        self.encoder.shutdown(wait=True, cancel_futures=True)


def limits_of(settings: Settings) -> SizeLimits:
    """The caps on a structure that is waited for."""
    larger = None if settings.jobs == "off" else job_limits_of(settings)
    return SizeLimits(settings.max_atoms, settings.max_orbitals, settings.max_k_cost, of_jobs=larger)


def job_limits_of(settings: Settings) -> SizeLimits:
    """The caps on the structure of a job."""
    return SizeLimits(
        settings.job_max_atoms,
        settings.job_max_orbitals,
        settings.job_max_k_cost,
        max_sparse_orbitals=settings.job_max_sparse_orbitals,
    )
