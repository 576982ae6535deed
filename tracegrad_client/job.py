"""A guess for a molecule too large to wait for in one request: submitted, asked for, fetched (``/v1/jobs``)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tracegrad_client.async_transport import AsyncTransport
from tracegrad_client.errors import InvalidAnswerError, RequestTimeoutError
from tracegrad_client.exchange import Answer, Pause, Request, Talk
from tracegrad_client.guess import Guess, guess_for
from tracegrad_client.structure import Sent
from tracegrad_client.transport import Transport
from tracegrad_client.wire import MEDIA_TYPE, read_safetensors

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True)
class JobState:
    """How far a job is.

    Attributes:
        state: "queued", "running", "done" or "failed".
        stage: what is being done, or None.
        fraction: 0 to 1, of the usual time.
        position: place in the queue from 1, or None.
    """

    state: str
    stage: str | None
    fraction: float
    position: int | None

    @property
    def finished(self) -> bool:
        """Whether there is a result, or a reason why there is none."""
        return self.state in ("done", "failed")


# -- what both kinds of client say to a server --------------------------------------------------------------------------


def ask_state(job_id: str) -> Talk[JobState]:
    """How far a job is; see :meth:`GuessJob.state`."""
    document = (yield Request("GET", f"/v1/jobs/{checked_id(job_id)}")).json()
    state, progress = document.get("state"), document.get("progress")
    if not isinstance(state, str) or not isinstance(progress, dict):
        raise InvalidAnswerError("The status of the job has no `state` or no `progress`.")
    stage, position, fraction = (progress.get(name) for name in ("stage", "position", "fraction"))
    return JobState(
        state,
        stage if isinstance(stage, str) else None,
        _fraction(fraction),
        position if isinstance(position, int) else None,
    )


def wait_until_finished(
    job_id: str, timeout: float, told: Callable[[JobState], object] | None = None
) -> Talk[JobState]:
    """Ask until a job is finished; the pauses get longer.

    Args:
        job_id: of the job.
        timeout: seconds after which to give up waiting.
        told: told every state that was heard of.

    Raises:
        RequestTimeoutError: not finished in time; the job goes on.
    """
    started = time.monotonic()
    length = FIRST_PAUSE_S
    while True:
        state = yield from ask_state(job_id)
        if told is not None:
            told(state)
        if state.finished:
            return state
        left = timeout - (time.monotonic() - started)
        if left <= 0:
            raise RequestTimeoutError(
                f"Job {job_id} is not finished after {timeout:g} s.", hint="It goes on; call wait() again."
            )
        yield Pause(min(length, left))
        length = min(2 * length, LONGEST_PAUSE_S)


def fetch(job_id: str, accept: str = "*/*") -> Talk[Answer]:
    """The result of a finished job, as the server wrote it."""
    return (yield Request("GET", f"/v1/jobs/{checked_id(job_id)}/result", accept=accept))


def delete(job_id: str) -> Talk[None]:
    """Stop a job and delete its data."""
    yield Request("DELETE", f"/v1/jobs/{checked_id(job_id)}")


def checked_id(job_id: str) -> str:
    """The id, where it can be one.

    Raises:
        InvalidAnswerError: it would be another path.
    """
    if not _ID.fullmatch(job_id):
        raise InvalidAnswerError(f"{job_id!r} is no id of a job.")
    return job_id


def _fraction(value: object) -> float:
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidAnswerError("The `fraction` of the job is not between 0 and 1.")
    return float(value)


# -- jobs ---------------------------------------------------------------------------------------------------------------


class _Job:
    """What jobs of both kinds of client know.

    Args:
        job_id: its id.
        sent: what was sent, to check the answer against.
        asked: the caller's molecule; a PySCF Mole is checked against too.
    """

    def __init__(self, job_id: str, sent: Sent, asked: Any = None) -> None:
        self.id = checked_id(job_id)
        self._sent = sent
        self._asked = asked

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def _waited(self, timeout: float) -> Talk[Guess]:
        started = time.monotonic()
        yield from wait_until_finished(self.id, timeout)
        return (yield from self._fetched(lambda: time.monotonic() - started))

    def _fetched(self, seconds: Callable[[], float] = lambda: 0.0) -> Talk[Guess]:
        answer = yield from fetch(self.id, MEDIA_TYPE)
        return guess_for(self._asked, read_safetensors(answer.body), self._sent, seconds())


class GuessJob(_Job):
    """A submitted job. The server keeps it, whatever becomes of this object; ``id`` is all that is needed to come back."""

    def __init__(self, transport: Transport, job_id: str, sent: Sent, asked: Any = None) -> None:
        super().__init__(job_id, sent, asked)
        self._transport = transport

    def state(self) -> JobState:
        """Ask the server.

        Raises:
            NotFoundError: it was deleted, or its time to live is over.
            TraceGradError: what else can go wrong with a request.
        """
        return self._transport.run(ask_state(self.id))

    def wait(self, timeout: float = math.inf) -> Guess:
        """The guess, as soon as there is one.

        Args:
            timeout: seconds after which to give up waiting; the job goes on.

        Raises:
            RequestTimeoutError: not finished in time.
            TraceGradError: why the job failed.
        """
        return self._transport.run(self._waited(timeout))

    def result(self) -> Guess:
        """The guess of a job that is done.

        Raises:
            RequestRefusedError: ``job_not_finished``.
            TraceGradError: why the job failed.
        """
        return self._transport.run(self._fetched())

    def delete(self) -> None:
        """Stop the job and delete its data on the server."""
        self._transport.run(delete(self.id))


class FileJob:
    """A job whose result is wanted as the server writes it, of a structure file for instance.

    Args:
        transport: to the server that has it.
        job_id: its id.
    """

    def __init__(self, transport: Transport, job_id: str) -> None:
        self.id = checked_id(job_id)
        self._transport = transport

    def __repr__(self) -> str:
        return f"FileJob({self.id!r})"

    def state(self) -> JobState:
        """Ask the server; errors are those of :meth:`GuessJob.state`."""
        return self._transport.run(ask_state(self.id))

    def wait(self, timeout: float = math.inf, *, told: Callable[[JobState], object] | None = None) -> JobState:
        """The state in which it finished.

        Args:
            timeout: seconds after which to give up waiting; the job goes on.
            told: told every state that was heard of.

        Raises:
            RequestTimeoutError: not finished in time.
        """
        return self._transport.run(wait_until_finished(self.id, timeout, told))

    def result(self) -> Answer:
        """What it gave; the reason where it failed or is not finished, as an exception."""
        return self._transport.run(fetch(self.id))

    def delete(self) -> None:
        """Stop the job and delete its data on the server."""
        self._transport.run(delete(self.id))


class AsyncGuessJob(_Job):
    """A job of an :class:`tracegrad_client.AsyncClient`; its methods are those of :class:`GuessJob`, to be awaited."""

    def __init__(self, transport: AsyncTransport, job_id: str, sent: Sent, asked: Any = None) -> None:
        super().__init__(job_id, sent, asked)
        self._transport = transport

    async def state(self) -> JobState:
        """Ask the server."""
        return await self._transport.run(ask_state(self.id))

    async def wait(self, timeout: float = math.inf) -> Guess:
        """The guess, as soon as there is one; RequestTimeoutError after ``timeout`` seconds, and the job goes on."""
        return await self._transport.run(self._waited(timeout))

    async def result(self) -> Guess:
        """The guess of a job that is done."""
        return await self._transport.run(self._fetched())

    async def delete(self) -> None:
        """Stop the job and delete its data on the server."""
        await self._transport.run(delete(self.id))
