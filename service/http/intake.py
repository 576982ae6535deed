"""The three ways in: JSON, multipart and a raw body all become one request model.

Everything that can be wrong with the envelope (content type, encoding, JSON, form, unknown parameters) ends here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final, TypeVar, cast

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from model.structure_files.encoding import decode_text
from service.errors import ServiceError
from service.http.json_body import MAX_ITEMS, read_json
from service.http.text_options import is_list, value_of, whole_number
from service.http.validation import service_error
from service.schemas.evaluation import FILE_OPTIONS, EvaluateRequest
from service.schemas.requests import (
    JSON_ONLY,
    BandsRequest,
    BatchRequest,
    DosRequest,
    GuessRequest,
    PredictRequest,
)
from service.schemas.structures import FileStructure
from service.structures.formats import ACCEPTED, CONTENT_TYPES, format_of_file_name, resolve_format

RequestModel = TypeVar(
    "RequestModel", bound=PredictRequest | GuessRequest | BatchRequest | BandsRequest | DosRequest | EvaluateRequest
)

MODELS: Final = (GuessRequest, BandsRequest, DosRequest, EvaluateRequest)
"""Together they have every option."""
KNOWN_OPTIONS: Final = {"frame"}.union(*(model.model_fields for model in MODELS))
_MAX_FORM_FIELDS: Final = 32
ITEMS_PER_ATOM: Final = 8
"""Of a number, three coordinates and their list, with some left for other fields."""


async def read_request(
    request: Request, model: type[RequestModel], *, max_structures: int | None = None
) -> RequestModel:
    """Read a request's structure and options.

    Args:
        request: of any of the three ways.
        model: the request model of the route.
        max_structures: most structures of a JSON body; None where the model has one.

    Returns:
        the request; ``model_fields_set`` holds the options that the caller gave.

    Raises:
        ServiceError: ``malformed_body``, ``unsupported_media_type``, ``unsupported_format``, ``invalid_request``,
            ``non_finite_coordinates``, ``too_many_structures`` or ``body_too_large``.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ServiceError("unsupported_media_type", "Compressed bodies are not read.", hint="Send the body as it is.")
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    ):
        return await _from_json(request, model, max_structures)
    if content_type == "multipart/form-data":
        return await _from_multipart(request, model)
    if content_type.startswith("chemical/") or content_type in ("text/plain", "application/octet-stream"):
        return await _from_raw(request, model, content_type)
    raise ServiceError(
        "unsupported_media_type",
        "The Content-Type is missing or not one that this route reads.",
        field="Content-Type",
        allowed=["application/json", "multipart/form-data", "text/plain", *CONTENT_TYPES],
        hint="For a structure file use: curl -F file=@molecule.xyz, "
        "or --data-binary @molecule.xyz -H 'Content-Type: chemical/x-xyz'.",
    )


async def _from_json(request: Request, model: type[RequestModel], max_structures: int | None) -> RequestModel:
    body = await request.body()
    parameters = _single(request.query_params.multi_items())
    if set(parameters) - {"format_out"}:
        raise ServiceError(
            "invalid_request",
            "An unknown query parameter.",
            allowed=["format_out"],
            hint="With a JSON body the options are fields of the body.",
        )
    settings = request.app.state.services.settings
    atoms = max(settings.max_atoms, settings.job_max_atoms) if max_structures is None else settings.max_atoms
    items = max(MAX_ITEMS, ITEMS_PER_ATOM * atoms * (max_structures or 1))
    result = await read_json(model, body, max_structures=max_structures, max_items=items)
    if "format_out" in parameters:
        if result.format_out not in (None, parameters["format_out"]):
            raise ServiceError("invalid_request", "format_out is given twice and differs.", field="format_out")
        if len(parameters["format_out"]) > 40:
            raise ServiceError("invalid_request", "The text is too long.", field="format_out")
        result = cast(RequestModel, result.model_copy(update={"format_out": parameters["format_out"]}))
    return result


async def _from_multipart(request: Request, model: type[RequestModel]) -> RequestModel:
    try:
        files = 1 + len(FILE_OPTIONS.intersection(model.model_fields))
        form = await request.form(max_files=files, max_fields=_MAX_FORM_FIELDS, max_part_size=1024 * 1024)
    except (MultiPartException, HTTPException) as error:
        raise ServiceError(
            "malformed_body",
            "The multipart body cannot be read.",
            hint=f"Send one part 'file' and at most {_MAX_FORM_FIELDS} form fields; "
            "let the HTTP client write the boundary.",
        ) from error
    try:
        return await _from_form(request, form, model)
    finally:
        await form.close()


