"""Idempotency keys: which job was made of which request under which key. They go with their job."""

from __future__ import annotations

import sqlite3

from service.errors import ServiceError
from service.jobs.records import JobRequest


def job_under_key(rows: sqlite3.Connection, request: JobRequest, owner: str | None) -> str | None:
    """Id of the owner's job that was made under the request's key; None where there is none, or no key.

    Raises:
        ServiceError: ``invalid_request``; it was made of another request.
    """
    if request.key is None:
        return None
    found = rows.execute(
        "SELECT jobs.id, keys.request FROM keys JOIN jobs USING (sequence) WHERE keys.key = ? AND keys.owner IS ?",
        (request.key, owner),
    ).fetchone()
    if found is None:
        return None
    if found["request"] != request.digest:
        raise ServiceError(
            "invalid_request",
            "Another request was sent under this Idempotency-Key, and its job is still there.",
            field="Idempotency-Key",
            hint="Send a new key with a new request; the same key is for repeating the same request.",
        )
    return str(found["id"])


def remember_key(rows: sqlite3.Connection, sequence: int | None, request: JobRequest, owner: str | None) -> None:
    """Put down that a job was made under the request's key, if it has one."""
    if request.key is not None:
        rows.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", (sequence, owner, request.key, request.digest))
