"""TOML tables -> frozen dataclasses: every key is a field with a type and a range, and an unknown key is an error.

Knows nothing of what the tables mean (``training.fit.config`` and ``training.generate.recipe`` do), and imports neither
torch nor PySCF, so that worker processes start fast. pydantic checks a table against the annotations of its dataclass.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, create_model
from pydantic_core import ErrorDetails

from model.structure import SYMBOLS


class ConfigError(Exception):
    """A run file or recipe that cannot be used; says what is allowed."""


def _from_folder(value: Path, info: ValidationInfo) -> Path:
    return Path(info.context["folder"] / value).resolve() if info.context else value


def checked_symbol(value: str) -> str:
    """An element symbol, or ValueError."""
    if value not in SYMBOLS[1:]:
        raise ValueError(f"{value[:12]!r} is no element symbol; give them like B, C, N")
    return value


FilePath = Annotated[Path, AfterValidator(_from_folder)]
"""A path, relative to the folder of the TOML file that it stands in."""
Symbol = Annotated[str, AfterValidator(checked_symbol)]
"""Of an element."""
Share = Annotated[float, Field(ge=0, le=1)]
"""From 0 to 1."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
"""From 0 to below 1."""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: not there, not text or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def refuse_unknown_tables(values: dict[str, Any], allowed: tuple[str, ...], path: Path) -> None:
    """Raise if a file holds more than the allowed tables."""
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ConfigError(f"{path}: unknown tables {', '.join(unknown)}; allowed are {', '.join(allowed)}.")


def read_table(kind: type[Any], values: Any, where: str, path: Path, **given: Any) -> Any:
    """One table as an instance of a frozen dataclass.

    Args:
        kind: the dataclass; its fields are the allowed keys, a field without default is a required one.
        values: the table.
        where: its name, for messages.
        path: the file; relative paths in the table are relative to its folder.
        given: fields that do not come from the table.

    Raises:
        ConfigError: unknown or missing keys, wrong types, values out of range: all of them.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {where} must be a table, [{where}], not {type(values).__name__}.")
    model = _checker(kind, frozenset(given))
    try:
        # strict JSON: no text for a number, but a list for a tuple and an integer for a float
        found = model.model_validate_json(
            json.dumps(values, default=str), strict=True, context={"folder": path.resolve().parent}
        )
    except ValidationError as error:
        known = sorted(model.model_fields)
        words = "; ".join(_words(mistake, where, known) for mistake in error.errors())
        raise ConfigError(f"{path}: {words}.") from error
    return kind(**given, **{name: getattr(found, name) for name in found.model_fields_set})


def _checker(kind: type[Any], given: Collection[str]) -> type[BaseModel]:
    """A pydantic model of a dataclass's fields."""
    hints = get_type_hints(kind, include_extras=True)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], ... if _is_required(field) else None)
        for field in dataclasses.fields(kind)
        if field.name not in given
    }
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: type[BaseModel] = create_model(kind.__name__, __config__=config, **fields)
    return model


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _words(mistake: ErrorDetails, where: str, known: Collection[str]) -> str:
    """One mistake: where it is, what came and what is allowed."""
    name, *inner = mistake["loc"]
    if mistake["type"] == "extra_forbidden":
        return f"[{where}] does not know {name}; it knows {', '.join(known)}"
    place = f"{name}{''.join(f'[{part}]' for part in inner)}"
    if mistake["type"] == "missing":
        return f"[{where}] lacks {place}"
    return f"[{where}] {place} is {mistake['input']!r:.60}; {message_of(mistake)}"


def message_of(mistake: ErrorDetails) -> str:
    """What pydantic says of a value, as the end of a sentence."""
    return mistake["msg"].removeprefix("Value error, ").replace("Input should", "it should")
