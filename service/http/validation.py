"""From pydantic's findings to a problem that names the field and never repeats what the caller sent.

Pydantic's own texts quote the input in places (an unknown union tag, an unknown key), and its errors carry the input
whole: a 5 MB field would come back, and NaN would make the answer unwritable. So only error types, the places that
our own schemas name, and our own texts go out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from service.errors import ServiceError
from service.schemas.evaluation import EvaluateRequest
from service.schemas.jobs import JobSubmission
from service.schemas.models import LoadRequest, UnloadRequest
from service.schemas.requests import BandsRequest, DosRequest, GuessRequest, PredictRequest
from service.schemas.structures import AtomsStructure, FileStructure, QCSchemaMolecule, QCSchemaStructure

MAX_ERRORS: Final = 20

_KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "atoms": AtomsStructure,
    "file": FileStructure,
    "qcschema": QCSchemaStructure,
}

_BODIES: Final[Mapping[str, type[BaseModel]]] = {
    model.__name__: model
    for model in (
        PredictRequest,
        GuessRequest,
        BandsRequest,
        DosRequest,
        EvaluateRequest,
        JobSubmission,
        LoadRequest,
        UnloadRequest,
    )
}
_MODELS: Final[Sequence[type[BaseModel]]] = (*_BODIES.values(), *_KINDS.values(), QCSchemaMolecule)
KNOWN_FIELDS: Final = frozenset(name for model in _MODELS for name in model.model_fields)

_TEXTS: Final[Mapping[str, str]] = {
    "missing": "This field is needed.",
    "extra_forbidden": "An unknown field.",
    "finite_number": "Not a finite number.",
    "int_type": "Not an integer.",
    "int_from_float": "Not an integer.",
    "int_parsing": "Not an integer.",
    "int_parsing_size": "Not an integer of reasonable size.",
    "float_type": "Not a number.",
    "bool_type": "Not true or false.",
    "string_type": "Not a string.",
    "string_too_long": "The text is too long.",
    "list_type": "Not a list.",
    "tuple_type": "Not a list.",
    "dict_type": "Not an object.",
    "model_type": "Not an object.",
    "model_attributes_type": "Not an object.",
    "union_tag_not_found": "The field 'kind' is needed: 'atoms', 'file' or 'qcschema'.",
    "union_tag_invalid": "An unknown kind of structure; 'kind' is 'atoms', 'file' or 'qcschema'.",
    "too_long": "Too many items.",
    "too_short": "Too few items.",
}

_COORDINATE_FIELDS: Final = frozenset({"positions", "cell", "geometry"})


def service_error(error: ValidationError, *, options_only: bool = False) -> ServiceError:
    """The error to answer with for a failed validation.

    Args:
        error: from one of the request models.
        options_only: the options came as form fields or query parameters, not as JSON.
    """
    findings: list[dict[str, str]] = []
    first_type = ""
    first_fields: Sequence[Any] = ()
    hint: str | None = None
    for entry in error.errors(include_url=False, include_input=False, include_context=True)[:MAX_ERRORS]:
        location = list(entry["loc"])
        if entry["type"] == "extra_forbidden":
            # The last part is the caller's own key.
            location = location[:-1]
            allowed = _fields_at(error.title, location)
            if allowed and hint is None:
                hint = "Allowed here: " + ", ".join(allowed) + "."
        finding = {"detail": _text(entry["type"], entry.get("ctx", {}))}
        field = _field(location)
        if field:
            finding["field"] = field
        if not findings:
            first_type, first_fields = entry["type"], location
        if finding not in findings:
            findings.append(finding)
    code = "invalid_request"
    if first_type == "finite_number" and _COORDINATE_FIELDS.intersection(map(str, first_fields)):
        code = "non_finite_coordinates"
        hint = "Replace NaN and infinities by real coordinates."
    if hint is None and options_only:
        hint = "Options are form fields or query parameters; lists are separated by commas."
    return ServiceError(
        code,
        findings[0]["detail"],
        field=findings[0].get("field"),
        hint=hint,
        errors=findings if len(findings) > 1 else None,
    )


def _text(kind: str, context: Mapping[str, Any]) -> str:
    """Our words for an error type; the context values used are those of our own schema."""
    if kind in ("literal_error", "enum"):
        return f"Not one of the allowed values: {context.get('expected')}."
    if kind == "greater_than_equal":
        return f"Smaller than {context.get('ge')}."
    if kind == "less_than_equal":
        return f"Larger than {context.get('le')}."
    if kind == "too_short" and "min_length" in context:
        return f"At least {context['min_length']} items are needed."
    if kind == "too_long" and "max_length" in context:
        return f"At most {context['max_length']} items are allowed."
    if kind == "string_pattern_mismatch":
        return f"Not of the pattern {context.get('pattern')}."
    return _TEXTS.get(kind, "The value is not valid.")


def _field(location: Sequence[Any]) -> str:
    """``structure.positions[0][2]``: the parts that our schemas name, and list indices."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in KNOWN_FIELDS:
            path += f".{part}" if path else str(part)
    return path


def _fields_at(title: str, location: Sequence[Any]) -> list[str]:
    """Fields of the model at a place, to tell what would have been allowed there."""
    names = [part for part in location if isinstance(part, str)]
    if not names:
        return list(_BODIES.get(title, PredictRequest).model_fields)
    if names[-1] in _KINDS:
        return list(_KINDS[names[-1]].model_fields)
    return []
