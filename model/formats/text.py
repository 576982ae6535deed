"""Small text and JSON files from strangers: read within a limit, numbers checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.errors import DamagedFileError, MissingFileError

MAXIMUM_BYTES: Final = 64 * 1024 * 1024
"""Of a structure or info file."""


def read_text(path: Path, limit: int = MAXIMUM_BYTES) -> str:
    """A text file.

    Raises:
        MissingFileError: not there.
        DamagedFileError: too large, or not text.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is not there.")
    if path.stat().st_size > limit:
        raise DamagedFileError(f"{path} has {path.stat().st_size} bytes; at most {limit} are read.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path} is not a text file.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DamagedFileError: not JSON, or not an object.
    """
    try:
        found = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DamagedFileError(f"{path} holds a {type(found).__name__}, not an object.")
    return found


def read_numbers(text: str, where: str) -> NDArray[np.float64]:
    """All numbers of a text, finite, one-dimensional.

    Raises:
        DamagedFileError: something that is not a finite number.
    """
    try:
        numbers = np.array(text.split(), dtype=np.float64)
    except ValueError as error:
        raise DamagedFileError(f"{where}: {error}.") from error
    if not np.isfinite(numbers).all():
        raise DamagedFileError(f"{where}: a number is not finite.")
    return numbers


def number(values: dict[str, Any], key: str, where: str) -> float | None:
    """A number of a JSON object; None where it is absent or null.

    Raises:
        DamagedFileError: something else.
    """
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DamagedFileError(
            f"{where}: {key!r} is {str(value)[:40]!r}, not a finite number.", hint="null means unknown."
        )
    return float(value)


def flag(values: dict[str, Any], key: str, where: str) -> bool:
    """A truth value of a JSON object; False where it is absent.

    Raises:
        DamagedFileError: something else.
    """
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise DamagedFileError(f"{where}: {key!r} is {str(value)[:40]!r}; expected true or false.")
    return value
