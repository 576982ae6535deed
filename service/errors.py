"""From an error code to an HTTP status and title: the one place that knows both.

The domain errors (``model.errors``) carry a code and no status; errors of the HTTP side are raised as
:class:`ServiceError` with a code of the same table. :func:`problem_of` turns either into an RFC 9457 problem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from model.errors import ModelError, NumericalError


class ErrorRow(NamedTuple):
    """HTTP status and short title of a code."""

    status: int
    title: str


ERROR_TABLE: Final[Mapping[str, ErrorRow]] = {
    "malformed_body": ErrorRow(400, "The body cannot be read"),
    "missing_key": ErrorRow(401, "An API key is needed"),
    "forbidden": ErrorRow(403, "The API key does not allow this"),
    "not_found": ErrorRow(404, "No such route"),
    "unknown_model": ErrorRow(404, "No such model"),
    "unknown_job": ErrorRow(404, "No such job"),
    "method_not_allowed": ErrorRow(405, "The route does not know this method"),
    "not_acceptable": ErrorRow(406, "The asked format is not available"),
    "job_not_finished": ErrorRow(409, "The job is not finished"),
    "model_busy": ErrorRow(409, "Models are being changed"),
    "model_needed": ErrorRow(409, "The model is needed"),
    "body_too_large": ErrorRow(413, "The body is too large"),
    "too_many_atoms": ErrorRow(413, "Too many atoms"),
    "too_many_structures": ErrorRow(413, "Too many structures"),
    "too_many_orbitals": ErrorRow(413, "Too many orbitals"),
    "too_large_for_memory": ErrorRow(413, "Too large for the memory of this server"),
    "unsupported_media_type": ErrorRow(415, "The content type is not supported"),
    "invalid_request": ErrorRow(422, "The request is not valid"),
    "unparsable_structure": ErrorRow(422, "The structure file cannot be read"),
    "unsupported_format": ErrorRow(422, "The file format is not supported"),
    "unsupported_element": ErrorRow(422, "An element is not supported"),
    "unsupported_charge": ErrorRow(422, "The charge is not supported"),
    "unsupported_multiplicity": ErrorRow(422, "The multiplicity is not supported"),
    "unsupported_basis": ErrorRow(422, "The basis set is not supported"),
    "unsupported_periodicity": ErrorRow(422, "The periodicity is not supported"),
    "atoms_too_close": ErrorRow(422, "Two atoms are too close"),
    "non_finite_coordinates": ErrorRow(422, "A coordinate is not a finite number"),
    "empty_structure": ErrorRow(422, "The structure has no atoms"),
    "electron_count": ErrorRow(422, "Electron count and multiplicity do not fit"),
    "numerical_failure": ErrorRow(422, "No finite result for this structure"),
    "model_rejected": ErrorRow(422, "The checkpoint failed a check"),
    "quota_exceeded": ErrorRow(429, "Too many requests"),
    "internal_error": ErrorRow(500, "The server failed"),
    "job_failed": ErrorRow(500, "The job was given up"),
    "queue_full": ErrorRow(503, "The queue is full"),
    "not_ready": ErrorRow(503, "The service is not ready"),
    "draining": ErrorRow(503, "The service is shutting down"),
    "deadline_exceeded": ErrorRow(504, "The request took too long"),
    "storage_full": ErrorRow(507, "The storage is full"),
}

PROBLEM_TYPE_PREFIX: Final = "urn:tracegrad:problem:"

_GENERIC_MODEL_CODES: Final[Mapping[str, str]] = {
    "invalid_structure": "invalid_request",
    "unsupported": "invalid_request",
}
"""Codes of the inner nodes of the domain tree: errors of the request, too vague to be codes of the contract."""

MAX_RETRY_AFTER_S: Final = 60

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
    optional = {"field": error.field, "hint": error.hint, "allowed": error.allowed, "errors": error.errors}
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
    code = _GENERIC_MODEL_CODES.get(error.code, error.code)
    # A numerical failure is the caller's only when the model could name the input field; otherwise it is ours.
    if isinstance(error, NumericalError) and error.field is None:
        code = "internal_error"
    if code not in ERROR_TABLE or code == "internal_error":
        return ServiceError("internal_error", INTERNAL_DETAIL)
    return ServiceError(code, error.detail, hint=error.hint, allowed=error.allowed, field=error.field)
