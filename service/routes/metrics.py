"""``GET /metrics``: what Prometheus scrapes."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http.negotiation import by_preference
from service.observability.metrics import OPENMETRICS, Metrics

router = APIRouter(tags=["health"])

_TEXT: Final[dict[str, Any]] = {"schema": {"type": "string"}}


@router.get(
    "/metrics",
    summary="Counts and durations for Prometheus",
    response_class=Response,
    responses={200: {"description": "All metrics.", "content": {"text/plain": _TEXT, OPENMETRICS: _TEXT}}},
)
async def metrics(request: Request) -> Response:
    """Prometheus text, or OpenMetrics where the Accept header asks for it; there before the models are."""
    # On the event loop: a few milliseconds, and no queue or thread pool that requests could fill stands before it.
    counts: Metrics = request.app.state.metrics
    body, content_type = counts.render(by_preference(request.headers.get("accept", "")))
    return Response(body, headers={"Content-Type": content_type, "Vary": "Accept"})
