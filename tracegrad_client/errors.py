"""What can go wrong between a calculation and the prediction server, as one tree.

    TraceGradError
    ├── InvalidInputError            invalid_input       the molecule cannot be sent: nothing left this machine
    ├── GuessMismatchError           guess_mismatch      the answer does not belong to the caller's molecule or basis
    ├── ServerUnreachableError       unreachable         no connection, or one that broke
    ├── RequestTimeoutError          timeout             the client's own time limit ran out
    ├── InvalidAnswerError           invalid_answer      what came back is not the contract
    ├── RequestRefusedError          the server's code   4xx: this request will not succeed as it is
    │   ├── AuthenticationError      401, 403
    │   ├── NotFoundError            404
    │   ├── TooLargeError            413
    │   ├── UnsupportedError         422
    │   └── QuotaExceededError       429, with ``retry_after``
    └── ServerFailureError           the server's code   5xx: the request may succeed later
        ├── ServerBusyError          503, with ``retry_after``
        └── DeadlineExceededError    504

``code`` is stable and meant for programs; ``detail`` and ``hint`` are meant for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


class TraceGradWarning(UserWarning):
    """The calculation goes on, but not quite as asked; the text says why."""


class TraceGradError(Exception):
    """Base of everything that this package raises on purpose.

    Attributes:
        code: stable, machine readable name of the error.
        detail: what came and why it cannot be used.
        hint: what to do next, or None.
        request_id: the server's name for the request, or None where no server was involved.
        status: the HTTP status, or None.
        field: what of the request it is about, or None where the server did not say.
        retry_after: seconds after which to try again, or None where the server named none.
    """

    code: str = "tracegrad_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        request_id: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        field: str | None = None,
    ) -> None:
        self.code = code or type(self).code
        self.detail = detail
        self.hint = hint
        self.request_id = request_id
        self.status = status
        self.retry_after = retry_after
        self.field = field
        text = f"[{self.code}] {detail}"
        if field and field not in detail:
            text += f" (field {field})"
        if hint:
            text += f" {hint}"
        if request_id:
            text += f" (request {request_id})"
        super().__init__(text)


class InvalidInputError(TraceGradError):
    """The molecule cannot be sent as it is; nothing left this machine."""

    code = "invalid_input"


class GuessMismatchError(TraceGradError):
    """The answer does not belong to the caller's molecule, or not to the caller's basis set."""

    code = "guess_mismatch"


class ServerUnreachableError(TraceGradError):
    """No connection to the server, or one that broke."""

    code = "unreachable"


class RequestTimeoutError(TraceGradError):
    """The time limit of the client ran out."""

    code = "timeout"


class InvalidAnswerError(TraceGradError):
    """What came back is not what the HTTP contract promises."""

    code = "invalid_answer"


class RequestRefusedError(TraceGradError):
    """The server refused the request (4xx): it will not succeed as it is."""

    code = "request_refused"


class AuthenticationError(RequestRefusedError):
    """The key is missing, or is not good for this (401, 403)."""


class NotFoundError(RequestRefusedError):
    """There is no such model or route (404)."""


class TooLargeError(RequestRefusedError):
    """The molecule or the body is larger than the server takes (413)."""


class UnsupportedError(RequestRefusedError):
    """The server understood the request, but its models were not made for it (422)."""


class QuotaExceededError(RequestRefusedError):
    """Too many requests with this key (429)."""


class ServerFailureError(TraceGradError):
    """The server failed (5xx); the same request may succeed later."""

    code = "server_failure"


class ServerBusyError(ServerFailureError):
    """The server's queue is full, or it is starting or stopping (503)."""


class DeadlineExceededError(ServerFailureError):
    """The server gave up after its own time limit (504)."""


_BY_STATUS: Final[Mapping[int, type[TraceGradError]]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    413: TooLargeError,
    422: UnsupportedError,
    429: QuotaExceededError,
    503: ServerBusyError,
    504: DeadlineExceededError,
}


def error_class(status: int) -> type[TraceGradError]:
    """The exception class for an HTTP status of 400 and above."""
    fallback = RequestRefusedError if status < 500 else ServerFailureError
    return _BY_STATUS.get(status, fallback)
