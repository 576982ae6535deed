"""What the runner promises: every accepted job comes to an end that its owner can see, and none stops the others."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from model.errors import UnsupportedElementError
from service.errors import ServiceError
from service.jobs import runner as runner_module
from service.jobs.records import STAGES, Compute, JobLimits, JobRecord, JobRequest, Rendered
from service.jobs.runner import JobRunner
from service.jobs.store import JobStore

SECRET = "secret-in-the-exception"
RENDERED = Rendered(b"the answer", "text/plain", {})


class WatchedStore:
    """A store that can be told to fail or to wait, and that notes the threads which call it."""

    def __init__(self, folder: Path) -> None:
        self._store = JobStore(folder, lock_wait_s=0.0)
        self.failing: set[str] = set()
        self.gates: dict[str, threading.Event] = {}
        self.threads: set[int] = set()
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            self.threads.add(threading.get_ident())
            if name in self.gates:
                self.gates[name].wait()
            if name in self.failing:
                raise OSError(errno.EIO, "input/output error")
            return method(*arguments)

        return call


def request(text: str = "{}") -> JobRequest:
    return JobRequest("predict", text, "json", "request-1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@asynccontextmanager
async def running(folder: Path, compute: Compute, store: Any = None, **options: Any) -> AsyncIterator[JobRunner]:
    """A runner at work on the jobs of a folder."""
    runner = JobRunner(store or JobStore(folder, lock_wait_s=0.0), compute, **{"grace_s": 10.0, **options})
    runner.start()
    try:
        yield runner
    finally:
        await runner.close()


async def ended(runner: JobRunner, job_id: str) -> JobRecord:
    return await until(lambda: runner.status(job_id, None), lambda record: record.state in ("done", "failed"))


def _is_at(stage: str, record: Any) -> bool:
    return bool(record.progress.stage == stage)


async def until(ask: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(20):
        while not holds(answer := await ask()):
            await asyncio.sleep(0.005)
    return answer


async def content(runner: JobRunner, job_id: str) -> bytes:
    with await runner.open_result(await runner.status(job_id, None)) as file:
        return file.read()


async def echo(request: JobRequest, progress: Callable[[str], None]) -> Rendered:
    return Rendered(request.body.encode(), "text/plain")


class Gate:
    """A computation that waits until it is let on, and counts who came."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.came: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, request: JobRequest, progress: Callable[[str], None]) -> Rendered:
        self.came.append(request.body)
        progress("forward")
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.body)
            raise
        return Rendered(request.body.encode(), "text/plain")

    async def entered(self, count: int) -> None:
        await until(lambda: asyncio.sleep(0, len(self.came)), lambda came: came >= count)


# --- results and failures


def test_jobs_are_computed_and_each_gets_its_own_answer(folder):
    async def main() -> None:
        async with running(folder, echo) as runner:
            jobs = {text: (await runner.submit(request(text), None)).id for text in "abc"}
            for text, job in jobs.items():
                assert (await ended(runner, job)).state == "done"
                assert await content(runner, job) == text.encode()

    asyncio.run(main())


