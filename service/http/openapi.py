"""The OpenAPI document: what FastAPI finds by itself, and the bodies of the structure routes, which it cannot see.

``service.documents`` writes it into the docs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.answers.output_formats import (
    ARRAY_FORMATS,
    BAND_FORMATS,
    GUESS_FORMATS,
    JOB_FORMATS,
    PREDICT_FORMATS,
    OutputFormat,
)
from service.errors import ERROR_TABLE, Group
from service.http.access import needed_scope
from service.schemas.evaluation import FILE_OPTIONS, EvaluateAnswer, EvaluateRequest
from service.schemas.jobs import JobSubmission
from service.schemas.models import LoadRequest, UnloadRequest
from service.schemas.requests import JSON_ONLY, BandsRequest, BatchRequest, DosRequest, GuessRequest, PredictRequest
from service.schemas.responses import Answer, BandsAnswer, BatchAnswer, DosAnswer, ProblemBody
from service.schemas.structures import MAX_FRAMES
from service.structures.formats import ACCEPTED, CONTENT_TYPES

_REF: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": _REF.format(model="ProblemBody")}}}
_FRAME: Final = "Which structure of a file of several, from 1."
_ANY_TEXT: Final = "For raw and multipart bodies; with JSON it is a field of the body."
_TEXTS: Final[Mapping[str, str]] = {
    "format_out": "Format of the answer; wins over the Accept header.",
    "frame": "Which structure of a raw body of several, from 1.",
    "format": "Format of a raw body whose content type does not say it.",
}
ANY_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"description": "A problem (RFC 9457).", "content": _PROBLEM}
}
"""For the app: any route may fail. With it there FastAPI adds no 422 of its own, which does not exist here."""

_FORMATS: Final[Mapping[type[BaseModel], Sequence[OutputFormat]]] = {
    PredictRequest: PREDICT_FORMATS,
    BatchRequest: ARRAY_FORMATS,
    GuessRequest: GUESS_FORMATS,
    BandsRequest: BAND_FORMATS,
    DosRequest: BAND_FORMATS,
    EvaluateRequest: ARRAY_FORMATS,
    JobSubmission: JOB_FORMATS,
}
_SECURITY_SCHEMES: Final = {
    "BearerKey": {"type": "http", "scheme": "bearer", "description": "An API key of this service."},
    "HeaderKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
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


def _example(model: type[BaseModel]) -> dict[str, Any]:
    if "structures" not in model.model_fields:
        return _EXAMPLE
    return {"structures": [_EXAMPLE["structure"]], "charge": 0, "multiplicity": 1}


def problems(*groups: Group) -> dict[str, Any]:
    """The refusals of a route, by status, from the error table.

    Args:
        groups: of the codes that it answers with.
    """
    texts: dict[str, list[str]] = {}
    for code, row in ERROR_TABLE.items():
        if row.group in groups:
            note = f" ({row.note})" if row.note else ""
            texts.setdefault(str(row.status), []).append(f"`{code}`: {row.title}{note}.")
    return {status: {"description": " ".join(lines), "content": _PROBLEM} for status, lines in texts.items()}


def refusals(*groups: Group) -> dict[str, Any]:
    """What is to say of a route that FastAPI otherwise sees whole: its problems."""
    return {"responses": problems(*groups)}


def structure_operation(
    model: type[BaseModel], formats: Sequence[OutputFormat], answer: type[BaseModel] | None = Answer
) -> dict[str, Any]:
    """Request body, query parameters and responses of a route that takes structures.

    Args:
        model: the request model (the JSON body).
        formats: what the route can write.
        answer: model of the JSON answer; None where the answer comes later.
    """
    schemas = _without_defaults(model.model_json_schema(ref_template=_REF)["properties"])
    options = {name: schema for name, schema in schemas.items() if name not in ("structure", "structures", *JSON_ONLY)}
    options["format_out"] = _names(formats)
    if "structure" in schemas:
        options["frame"] = {"type": "integer", "minimum": 1, "maximum": MAX_FRAMES, "description": _FRAME}
    files = sorted(FILE_OPTIONS.intersection(options))
    parts = {name: {**options.pop(name), "format": "binary"} for name in files}
    form = {
        "file": {"type": "string", "format": "binary", "description": "The structure file."},
        **parts,
        "format": {"type": "string", "enum": list(ACCEPTED), "description": "Otherwise from the file name's suffix."},
        **options,
    }
    text = {"schema": {"type": "string"}}
    raw = () if files else (*CONTENT_TYPES, "text/plain")
    responses = problems("body", "structure", "model", "ready", *(() if answer else ("storage",)))
    if answer is not None:
        responses["200"] = _answers(formats, "The answer, in the format of format_out or Accept.", answer)
    if answer in (Answer, BandsAnswer, DosAnswer, EvaluateAnswer):
        responses["304"] = {"description": "What If-None-Match names is still the answer."}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}, "example": _example(model)},
                "multipart/form-data": {"schema": {"type": "object", "properties": form, "required": ["file", *files]}},
                **{media_type: text for media_type in raw},
            },
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": schema,
                "description": _TEXTS.get(name, _ANY_TEXT),
            }
            for name, schema in {"format": form["format"], **options}.items()
        ],
        "responses": responses,
    }


def _answers(formats: Sequence[OutputFormat], description: str, answer: type[BaseModel]) -> dict[str, Any]:
    """A good response: our own JSON, another JSON, or bytes, by the format."""
    content: dict[str, Any] = {}
    for form in formats:
        schema: dict[str, Any] = {"type": "string", "format": "binary"}
        if form.suffix is None:
            schema = {"$ref": _REF.format(model=answer.__name__)}
        elif form.media_type.endswith("+json"):
            schema = {"type": "object"}
        content[form.media_type] = {"schema": schema}
    return {"description": description, "content": content}


def admin_operation(model: type[BaseModel]) -> dict[str, Any]:
    """Request body and refusals of an admin route.

    Args:
        model: the options (the JSON body, which may be absent).
    """
    schema = {"schema": {"$ref": _REF.format(model=model.__name__)}}
    return {
        "requestBody": {"required": False, "content": {"application/json": schema}},
        **refusals("body", "model", "admin", "ready"),
    }


def job_result_operation(formats: Sequence[OutputFormat]) -> dict[str, Any]:
    """Responses of the result of a job.

    Args:
        formats: what a job may have been asked for.
    """
    failed = "Any other status: the job failed, and this is its problem."
    return {
        "responses": {
            "200": _answers(formats, "The answer, in the format chosen at submission.", Answer),
            **problems("job", "result", "ready"),
            "default": {"description": failed, "content": _PROBLEM},
        }
    }


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    _, definitions = models_json_schema(
        [
            (model, "validation")
            for model in (
                PredictRequest,
                GuessRequest,
                BatchRequest,
                Answer,
                BatchAnswer,
                BandsRequest,
                BandsAnswer,
                DosRequest,
                DosAnswer,
                EvaluateRequest,
                EvaluateAnswer,
                ProblemBody,
                JobSubmission,
                LoadRequest,
                UnloadRequest,
            )
        ],
        ref_template=_REF,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions.get("$defs", {}))
    for model, formats in _FORMATS.items():
        properties = schemas[model.__name__]["properties"] = _without_defaults(schemas[model.__name__]["properties"])
        properties["format_out"] = {"anyOf": [_names(formats), {"type": "null"}]}
    document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    for route, path in document["paths"].items():
        for operation in path.values():
            _document_access(route, operation)
    return document


def _document_access(route: str, operation: dict[str, Any]) -> None:
    """Keys and refusals of an operation, where keys apply."""
    needed = needed_scope(route)
    if needed is None:
        return
    keys: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY_SCHEMES]
    # The last one means: or nothing at all, where the operator configured no keys.
    operation["security"] = keys if needed == "admin" else [*keys, {}]
    operation["responses"] |= problems("access")


def render(document: Mapping[str, Any]) -> bytes:
    """The document as a stable, readable file."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _without_defaults(properties: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Options as a caller may leave them out: a generated client sends defaults, which may contradict the structure."""
    return {
        name: {key: value for key, value in schema.items() if key != "default"} for name, schema in properties.items()
    }


def _names(formats: Sequence[OutputFormat]) -> dict[str, Any]:
    return {"type": "string", "enum": [known.name for known in formats]}