async def _from_form(request: Request, form: FormData, model: type[RequestModel]) -> RequestModel:
    part: UploadFile | str | None = None
    fields: list[tuple[str, str]] = list(request.query_params.multi_items())
    for name, value in form.multi_items():
        if name == "file":
            if part is not None:
                raise ServiceError("invalid_request", "There is more than one part 'file'.", field="file")
            part = value
        elif isinstance(value, str):
            fields.append((name, value))
        elif name in FILE_OPTIONS.intersection(model.model_fields):
            fields.append((name, base64.b64encode(await value.read()).decode()))
        else:
            raise ServiceError("invalid_request", "A part other than 'file' is a file.", field="file")
    if part is None:
        raise ServiceError(
            "invalid_request", "The part 'file' is missing.", field="file", hint="curl -F file=@molecule.xyz ..."
        )
    options = _single(fields)
    named = options.pop("format", None)
    if named:
        file_format = resolve_format(named)
    else:
        file_format = format_of_file_name(part.filename or "" if isinstance(part, UploadFile) else "")
    text = part if isinstance(part, str) else _decode(await part.read())
    return _build(model, options, file_format, text)


async def _from_raw(request: Request, model: type[RequestModel], content_type: str) -> RequestModel:
    if FILE_OPTIONS.intersection(model.model_fields):
        raise ServiceError(
            "unsupported_media_type",
            "This route takes two files, which a raw body cannot be.",
            field="Content-Type",
            allowed=["application/json", "multipart/form-data"],
            hint="curl -F file=@molecule.xyz -F fock=@fock.npz ...",
        )
    body = await request.body()
    options = _single(request.query_params.multi_items())
    named = options.pop("format", None)
    if named:
        file_format = resolve_format(named)
    elif content_type in CONTENT_TYPES:
        file_format = CONTENT_TYPES[content_type]
    elif content_type.startswith("chemical/"):
        raise ServiceError(
            "unsupported_media_type",
            "This chemical content type is not known.",
            field="Content-Type",
            allowed=list(CONTENT_TYPES),
            hint="Use one of the allowed types, or name the format in the query: ?format=xyz.",
        )
    else:
        raise ServiceError(
            "invalid_request",
            "This content type does not say which format the body has.",
            field="format",
            allowed=ACCEPTED,
            hint="Name the format in the query: ?format=xyz.",
        )
    return _build(model, options, file_format, _decode(body))


def _build(model: type[RequestModel], options: Mapping[str, str], file_format: str, text: str) -> RequestModel:
    """A request from options that are all text."""
    # the file is the structure, or the structures, here
    known = set(model.model_fields) - {"structure", "structures", *JSON_ONLY}
    if "structure" in model.model_fields:
        known.add("frame")
    unknown = set(options) - known
    if unknown:
        raise ServiceError(
            "invalid_request",
            "An unknown option.",
            allowed=sorted({*known, "format"}),
            hint="Options are form fields or query parameters.",
        )
    values = {name: value_of(model, name, value) for name, value in options.items() if name != "frame"}
    frame = whole_number("frame", options["frame"]) if "frame" in options else None
    try:
        file = FileStructure(kind="file", format=file_format, text=text, frame=frame)
        values |= {"structures": [file]} if "structures" in model.model_fields else {"structure": file}
        return cast(RequestModel, model.model_validate(values))
    except ValidationError as error:
        raise service_error(error, options_only=True) from None


def _single(items: list[tuple[str, str]]) -> dict[str, str]:
    """Options by name. Lists may be repeated; anything else given twice is an error."""
    result: dict[str, str] = {}
    for name, value in items:
        if name in result and is_list(name, MODELS):
            result[name] += "," + value
        elif name in result:
            field = name if name in KNOWN_OPTIONS else None
            raise ServiceError("invalid_request", "An option is given more than once.", field=field)
        else:
            result[name] = value
    return result


def _decode(data: bytes) -> str:
    """Text of a structure file."""
    text = decode_text(data)
    if text is None:
        raise ServiceError(
            "unparsable_structure",
            "The structure file is not text.",
            field="file",
            hint="Binary and compressed files are not read; send a text format such as xyz.",
        )
    return text
