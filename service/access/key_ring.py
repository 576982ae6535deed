"""The keys that a service knows, as hashes, and the search among them.

A hash is plain SHA-256, without salt and without a slow function. Both of those protect secrets that can be guessed.
A key here is 256 random bits: no table and no search ever reaches it, so a keys file that is read by others gives
nothing away, and a slow hash would only make every request dear.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal

Scope = Literal["predict", "admin"]
MAX_REQUESTS_PER_MINUTE: Final = 100_000


def digest_of(key: bytes) -> bytes:
    """What is stored of a key: its SHA-256, 32 bytes."""
    return hashlib.sha256(key).digest()


@dataclass(frozen=True)
class ApiKey:
    """What the service knows of one key.

    Attributes:
        name: what logs and jobs call its owner.
        digest: SHA-256 of the key, 32 bytes.
        scopes: what it opens: ``predict`` everything but the admin routes, ``admin`` these.
        requests_per_minute: the quota; None is none.
        expires: the first day, in UTC, on which it opens nothing any more; None is never.
    """

    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
    requests_per_minute: int | None = None
    expires: date | None = None

    def expired(self, today: date) -> bool:
        """Whether it opens nothing on this day (UTC)."""
        return self.expires is not None and today >= self.expires


class KeyRing:
    """All keys of the service."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = tuple(keys)

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """In the order of the file."""
        return self._keys

    def find(self, presented: bytes, today: date) -> ApiKey | None:
        """The entry of a key as it came in a header; None if it is unknown or expired on this day (UTC).

        The work is the same for every outcome: one hash, and one comparison with each entry. How long it takes tells
        nobody which entry, or how many bytes of one, were right.
        """
        digest = digest_of(presented)
        found: ApiKey | None = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return None if found is None or found.expired(today) else found
