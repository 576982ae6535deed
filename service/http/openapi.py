"""The OpenAPI document: what FastAPI finds by itself, and the bodies of the structure routes, which it cannot see.

``python -m service.http.openapi docs/openapi.json`` writes it; no checkpoint is needed for that.
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

from service.answers.output_formats import GUESS_FORMATS, PREDICT_FORMATS, OutputFormat
from service.http.access import needed_scope
from service.schemas.jobs import JobSubmission
from service.schemas.models import LoadRequest, UnloadRequest
from service.schemas.requests import BatchRequest, GuessRequest, PredictRequest
from service.schemas.responses import Answer, BatchAnswer, ProblemBody
from service.structures.formats import ACCEPTED, CONTENT_TYPES

_REF: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": _REF.format(model="ProblemBody")}}}
_ERRORS: Final[Mapping[str, str]] = {
    "400": "malformed_body",
    "404": "unknown_model",
    "406": "not_acceptable",
    "413": "body_too_large, too_many_atoms, too_many_structures, too_many_orbitals or too_large_for_memory",
    "415": "unsupported_media_type",
    "422": "The structure or an option cannot be used; `code` says why.",
    "503": "queue_full, not_ready or draining; see Retry-After",
    "504": "deadline_exceeded",
}
_ADMIN_ERRORS: Final[Mapping[str, str]] = {
    "400": "malformed_body",
    "404": "unknown_model",
    "409": "model_busy (see Retry-After), or model_needed: only force unloads it",
    "413": "body_too_large",
    "415": "unsupported_media_type",
    "422": "model_rejected: a check failed, and what served before still serves; invalid_request",
    "503": "not_ready or draining; see Retry-After",
    "504": "deadline_exceeded: the body did not come in time",
}
_NOT_READY: Final[Mapping[str, str]] = {"503": "not_ready or draining; see Retry-After"}
_JOB_ERRORS: Final[Mapping[str, str]] = {
    "404": "unknown_job: never was, is another key's, was deleted, or its time is over",
    "503": "not_ready or draining; see Retry-After",
}
_REFUSALS: Final[Mapping[str, str]] = {
    "401": "missing_key, where keys are configured",
    "403": "forbidden: the key lacks the scope; on admin routes also without keys",
    "429": "quota_exceeded; see Retry-After",
}
_FORMATS: Final[Mapping[type[BaseModel], Sequence[OutputFormat]]] = {
    PredictRequest: PREDICT_FORMATS,
    BatchRequest: PREDICT_FORMATS,
    GuessRequest: GUESS_FORMATS,
    JobSubmission: GUESS_FORMATS,
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


def structure_operation(
    model: type[BaseModel], formats: Sequence[OutputFormat], answer: type[BaseModel] = Answer
) -> dict[str, Any]:
    """Request body, query parameters and responses of a structure route.

    Args:
        model: the request model (the JSON body).
        formats: what the route can write.
        answer: model of the JSON answer.
    """
    inputs = ("structure", "structures")
    options = {name: schema for name, schema in _option_schemas(model).items() if name not in inputs}
    options["format_out"] = _names(formats)
    form = {
        "file": {"type": "string", "format": "binary", "description": "The structure file."},
        "format": {"type": "string", "enum": list(ACCEPTED), "description": "Otherwise from the file name's suffix."},
        **options,
    }
    text = {"schema": {"type": "string"}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}, "example": _example(model)},
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
                "content": {known.media_type: _content(known, answer) for known in formats},
            },
            **({"304": {"description": "What If-None-Match names is still the answer."}} if answer is Answer else {}),
            **{status: {"description": text, "content": _PROBLEM} for status, text in _ERRORS.items()},
        },
    }


def _content(known: OutputFormat, answer: type[BaseModel]) -> dict[str, Any]:
    """What an answer in a format is: our own JSON, another JSON, or bytes."""
    if known.suffix is None:
        return {"schema": {"$ref": _REF.format(model=answer.__name__)}}
    is_json = known.media_type.endswith("+json")
    return {"schema": {"type": "object"} if is_json else {"type": "string", "format": "binary"}}


def admin_operation(model: type[BaseModel]) -> dict[str, Any]:
    """Request body and refusals of an admin route.

    Args:
        model: the options (the JSON body, which may be absent).
    """
    schema = {"schema": {"$ref": _REF.format(model=model.__name__)}}
    return {
        "requestBody": {"required": False, "content": {"application/json": schema}},
        "responses": {status: {"description": text, "content": _PROBLEM} for status, text in _ADMIN_ERRORS.items()},
    }


def job_operation(model: type[BaseModel], formats: Sequence[OutputFormat]) -> dict[str, Any]:
    """Request body, query parameters and refusals of the submission of a job.

    Args:
        model: the request model (the JSON body).
        formats: what a job may be asked for.
    """
    operation = structure_operation(model, formats)
    del operation["responses"]["200"], operation["responses"]["304"]
    operation["responses"]["507"] = {"description": "storage_full", "content": _PROBLEM}
    return operation


def job_result_operation(formats: Sequence[OutputFormat]) -> dict[str, Any]:
    """Responses of the result of a job.

    Args:
        formats: what a job may have been asked for.
    """
    operation = structure_operation(JobSubmission, formats)
    failed = "Any other status: the job failed, and this is its problem."
    return {
        "responses": {
            "200": operation["responses"]["200"] | {"description": "The answer, in the format chosen at submission."},
            "404": {"description": _JOB_ERRORS["404"], "content": _PROBLEM},
            "409": {"description": "job_not_finished; see Retry-After", "content": _PROBLEM},
            "503": {"description": _JOB_ERRORS["503"], "content": _PROBLEM},
            "default": {"description": failed, "content": _PROBLEM},
        }
    }


def job_refusals() -> dict[str, Any]:
    """Responses of the routes of a job but for the good ones."""
    return {
        "responses": {status: {"description": text, "content": _PROBLEM} for status, text in _JOB_ERRORS.items()},
    }


def refusals(*, unknown_model: bool = False) -> dict[str, Any]:
    """Responses of a route that only reads, but for the good one.

    Args:
        unknown_model: the path names a model.
    """
    errors = {"404": "unknown_model", **_NOT_READY} if unknown_model else _NOT_READY
    return {"responses": {status: {"description": text, "content": _PROBLEM} for status, text in errors.items()}}


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
        schemas[model.__name__]["properties"]["format_out"] = {"anyOf": [_names(formats), {"type": "null"}]}
    document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    for route, path in document["paths"].items():
        for operation in path.values():
            _document_access(route, operation)
            # FastAPI's own 422 does not exist here: every error is a problem.
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422", "")):
                del responses["422"]["content"]["application/json"]
                if not responses["422"]["content"]:
                    del responses["422"]
            responses.setdefault("default", {"description": "A problem (RFC 9457).", "content": _PROBLEM})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _document_access(route: str, operation: dict[str, Any]) -> None:
    """Keys and refusals of an operation, where keys apply."""
    needed = needed_scope(route)
    if needed is None:
        return
    keys: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY_SCHEMES]
    # The last one means: or nothing at all, where the operator configured no keys.
    operation["security"] = keys if needed == "admin" else [*keys, {}]
    for status, text in _REFUSALS.items():
        operation["responses"].setdefault(status, {"description": text, "content": _PROBLEM})


def render(document: Mapping[str, Any]) -> bytes:
    """The document as a stable, readable file."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _option_schemas(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=_REF)
    properties: dict[str, Any] = schema["properties"]
    return properties


def _names(formats: Sequence[OutputFormat]) -> dict[str, Any]:
    return {"type": "string", "enum": [known.name for known in formats]}


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
        print("usage: python -m service.http.openapi FILE", file=sys.stderr)
        return 2
    Path(arguments[0]).write_bytes(render(create_app(Settings()).openapi()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
