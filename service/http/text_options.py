"""Options that come as text (form fields, query parameters), as the values that the models of requests take.

How an option is read follows from the type that it has in its model, so that no option can be forgotten here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import islice
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from service.errors import ServiceError
from service.http.validation import MAX_ERRORS
from service.schemas.base import WireModel

_TRUTH: Final[Mapping[str, bool]] = {"true": True, "false": False}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,9}")
_MAX_NUMBERS: Final = 2

Reader = Callable[[str, str], Any]
"""Of an option's name and text."""


def is_list(name: str, models: tuple[type[WireModel], ...]) -> bool:
    """Whether an option may be given several times."""
    return any(reader_of(model, name) is _items for model in models if name in model.model_fields)


def value_of(model: type[WireModel], name: str, text: str) -> Any:
    """The value of a model's option; what is no such value is left to the model to refuse, or refused here.

    Raises:
        ServiceError: ``invalid_request`` with the option as field.
    """
    return reader_of(model, name)(name, text)


def reader_of(model: type[WireModel], name: str) -> Reader:
    """How the texts of an option are read."""
    annotation = model.model_fields[name].annotation
    leaves = _leaves(annotation)
    if bool in leaves:
        return _truth
    if int in leaves:
        return whole_number
    if float in leaves:
        return _numbers
    return _items if _has_tuple(annotation) else _text


def whole_number(name: str, text: str) -> int:
    """An integer.

    Raises:
        ServiceError: ``invalid_request``.
    """
    if not _INTEGER.fullmatch(text.strip()):
        raise ServiceError("invalid_request", "Not an integer of reasonable size.", field=name)
    return int(text)


def _leaves(annotation: Any) -> set[Any]:
    """The types that an annotation is made of; the texts of a Literal are of type str."""
    origin = get_origin(annotation)
    if origin is Literal:
        return {type(choice) for choice in get_args(annotation)}
    inner = get_args(annotation)[:1] if origin is Annotated else get_args(annotation)
    if not inner:
        return {annotation} - {NoneType, Ellipsis}
    return set().union(*map(_leaves, inner))


def _has_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(map(_has_tuple, get_args(annotation)))


def _truth(name: str, text: str) -> bool | str:
    return _TRUTH.get(text.strip().lower(), text)


def _items(name: str, text: str) -> tuple[str, ...]:
    """With commas between; more than a list may have is refused for its length, nobody needs to know by how much."""
    return tuple(islice(filter(None, (item.strip() for item in text.split(","))), MAX_ERRORS))


def _numbers(name: str, text: str) -> float | tuple[float, ...]:
    """A number, or two with a comma between; how many there may be is for the model of the options to say."""
    try:
        numbers = tuple(float(item) for item in text.split(",", _MAX_NUMBERS))
    except ValueError:
        raise ServiceError(
            "invalid_request", "Not a number, or not numbers with a comma between.", field=name, hint="0.1, or -5,5"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _text(name: str, text: str) -> str:
    return text
