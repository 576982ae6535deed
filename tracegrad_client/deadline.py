"""A time limit on a whole HTTP exchange: at its end the connection is cut, wherever the exchange stands.

httpx counts from one received byte to the next, so a server that drips headers, interim answers, chunk extensions or
trailers could hold its caller for as long as it likes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Any


class Deadline:
    """A context around one exchange.

    Args:
        seconds: until the connections that were opened inside are cut.

    Attributes:
        over: whether the time is over.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._socket = None  # it may be another exchange's from now on

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """What httpcore says while it opens a connection: the ``trace`` extension of a request."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        found = info["return_value"].get_extra_info("socket")
        with self._lock:
            self._socket = found
            if self.over:
                self._shut()

    def _cut(self) -> None:
        with self._lock:
            self.over = True
            self._shut()

    def _shut(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # closed already
            # the plain socket's: that of TLS would take its state away from under the reader
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
