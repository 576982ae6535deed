"""The shipped proxy counts the connections of each address, as the service does where it stands alone."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where the proxy listens; there is no replica behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    text = CONFIGURATION.read_text()
    assert text.count("bind :8000\n") == 1
    (tmp_path / "haproxy.cfg").write_text(text.replace("bind :8000\n", f"bind 127.0.0.1:{number}\n"))
    process = subprocess.Popen(
        ["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", number), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield number
    finally:
        process.kill()
        process.wait()


def told(port: int, address: str) -> bytes:
    """What a request of an address gets; empty if its connection is not taken."""
    found = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0)) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while piece := connection.recv(65536):
                found += piece
    except ConnectionError:
        return b""
    return found


def told_at_last(port: int, address: str, start: bytes) -> bytes:
    """The first answer that starts so, within a few seconds: the proxy counts a connection when it takes or ends it."""
    end = time.monotonic() + 10
    while not (found := told(port, address)).startswith(start) or (not start and found):
        assert time.monotonic() < end, f"{start!r} was expected, the last answer was {found[:80]!r}"
        time.sleep(0.1)
    return found


def test_one_address_has_so_many_connections_and_is_told_so(port: int) -> None:
    with ExitStack() as idle:

        def keep(count: int) -> None:
            for _ in range(count):
                idle.enter_context(socket.create_connection(("127.0.0.1", port), 10, source_address=("127.0.3.1", 0)))

        keep(64)
        head, _, body = told_at_last(port, "127.0.3.1", b"HTTP/1.1 429 ").partition(b"\r\n\r\n")
        assert b"application/problem+json" in head
        assert json.loads(body)["code"] == "too_many_connections"
        other = told(port, "127.0.3.2")
        assert other.startswith(b"HTTP/1.1 503 "), "another address is served, as far as there are replicas"
        keep(64)
        told_at_last(port, "127.0.3.1", b"")
    told_at_last(port, "127.0.3.1", b"HTTP/1.1 503 ")
