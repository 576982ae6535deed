"""The services of the app that a request came to, once they are there."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from service.errors import ServiceError, draining
from service.state import Phase, Services

RETRY_AFTER_START_S: Final = 5


def ready_services(request: Request) -> Services:
    """The services, if the app is ready.

    Raises:
        ServiceError: ``not_ready`` before, ``draining`` after.
    """
    phase: Phase = getattr(request.app.state, "phase", "starting")
    if phase == "draining":
        raise draining()
    services: Services | None = getattr(request.app.state, "services", None)
    if phase == "starting" or services is None:
        raise ServiceError(
            "not_ready",
            "The models are being loaded.",
            hint="Try again after the time in Retry-After; GET /health/ready tells when.",
            retry_after_s=RETRY_AFTER_START_S,
        )
    return services