def test_progress_only_grows_and_names_the_stages(folder):
    async def main() -> None:
        stages = asyncio.Queue[str]()
        seen: list[tuple[str | None, float]] = []

        async def compute(request: JobRequest, progress: Callable[[str], None]) -> Rendered:
            while (stage := await stages.get()) != "end":
                progress(stage)
            return RENDERED

        async with running(folder, compute) as runner:
            job = (await runner.submit(request(), None)).id
            for stage in STAGES:
                stages.put_nowait(stage)
                record = await until(lambda: runner.status(job, None), partial(_is_at, stage))
                assert (record.state, record.progress.position) == ("running", None)
                seen.append((record.progress.stage, record.progress.fraction))
            stages.put_nowait("end")
            assert (await ended(runner, job)).progress.fraction == 1.0
        fractions = [fraction for _, fraction in seen]
        assert fractions == sorted(set(fractions))
        assert 0.0 <= fractions[0] <= fractions[-1] < 1.0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ServiceError("unparsable_structure", "what came", hint="what to do"), 422, "unparsable_structure"),
        (UnsupportedElementError("what came", hint="what to do"), 422, "unsupported_element"),
        (MemoryError(SECRET), 413, "too_large_for_memory"),
        (RuntimeError(SECRET), 500, "internal_error"),
        (TimeoutError(SECRET), 500, "internal_error"),
        (asyncio.CancelledError(SECRET), 500, "internal_error"),
    ],
)
def test_an_error_becomes_the_jobs_problem_and_the_next_job_is_computed(folder, error, status, code):
    async def compute(request: JobRequest, progress: Callable[[str], None]) -> Rendered:
        progress("integrals")
        if request.body == "bad":
            raise error
        return RENDERED

    async def main() -> None:
        async with running(folder, compute) as runner:
            bad, good = [(await runner.submit(request(text), None)).id for text in ("bad", "good")]
            failed = await ended(runner, bad)
            assert failed.state == "failed"
            assert (failed.problem.status, failed.problem.body["code"]) == (status, code)
            assert SECRET not in str(failed)
            assert failed.progress.stage == "integrals"
            assert (await ended(runner, good)).state == "done"

    asyncio.run(main())


@pytest.mark.parametrize("code", ["queue_full", "not_ready", "draining"])
def test_a_service_too_busy_for_a_job_is_asked_again(folder, code):
    refusals = [ServiceError(code, "busy", retry_after_s=0) for _ in range(3)]

    async def compute(request: JobRequest, progress: Callable[[str], None]) -> Rendered:
        if refusals:
            raise refusals.pop()
        return RENDERED

    async def main() -> None:
        async with running(folder, compute) as runner:
            done = await ended(runner, (await runner.submit(request(), None)).id)
            assert (done.state, done.attempts) == ("done", 1)

    asyncio.run(main())


def test_a_job_beyond_its_time_fails_with_the_deadline(folder):
    async def main() -> None:
        gate = Gate()
        async with running(folder, gate, timeout_s=0.05) as runner:
            failed = await ended(runner, (await runner.submit(request("late"), None)).id)
            assert failed.problem.body["code"] == "deadline_exceeded"
            assert gate.cancelled == ["late"]

    asyncio.run(main())


# --- submission


def test_what_the_check_refuses_is_not_accepted(folder):
    async def check(request: JobRequest) -> None:
        raise ServiceError("too_many_atoms", "what came")

    async def main() -> None:
        async with running(folder, echo, check=check) as runner:
            with pytest.raises(ServiceError, match="too_many_atoms"):
                await runner.submit(request(), None)
        assert JobStore(folder).claim() is None

    asyncio.run(main())


def test_a_submitter_who_leaves_while_the_job_is_written_has_it_computed_all_the_same(folder):
    async def main() -> None:
        gate, store = Gate(), WatchedStore(folder)
        store.gates["add"] = threading.Event()
        async with running(folder, gate, store) as runner:
            submission = asyncio.create_task(runner.submit(request("left"), None))
            await until(lambda: asyncio.sleep(0, store.calls), lambda calls: "add" in calls)
            submission.cancel()
            store.gates["add"].set()
            await gate.entered(1)
            assert gate.came == ["left"]
            gate.open.set()

    asyncio.run(main())


def test_jobs_of_another_are_unknown(folder):
    async def main() -> None:
        async with running(folder, echo) as runner:
            job = (await runner.submit(request(), "alice")).id
            for stranger in ("bob", None):
                with pytest.raises(ServiceError, match="unknown_job"):
                    await runner.status(job, stranger)
                with pytest.raises(ServiceError, match="unknown_job"):
                    await runner.remove(job, stranger)
            await runner.remove(job, "alice")
            with pytest.raises(ServiceError, match="unknown_job"):
                await runner.status(job, "alice")

    asyncio.run(main())


# --- several workers


