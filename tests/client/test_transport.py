"""Laws of the transport: every failure is one typed error, limits hold, and the key goes where it should."""

from __future__ import annotations

import gc
import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tracegrad_client import errors
from tracegrad_client.transport import Transport


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.RequestRefusedError),
        (401, errors.AuthenticationError),
        (403, errors.AuthenticationError),
        (404, errors.NotFoundError),
        (406, errors.RequestRefusedError),
        (413, errors.TooLargeError),
        (422, errors.UnsupportedError),
        (429, errors.QuotaExceededError),
        (500, errors.ServerFailureError),
        (503, errors.ServerBusyError),
        (504, errors.DeadlineExceededError),
    ],
)
def test_a_problem_document_becomes_the_error_of_its_status(
    server: Any, problem_reply: Callable[..., Any], status: int, kind: type[errors.TraceGradError]
) -> None:
    reply = problem_reply(status, "some_code", hint="Do that.", request_id="abc", allowed=[1, 6])
    server.fault = lambda _: (reply[0], reply[1] | {"Retry-After": "7"}, reply[2])
    with pytest.raises(errors.TraceGradError) as caught:
        Transport(server.url, timeout=5).request("GET", "/v1/models")
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.hint, error.request_id, error.status) == ("some_code", "Do that.", "abc", status)
    assert error.detail == "This is some_code. Allowed: 1, 6."
    assert error.retry_after == 7.0
    assert "abc" in str(error)


@pytest.mark.parametrize("body", [b"", b"<h1>502 Bad Gateway</h1>", b"[1]", b"[" * 100_000, b'{"detail": 5}'])
def test_a_failure_without_a_problem_document_is_still_an_error_of_its_status(server: Any, body: bytes) -> None:
    server.fault = lambda _: (502, {"Content-Type": "application/problem+json", "Retry-After": "soon"}, body)
    with pytest.raises(errors.ServerFailureError, match="502") as caught:
        Transport(server.url, timeout=5).request("GET", "/v1/models")
    assert caught.value.code == "server_failure"
    assert caught.value.retry_after is None


def test_no_server_is_an_error_that_names_the_address(dead_url: str) -> None:
    with pytest.raises(errors.ServerUnreachableError, match=dead_url):
        Transport(dead_url, timeout=5).request("GET", "/v1/models")


def test_a_redirect_is_not_followed(server: Any) -> None:
    server.fault = lambda _: (307, {"Location": server.url + "/elsewhere"}, b"")
    with pytest.raises(errors.InvalidAnswerError, match="307"):
        Transport(server.url, timeout=5, api_key="secret").request("GET", "/v1/models")
    assert [seen.path for seen in server.seen] == ["/v1/models"]


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br"])
def test_a_compressed_answer_is_not_unpacked(server: Any, encoding: str) -> None:
    packed = gzip.compress(gzip.compress(b"\0" * 10_000_000))
    server.fault = lambda _: (200, {"Content-Encoding": encoding}, packed)
    with pytest.raises(errors.InvalidAnswerError, match="compressed"):
        Transport(server.url, timeout=5).request("GET", "/v1/models")
    assert server.seen[0].headers["accept-encoding"] == "identity"


def test_an_answer_above_the_size_limit_is_refused(server: Any) -> None:
    server.fault = lambda _: (200, {}, b"\0" * 2_000_000)
    transport = Transport(server.url, timeout=5, max_answer_bytes=1_000_000)
    with pytest.raises(errors.InvalidAnswerError, match="larger than 1000000 bytes"):
        transport.request("GET", "/v1/models")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "a body without a length": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "the status line": (b"", b"H"),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "an extension of a chunk": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"A: b\r\n"),
}


@pytest.fixture(params=DRIPS)
def dripping_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that sends a little every 50 ms for as long as somebody listens."""
    begin, drop = DRIPS[request.param]
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(begin)
            while not stop.wait(0.05):
                try:
                    connection.sendall(drop)
                except OSError:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stop.set()
    listener.close()
    thread.join(5)


def test_the_time_limit_covers_the_whole_exchange(dripping_url: str) -> None:
    # Each byte alone is in time: without a limit on the sum this would go on for 83 minutes.
    with pytest.raises(errors.RequestTimeoutError, match=r"0\.4 s"):
        Transport(dripping_url, timeout=0.4).request("GET", "/v1/models")


def test_the_key_is_a_bearer_token_and_absent_without_one(server: Any) -> None:
    Transport(server.url, timeout=5, api_key="secret").request("GET", "/v1/models")
    Transport(server.url, timeout=5).request("GET", "/v1/models")
    assert [seen.headers.get("authorization") for seen in server.seen] == ["Bearer secret", None]


def test_a_key_read_from_a_file_goes_without_its_newline(server: Any) -> None:
    Transport(server.url, timeout=5, api_key="secret\n").request("GET", "/v1/models")
    assert server.seen[-1].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("key", ["", " \n", "sec\nret", "sec\0ret", "sécret", "sec\u2028ret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key: str, server: Any) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Transport(server.url, timeout=5, api_key=key)
    assert not key.strip() or key not in str(caught.value)


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    server: Any, dead_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, dead_url)
    assert Transport(server.url, timeout=5).request("GET", "/v1/models").json()["models"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_stays_here(server: Any, value: float) -> None:
    with pytest.raises(errors.InvalidInputError):
        Transport(server.url, timeout=5).request("POST", "/v1/predict", payload={"positions": [value]})
    assert not server.seen


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", ""])
def test_an_address_that_is_none_is_refused_at_construction(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Transport(url, timeout=5)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_that_is_none_is_refused_at_construction(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Transport("http://127.0.0.1:8000", timeout=timeout)


def test_every_class_of_the_tree_is_drawn_in_its_header() -> None:
    def below(base: type[errors.TraceGradError]) -> set[str]:
        return {base.__name__}.union(*(below(kind) for kind in base.__subclasses__()))

    drawn = errors.__doc__ or ""
    assert all(name in drawn for name in below(errors.TraceGradError))


def test_a_transport_that_nobody_closes_closes_its_connections(server: Any) -> None:
    transport = Transport(server.url, timeout=5)
    transport.request("GET", "/v1/models")
    connections = transport._http
    assert not connections.is_closed
    del transport
    gc.collect()
    assert connections.is_closed
