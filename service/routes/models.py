"""``GET /v1/models``: the cards of the loaded checkpoints."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.encoding import dump_json
from service.registry import LoadedModel
from service.schemas.responses import ModelList
from service.state import Services, ready_services

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="The loaded models", responses={200: {"model": ModelList}}, response_class=Response)
async def list_models(request: Request) -> Response:
    """Cards of all loaded models; ``default`` marks the one that answers when a request names none."""
    services = ready_services(request)
    models = [_card(services, services.registry.get(name)) for name in services.registry.names]
    body = {"models": models, "default": {"molecules": services.registry.default, "crystals": None}}
    return Response(dump_json(body), media_type="application/json")


@router.get("/{name}", summary="One model's card", response_class=Response)
async def show_model(request: Request, name: str) -> Response:
    """Card of one model: elements, basis, functional, training data, measured errors, licence."""
    services = ready_services(request)
    return Response(dump_json(_card(services, services.registry.get(name))), media_type="application/json")


def _card(services: Services, loaded: LoadedModel) -> dict[str, Any]:
    return {
        **loaded.predictor.card.model_dump(mode="json"),
        "default": loaded.name == services.registry.default,
        "device": loaded.predictor.device,
    }
