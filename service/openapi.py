"""The OpenAPI document: what FastAPI finds by itself, and the bodies of the structure routes, which it cannot see.

``python -m service.openapi docs/openapi.json`` writes it; no checkpoint is needed for that.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.file_formats import ACCEPTED, CONTENT_TYPES
from service.negotiation import OutputFormat
from service.schemas.requests import GuessRequest, PredictRequest
from service.schemas.responses import Answer, ProblemBody

_REF: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": _REF.format(model="ProblemBody")}}}
_ERRORS: Final[Mapping[str, str]] = {
    "400": "malformed_body",
    "404": "unknown_model",
    "406": "not_acceptable",
    "413": "body_too_large, too_many_atoms, too_many_orbitals or too_large_for_memory",
    "415": "unsupported_media_type",
    "422": "The structure or an option cannot be used; `code` says why.",
    "503": "queue_full, not_ready or draining; see Retry-After",
    "504": "deadline_exceeded",
}
_EXAMPLE: Final = {
    "structure": {
        "kind": "atoms",
        "numbers": [8, 1, 1],
        "positions": [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]],
    },
    "charge": 0,
    "multiplicity": 1,
}


def structure_operation(model: type[BaseModel], formats: Sequence[OutputFormat]) -> dict[str, Any]:
    """Request body, query parameters and responses of a structure route.

    Args:
        model: the request model (the JSON body).
        formats: what the route can write.
    """
    options = {name: schema for name, schema in _option_schemas(model).items() if name != "structure"}
    form = {
        "file": {"type": "string", "format": "binary", "description": "The structure file."},
        "format": {"type": "string", "enum": list(ACCEPTED), "description": "Otherwise from the file name's suffix."},
        **options,
    }
    text = {"schema": {"type": "string"}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}, "example": _EXAMPLE},
                "multipart/form-data": {"schema": {"type": "object", "properties": form, "required": ["file"]}},
                **{media_type: text for media_type in (*CONTENT_TYPES, "text/plain")},
            },
        },
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": _parameter_text(name)}
            for name, schema in {"format": form["format"], **options}.items()
        ],
        "responses": {
            "200": {
                "description": "The answer, in the format of format_out or Accept.",
                "content": {
                    known.media_type: (
                        {"schema": {"$ref": _REF.format(model="Answer")}} if known.suffix is None else binary
                    )
                    for known in formats
                },
            },
            **{status: {"description": text, "content": _PROBLEM} for status, text in _ERRORS.items()},
        },
    }


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    _, definitions = models_json_schema(
        [(model, "validation") for model in (PredictRequest, GuessRequest, Answer, ProblemBody)], ref_template=_REF
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions.get("$defs", {}))
    for path in document["paths"].values():
        for operation in path.values():
            # FastAPI's own 422 does not exist here: every error is a problem.
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422", "")):
                del responses["422"]
            responses.setdefault("default", {"description": "A problem (RFC 9457).", "content": _PROBLEM})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def render(document: Mapping[str, Any]) -> bytes:
    """The document as a stable, readable file."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _option_schemas(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=_REF)
    properties: dict[str, Any] = schema["properties"]
    return properties


def _parameter_text(name: str) -> str:
    if name == "format_out":
        return "Format of the answer; wins over the Accept header."
    if name == "format":
        return "Format of a raw body whose content type does not say it."
    return "For raw and multipart bodies; with JSON it is a field of the body."


def main(arguments: Sequence[str]) -> int:
    """Write the document to a file."""
    from service.app import create_app
    from service.settings import Settings

    if len(arguments) != 1:
        print("usage: python -m service.openapi FILE", file=sys.stderr)
        return 2
    Path(arguments[0]).write_bytes(render(create_app(Settings()).openapi()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
