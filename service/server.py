"""uvicorn's server with two habits of ours: not ready from SIGTERM on, and an end when a device is lost."""

from __future__ import annotations

import signal
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.state import Services


class Server(uvicorn.Server):
    """Serves one app in this process.

    Args:
        config: of uvicorn.
        app: the one in ``config``.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self.device_lost = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On a signal: refuse what is new, finish what was accepted, and end as asked: with exit code 0.

        uvicorn's own would raise the signal again at the end, and the process would end as killed.
        """
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
        return await super().on_tick(counter)

    def _drain(self) -> None:
        self._app.state.phase = "draining"
