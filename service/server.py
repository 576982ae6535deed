"""uvicorn's server with habits of ours: not ready from SIGTERM on, and an end when a device is lost or it hangs for good."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.state import Services

HANG_S: Final = 60.0
"""The event loop has never been seen to stand for more than a second or two."""


async def end_if_hung(seconds: float) -> None:
    """Let the process end with exit code 1, and say where it stood, when the event loop does not run for so long.

    A process that neither answers nor ends, as after a failed allocation inside a library, is restarted by nobody. The
    thread of ``faulthandler`` needs neither Python's lock nor memory.
    """
    while True:
        faulthandler.dump_traceback_later(seconds, exit=True)
        await asyncio.sleep(min(1.0, seconds / 4))


class Server(uvicorn.Server):
    """Serves one app in this process.

    Args:
        config: of uvicorn.
        app: the one in ``config``.
        drain_delay_s: seconds from the first signal in which the service is not ready any more and answers all the same.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, drain_delay_s: float = 0.0) -> None:
        super().__init__(config)
        self._app = app
        self._drain_delay_s = drain_delay_s
        self._leaves_at: float | None = None
        self.device_lost = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGHUP as SIGTERM, besides what uvicorn takes, and end the process if its event loop hangs."""
        if threading.current_thread() is not threading.main_thread():
            yield  # inside another program, whose signals and end are its own
            return
        before = signal.signal(signal.SIGHUP, self.handle_exit)
        watchdog = asyncio.get_running_loop().create_task(end_if_hung(HANG_S))
        try:
            with super().capture_signals():
                yield
        finally:
            watchdog.cancel()
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On a signal: refuse what is new, finish what was accepted, and end as asked: with exit code 0.

        uvicorn's own would raise the signal again at the end, and the process would end as killed. With a delay the first
        signal only makes the service not ready, and a second one ends the delay.
        """
        if self._drain_delay_s and self._leaves_at is None and self._app.state.phase == "ready":
            self._app.state.phase = "leaving"
            self._leaves_at = time.monotonic() + self._drain_delay_s
            return
        self._drain()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        services: Services | None = getattr(self._app.state, "services", None)
        if services is not None and not all(model.backend.healthy for model in services.registry.models):
            # a CUDA context does not recover; whoever started this process starts another one
            self.device_lost = True
            self._drain()
            return True
        if self._leaves_at is not None and time.monotonic() >= self._leaves_at:
            self._drain()
            return True
        return await super().on_tick(counter)

    def _drain(self) -> None:
        self._app.state.phase = "draining"
