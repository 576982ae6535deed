"""Limits of connections: headers, times and counts, against a real socket and an app that answers in a moment."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.http.connections import ConnectionLimits, protocol_with

Open = Callable[[], socket.socket]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, without a look at the body, unless the path is /read."""
    assert scope["type"] == "http"
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def opened(**limits: Any) -> Iterator[Open]:
    """A server with these limits; makes connections to it."""
    protocol = protocol_with(ConnectionLimits(**limits))
    config = uvicorn.Config(app, port=0, log_level="error", http=protocol, ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    with ExitStack() as stack:

        def connect() -> socket.socket:
            where = server.servers[0].sockets[0].getsockname()
            return stack.enter_context(socket.create_connection(where, timeout=15))

        yield connect
    server.should_exit = True
    thread.join(20)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def drip(connection: socket.socket, piece: bytes, *, pause: float) -> None:
    """Send a piece again and again for ten seconds."""
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        connection.sendall(piece)
        time.sleep(pause)


def problem(answer: bytes) -> tuple[int, str]:
    """Status and code of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    document = json.loads(body)
    assert int(head.split()[1]) == document["status"]
    return document["status"], document["code"]


@pytest.mark.parametrize(
    "flood",
    [
        b"".join(b"A%d: b\r\n" % k for k in range(200)),
        b"A: " + b"b" * 70_000,
        b"A: " + b"b" * 3_000_000,
        b"A: b\r\n" * 100 + b"C: " + b"d" * 70_000 + b"\r\n\r\n",
    ],
    ids=["many", "long, open", "longer, open", "long, ended"],
)
def test_a_header_section_beyond_the_limits_is_431(flood: bytes) -> None:
    with opened() as connect:
        attacker = connect()
        attacker.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            attacker.sendall(flood)
        assert problem(read_all(attacker)) == (431, "headers_too_large")
        honest = connect()
        honest.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(honest).endswith(b"ok")


def test_trailers_count_as_header_fields() -> None:
    with opened() as connect:
        attacker = connect()
        attacker.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(attacker, b"T: " + b"x" * 1000 + b"\r\n", pause=0.001)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nA: b", b"\r\n"])
def test_a_connection_that_never_ends_its_headers_is_closed(sent: bytes) -> None:
    with opened(header_timeout_s=0.5) as connect:
        connection = connect()
        connection.sendall(sent)
        began = time.monotonic()
        answer = read_all(connection)
        assert 0.3 < time.monotonic() - began < 5
        assert answer == b"" or problem(answer) == (408, "request_timeout")


def test_dripping_does_not_prolong_the_time() -> None:
    with opened(header_timeout_s=0.5) as connect:
        connection = connect()
        connection.sendall(b"GET / HTTP/1.1\r\nA: ")
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(connection, b"b", pause=0.1)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(("path", "most"), [(b"/", 3.0), (b"/read", 4.0)])
def test_an_endless_body_ends_whether_somebody_reads_it_or_not(path: bytes, most: float) -> None:
    with opened(drain_timeout_s=0.5, body_timeout_s=1.0) as connect:
        connection = connect()
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(connection, b"1\r\na\r\n", pause=0.05)
        assert time.monotonic() - began < most


def test_connections_of_one_address_are_limited_and_come_free_again() -> None:
    with opened(per_address=3, header_timeout_s=1.0) as connect:
        idle = [connect() for _ in range(3)]
        time.sleep(0.1)
        assert problem(read_all(connect())) == (429, "too_many_connections")
        for connection in idle:
            assert read_all(connection) == b""  # closed, since it asked nothing
        time.sleep(1.2)  # the refused one lingers
        honest = connect()
        honest.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_all(honest).endswith(b"ok")


def test_what_is_not_http_gets_a_problem_and_pipelining_still_works() -> None:
    with opened() as connect:
        stranger = connect()
        stranger.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert problem(read_all(stranger)) == (400, "malformed_body")
        many = connect()
        many.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2999 + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_all(many).count(b"\r\n\r\nok") == 3000


def test_a_websocket_upgrade_is_an_ordinary_request() -> None:
    with opened() as connect:
        connection = connect()
        connection.sendall(
            b"GET /?key=secret HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert read_all(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_who_sends_everything_first_gets_the_answer_all_the_same(version: bytes) -> None:
    """As ``urllib`` does: closing at once would reset the connection, and the answer would be lost with it."""
    body = b"x" * 8_000_000
    with opened() as connect:
        connection = connect()
        head = b"POST / HTTP/" + version + b"\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head)
        time.sleep(0.2)  # the answer is out
        connection.sendall(body)
        began = time.monotonic()
        assert read_all(connection).endswith(b"\r\n\r\nok")
        assert time.monotonic() - began < 2, "closed when the body has ended, not after the time for it"


def test_a_body_after_the_answer_is_read_up_to_a_limit() -> None:
    with opened(drain_bytes=1_000_000) as connect:
        connection = connect()
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 900000000\r\n\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(b"x" * 200_000_000)
