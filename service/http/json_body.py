"""JSON bodies: read and validated so that no body makes validation expensive.

A small body may hold a million mistakes, and an error for each would take seconds and gigabytes. So the first pass ends
in every list at its first wrong item. Only if it fails is a second pass made to find more of what is wrong, over a copy
of the body in which every list ends soon after its first wrong item.

JSON is read once, into Python's own objects, which take a fraction of the memory of pydantic's tree of a JSON text.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from pydantic_core import CoreSchema, SchemaValidator, from_json

from service.errors import ServiceError
from service.http.validation import KNOWN_FIELDS, MAX_ERRORS, service_error

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_LARGE_BODY_BYTES: Final = 64 * 1024
_CROWDED: Final = 100_000
"""Brackets of a body from which on it is read alone; 256 structures of 200 atoms have half of them."""
MAX_ITEMS: Final = 250_000
"""Items of all lists and objects of a body that are read in any case: for one step, no other thread runs."""
_MAX_KEYS: Final = 64
"""More than any of our objects has, so an object with more has unknown ones."""

_BACKSLASH: Final = ord("\\")

_one_at_a_time: RunVar[CapacityLimiter] = RunVar("crowded_bodies")
_collector = threading.Lock()


async def read_json(
    model: type[AnyModel], body: bytes, *, max_structures: int | None = None, max_items: int = MAX_ITEMS
) -> AnyModel:
    """A JSON body as a model; large ones are read in another thread.

    Args:
        model: the request model of the route.
        body: the whole body.
        max_structures: most items of ``structures``; None where the model has no such field.
        max_items: most items of all its lists and objects together.

    Raises:
        ServiceError: ``malformed_body``, ``invalid_request``, ``non_finite_coordinates`` or ``too_many_structures``.
    """
    if len(body) <= _LARGE_BODY_BYTES:
        result = _read(model, body, max_structures)
    elif await to_thread.run_sync(_is_overfull, body, max_items):
        result = ServiceError(
            "invalid_request",
            f"The body's lists and objects have more than {max_items} items, which no request of this server needs.",
            hint="Send fewer or smaller structures in one request.",
        )
    elif body.count(b"[") + body.count(b"{") <= _CROWDED:
        result = await to_thread.run_sync(_read, model, body, max_structures)
    else:
        # they wait here and not in threads, which others need
        limiter = _one_at_a_time.get(None) or CapacityLimiter(1)
        _one_at_a_time.set(limiter)
        result = await to_thread.run_sync(_read_crowded, model, body, max_structures, limiter=limiter)
    # raised here, and not where the body's objects are, so that the error does not keep them alive
    if isinstance(result, ServiceError):
        raise result
    return result


def _is_overfull(body: bytes, max_items: int) -> bool:
    """Whether a body's lists and objects have more items than so many.

    Reading JSON is one step, in which no other thread runs, and a body of four megabytes may hold two million items. So they
    are counted before, by what stands in front of each; in strings, too, at first, and only if these are too many, without.
    Most of the count runs without Python's lock, so that others have their turn, and takes hundredths of a second.
    """
    text = np.frombuffer(body, dtype=np.uint8)
    if np.count_nonzero(_marks(text)) <= max_items:
        return False
    if (text == _BACKSLASH).any():
        # what a backslash stands before is no end of a string; both go, from the left: they are in strings alone
        text = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), dtype=np.uint8)
    in_strings = np.bitwise_xor.accumulate(text == ord('"'))
    return int(np.count_nonzero(_marks(text) & ~in_strings)) > max_items


def _marks(text: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which bytes stand in front of an item."""
    found: NDArray[np.bool_] = text == ord(",")
    for mark in b"[{":
        found |= text == mark
    return found


def too_many_structures(count: int, limit: int) -> ServiceError:
    """The error of a batch that is too long."""
    return ServiceError(
        "too_many_structures",
        f"The request holds {count} structures; this server takes at most {limit}.",
        field="structures",
        hint="Send them in parts.",
    )


def validation_error(model: type[BaseModel], document: object) -> ValidationError | None:
    """What is wrong with a JSON document, as far as it is told: errors of a bounded number.

    Args:
        model: the request model.
        document: the document as Python's lists, dicts, strings, numbers and None.

    Returns:
        errors of some wrong items of every list, the first one among them; None if the document is valid.
    """
    outcome = _validate(model, document)
    return outcome if isinstance(outcome, ValidationError) else None


