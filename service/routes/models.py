"""``GET /v1/models``: the cards of the loaded checkpoints."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.answers.bytes import dump_json
from service.checkpoints.loaded import LoadedModel
from service.http.openapi import refusals
from service.routes.ready import ready_services
from service.schemas.responses import ModelList
from service.state import Services

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get(
    "",
    summary="The loaded models",
    openapi_extra=refusals("ready"),
    responses={200: {"model": ModelList}},
    response_class=Response,
)
async def list_models(request: Request) -> Response:
    """Cards of all loaded models; ``default`` names, by kind of system, the one that answers where several fit."""
    services = ready_services(request)
    models = [card_of(services, loaded) for loaded in services.registry.models]
    return Response(dump_json({"models": models, "default": services.registry.defaults}), media_type="application/json")


@router.get("/{name}", summary="One model's card", openapi_extra=refusals("model", "ready"), response_class=Response)
async def show_model(request: Request, name: str) -> Response:
    """Card of one model: elements, basis, functional, training data, measured errors, licence."""
    services = ready_services(request)
    return Response(dump_json(card_of(services, services.registry.get(name))), media_type="application/json")


def card_of(services: Services, loaded: LoadedModel) -> dict[str, Any]:
    """A loaded model's card, and what it is here: whether it is the default, where it runs, since when."""
    card = loaded.predictor.card
    return {
        **card.model_dump(mode="json"),
        "sha256": card.weights_sha256,
        "default": loaded.name in services.registry.defaults.values(),
        "device": loaded.predictor.device,
        "loaded_at": loaded.loaded_at.isoformat(timespec="seconds"),
    }
