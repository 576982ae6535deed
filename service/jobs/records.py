"""What a job is, as frozen values: the request that was accepted, the answer that came of it, and what is known between.

    JobRequest -> (queued) -> Claim -> (running) -> Rendered (done) or Problem (failed)

A deleted job has no state: it is gone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from service.errors import Problem
from service.schemas.jobs import Kind, Progress, Stage, State
from service.serving.backend import Report

STAGES: Final[Mapping[Stage, float]] = {
    "parse": 0.0,
    "integrals": 0.05,
    "forward": 0.4,
    "eigensolve": 0.75,
    "serialise": 0.95,
}
"""Stage of a running job -> the fraction of the work that usually lies before it."""

_ID_BYTES: Final = 32
_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def new_job_id() -> str:
    """An id that cannot be guessed: 256 random bits, URL-safe."""
    return secrets.token_urlsafe(_ID_BYTES)


def is_job_id(text: str) -> bool:
    """Whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True)
class JobRequest:
    """What is to be computed, as it is stored.

    Attributes:
        kind: the route whose answer is wanted.
        body: the validated request of that route as JSON text, with the fields that the caller gave and no others:
            ``PredictRequest.model_validate_json`` and its like bring it back whole.
        format_out: name of the answer's format, settled at submission.
        request_id: X-Request-ID of the submission; names the job in the server's log.
        key: the caller's Idempotency-Key: the same request under the same key is the same job. Read at submission alone.
    """

    kind: Kind
    body: str
    format_out: str
    request_id: str
    key: str | None = None

    @property
    def digest(self) -> str:
        """Of everything that makes it another request, in hexadecimal."""
        return hashlib.sha256("\0".join((self.kind, self.format_out, self.body)).encode()).hexdigest()


@dataclass(frozen=True)
class Rendered:
    """A finished answer as it goes out.

    Attributes:
        content: the body.
        media_type: its content type.
        headers: further response headers.
    """

    content: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


Compute = Callable[[JobRequest, Report], Awaitable[Rendered]]
"""Computes a job. Raises ServiceError or ModelError, which become the job's problem; cancelled when the job is deleted."""

Check = Callable[[JobRequest], Awaitable[None]]
"""Refuses at submission (ServiceError, ModelError) what :data:`Compute` would refuse in any case."""


@dataclass(frozen=True)
class StoredResult:
    """Where a result lies and how it goes out.

    Attributes:
        sequence: number of the job.
        run: number of the run that gave it; the two name the file.
        size: bytes.
        media_type: content type.
        headers: further response headers.
        sha256: of the content, hexadecimal; None of a job that an earlier version of the service finished.
    """

    sequence: int
    run: int
    size: int
    media_type: str
    headers: dict[str, str]
    sha256: str | None = None


@dataclass(frozen=True)
class JobRecord:
    """A job as its owner sees it; times are seconds since 1970.

    Attributes:
        id: unguessable name.
        kind: as submitted.
        format_out: as settled at submission.
        request_id: of the submission.
        state: where in its life it is.
        attempts: how often it was begun; what was given back in an orderly stop is not counted.
        created: when it was accepted.
        started: when it was last begun.
        finished: when it was done or failed.
        expires: it is kept until then at least; finishing moves it on, and unfinished jobs do not expire.
        progress: how far it is.
        problem: why it failed, without a request id.
        result: what it gave, when done.
    """

    id: str
    kind: Kind
    format_out: str
    request_id: str
    state: State
    attempts: int
    created: float
    started: float | None
    finished: float | None
    expires: float
    progress: Progress
    problem: Problem | None = None
    result: StoredResult | None = None


@dataclass(frozen=True)
class Claim:
    """The right to finish one run of a job; worthless once the job is deleted, given back or claimed again.

    Attributes:
        id: the job's.
        sequence: its number.
        run: number of the run.
        request: what to compute.
        owner: name of the API key that submitted it, or None where keys are off.
    """

    id: str
    sequence: int
    run: int
    request: JobRequest
    owner: str | None = None


@dataclass(frozen=True)
class JobLimits:
    """What the store keeps to.

    Attributes:
        ttl_s: seconds that a finished job is kept.
        max_waiting: jobs that may be queued.
        max_waiting_of_owner: of these, jobs of one API key; where keys are off there are no owners.
        max_bytes: bytes of all stored results together.
        max_attempts: how often a job is begun before a process that dies under it makes it a failure.
    """

    ttl_s: float = 86_400.0
    max_waiting: int = 100
    max_waiting_of_owner: int = 25
    max_bytes: int = 8 * 1024**3
    max_attempts: int = 3
