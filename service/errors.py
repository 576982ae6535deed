"""The error table: code, HTTP status, title and where it occurs. Problems, the OpenAPI document and the table in docs/api.md
are made from it.

The domain errors (``model.errors``) carry a code and no status; errors of the HTTP side are raised as
:class:`ServiceError` with a code of the same table. :func:`problem_of` turns either into an RFC 9457 problem.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from model.errors import DomainError, FormatError, ModelError, NumericalError, StructureError

Group = Literal[
    "connection",
    "body",
    "access",
    "route",
    "model",
    "job",
    "result",
    "admin",
    "structure",
    "ready",
    "storage",
    "server",
]
"""Which routes answer with a code: those that read a body, those behind keys, those that name a model ... What is refused
before there is a request, with its connection, belongs to no route."""


class ErrorRow(NamedTuple):
    """Status of HTTP, a few words for people, the routes that answer with it, and what else a caller should know."""

    status: int
    title: str
    group: Group
    note: str = ""


_RETRY: Final = "with Retry-After"

ERROR_TABLE: Final[Mapping[str, ErrorRow]] = {
    "malformed_body": ErrorRow(400, "The body cannot be read", "body"),
    "missing_key": ErrorRow(401, "An API key is needed", "access", "where keys are configured; with WWW-Authenticate"),
    "forbidden": ErrorRow(
        403, "The API key does not allow this", "access", "or there are no keys, and the admin routes are closed"
    ),
    "not_found": ErrorRow(404, "No such route", "route"),
    "unknown_model": ErrorRow(404, "No such model", "model"),
    "unknown_job": ErrorRow(404, "No such job", "job", "never was, is another key's, was deleted, or its time is over"),
    "method_not_allowed": ErrorRow(405, "The route does not know this method", "route", "with Allow"),
    "not_acceptable": ErrorRow(406, "The asked format is not available", "structure"),
    "request_timeout": ErrorRow(408, "The headers did not arrive in time", "connection", "the connection is closed"),
    "job_not_finished": ErrorRow(409, "The job is not finished", "result", _RETRY),
    "model_busy": ErrorRow(409, "Models are being changed", "admin", _RETRY),
    "model_needed": ErrorRow(409, "The model is needed", "admin", "only force unloads it"),
    "body_too_large": ErrorRow(413, "The body is too large", "body"),
    "too_many_atoms": ErrorRow(413, "Too many atoms", "structure"),
    "too_many_structures": ErrorRow(413, "Too many structures", "structure"),
    "too_many_orbitals": ErrorRow(413, "Too many orbitals", "structure"),
    "too_many_k_points": ErrorRow(413, "Too many k-points for so many orbitals", "structure"),
    "too_large_for_memory": ErrorRow(413, "Too large for the memory of this server", "structure"),
    "unsupported_media_type": ErrorRow(415, "The content type is not supported", "body"),
    "invalid_request": ErrorRow(422, "The request is not valid", "body"),
    "unparsable_structure": ErrorRow(422, "The structure file cannot be read", "structure"),
    "unsupported_format": ErrorRow(422, "The file format is not supported", "structure"),
    "unsupported_element": ErrorRow(422, "An element is not supported", "structure"),
    "unsupported_charge": ErrorRow(422, "The charge is not supported", "structure"),
    "unsupported_multiplicity": ErrorRow(422, "The multiplicity is not supported", "structure"),
    "unsupported_basis": ErrorRow(422, "The basis set is not supported", "structure"),
    "unsupported_periodicity": ErrorRow(422, "The periodicity is not supported", "structure"),
    "atoms_too_close": ErrorRow(422, "Two atoms are too close", "structure"),
    "non_finite_coordinates": ErrorRow(422, "A coordinate is not a finite number", "structure"),
    "empty_structure": ErrorRow(422, "The structure has no atoms", "structure"),
    "electron_count": ErrorRow(422, "Electron count and multiplicity do not fit", "structure"),
    "numerical_failure": ErrorRow(422, "No finite result for this structure", "structure"),
    "model_rejected": ErrorRow(422, "The checkpoint failed a check", "admin", "what served before still serves"),
    "quota_exceeded": ErrorRow(429, "Too many requests", "access", _RETRY),
    "too_many_connections": ErrorRow(429, "Too many open connections", "connection", _RETRY),
    "headers_too_large": ErrorRow(431, "The header section is too large", "connection", "the connection is closed"),
    "internal_error": ErrorRow(
        500, "The server failed", "server", "the request id finds the cause in the server's log"
    ),
    "job_failed": ErrorRow(500, "The job was given up", "server"),
    "queue_full": ErrorRow(503, "The queue is full", "structure", _RETRY),
    "not_ready": ErrorRow(503, "The service is not ready", "ready", _RETRY),
    "draining": ErrorRow(503, "The service is shutting down", "ready", _RETRY),
    "deadline_exceeded": ErrorRow(504, "The request took too long", "body"),
    "storage_full": ErrorRow(507, "The storage is full", "storage"),
}

PROBLEM_TYPE_PREFIX: Final = "urn:tracegrad:problem:"

MAX_RETRY_AFTER_S: Final = 60

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

INTERNAL_DETAIL: Final = "The server failed to answer. The request id names this failure in the server's log."


class StartupError(Exception):
    """The service cannot start; the text is for the operator."""


class ServiceError(Exception):
    """An error of the HTTP side: reading, negotiating, queueing.

    Attributes:
        code: a key of :data:`ERROR_TABLE`.
        detail: what came, in words; never the caller's own input.
        hint: what to do next.
        allowed: what would have been accepted.
        field: the input field to blame, in dots and brackets.
        errors: further findings, each with ``field`` and ``detail``.
        line, frame: where in a file, from 1; frame where there are several.
        retry_after_s: seconds for the Retry-After header.
        headers: further response headers.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        allowed: Sequence[str | int | float] | None = None,
        field: str | None = None,
        errors: Sequence[Mapping[str, str]] | None = None,
        line: int | None = None,
        frame: int | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if code not in ERROR_TABLE:
            raise KeyError(f"{code} is not in the error table")
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.hint = hint
        self.allowed = list(allowed) if allowed is not None else None
        self.field = field
        self.errors = [dict(error) for error in errors] if errors is not None else None
        self.line, self.frame = line, frame
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


