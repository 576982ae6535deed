"""A server's address with limits, for both transports: what httpx is told, what an httpx error means, how long to wait."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tracegrad_client.errors import (
    InvalidAnswerError,
    QuotaExceededError,
    RequestTimeoutError,
    ServerBusyError,
    ServerUnreachableError,
    TraceGradError,
)
from tracegrad_client.exchange import Answer, read_answer
from tracegrad_client.version import installed_version

CONNECT_TIMEOUT_S: Final = 5.0
DEFAULT_MAX_WAIT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 1 << 30
MAX_PROBLEM_BYTES: Final = 1 << 20
SPREAD: Final = 0.1
"""Share of a pause that is left to chance, so that callers who were refused together do not come back together."""
SHORTEST_WAIT_S: Final = 0.1
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Endpoint:
    """What is known of a server before the first request.

    Args:
        base_url: for example ``http://127.0.0.1:8000``; http or https.
        timeout: seconds for one whole exchange.
        api_key: sent as a bearer token, or None.
        max_answer_bytes: an answer that is larger is refused.
        max_wait: seconds that one request may wait in all where the server is busy (503) or a quota is spent (429) and
            Retry-After says for how long; 0 never waits.

    Attributes:
        on_wait: told the seconds and the reason before each such wait.

    Raises:
        ValueError: one of these is none; the text never holds the key.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        api_key: str | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        max_wait: float = DEFAULT_MAX_WAIT_S,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url is {base_url!r}; give http://host:port or https://host:port.")
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout is {timeout!r}; give a positive number of seconds.")
        if not max_wait >= 0:
            raise ValueError(f"max_wait is {max_wait!r}; give a number of seconds, 0 to never wait.")
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.max_wait = max_wait
        self.max_answer_bytes = max_answer_bytes
        self.on_wait: Callable[[float, TraceGradError], None] | None = None
        headers = {"User-Agent": f"tracegrad-client/{installed_version()}"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {_header_text(api_key)}"
        self.http_options: Final[dict[str, Any]] = {
            "base_url": self.base_url,
            "headers": headers,
            "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT_S)),
            "trust_env": parts.hostname not in _LOOPBACK,
            # each exchange has a connection that its deadline may cut
            "limits": httpx.Limits(max_keepalive_connections=0),
        }

    def check_encoding(self, response: httpx.Response) -> None:
        """Refuse a compressed answer: a few bytes of it may become gigabytes in one piece."""
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise InvalidAnswerError(
                "The answer is compressed, which was not asked for.", hint="Tell the proxy in front of the server."
            )

    def add(self, body: bytearray, chunk: bytes, response: httpx.Response) -> None:
        """Add what arrived to the body, within its size."""
        body += chunk
        limit = self.max_answer_bytes if response.is_success else MAX_PROBLEM_BYTES
        if len(body) > limit:
            raise InvalidAnswerError(f"The answer is larger than {limit} bytes.", hint="Ask for fewer outputs.")

    def read(self, response: httpx.Response, body: bytes) -> Answer:
        """The answer, or the exception of a failure."""
        return read_answer(response.status_code, response.headers, response.headers.get_list("warning"), body)

    def translated(self, error: Exception) -> TraceGradError:
        """What an exception of httpx means to the caller."""
        if isinstance(error, httpx.ConnectTimeout):
            return ServerUnreachableError(f"{self.base_url} did not accept a connection in time.")
        if isinstance(error, httpx.TimeoutException):
            return self.timed_out()
        if isinstance(error, httpx.DecodingError | httpx.RemoteProtocolError | httpx.TooManyRedirects):
            return InvalidAnswerError(f"The answer of {self.base_url} cannot be read as HTTP: {error}.")
        return ServerUnreachableError(
            f"No connection to {self.base_url}: {error}.",
            hint="Start the server there (python -m service), or name another one with base_url.",
        )

    def timed_out(self) -> TraceGradError:
        """The error of an exchange that was cut at the time limit."""
        return RequestTimeoutError(
            f"No complete answer from {self.base_url} within {self.timeout:g} s.",
            hint="Give the client a larger timeout, or send a smaller molecule.",
        )

    def wait_before_next(self, error: QuotaExceededError | ServerBusyError, waited: float) -> float:
        """Seconds to wait before the request is sent again.

        Args:
            error: the refusal.
            waited: seconds that this request has waited already.

        Raises:
            TraceGradError: the refusal itself, where the server named no time, or one beyond ``max_wait``.
        """
        if error.retry_after is None or waited >= self.max_wait or waited + error.retry_after > self.max_wait:
            raise error
        seconds = max(error.retry_after * (1.0 + random.uniform(0.0, SPREAD)), SHORTEST_WAIT_S)
        seconds = min(seconds, self.max_wait - waited)
        if self.on_wait is not None:
            self.on_wait(seconds, error)
        return seconds


def _header_text(api_key: str) -> str:
    """A key without the blanks and the newline around it that a file or a shell may add.

    Checked here, since httpx refuses other text only when it sends it, with the whole key in its message.
    """
    key = api_key.strip()
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError("api_key is empty, or holds characters that no key has; give the key as it was handed out.")
    return key