def test_two_workers_compute_two_jobs_at_once_and_each_job_once(folder):
    async def main() -> None:
        gate = Gate()
        names = [f"job {index}" for index in range(7)]
        async with running(folder, gate, workers=2) as runner:
            jobs = [(await runner.submit(request(name), None)).id for name in names]
            await gate.entered(2)
            assert [(await runner.status(job, None)).state for job in jobs] == ["running"] * 2 + ["queued"] * 5
            assert (await runner.status(jobs[2], None)).progress.position == 1
            gate.open.set()
            for job in jobs:
                assert (await ended(runner, job)).attempts == 1
            assert sorted(gate.came) == names

    asyncio.run(main())


# --- deletion


def test_a_running_job_that_is_deleted_stops_and_makes_room(folder):
    async def main() -> None:
        gate = Gate()
        async with running(folder, gate) as runner:
            first, second = [(await runner.submit(request(text), None)).id for text in ("first", "second")]
            await gate.entered(1)
            await runner.remove(first, None)
            with pytest.raises(ServiceError, match="unknown_job"):
                await runner.status(first, None)
            await gate.entered(2)
            assert gate.cancelled == ["first"]
            gate.open.set()
            assert (await ended(runner, second)).state == "done"

    asyncio.run(main())


def test_a_computation_in_a_thread_ends_at_its_next_stage_when_its_job_is_deleted(folder):
    entered, go, outcome = threading.Event(), threading.Event(), []

    def work(progress: Callable[[str], None]) -> Rendered:
        entered.set()
        go.wait()
        try:
            progress("eigensolve")
            outcome.append("went on")
        except BaseException as error:
            outcome.append(type(error).__name__)
            raise
        return RENDERED

    async def compute(request: JobRequest, progress: Callable[[str], None]) -> Rendered:
        return await asyncio.to_thread(work, progress)

    async def main() -> None:
        async with running(folder, compute) as runner:
            job = (await runner.submit(request(), None)).id
            await asyncio.to_thread(entered.wait)
            await runner.remove(job, None)
            go.set()
            await until(lambda: asyncio.sleep(0, outcome), bool)
            assert outcome == ["CancelledError"]

    asyncio.run(main())


def test_a_queued_job_that_is_deleted_is_never_computed(folder):
    async def main() -> None:
        gate = Gate()
        async with running(folder, gate) as runner:
            jobs = [(await runner.submit(request(text), None)).id for text in ("first", "second", "third")]
            await gate.entered(1)
            await runner.remove(jobs[1], None)
            assert (await runner.status(jobs[2], None)).progress.position == 1
            gate.open.set()
            await ended(runner, jobs[2])
            assert gate.came == ["first", "third"]

    asyncio.run(main())


# --- stops and restarts


def test_a_stop_gives_the_running_job_back_and_the_next_process_finishes_it(folder):
    async def main() -> None:
        gate = Gate()
        async with running(folder, gate, grace_s=0.01) as runner:
            jobs = [(await runner.submit(request(text), None)).id for text in ("first", "second")]
            await gate.entered(1)
        assert gate.cancelled == ["first"]
        async with running(folder, echo) as runner:
            for job, text in zip(jobs, ("first", "second"), strict=True):
                done = await ended(runner, job)
                assert (done.state, done.attempts) == ("done", 1), "the orderly stop is not counted"
                assert await content(runner, job) == text.encode()

    asyncio.run(main())


def test_a_job_that_ends_within_the_grace_time_is_done(folder):
    async def main() -> None:
        gate = Gate()
        async with running(folder, gate) as runner:
            job = (await runner.submit(request("in time"), None)).id
            await gate.entered(1)
            asyncio.get_running_loop().call_later(0.05, gate.open.set)
        store = JobStore(folder)
        assert store.find(job, None).state == "done"
        store.close()

    asyncio.run(main())


def test_a_computation_that_does_not_let_go_holds_no_stop_up_and_its_job_is_queued(folder, monkeypatch):
    monkeypatch.setattr(runner_module, "CANCEL_WAIT_S", 0.01)
    go = asyncio.Event()

    async def stubborn(request: JobRequest, progress: Callable[[str], None]) -> Rendered:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return RENDERED

    async def main() -> None:
        async with running(folder, stubborn, grace_s=0.01) as runner:
            job = (await runner.submit(request(), None)).id
            await until(lambda: runner.status(job, None), lambda record: record.state == "running")
        store = JobStore(folder, lock_wait_s=0.0)
        again = store.find(job, None)
        assert (again.state, again.attempts) == ("queued", 0)
        store.close()
        go.set()

    asyncio.run(main())


