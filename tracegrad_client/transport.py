"""HTTP with limits: one request in, the bytes of a successful answer out, everything else a typed error.

Three limits that httpx alone does not give: the time limit covers the whole exchange from the connection to the last
trailer (``deadline``), the size of an answer is capped and no compressed one is taken, and proxies from the environment
are not used for a server on this very machine.
"""

from __future__ import annotations

import json
import math
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tracegrad_client.deadline import Deadline
from tracegrad_client.errors import (
    InvalidAnswerError,
    InvalidInputError,
    RequestTimeoutError,
    ServerUnreachableError,
    TraceGradError,
    error_class,
)
from tracegrad_client.version import installed_version

CONNECT_TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 1 << 30
MAX_PROBLEM_BYTES: Final = 1 << 20
_WARNING_TEXT: Final = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


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


class Transport:
    """Sends requests to one server.

    Args:
        base_url: for example ``http://127.0.0.1:8000``; http or https.
        timeout: seconds for one whole exchange.
        api_key: sent as a bearer token, or None.
        max_answer_bytes: an answer that is larger is refused.

    Raises:
        ValueError: one of these is none; the text never holds the key.
    """

    def __init__(
        self, base_url: str, *, timeout: float, api_key: str | None = None, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url is {base_url!r}; give http://host:port or https://host:port.")
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout is {timeout!r}; give a positive number of seconds.")
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.max_answer_bytes = max_answer_bytes
        headers = {"User-Agent": f"tracegrad-client/{installed_version()}"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {_header_text(api_key)}"
        self._http = httpx.Client(
            base_url=self.base_url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT_S)),
            trust_env=parts.hostname not in _LOOPBACK,
            limits=httpx.Limits(
                max_keepalive_connections=0
            ),  # each exchange has a connection that its deadline may cut
        )
        weakref.finalize(self, self._http.close)  # `Client().attach(mf).kernel()` leaves nobody to close it

    def close(self) -> None:
        """Close the connections; the transport cannot be used afterwards."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        accept: str = "application/json",
        payload: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and return the answer.

        Args:
            method: HTTP method.
            path: for example ``/v1/predict``.
            accept: the media type to ask for.
            payload: sent as JSON, or None.
            params: query parameters.
            files: multipart parts, name to (file name, content); ``form`` holds the other fields.

        Raises:
            TraceGradError: one of its leaves; never an httpx exception.
        """
        headers = {"Accept": f"{accept}, application/problem+json;q=0.5", "Accept-Encoding": "identity"}
        content: bytes | None = None
        if payload is not None:
            try:
                content = json.dumps(payload, allow_nan=False).encode()
            except ValueError as error:
                raise InvalidInputError("The request holds a number that is not finite.") from error
            headers["Content-Type"] = "application/json"
        try:
            request = self._http.build_request(
                method, path, headers=headers, params=params, content=content, files=files, data=form
            )
            return self._exchange(request)
        except httpx.TimeoutException as error:
            raise self._timed_out(connected=not isinstance(error, httpx.ConnectTimeout)) from error
        except (httpx.DecodingError, httpx.RemoteProtocolError, httpx.TooManyRedirects) as error:
            raise InvalidAnswerError(f"The answer of {self.base_url} cannot be read as HTTP: {error}.") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ServerUnreachableError(
                f"No connection to {self.base_url}: {error}.",
                hint="Start the server there (python -m service), or name another one with base_url.",
            ) from error

    def _exchange(self, request: httpx.Request) -> Answer:
        with Deadline(self.timeout) as deadline:
            request.extensions["trace"] = deadline.trace
            try:
                response, body = self._received(request)
            except httpx.HTTPError as error:
                if deadline.over:
                    raise self._timed_out(connected=True) from error
                raise
            if deadline.over:
                raise self._timed_out(connected=True)
        failed = not response.is_success
        media_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
        told = tuple(
            text.replace('\\"', '"') for text in _WARNING_TEXT.findall(", ".join(response.headers.get_list("warning")))
        )
        answer = Answer(body, media_type, response.headers.get("x-request-id"), told)
        if failed:
            raise problem_error(response.status_code, answer, response.headers.get("retry-after"))
        return answer

    def _received(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """Headers and the body, within its size."""
        response = self._http.send(request, stream=True)
        try:
            # a few bytes of a compressed body may become gigabytes in one piece
            if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise InvalidAnswerError(
                    "The answer is compressed, which was not asked for.", hint="Tell the proxy in front of the server."
                )
            limit = self.max_answer_bytes if response.is_success else MAX_PROBLEM_BYTES
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > limit:
                    raise InvalidAnswerError(f"The answer is larger than {limit} bytes.", hint="Ask for fewer outputs.")
            return response, bytes(body)
        finally:
            response.close()

    def _timed_out(self, *, connected: bool) -> TraceGradError:
        if not connected:
            return ServerUnreachableError(f"{self.base_url} did not accept a connection in time.")
        return RequestTimeoutError(
            f"No complete answer from {self.base_url} within {self.timeout:g} s.",
            hint="Give the client a larger timeout, or send a smaller molecule.",
        )


def _header_text(api_key: str) -> str:
    """A key without the blanks and the newline around it that a file or a shell may add.

    Checked here, since httpx refuses other text only when it sends it, with the whole key in its message.
    """
    key = api_key.strip()
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError("api_key is empty, or holds characters that no key has; give the key as it was handed out.")
    return key


def problem_error(status: int, answer: Answer, retry_after: str | None) -> TraceGradError:
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
    )
