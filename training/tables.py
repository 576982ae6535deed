"""TOML tables -> frozen dataclasses: every key is a field with a type, and an unknown key is an error.

Knows nothing of what the tables mean (``training.fit.config`` and ``training.generate.recipe`` do), and imports neither
torch nor PySCF, so that worker processes start fast.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any


class ConfigError(Exception):
    """A run file or recipe that cannot be used; says what is allowed."""


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
        ConfigError: unknown or missing key, wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {where} must be a table, [{where}], not {type(values).__name__}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - (set(fields) - set(given)))
    if unknown:
        allowed = ", ".join(sorted(set(fields) - set(given)))
        raise ConfigError(f"{path}: [{where}] does not know {', '.join(unknown)}; it knows {allowed}.")
    base = path.resolve().parent
    converted: dict[str, Any] = dict(given)
    for name, value in values.items():
        converted[name] = _convert(value, str(fields[name].type), f"{path}: [{where}] {name}", base)
    missing = [
        name
        for name, field in fields.items()
        if name not in converted
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{path}: [{where}] lacks {', '.join(missing)}.")
    return kind(**converted)


def _convert(value: Any, annotation: str, where: str, base: Path) -> Any:
    if annotation.startswith("tuple[") and isinstance(value, list):
        inner = annotation.removeprefix("tuple[").removesuffix(", ...]")
        return tuple(_convert(item, inner, f"{where}[{index}]", base) for index, item in enumerate(value))
    if annotation in ("Path", "Path | None") and isinstance(value, str):
        return (base / value).resolve()
    if annotation == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if annotation == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if annotation == "bool" and isinstance(value, bool):
        return value
    if annotation == "str" and isinstance(value, str):
        return value
    raise ConfigError(f"{where} must be {annotation}, not {type(value).__name__}.")
