"""What a client is told at construction, resolved once for both kinds."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from tracegrad_client.endpoint import DEFAULT_MAX_WAIT_S, Endpoint
from tracegrad_client.errors import TraceGradError

DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S: Final = 60.0


class Connection:
    """The construction of a client.

    Args:
        base_url: where the server is; None takes the environment's ``TRACEGRAD_URL``, else ``DEFAULT_URL``.
        timeout: seconds for one whole request, each time that it is sent.
        api_key: needed only where the server has keys configured; None takes the environment's ``TRACEGRAD_API_KEY``, but
            only where the URL comes from there too or is the default: a key is for one server.
        model: the name of a checkpoint; None lets the server choose the one that fits best.
        max_wait: seconds that one request may wait in all where the server is busy (503) or a quota is spent (429) and its
            Retry-After says for how long; 0 never waits, and the refusal is raised at once.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        api_key: str | None = None,
        model: str | None = None,
        max_wait: float = DEFAULT_MAX_WAIT_S,
    ) -> None:
        if base_url is None:
            base_url = os.environ.get("TRACEGRAD_URL") or DEFAULT_URL
            api_key = api_key or os.environ.get("TRACEGRAD_API_KEY") or None
        self.model = model
        self._limits: dict[str, Any] = {"timeout": timeout, "api_key": api_key, "max_wait": max_wait}
        self._url = base_url.rstrip("/")
        self._open()

    def _open(self) -> None:
        """Make the transport, from ``_url`` and ``_limits``."""
        raise NotImplementedError

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._url

    @property
    def on_wait(self) -> Callable[[float, TraceGradError], None] | None:
        """Told the seconds and the reason before each wait for a busy server; None tells nobody."""
        return self._endpoint().on_wait

    @on_wait.setter
    def on_wait(self, told: Callable[[float, TraceGradError], None] | None) -> None:
        self._endpoint().on_wait = told

    def _endpoint(self) -> Endpoint:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r}, timeout={self._limits['timeout']:g}, model={self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        # open connections cannot be copied; each copy opens its own
        return {"base_url": self._url, "model": self.model, **self._limits}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Connection.__init__(self, **state)
