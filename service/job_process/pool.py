"""The service's side of jobs: a process for each job that runs, kept a minute for the next one.

The memory of a process and of its job is the service's to promise. A job that is deleted or given back ends its process, and
so stops at once; a process that dies takes its own job with it and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import asdict
from typing import Any, Final

from service.errors import ServiceError
from service.job_answers import read_job
from service.job_process.child import Child, DiedError, error_of
from service.job_process.frames import Frame
from service.jobs.records import JobRequest, Rendered
from service.memory.budget import MemoryBudget
from service.serving.backend import Report
from service.state import Services, job_limits_of
from service.structures.build import read_structure

logger = logging.getLogger(__name__)

PROCESS_BYTES: Final = 320_000_000
"""Of a process with its models beyond the pages that it shares with the service: 307 MB were measured."""

IDLE_S: Final = 60.0
"""How long a process waits for another job."""

COUNTED: Final = frozenset({"stage", "prediction", "prediction_failed", "cache", "batch", "memory_split"})


class JobProcesses:
    """Computes jobs. Its methods belong to one event loop.

    Args:
        services: whose models, limits, parsers and metrics are used.
        memory: of the service.
    """

    def __init__(self, services: Services, memory: MemoryBudget) -> None:
        self._services = services
        self._memory = memory
        self._metrics = services.metrics
        self._idle: list[Child] = []
        self._ends: dict[Child, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        memory.when_short = self.end_idle

    async def compute(self, request: JobRequest, report: Report) -> Rendered:
        """The answer of a job.

        Raises:
            ServiceError, ModelError: as the route of its kind; ``too_large_for_memory`` where the kernel ended the process
                for memory, ``job_failed`` where something else did.
        """
        report("parse")
        body, _ = await asyncio.to_thread(read_job, request)
        services = self._services
        raw = await read_structure(body.structure, services.parsers, job_limits_of(services.settings))
        reserved = PROCESS_BYTES * services.settings.job_workers
        began = time.monotonic()
        child = await self._child()
        held: list[int] = []
        finished = False
        try:
            child.send(
                "job",
                request=asdict(request),
                structure=asdict(raw),
                models=[
                    {
                        "folder": str(model.predictor.folder),
                        "sha256": model.predictor.card.weights_sha256,
                        "forward": model.predictor.model.forward_form,
                    }
                    for model in services.registry.models
                ],
                defaults=[name for name in services.registry.defaults.values() if name is not None],
                largest=None if self._memory.largest is None else self._memory.largest - reserved,
            )
            rendered = await self._follow(child, report, held)
            finished = True
        except DiedError as death:
            logger.error("the process of the job died after %.1f s: %s", time.monotonic() - began, death.cause)
            raise _failure(death) from None
        except ServiceError:
            finished = True
            raise
        finally:
            for need in held:
                self._memory.release(need)
            if finished and child.alive:
                self._keep(child)
            else:
                self._spawn(self._end(child))
        return rendered

    def end_idle(self) -> None:
        """End the processes that only wait for a job, and free their memory."""
        for child in list(self._idle):
            self._forget(child)
            self._spawn(self._end(child))

    async def close(self) -> None:
        """End all processes."""
        self.end_idle()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, child: Child, report: Report, held: list[int]) -> Rendered:
        while True:
            frame = await child.receive()
            match frame.kind:
                case "stage":
                    report(frame.fields["stage"], frame.fields["done"], frame.fields["of"])
                case "metric" if frame.fields["name"] in COUNTED:
                    getattr(self._metrics, frame.fields["name"])(*frame.fields["arguments"])
                case "hold":
                    need = int(frame.fields["need"])
                    logger.info("the job needs %.0f MB at most", need / 1e6)
                    await self._memory.take(need)
                    held.append(need)
                    child.send("held")
                case "done":
                    return _rendered(frame)
                case "failed":
                    raise error_of(frame.fields)

    async def _child(self) -> Child:
        while self._idle:
            child = self._idle[-1]
            self._forget(child)
            if await child.answers():
                return child
            self._spawn(self._end(child))
        await self._memory.take(PROCESS_BYTES)
        try:
            child = await Child.start(self._services.settings)
        except BaseException as error:
            self._memory.release(PROCESS_BYTES)
            if isinstance(error, DiedError):
                logger.error("a process for jobs does not start: %s", error.cause)
                raise _failure(error) from None
            raise
        return child

    def _keep(self, child: Child) -> None:
        self._idle.append(child)
        self._ends[child] = asyncio.get_running_loop().call_later(IDLE_S, self._expire, child)

    def _expire(self, child: Child) -> None:
        if child in self._idle:
            self._forget(child)
            self._spawn(self._end(child))

    def _forget(self, child: Child) -> None:
        self._idle.remove(child)
        self._ends.pop(child).cancel()

    async def _end(self, child: Child) -> None:
        with contextlib.suppress(OSError):
            await child.end()
        self._memory.release(PROCESS_BYTES)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _rendered(frame: Frame) -> Rendered:
    return Rendered(frame.content, frame.fields["media_type"], frame.fields["headers"])


def _failure(death: DiedError) -> ServiceError:
    if death.for_memory:
        return ServiceError(
            "too_large_for_memory",
            "The job's process was ended because the memory of this server had run out.",
            hint="Send a smaller structure, or ask for fewer outputs.",
        )
    return ServiceError(
        "job_failed",
        "The job's process ended before the job did.",
        hint="Submit it again; the request id of the submission names the cause in the server's log.",
    )