def retry_after(seconds: float) -> int:
    """Whole seconds to tell a caller for an expected wait: at least 1, at most ``MAX_RETRY_AFTER_S``."""
    return max(1, min(MAX_RETRY_AFTER_S, math.ceil(seconds)))


def draining() -> ServiceError:
    """What a request meets while the service shuts down; where it is restarted, the next one is up in seconds."""
    return ServiceError("draining", "The service is shutting down.", retry_after_s=5)


@dataclass(frozen=True)
class Problem:
    """A problem response: status, body and extra headers."""

    status: int
    body: dict[str, object]
    headers: dict[str, str] = field(default_factory=dict)


def problem_of(error: Exception, request_id: str) -> Problem:
    """The problem for an exception.

    Anything that is neither a :class:`ServiceError` nor a domain error of the input is an ``internal_error``: its text
    may hold paths, so none of it goes out.
    """
    if isinstance(error, ModelError):
        error = _from_model(error)
    elif is_out_of_memory(error):
        error = ServiceError(
            "too_large_for_memory",
            "The calculation needs more memory than this server has.",
            hint="Send a smaller structure, or ask for fewer outputs.",
        )
    elif isinstance(error, OSError) and error.errno in FULL_DISK:
        error = ServiceError(
            "storage_full",
            "There is no room on this server's disk to write the answer.",
            hint="Ask for json, npz or safetensors, which need no disk, or try again later.",
        )
    if not isinstance(error, ServiceError):
        error = ServiceError("internal_error", INTERNAL_DETAIL)
    row = ERROR_TABLE[error.code]
    body: dict[str, object] = {
        "type": PROBLEM_TYPE_PREFIX + error.code,
        "title": row.title,
        "status": row.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    optional: dict[str, object] = {
        "field": error.field,
        "hint": error.hint,
        "allowed": error.allowed,
        "errors": error.errors,
    }
    optional |= {"line": error.line, "frame": error.frame}
    body.update({name: value for name, value in optional.items() if value is not None})
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return Problem(row.status, body, headers)


def is_internal(error: Exception) -> bool:
    """True if the error is the server's own fault and belongs in the log with its traceback."""
    return problem_of(error, "").body["code"] == "internal_error"


def is_out_of_memory(error: Exception) -> bool:
    """True for Python's MemoryError and for torch's, which is a RuntimeError on the CPU (no torch import here)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _from_model(error: ModelError) -> ServiceError:
    code = error.code
    if code not in ERROR_TABLE and isinstance(error, (StructureError, DomainError, FormatError)):
        code = "invalid_request"  # the inner nodes of the domain tree are too vague to be codes of the contract
    # A numerical failure is the caller's only when the model could name the input field; otherwise it is ours.
    if isinstance(error, NumericalError) and error.field is None:
        code = "internal_error"
    if code not in ERROR_TABLE or code == "internal_error":
        return ServiceError("internal_error", INTERNAL_DETAIL)
    return ServiceError(code, error.detail, hint=error.hint, allowed=error.allowed, field=error.field)
