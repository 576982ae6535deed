"""The application: routes, error handlers and middleware around the models of a settings object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from service.middleware import BodyLimitMiddleware, RequestIdMiddleware
from service.openapi import build_openapi
from service.parsing import ParserPool
from service.problems import install_handlers
from service.registry import Registry, StartupError, load_registry
from service.routes import health, models, pages, structures
from service.settings import Settings
from service.state import Services

API_VERSION: Final = "1.0.0"

DESCRIPTION: Final = (
    "Structure in, predicted Kohn-Sham Hamiltonian and DFT initial guess out. Lengths are in Å, energies in hartree "
    "(or eV on request), AO-indexed arrays in PySCF's order (or e3nn's on request). Every error is an RFC 9457 "
    "problem with a stable `code`."
)


class TraceGradApp(FastAPI):
    """FastAPI with our OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """The document, built once."""
        if self.openapi_schema is None:
            self.openapi_schema = build_openapi(self)
        return self.openapi_schema


def create_app(settings: Settings, *, registry: Registry | None = None) -> FastAPI:
    """Build the application; models are loaded when it starts, not here.

    Args:
        settings: everything an operator can set.
        registry: already loaded models; by default they are loaded from ``settings.checkpoints``.

    Raises:
        StartupError: a setting that this version cannot honour.
    """
    if settings.api_keys_file is not None:
        raise StartupError(
            "TRACEGRAD_API_KEYS_FILE is set, but this version has no API keys. Unset it, and put a proxy that checks "
            "keys in front of the service."
        )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loaded = registry if registry is not None else await run_in_threadpool(load_registry, settings)
        parsers = ParserPool(settings)
        services = Services(settings, loaded, parsers, ThreadPoolExecutor(1, thread_name_prefix="encoder"))
        try:
            await run_in_threadpool(parsers.start)
            app.state.services = services
            app.state.phase = "ready"
            yield
        finally:
            app.state.phase = "draining"
            await run_in_threadpool(services.close)

    app = TraceGradApp(
        title="TraceGrad service",
        version=API_VERSION,
        summary="Predicted Hamiltonians as starting points for DFT",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.phase = "starting"
    install_handlers(app)
    for router in (structures.router, models.router, health.router, pages.router):
        app.include_router(router)
    # The last one added is the outermost: the request id is there for whatever the body limit says.
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(RequestIdMiddleware)
    return app
