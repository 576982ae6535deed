"""The application: routes, error handlers and middleware around the models of a settings object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from service.access.keys_file import load_keys
from service.checkpoints.loaded import LoadedModel
from service.checkpoints.registry import Registry
from service.checkpoints.startup import load_registry
from service.checkpoints.swap import ModelManager
from service.http.access import AccessMiddleware
from service.http.local_callers import LOOPBACK, LocalCallersMiddleware
from service.http.middleware import BodyLimitMiddleware, CrossOriginMiddleware, HeadMiddleware, RequestIdMiddleware
from service.http.observer import Observer
from service.http.openapi import ANY_PROBLEM, build_openapi
from service.http.problems import install_handlers
from service.job_process.start import start_jobs
from service.jobs.location import open_job_store
from service.jobs.store import JobStore
from service.memory.budget import MemoryBudget
from service.memory.capacity import capacity
from service.observability.metrics import Metrics
from service.observability.tracing import Tracing, open_tracing
from service.routes import admin, batch, health, jobs, models, pages, structures
from service.routes import metrics as metrics_page
from service.serving.cache import PredictionCache, code_fingerprint
from service.settings import Settings
from service.state import Services
from service.structures.pool import ParserPool

API_VERSION: Final = version("tracegrad-service")

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


def create_app(
    settings: Settings,
    *,
    registry: Registry | None = None,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
    job_store: JobStore | None = None,
) -> FastAPI:
    """Build the application; models are loaded when it starts, not here.

    Args:
        settings: everything an operator can set.
        registry: already loaded models; by default they are loaded from ``settings.checkpoints``.
        metrics: what the models of ``registry`` report to; by default the app makes its own.
        tracing: where spans go; by default as ``settings.tracing`` says.
        job_store: the open store of the jobs, closed with the app; by default the one that the settings name, and without
            a name a temporary one.

    Raises:
        StartupError: the keys file cannot be used, or the packages for traces are missing.
    """
    counts = metrics if metrics is not None else Metrics()
    spans = tracing if tracing is not None else open_tracing(settings)
    keys = load_keys(settings.api_keys_file) if settings.api_keys_file is not None else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loaded = registry if registry is not None else await run_in_threadpool(load_registry, settings, counts)
        store = job_store
        if store is None and settings.jobs != "off":
            store = await run_in_threadpool(open_job_store, settings)
        memory = MemoryBudget(None, waiting_limit=settings.queue_limit)
        services = Services(
            settings=settings,
            registry=loaded,
            parsers=ParserPool(settings),
            cache=PredictionCache(settings.cache_bytes),
            metrics=counts,
            manager=ModelManager(loaded, settings),
            memory=memory,
        )
        try:
            loaded.watch(partial(_announce, counts), counts.model_unloaded)
            await run_in_threadpool(code_fingerprint)  # before the first request needs it
            await run_in_threadpool(services.parsers.start)
            memory.capacity = await run_in_threadpool(capacity, settings)
            if store is not None:
                services = replace(services, jobs=start_jobs(services, store, memory))
            app.state.services = services
            app.state.phase = "ready"
            yield
        finally:
            app.state.phase = "draining"
            if services.jobs is not None:
                await services.jobs.close()
            elif store is not None:
                await run_in_threadpool(store.close)
            await run_in_threadpool(services.close)
            if spans is not None:
                await run_in_threadpool(spans.close)

    app = TraceGradApp(
        title="TraceGrad service",
        version=API_VERSION,
        summary="Predicted Hamiltonians as starting points for DFT",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=ANY_PROBLEM,
        generate_unique_id_function=lambda route: route.name,
        # FastAPI's own spans and log records hold paths, queries and the texts of exceptions; ours do not.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.phase = "starting"
    app.state.metrics = counts
    counts.watch_ready(lambda: app.state.phase == "ready")
    install_handlers(app)
    for router in (
        structures.router,
        batch.router,
        jobs.router,
        models.router,
        admin.router,
        health.router,
        metrics_page.router,
        pages.router,
    ):
        app.include_router(router)
    # The last one added is the outermost: the request id is there for whatever the others say, and who may not call
    # hears so before the body matters.
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(AccessMiddleware, keys=keys, quota_orbitals=settings.quota_orbitals)
    hosts = settings.allowed_hosts or (LOOPBACK if keys is None and settings.host in LOOPBACK else ("*",))
    if "*" not in hosts:
        app.add_middleware(LocalCallersMiddleware, hosts=hosts, origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(CrossOriginMiddleware, origins=settings.cors_origins)
    app.add_middleware(RequestIdMiddleware, observer=Observer(counts, spans))
    return app


def _announce(metrics: Metrics, model: LoadedModel) -> None:
    """Count for a model from now on."""
    card = model.predictor.card
    metrics.model_loaded(model.name, card.version, card.weights_sha256)
    metrics.watch_queue(model.name, lambda: model.backend.unfinished)