def _read(model: type[AnyModel], body: bytes, max_structures: int | None) -> AnyModel | ServiceError:
    try:
        document = from_json(body)
    except ValueError:
        return ServiceError(
            "malformed_body",
            "The body is not valid JSON.",
            hint="Check quotes, commas and brackets; numbers must be of reasonable size and text UTF-8.",
        )
    structures = document.get("structures") if isinstance(document, dict) else None
    if max_structures is not None and isinstance(structures, list) and len(structures) > max_structures:
        return too_many_structures(len(structures), max_structures)
    outcome = _validate(model, document)
    return service_error(outcome) if isinstance(outcome, ValidationError) else outcome


def _read_crowded(model: type[AnyModel], body: bytes, max_structures: int | None) -> AnyModel | ServiceError:
    """As ``_read``, without the collector of cycles: JSON has none, and it would walk a million lists again and again."""
    with _collector:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return _read(model, body, max_structures)
        finally:
            if enabled:
                gc.enable()


def _validate(model: type[AnyModel], document: object) -> AnyModel | ValidationError:
    validators = _validators(model)
    first: ValidationError | None = None
    if all(len(item) <= _MAX_KEYS for item in _objects(document)):
        try:
            return cast(AnyModel, validators.first.validate_python(document))
        except ValidationError as error:
            # its traceback would hold this frame, which holds the error, and so the document
            first = error.with_traceback(None)
    try:
        validators.every.validate_python(_shortened(document, _wrong_items(first, document)))
    except ValidationError as error:
        return error
    if first is not None:
        return first
    return cast(AnyModel, validators.first.validate_python(document))


class _Validators(NamedTuple):
    """Validators of a model for Python's objects out of JSON."""

    first: SchemaValidator
    """Ends every list at its first wrong item."""
    every: SchemaValidator
    """Finds every wrong item."""


@cache
def _validators(model: type[BaseModel]) -> _Validators:
    first, every = (_adapted(model.__pydantic_core_schema__, fail_fast=fail_fast) for fail_fast in (True, False))
    # with prebuilt ones the models inside would keep their own validators, and not be adapted
    return _Validators(SchemaValidator(first, _use_prebuilt=False), SchemaValidator(every, _use_prebuilt=False))


def _adapted(schema: CoreSchema, *, fail_fast: bool) -> CoreSchema:
    """A schema that takes JSON's lists and objects for tuples and models, and nothing else that it did not take."""

    def adapt(value: Any) -> Any:
        if isinstance(value, list):
            return [adapt(item) for item in value]
        if not isinstance(value, dict):
            return value
        result = {name: adapt(item) for name, item in value.items()}
        match value.get("type"):
            case "list":
                result["fail_fast"] = fail_fast
            case "tuple":
                result |= {"fail_fast": fail_fast, "strict": False}
            case "model":
                result["strict"] = False
            case "tagged-union":
                result["from_attributes"] = False
        return result

    return cast(CoreSchema, adapt(schema))


def _objects(document: object) -> Iterator[dict[str, Any]]:
    """The objects of a request that have a schema of their own."""
    if not isinstance(document, dict):
        return
    yield document
    structures = document.get("structures")
    for structure in (document.get("structure"), *(structures if isinstance(structures, list) else ())):
        if isinstance(structure, dict):
            yield structure
            if isinstance(molecule := structure.get("molecule"), dict):
                yield molecule


def _wrong_items(error: ValidationError | None, document: Any) -> dict[int, int]:
    """The largest index that an error names, by the id of the list that it is in."""
    result: dict[int, int] = {}
    for entry in error.errors(include_url=False, include_input=False, include_context=False) if error else ():
        value = document
        for part in entry["loc"]:
            if isinstance(part, int) and isinstance(value, list):
                result[id(value)] = max(result.get(id(value), 0), part)
                if part >= len(value):
                    break
                value = value[part]
            elif isinstance(part, str) and isinstance(value, dict) and part in value:
                value = value[part]
            # what is left are pydantic's names of the members of a union, which are no places in the document
    return result


def _shortened(value: Any, wrong: Mapping[int, int]) -> Any:
    """A copy without what comes long after the first wrong item of a list, and without most unknown fields.

    Whatever is wrong with the copy is wrong with the document.
    """
    if isinstance(value, list):
        return [_shortened(item, wrong) for item in value[: wrong.get(id(value), 0) + MAX_ERRORS]]
    if not isinstance(value, dict):
        return value
    unknown = [name for name in value if name not in KNOWN_FIELDS]
    left_out = set(unknown[MAX_ERRORS:])
    return {name: _shortened(item, wrong) for name, item in value.items() if name not in left_out}
