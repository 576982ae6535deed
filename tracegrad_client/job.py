"""A guess for a molecule too large to wait for in one request: submitted, asked for, fetched (``/v1/jobs``)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tracegrad_client.errors import InvalidAnswerError, RequestTimeoutError
from tracegrad_client.guess import Guess, guess_for
from tracegrad_client.structure import Molecule
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


class GuessJob:
    """A submitted job. The server keeps it, whatever becomes of this object; ``id`` is all that is needed to come back.

    Args:
        transport: to the server that has it.
        job_id: its id.
        sent: what was sent, to check the answer against.
        asked: the caller's molecule; a PySCF Mole is checked against too.
    """

    def __init__(self, transport: Transport, job_id: str, sent: Molecule, asked: Any = None) -> None:
        if not _ID.fullmatch(job_id):
            raise InvalidAnswerError(f"{job_id!r} is no id of a job.")
        self.id = job_id
        self._transport = transport
        self._sent = sent
        self._asked = asked

    def __repr__(self) -> str:
        return f"GuessJob({self.id!r})"

    def state(self) -> JobState:
        """Ask the server.

        Raises:
            NotFoundError: it was deleted, or its time to live is over.
            TraceGradError: what else can go wrong with a request.
        """
        document = self._transport.request("GET", f"/v1/jobs/{self.id}").json()
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

    def wait(self, timeout: float = math.inf, *, pause: Callable[[float], object] = time.sleep) -> Guess:
        """The guess, as soon as there is one.

        Args:
            timeout: seconds after which to give up waiting; the job goes on.
            pause: what passes the time between two questions.

        Raises:
            RequestTimeoutError: not finished in time.
            TraceGradError: why the job failed.
        """
        started = time.monotonic()
        length = FIRST_PAUSE_S
        while not self.state().finished:
            left = timeout - (time.monotonic() - started)
            if left <= 0:
                raise RequestTimeoutError(
                    f"Job {self.id} is not finished after {timeout:g} s.", hint="It goes on; call wait() again."
                )
            pause(min(length, left))
            length = min(2 * length, LONGEST_PAUSE_S)
        return self.result(seconds=time.monotonic() - started)

    def result(self, *, seconds: float = 0.0) -> Guess:
        """The guess of a job that is done.

        Raises:
            RequestRefusedError: ``job_not_finished``.
            TraceGradError: why the job failed.
        """
        answer = self._transport.request("GET", f"/v1/jobs/{self.id}/result", accept=MEDIA_TYPE)
        return guess_for(self._asked, read_safetensors(answer.body), self._sent, seconds)

    def delete(self) -> None:
        """Stop the job and delete its data on the server."""
        self._transport.request("DELETE", f"/v1/jobs/{self.id}")


def _fraction(value: object) -> float:
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidAnswerError("The `fraction` of the job is not between 0 and 1.")
    return float(value)
