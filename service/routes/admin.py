"""``POST /v1/admin/models/{name}/load`` and ``.../unload``: which models are loaded, changed while the service runs.

Who may call them is decided before (``service.access``).
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.answers.bytes import dump_json
from service.errors import ServiceError
from service.http.deadline import deadline
from service.http.json_body import read_json
from service.http.openapi import admin_operation
from service.routes.models import card_of
from service.routes.ready import ready_services
from service.schemas.models import LoadReport, LoadRequest, UnloadReport, UnloadRequest
from service.state import Services

router = APIRouter(prefix="/v1/admin/models", tags=["admin"])

Options = TypeVar("Options", LoadRequest, UnloadRequest)

SECONDS_DIGITS: Final = 3


@router.post(
    "/{name}/load",
    summary="Load a checkpoint, or another version of a loaded one",
    openapi_extra=admin_operation(LoadRequest),
    responses={200: {"model": LoadReport}},
    response_class=Response,
)
async def load_model(request: Request, name: str) -> Response:
    """Verify a checkpoint of the checkpoints folder, warm it up and let it take over. Takes seconds.

    Requests that run finish on the old model, new ones get the new model, and none fails. If a check fails, the old model
    serves on, and the problem says which check it was.
    """
    services = ready_services(request)
    options = await _options(request, services, LoadRequest)
    done = await services.manager.load(name, version=options.version, force=options.force)
    return _answer(
        {
            "status": done.status,
            "model": card_of(services, done.model),
            "replaced": None if done.replaced is None else done.replaced.model_dump(),
            "checks": [check.model_dump() | {"seconds": round(check.seconds, SECONDS_DIGITS)} for check in done.checks],
            "seconds": round(done.seconds, SECONDS_DIGITS),
        }
    )


@router.post(
    "/{name}/unload",
    summary="Take a model out of service",
    openapi_extra=admin_operation(UnloadRequest),
    responses={200: {"model": UnloadReport}},
    response_class=Response,
)
async def unload_model(request: Request, name: str) -> Response:
    """New requests no longer find the model; it finishes what it has, then its memory is released."""
    services = ready_services(request)
    options = await _options(request, services, UnloadRequest)
    model, unfinished = await services.manager.unload(name, force=options.force)
    body = {"status": "unloaded", "model": model.model_dump(), "unfinished": unfinished}
    return _answer({**body, "default": services.registry.defaults})


async def _options(request: Request, services: Services, model: type[Options]) -> Options:
    """The options of a JSON body; without a body, the defaults.

    Raises:
        ServiceError: ``unsupported_media_type``, ``malformed_body``, ``invalid_request`` or ``deadline_exceeded``.
    """
    async with deadline(services.settings.request_timeout_s):
        body = await request.body()
    if not body:
        return model()
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ServiceError(
            "unsupported_media_type",
            "The options of this route are JSON.",
            field="Content-Type",
            allowed=["application/json"],
            hint="Send a JSON object, or no body at all.",
        )
    return await read_json(model, body)


def _answer(body: dict[str, Any]) -> Response:
    return Response(dump_json(body), media_type="application/json")
