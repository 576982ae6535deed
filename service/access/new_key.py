"""New keys: random text for the caller, and the table with its hash for the operator's keys file."""

from __future__ import annotations

import re
import secrets
from datetime import date
from typing import Final

from service.access.key_ring import digest_of

KEY_PREFIX: Final = "tg_"
"""Lets people and secret scanners recognise a key."""
KEY_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME_RULE: Final = (
    f"a name has 1 to 64 letters, digits, dashes or underscores, and does not begin with {KEY_PREFIX} as keys do"
)


def is_name(name: str) -> bool:
    """Whether this may name a key: short, harmless in logs, a bare TOML name, and not itself a key."""
    return _NAME.fullmatch(name) is not None and not name.startswith(KEY_PREFIX)


def new_key() -> str:
    """``tg_`` and 43 URL-safe characters: 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def table_of(
    name: str, key: str, *, admin: bool = False, requests_per_minute: int | None = None, expires: date | None = None
) -> str:
    """The TOML table of a key. It holds the hash of the key and not the key.

    Args:
        name: see :data:`NAME_RULE`.
        key: the key itself.
        admin: open the admin routes too.
        requests_per_minute: the quota.
        expires: the first day, in UTC, on which the key opens nothing any more.
    """
    lines = [
        f"[keys.{name}]",
        f'sha256 = "{digest_of(key.encode()).hex()}"',
        'scopes = ["predict", "admin"]' if admin else 'scopes = ["predict"]',
    ]
    if requests_per_minute is not None:
        lines.append(f"requests_per_minute = {requests_per_minute}")
    if expires is not None:
        lines.append(f"expires = {expires.isoformat()}")
    return "\n".join(lines) + "\n"
