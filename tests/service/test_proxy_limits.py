"""The shipped proxy counts the connections of each address, as the service does where it stands alone."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
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


def answer(connection: socket.socket) -> bytes:
    """What a request gets; empty if the connection is not taken."""
    try:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found
    except ConnectionError:
        return b""


def test_one_address_has_so_many_connections_and_is_told_so(port: int) -> None:
    def connected(address: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0))

    idle = [connected("127.0.3.1") for _ in range(64)]
    with connected("127.0.3.1") as one_more:
        head, _, body = answer(one_more).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "too_many_connections"
    with connected("127.0.3.2") as another:
        assert answer(another).startswith(b"HTTP/1.1 503 "), "another address is served, as far as there are replicas"
    idle += [connected("127.0.3.1") for _ in range(64)]
    with connected("127.0.3.1") as refused:
        assert answer(refused) == b""
    for connection in idle:
        connection.close()
    time.sleep(0.5)
    with connected("127.0.3.1") as again:
        assert answer(again).startswith(b"HTTP/1.1 503 ")
