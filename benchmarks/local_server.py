"""A server for the length of a ``with`` block: ``python -m service`` as a child process on a free port of this machine.

For the demonstration and for tests of the client against the real service.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Final

import httpx

START_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 10.0
LOG_TAIL_BYTES: Final = 2000


@contextmanager
def local_server(
    *,
    command: Sequence[str] = (sys.executable, "-m", "service"),
    environment: Mapping[str, str] | None = None,
    start_timeout: float = START_TIMEOUT_S,
) -> Iterator[str]:
    """Start a server, wait until it is ready, give its URL, and stop it whatever happens inside the block.

    Args:
        command: what to start; host and port go to it as TRACEGRAD_HOST and TRACEGRAD_PORT.
        environment: variables in addition to those of this process.
        start_timeout: seconds until ``/health/ready`` has to answer 200.

    Raises:
        RuntimeError: the server ended or was not ready in time; the text has the end of its log.
    """
    port = _free_port()
    variables = {**os.environ, **(environment or {}), "TRACEGRAD_HOST": "127.0.0.1", "TRACEGRAD_PORT": str(port)}
    with tempfile.TemporaryFile() as log:  # a file, not a pipe: nobody would empty a pipe while the block runs
        process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, log, start_timeout)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: IO[bytes], start_timeout: float) -> None:
    deadline = time.monotonic() + start_timeout
    with httpx.Client(timeout=5.0, trust_env=False) as http:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if http.get(f"{url}/health/ready").status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # not listening yet
            time.sleep(0.1)
    ended = process.poll()
    what = f"was not ready within {start_timeout:g} s" if ended is None else f"ended with status {ended}"
    raise RuntimeError(f"The server {what}. The end of its log:\n{_tail(log)}")


def _tail(log: IO[bytes]) -> str:
    # Through a second offset: moving the shared one would move the writer's, too.
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES)).decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
