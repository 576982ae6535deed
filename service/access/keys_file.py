"""The keys file: TOML with one table for each key. A file with a mistake stops the start.

    [keys.alice]
    sha256 = "64 hexadecimal digits"
    scopes = ["predict"]            # "predict", "admin" or both
    requests_per_minute = 600       # optional
    expires = 2027-01-01            # optional; the first day, in UTC, on which the key opens nothing

The file may be readable by others (``key_ring`` says why). No message of this module repeats a hash, or a key that was
put where its hash or its name belongs.
"""

from __future__ import annotations

import logging
import re
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from service.access.key_ring import MAX_REQUESTS_PER_MINUTE, ApiKey, KeyRing, Scope, digest_of
from service.access.new_key import NAME_RULE, is_name
from service.errors import StartupError

logger = logging.getLogger(__name__)

_VARIABLE: Final = "TRACEGRAD_API_KEYS_FILE"
_MAKE_ONE: Final = "'python -m service.access new NAME' makes a key and its table."
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_REASONS: Final = {
    "missing": "is missing",
    "extra_forbidden": "is not an entry of a key's table",
    "model_type": "is not a table",
}
"""Pydantic's errors that speak of pydantic, in words for the operator."""
_LIKE_A_SECRET: Final = re.compile(r"[0-9A-Fa-f]{32,}|tg_[A-Za-z0-9_-]*")


def _digest(text: str) -> str:
    if not _HEX.fullmatch(text):
        raise PydanticCustomError("sha256", "not 64 hexadecimal digits, the SHA-256 of a key")
    if bytes.fromhex(text) == digest_of(b""):
        raise PydanticCustomError("sha256", "the SHA-256 of an empty text, not of a key")
    return text


class _Entry(BaseModel):
    """A table as it stands in the file."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    sha256: Annotated[str, AfterValidator(_digest)] = Field(repr=False)
    scopes: Annotated[list[Scope], Field(min_length=1)]
    requests_per_minute: Annotated[int, Field(ge=1, le=MAX_REQUESTS_PER_MINUTE)] | None = None
    expires: date | None = None


def load_keys(path: Path) -> KeyRing:
    """Read a keys file.

    Raises:
        StartupError: the file cannot be read, is not TOML, holds no key, or an entry is not as it should be; with the
            name of the entry and what is wrong with it.
    """
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise StartupError(f"{_VARIABLE}: {path} cannot be read: {error.strerror}. {_MAKE_ONE}") from None
    except UnicodeDecodeError:
        raise StartupError(f"{_VARIABLE}: {path} is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"{_VARIABLE}: {path} is not TOML: {_redacted(str(error))}.") from None
    tables = document.pop("keys", {})
    if document:
        others = ", ".join(sorted(_redacted(name) for name in document))
        raise StartupError(f"{_VARIABLE}: {path} may hold [keys.NAME] tables and nothing else, but has: {others}.")
    if not isinstance(tables, dict) or not tables:
        raise StartupError(f"{_VARIABLE}: {path} holds no [keys.NAME] table, so nobody could call. {_MAKE_ONE}")
    keys = [_read(name, table) for name, table in tables.items()]
    _refuse_shared_keys(keys)
    today = datetime.now(UTC).date()
    for key in keys:
        if key.expired(today):
            logger.warning("the API key %s has expired", key.name)
    return KeyRing(keys)


def _read(name: str, table: Any) -> ApiKey:
    if not is_name(name):
        raise StartupError(f"{_VARIABLE}: an entry has the name {_redacted(name)[:64]!r}; {NAME_RULE}.")
    try:
        entry = _Entry.model_validate(table)
    except ValidationError as error:
        findings = error.errors(include_url=False, include_input=False, include_context=False)
        reasons = "; ".join(
            " ".join([*_place(finding["loc"]), _REASONS.get(finding["type"], "is wrong: " + finding["msg"])])
            for finding in findings
        )
        raise StartupError(f"{_VARIABLE}: the entry {name}: {reasons}. {_MAKE_ONE}") from None
    return ApiKey(
        name=name,
        digest=bytes.fromhex(entry.sha256),
        scopes=frozenset(entry.scopes),
        requests_per_minute=entry.requests_per_minute,
        expires=entry.expires,
    )


def _place(location: tuple[int | str, ...]) -> list[str]:
    """Where in a table: nothing for the table itself, else its field as one text."""
    return [repr(_redacted(".".join(str(part) for part in location)))] if location else []


def _refuse_shared_keys(keys: list[ApiKey]) -> None:
    """One key under two names has two quotas and no owner."""
    owners: dict[bytes, str] = {}
    for key in keys:
        if key.digest in owners:
            raise StartupError(
                f"{_VARIABLE}: the entries {owners[key.digest]} and {key.name} have the same sha256. "
                f"Give each its own key. {_MAKE_ONE}"
            )
        owners[key.digest] = key.name


def _redacted(text: str) -> str:
    return _LIKE_A_SECRET.sub("(hidden)", text)
