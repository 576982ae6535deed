"""``GET /health/live`` and ``GET /health/ready``."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.errors import draining
from service.http.openapi import refusals
from service.routes.ready import ready_services
from service.schemas.responses import Health

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", summary="The process answers", response_model_exclude_none=True)
async def live() -> Health:
    """Alive, whether or not models are loaded."""
    return Health(status="alive")


@router.get("/ready", summary="Models are loaded and warmed up", openapi_extra=refusals("ready"))
async def ready(request: Request) -> Health:
    """Ready for structures: weights verified, a warm-up forward pass done, a model there. Otherwise 503."""
    services = ready_services(request)
    if request.app.state.phase == "leaving":
        raise draining()
    services.registry.expect(None)
    return Health(status="ready", models=services.registry.names)
