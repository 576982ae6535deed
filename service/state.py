"""What the routes share: settings, models, parsers, the encoding thread. Built at start, kept in ``app.state``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from starlette.requests import Request

from service.checkpoints.registry import Registry
from service.checkpoints.swap import ModelManager
from service.errors import ServiceError, draining
from service.jobs.runner import JobRunner
from service.observability.logs import bind
from service.observability.metrics import Metrics
from service.serving.cache import PredictionCache
from service.settings import Settings
from service.structures.pool import ParserPool

T = TypeVar("T")
Phase = Literal["starting", "ready", "draining"]

RETRY_AFTER_START_S = 5


@dataclass
class Services:
    """The running parts.

    Attributes:
        settings: as given to ``create_app``.
        registry: the loaded models.
        parsers: the structure file parsers.
        cache: predictions by content.
        metrics: what is counted.
        manager: loads and unloads models.
        jobs: computes what was submitted as jobs; made with these services, and so later than they are.
        encoder: one thread for JSON, binary formats and exports: off the event loop, and PySCF's writers one at a time.
    """

    settings: Settings
    registry: Registry
    parsers: ParserPool
    cache: PredictionCache
    metrics: Metrics
    encoder: ThreadPoolExecutor
    manager: ModelManager = field(init=False)
    jobs: JobRunner | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.manager = ModelManager(self.registry, self.settings)

    async def encode(self, function: Callable[..., T], *arguments: object) -> T:
        """Run an encoder in the encoding thread, with the log fields and the trace of the request."""
        return await asyncio.get_running_loop().run_in_executor(self.encoder, bind(function), *arguments)

    def close(self) -> None:
        """Finish what runs, end threads and processes."""
        self.manager.close()
        self.registry.close()
        self.parsers.close()
        self.encoder.shutdown(wait=True, cancel_futures=True)


def ready_services(request: Request) -> Services:
    """The services, if the app is ready.

    Raises:
        ServiceError: ``not_ready`` before, ``draining`` after.
    """
    phase: Phase = getattr(request.app.state, "phase", "starting")
    if phase == "draining":
        raise draining()
    services: Services | None = getattr(request.app.state, "services", None)
    if phase != "ready" or services is None:
        raise ServiceError(
            "not_ready",
            "The models are being loaded.",
            hint="Try again after the time in Retry-After; GET /health/ready tells when.",
            retry_after_s=RETRY_AFTER_START_S,
        )
    return services
