"""Computes the stored jobs, a few at a time, and answers for them: the asynchronous face of the store.

The store is only ever called in a thread of its own. A job that cannot be finished before the service stops goes back
to the queue; the next process continues with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, TypeVar, cast

from service.errors import Problem, ServiceError, is_internal, problem_of
from service.jobs.records import (
    STAGES,
    Check,
    Claim,
    Compute,
    JobRecord,
    JobRequest,
    Rendered,
)
from service.jobs.store import JobStore
from service.observability.logs import context
from service.schemas.jobs import Progress, Stage
from service.serving.turns import KEY_CALLER, caller

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRANSIENT_CODES: Final = frozenset({"queue_full", "not_ready", "draining"})
"""Refusals that say nothing about the job: it is tried again."""

JOB_INTERNAL_DETAIL: Final = (
    "The server failed to compute this job. The request id of its submission names this failure in the server's log."
)

MAX_PAUSE_S: Final = 60.0
CANCEL_WAIT_S: Final = 2.0
"""How long a cancelled computation may take to notice; one in a thread notices at its next stage."""


@dataclass
class _Run:
    """A job that is being computed; ``problem`` is why it failed, where even that could not be stored."""

    claim: Claim
    stage: Stage | None = None
    steps: tuple[int, int] = (0, 0)  # done, of all, in this stage
    stopped: bool = False
    computing: asyncio.Future[Rendered] | None = field(default=None, repr=False)
    problem: Problem | None = None

    def report(self, stage: str, done: int = 0, of: int = 0, /) -> None:
        """The ``report`` of a computation; called from any thread."""
        if self.stopped:
            raise asyncio.CancelledError
        if stage in STAGES:
            self.stage, self.steps = cast(Stage, stage), (done, of)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        if self.stage is None:
            return Progress()
        done, of = self.steps
        begin = STAGES[self.stage]
        if not of:
            return Progress(stage=self.stage, fraction=begin)
        end = min((fraction for fraction in STAGES.values() if fraction > begin), default=1.0)
        fraction = begin + (end - begin) * min(done / of, 1.0)
        return Progress(stage=self.stage, fraction=round(fraction, 4), k_points=of, k_points_solved=done)

    def stop(self) -> None:
        """End the computation."""
        self.stopped = True
        if self.computing is not None:
            self.computing.cancel()


class JobRunner:
    """Takes jobs in, computes them, gives them out.

    Args:
        store: open; the runner closes it.
        compute: computes one job.
        check: refuses at submission what cannot be computed in any case; None takes everything.
        workers: jobs computed at the same time.
        timeout_s: seconds that one job may be computed.
        grace_s: seconds that running jobs have to end when the service stops.
        purge_every_s: seconds between two looks for jobs whose time is over.
        after: called when no job runs any more and the store is closed.
    """

    def __init__(
        self,
        store: JobStore,
        compute: Compute,
        *,
        check: Check | None = None,
        workers: int = 1,
        timeout_s: float = 3600.0,
        grace_s: float = 5.0,
        purge_every_s: float = 60.0,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._compute = compute
        self._check = check
        self._timeout_s = timeout_s
        self._grace_s = grace_s
        self._purge_every_s = purge_every_s
        self._after = after
        # One thread: the store takes one transaction at a time in any case. Results are written beside it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs-store")
        self._slots = asyncio.Semaphore(workers)
        self._wake = asyncio.Event()
        self._runs: dict[str, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin with what is queued."""
        self._background = [asyncio.create_task(self._dispatch()), asyncio.create_task(self._purge())]

    async def close(self) -> None:
        """Stop: running jobs have the grace time, then go back to the queue. The store is closed."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._grace_s)
        for run in self._runs.values():
            run.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_WAIT_S)
        try:
            # Also what does not let go in time, and what was claimed a moment ago.
            given_back = await self._call(self._store.give_back)
            if given_back:
                logger.info("jobs given back to the queue: %d", given_back)
        except ServiceError:
            logger.exception("running jobs cannot be given back; the next start finds them all the same")
        await self._call(self._store.close)
        self._thread.shutdown(wait=False)
        if self._after is not None:
            await self._after()

    async def submit(self, request: JobRequest, owner: str | None) -> JobRecord:
        """Accept a job; it is on disk when this returns.

        Raises:
            ServiceError, ModelError: what the check refuses; ``queue_full``, ``storage_full``.
        """
        if self._check is not None:
            await self._check(request)
        return await self._call(self._add, request, owner, asyncio.get_running_loop())

    async def status(self, job_id: str, owner: str | None) -> JobRecord:
        """A job as it is now.

        Raises:
            ServiceError: ``unknown_job``.
        """
        record = await self._call(self._store.find, job_id, owner)
        if record is None:
            raise unknown_job()
        run = self._runs.get(job_id)
        if run is None or record.state != "running":
            return record
        if run.problem is not None:
            return replace(record, state="failed", problem=run.problem, progress=run.progress)
        return replace(record, progress=run.progress)

    async def open_result(self, record: JobRecord) -> BinaryIO:
        """The content of a finished job's result; the caller closes it.

        Raises:
            ServiceError: ``unknown_job`` where it was deleted in the meantime.
        """
        assert record.result is not None
        try:
            return await self._call(self._store.open_result, record.result)
        except FileNotFoundError:
            raise unknown_job() from None

    async def remove(self, job_id: str, owner: str | None) -> None:
        """Delete a job and all its data; one that runs is stopped at its next stage.

        Raises:
            ServiceError: ``unknown_job``.
        """
        if not await self._call(self._store.remove, job_id, owner):
            raise unknown_job()
        run = self._runs.get(job_id)
        if run is not None:
            run.stop()

    def _add(self, request: JobRequest, owner: str | None, loop: asyncio.AbstractEventLoop) -> JobRecord:
        record = self._store.add(request, owner)
        # From here rather than by the caller: one who has gone away has a job all the same.
        loop.call_soon_threadsafe(self._wake.set)
        return record

    async def _dispatch(self) -> None:
        """Take jobs from the queue as long as there are slots; outlives everything that a disk can do."""
        while True:
            await self._slots.acquire()
            self._wake.clear()
            try:
                claim = await self._call(self._store.claim)
            except Exception:
                logger.exception("no job can be taken from the store")
                claim = None
            if claim is None:
                self._slots.release()
                # Not asyncio.wait_for: in Python 3.11 it may swallow a cancellation, and close() would wait for ever.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MAX_PAUSE_S):
                        await self._wake.wait()
                continue
            run = self._runs[claim.id] = _Run(claim)
            task = asyncio.create_task(self._run(run))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, run: _Run) -> None:
        """Compute one job and store what came of it; the log's lines of it name the request that submitted it."""
        if run.claim.owner is not None:
            caller.set(KEY_CALLER + run.claim.owner)  # its share of parsers and exports, and its answers from memory
        with context(request_id=run.claim.request.request_id):
            began = time.monotonic()
            logger.info(
                "a job begins: %s as %s, run %d", run.claim.request.kind, run.claim.request.format_out, run.claim.run
            )
            try:
                run.computing = asyncio.ensure_future(self._computed(run))
                if run.stopped:  # before it had begun
                    run.computing.cancel()
                await asyncio.wait([run.computing])
                if run.stopped and (run.computing.cancelled() or run.computing.exception() is not None):
                    logger.info("the job is stopped after %.1f s: deleted, or given back", time.monotonic() - began)
                    return
                if run.computing.cancelled():
                    raise RuntimeError("the computation ended itself as cancelled")
                rendered = run.computing.result()
                await asyncio.to_thread(self._store.finish, run.claim, rendered)
                logger.info("the job is done after %.1f s: %d bytes", time.monotonic() - began, len(rendered.content))
            except Exception as error:
                await self._fail(run, error)
            finally:
                if run.problem is None:
                    self._runs.pop(run.claim.id, None)
                self._slots.release()
                self._wake.set()

    async def _computed(self, run: _Run) -> Rendered:
        """The computation within its time, begun again while the service is too busy for it."""
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                while True:
                    try:
                        return await self._compute(run.claim.request, run.report)
                    except ServiceError as error:
                        if error.code not in TRANSIENT_CODES:
                            raise
                        pause = 1.0 if error.retry_after_s is None else float(error.retry_after_s)
                    await asyncio.sleep(min(pause, MAX_PAUSE_S))
        except TimeoutError:
            if not limit.expired():
                raise
            raise ServiceError(
                "deadline_exceeded",
                f"The job was not finished within {self._timeout_s:g} s, the limit of this server.",
                hint="Send a smaller structure, or ask for fewer outputs.",
            ) from None

    async def _fail(self, run: _Run, error: Exception) -> None:
        if is_internal(error):
            logger.error("the job failed", exc_info=error)
            error = ServiceError("internal_error", JOB_INTERNAL_DETAIL)
        problem = problem_of(error, "")
        logger.info("the job ends as failed at stage %s: %s", run.stage, problem.body["code"])
        try:
            await self._call(self._store.fail, run.claim, problem, run.stage)
        except Exception:
            logger.exception("the failure of a job cannot be stored yet")
            run.problem = problem

    async def _purge(self) -> None:
        """Delete what is over; store failures that could not be stored when they happened."""
        while True:
            try:
                await self._call(self._store.purge)
                for run in [run for run in self._runs.values() if run.problem is not None]:
                    assert run.problem is not None
                    await self._call(self._store.fail, run.claim, run.problem, run.stage)
                    self._runs.pop(run.claim.id, None)
            except Exception:
                logger.exception("jobs whose time is over cannot be deleted")
            await asyncio.sleep(self._purge_every_s)

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def unknown_job() -> ServiceError:
    """The error for an id that names no job of this caller; it does not tell another's from none."""
    return ServiceError(
        "unknown_job",
        "There is no job of this id, or not any more.",
        hint="A job is there until it is deleted or its time in 'expires' is over; send the structure again.",
    )
