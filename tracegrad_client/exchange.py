"""An exchange with a server, less the exchange itself: what is asked, and what an answer means.

What both clients have in common is written as a :data:`Talk`, a generator that yields requests and pauses, is sent the
answers, and returns a result: ``Transport.run`` carries it out, and ``AsyncTransport.run`` awaits it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from tracegrad_client.errors import InvalidAnswerError, InvalidInputError, TraceGradError, error_class

_WARNING_TEXT: Final = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        method: HTTP method.
        path: for example ``/v1/predict``.
        accept: the media type to ask for.
        payload: sent as JSON, or None.
        params: query parameters.
        files: multipart parts, name to (file name, content); ``form`` holds the other fields.
    """

    method: str
    path: str
    accept: str = "application/json"
    payload: Mapping[str, Any] | None = None
    params: Mapping[str, str] | None = None
    files: Mapping[str, tuple[str, bytes]] | None = None
    form: Mapping[str, str] | None = None

    def arguments(self) -> dict[str, Any]:
        """Those of ``httpx.Client.build_request``.

        Raises:
            InvalidInputError: a number that JSON cannot hold.
        """
        headers = {"Accept": f"{self.accept}, application/problem+json;q=0.5", "Accept-Encoding": "identity"}
        content: bytes | None = None
        if self.payload is not None:
            try:
                content = json.dumps(self.payload, allow_nan=False).encode()
            except ValueError as error:
                raise InvalidInputError("The request holds a number that is not finite.") from error
            headers["Content-Type"] = "application/json"
        return {
            "method": self.method,
            "url": self.path,
            "headers": headers,
            "params": self.params,
            "content": content,
            "files": self.files,
            "data": self.form,
        }


@dataclass(frozen=True)
class Pause:
    """Time to pass before the next question, seconds."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """A successful answer: body, media type (without parameters), and the texts of its ``Warning`` headers."""

    body: bytes
    media_type: str
    request_id: str | None
    warnings: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; raises InvalidAnswerError where it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise InvalidAnswerError(
                f"The server answered {self.media_type or 'something'} that is not JSON.",
                hint="Check that the URL is that of a TraceGrad server.",
                request_id=self.request_id,
            ) from error
        if not isinstance(value, dict):
            raise InvalidAnswerError("The server's JSON answer is not an object.", request_id=self.request_id)
        return value


NO_ANSWER: Final = Answer(b"", "", None)
"""What comes after a pause."""

T = TypeVar("T")
Talk: TypeAlias = Generator[Request | Pause, Answer, T]


def read_answer(status: int, headers: Mapping[str, str], warnings: list[str], body: bytes) -> Answer:
    """The answer of a successful exchange.

    Args:
        status: HTTP status.
        headers: names in any case, as httpx has them.
        warnings: the ``Warning`` headers, one by one.
        body: all of it.

    Raises:
        TraceGradError: the exception of a failure.
    """
    media_type = headers.get("content-type", "").split(";")[0].strip().lower()
    told = tuple(text.replace('\\"', '"') for text in _WARNING_TEXT.findall(", ".join(warnings)))
    answer = Answer(body, media_type, headers.get("x-request-id"), told)
    if not 200 <= status < 300:
        raise _problem_error(status, answer, headers.get("retry-after"))
    return answer


def _problem_error(status: int, answer: Answer, retry_after: str | None) -> TraceGradError:
    """The exception for an answer with a failure status; RFC 9457 problem documents give their code and text."""
    if status < 400:
        return InvalidAnswerError(
            f"The server answered with status {status}, which the contract does not know.",
            hint="A redirecting proxy? Give the final URL as base_url.",
            status=status,
        )
    problem: dict[str, Any] = {}
    if answer.media_type in ("application/problem+json", "application/json"):
        try:
            problem = answer.json()
        except InvalidAnswerError:
            problem = {}  # a broken error body must not hide the status
    try:
        seconds = float(retry_after) if retry_after is not None else None
    except ValueError:
        seconds = None  # the HTTP-date form; the contract sends seconds
    if seconds is not None and not 0 <= seconds < math.inf:
        seconds = None
    return problem_exception(status, problem, request_id=answer.request_id, retry_after=seconds)


def problem_exception(
    status: int, problem: Mapping[str, Any], *, request_id: str | None = None, retry_after: float | None = None
) -> TraceGradError:
    """The exception for a problem document, of a whole answer or of one item of a batch."""
    text = {key: value for key, value in problem.items() if isinstance(value, str)}
    detail = text.get("detail") or text.get("title") or f"The server answered with status {status}."
    allowed = problem.get("allowed")
    if isinstance(allowed, list) and allowed:
        detail += " Allowed: " + ", ".join(str(value) for value in allowed[:20]) + "."
    return error_class(status)(
        detail,
        code=text.get("code"),
        hint=text.get("hint"),
        request_id=text.get("request_id") or request_id,
        status=status,
        retry_after=retry_after,
        field=text.get("field"),
    )