# --- trouble with the disk


def test_the_store_is_never_called_on_the_event_loop(folder):
    async def main() -> None:
        store = WatchedStore(folder)
        async with running(folder, echo, store) as runner:
            job = (await runner.submit(request("x"), None)).id
            await ended(runner, job)
            assert await content(runner, job) == b"x"
            await runner.remove(job, None)
        assert store.threads
        assert threading.get_ident() not in store.threads

    asyncio.run(main())


def test_a_result_without_room_fails_its_job_and_no_other(folder):
    async def main() -> None:
        store = JobStore(folder, JobLimits(max_bytes=10), lock_wait_s=0.0)
        async with running(folder, echo, store) as runner:
            large, small = [(await runner.submit(request(text), None)).id for text in ("x" * 11, "x")]
            failed = await ended(runner, large)
            assert (failed.problem.status, failed.problem.body["code"]) == (507, "storage_full")
            assert (await ended(runner, small)).state == "done"

    asyncio.run(main())


def test_a_failure_that_cannot_be_stored_is_told_at_once_and_stored_later(folder):
    async def compute(request: JobRequest, progress: Callable[[str], None]) -> Rendered:
        raise ServiceError("unparsable_structure", "what came")

    async def main() -> None:
        store = WatchedStore(folder)
        store.failing.add("fail")
        async with running(folder, compute, store, purge_every_s=0.01) as runner:
            job = (await runner.submit(request(), None)).id
            failed = await ended(runner, job)
            assert (failed.state, failed.problem.body["code"]) == ("failed", "unparsable_structure")
            assert failed.finished is None, "it is not stored yet"
            store.failing.clear()
            stored = await until(lambda: runner.status(job, None), lambda record: record.finished is not None)
            assert (stored.state, stored.problem.body["code"]) == ("failed", "unparsable_structure")

    asyncio.run(main())


def test_a_disk_that_fails_for_a_while_holds_jobs_up_but_loses_none(folder, monkeypatch):
    monkeypatch.setattr(runner_module, "MAX_PAUSE_S", 0.01)

    async def main() -> None:
        store = WatchedStore(folder)
        store.failing |= {"claim", "purge"}
        async with running(folder, echo, store, purge_every_s=0.01) as runner:
            job = (await runner.submit(request(), None)).id
            await asyncio.sleep(0.05)
            assert (await runner.status(job, None)).state == "queued"
            store.failing.clear()
            assert (await ended(runner, job)).state == "done"

    asyncio.run(main())


def test_jobs_whose_time_is_over_are_deleted_in_the_background(folder):
    async def main() -> None:
        clock = [0.0]
        store = JobStore(folder, JobLimits(ttl_s=5.0), clock=lambda: clock[0], lock_wait_s=0.0)
        async with running(folder, echo, store, purge_every_s=0.01) as runner:
            await ended(runner, (await runner.submit(request(), None)).id)
            results = folder / "results"
            assert list(results.iterdir())
            clock[0] += 5.0
            await until(lambda: asyncio.sleep(0, list(results.iterdir())), lambda files: not files)

    asyncio.run(main())


def test_the_logs_of_a_job_name_the_request_that_submitted_it_and_not_its_id(folder, caplog):
    async def compute(request: JobRequest, progress: Callable[[str], None]) -> Rendered:
        raise RuntimeError(SECRET)

    ids: list[str] = []

    async def main() -> None:
        async with running(folder, compute) as runner:
            ids.append((await runner.submit(request(), None)).id)
            await ended(runner, ids[0])

    from service.observability import logs

    fields: list[Any] = []

    def kept(record: object) -> bool:
        fields.append(dict(logs._fields.get() or {}))
        return True

    caplog.handler.addFilter(kept)
    asyncio.run(main())
    assert {"request_id": "request-1"} in fields
    assert ids[0] not in caplog.text
