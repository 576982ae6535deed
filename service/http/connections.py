"""uvicorn's HTTP protocol with limits on what a connection may cost before any route, key or quota is reached.

uvicorn bounds neither the header section of a request nor the time that a connection may take over it, and counts no
connections. Here: the size and number of header fields (431), the time to the end of the headers and of the body, a
short time for a body that nobody reads any more because the answer is out, the time for an answer that the caller does
not take, and the connections of one address and of all. Refusals are problems, as everywhere.

What one process cannot do stays with what is in front of it: a proxy has one address for all callers, so it must count
them itself (docs/operations.md).
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.answers.bytes import dump_json
from service.errors import ServiceError, problem_of
from service.http.problems import MEDIA_TYPE

logger = logging.getLogger(__name__)

DESCRIPTORS_KEPT: Final = 128
"""Of the process's file descriptors, for files, parsers and the database: connections get the rest."""

LINGER_S: Final = 1.0
"""What still arrives after a refusal is dropped for so long: a socket closed at once would take the answer with it."""

LOG_EVERY_S: Final = 10.0


@dataclass
class ConnectionLimits:
    """What a connection may cost, and the count of those that are open.

    Attributes:
        header_bytes: most bytes of a request line with its header fields.
        header_fields: most header fields of a request, trailers included.
        header_timeout_s: seconds from the connection, or from the first byte after an answer, to the end of the headers.
        body_timeout_s: seconds from there to the end of the body, and for an answer that the caller does not take.
        drain_timeout_s: seconds for the rest of a body when the answer is out already.
        drain_bytes: most bytes of it. Many clients look for an answer only when they have sent everything: a socket closed
            over unread data would take the answer with it.
        per_address: most connections of one address; 0 for no limit.
        total: most connections.
        clock: seconds of any origin, never set back.
    """

    header_bytes: int = 64 * 1024
    header_fields: int = 128
    header_timeout_s: float = 10.0
    body_timeout_s: float = 65.0
    drain_timeout_s: float = 5.0
    drain_bytes: int = 64 * 1024 * 1024
    per_address: int = 0
    total: int = 0
    clock: Callable[[], float] = time.monotonic
    _by_address: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _logged: float = field(default=-LOG_EVERY_S, init=False, repr=False)

    def enter(self, address: str) -> bool:
        """Count a connection; whether it is within the limits. Each needs its :meth:`leave`."""
        self._by_address[address] += 1
        here, everywhere = self._by_address[address], self._by_address.total()
        fits = not (self.per_address and here > self.per_address) and not (self.total and everywhere > self.total)
        if not fits and self.clock() - self._logged >= LOG_EVERY_S:
            self._logged = self.clock()
            logger.warning("connections are refused: %d are open, %d of them from one address", everywhere, here)
        return fits

    def leave(self, address: str) -> None:
        """A counted connection is closed."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


def most_connections() -> int:
    """How many connections the file descriptors of this process allow.

    Above 1024 ``select`` refuses descriptors, and the parsers wait with it.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    usable = 1024 if soft == resource.RLIM_INFINITY else min(soft, 1024)
    return max(16, usable - min(DESCRIPTORS_KEPT, usable // 2))


def protocol_with(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """The protocol class for ``uvicorn.Config(http=...)`` whose connections share these limits."""
    return cast("type[asyncio.Protocol]", type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits}))


class _RefusedError(Exception):
    """Ends the parsing of a request whose refusal is already known."""


class _AnswerTransport(asyncio.Transport):
    """The transport that uvicorn writes an answer to: when it closes the connection, the body is read to its end first."""

    def __init__(self, protocol: _LimitedProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        self._protocol.close_after_body()


class _LimitedProtocol(HttpToolsProtocol):
    limits: ConnectionLimits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._in_headers, self._in_body = True, False
        self._head_bytes = self._head_fields = self._named_bytes = 0
        self._refusal: ServiceError | None = None
        self._refused = False
        self._drained: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        if not self.limits.enter(self._address):
            self._refuse(
                ServiceError(
                    "too_many_connections",
                    "There are too many open connections.",
                    hint="Use one connection for several requests, and close those that are not used.",
                    retry_after_s=1,
                )
            )
            return
        self._arm(self.limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.leave(self._address)
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_headers:
            # counted before the parser sees them: it keeps what it has of a field until the field ends
            self._head_bytes += len(data)
            if self._timer is None:
                self._arm(self.limits.header_timeout_s)
        if self._drained is not None:
            self._drained += len(data)
            if self._drained > self.limits.drain_bytes:
                self.transport.close()
                return
        super().data_received(data)
        if self._in_headers and not self._refused and self._head_bytes > self.limits.header_bytes:
            self._refuse(self._head_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._in_body = True, False
        self._head_fields = self._named_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_fields += 1
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers, self._in_body = False, True
        self._head_bytes = 0
        self._arm(self.limits.body_timeout_s)
        super().on_headers_complete()
        self.cycle.transport = _AnswerTransport(self)
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # no other protocol is spoken here, and this parser is at its end

    def on_message_complete(self) -> None:
        self._in_headers, self._in_body = True, False
        self._head_bytes = 0
        self._disarm()
        super().on_message_complete()
        if self._drained is not None:
            self.transport.close()
            return
        if self.cycle.response_complete:  # before the body ended; uvicorn's own timer is gone by now
            self._arm(self.limits.header_timeout_s)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and not self.pipeline and not self.transport.is_closing():
            self._arm(self.limits.drain_timeout_s)

    def close_after_body(self) -> None:
        """Close the connection; if its answer is out before its body was read, read what comes for a while, and drop it."""
        if self._in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._drained = 0
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.body_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Whatever the parser stopped at, as a problem."""
        self._refuse(
            self._refusal
            or ServiceError(
                "malformed_body", "This is not HTTP.", hint="Use an HTTP client, or curl, and let it write it."
            )
        )

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to say: the request is answered as if no upgrade had been asked."""

    def _count_head(self, size: int) -> None:
        self._named_bytes += size
        if self._named_bytes > self.limits.header_bytes or self._head_fields > self.limits.header_fields:
            self._refusal = self._head_too_large()
            raise _RefusedError

    def _head_too_large(self) -> ServiceError:
        return ServiceError(
            "headers_too_large",
            f"The header section has more than {self.limits.header_bytes} bytes or {self.limits.header_fields} fields.",
            hint="Send structures in the body.",
        )

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._late, seconds)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self, seconds: float) -> None:
        self._timer = None
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.pipeline or (answering and self._in_headers):
            self._arm(seconds)  # an earlier request is still being answered: the reading waits for us
        elif answering or self._in_body or not self._head_bytes:
            # half an answer, an unread body, or nothing ever asked: there is nothing to say
            self.transport.close()
        else:
            self._refuse(ServiceError("request_timeout", "The headers of the request did not arrive in time."))

    def _refuse(self, error: ServiceError) -> None:
        """Answer with a problem, unless an answer is under way, and end the connection."""
        self._refused = True
        self._disarm()
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        problem = problem_of(error, uuid.uuid4().hex)
        content = dump_json(problem.body)
        headers = {
            **problem.headers,
            "Content-Type": MEDIA_TYPE,
            "Content-Length": str(len(content)),
            "X-Request-ID": str(problem.body["request_id"]),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)
