"""The ASGI layer that lets a request in or not, before a byte of its body is read.

=====================  ====================  ============================================
path                   without a keys file   with one
=====================  ====================  ============================================
/v1/admin...           closed (403)          a key with the scope ``admin``
the OPEN_PATHS         open                  open
everything else        open                  a key with the scope ``predict``
=====================  ====================  ============================================

"Everything else" and not "/v1": a route that someone adds is closed until it is named here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Final

# The path as the router will read it (a root path is cut off): with another reading a request could pass as one route
# here and be answered by another there.
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import key_ring, work
from service.access.key_ring import ApiKey, KeyRing
from service.access.quota import Quotas
from service.errors import ServiceError, problem_of
from service.http.problems import problem_response
from service.observability import logs
from service.serving.turns import KEY_CALLER, caller

OPEN_PATHS: Final = frozenset({"/", "/docs", "/openapi.json", "/metrics"})
OPEN_PREFIX: Final = "/health/"
ADMIN_PREFIX: Final = "/v1/admin"

MAX_KEY_BYTES: Final = 256
"""A longer one is as good as none: what is hashed for a stranger is bounded."""


class AccessMiddleware:
    """Admits requests, and puts the name of their key into ``scope["state"]["key_name"]``; see :func:`charge_for`.

    The name is None where no key was needed. It is set for requests that are refused for their scope or their quota,
    too: these belong to the key's owner.

    Args:
        app: what is behind.
        keys: the keys, or None if the service has no keys file.
        quota_orbitals: orbitals of a structure that counts as one request; 0: all structures do.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing | None, quota_orbitals: int = 0) -> None:
        self._app = app
        self._keys = keys
        self._quota_orbitals = quota_orbitals
        self._quotas = Quotas() if keys is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["key_name"] = None
        client = scope.get("client")
        caller.set(client[0] if client else "")
        work.charge.set(None)
        try:
            self._admit(scope)
        except ServiceError as error:
            await problem_response(problem_of(error, state.get("request_id", "")))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        needed = needed_scope(get_route_path(scope))
        if self._keys is None or self._quotas is None:
            if needed == "admin":
                raise ServiceError(
                    "forbidden",
                    "The admin routes are closed, since this service has no keys.",
                    hint="The operator makes an admin key with 'python -m service.access new NAME --admin' and names the "
                    "file that holds its table in TRACEGRAD_API_KEYS_FILE.",
                )
            return
        if needed is None:
            return
        key = self._keys.find(presented_key(scope["headers"]), datetime.now(UTC).date())
        if key is None:
            # One text for every reason: a stranger does not learn that a key was right once.
            raise ServiceError(
                "missing_key",
                "No valid API key came with the request.",
                hint="Send one in a header, 'Authorization: Bearer KEY' or 'X-API-Key: KEY'. The operator of this "
                "service gives them out.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        scope["state"]["key_name"] = key.name
        logs.note(key_name=key.name)
        caller.set(KEY_CALLER + key.name)
        charge = partial(_charge, key, self._quotas)
        charge(1)
        scope["state"]["charge"] = charge
        # the first of what a structure counts has been counted with its request
        work.charge.set(lambda n_orbitals: charge(work.weight(n_orbitals, self._quota_orbitals) - 1, 1))
        if needed not in key.scopes:
            raise ServiceError(
                "forbidden",
                f"This API key does not have the scope '{needed}', which the route needs.",
                hint="Ask the operator of this service for a key that has it.",
            )


def _charge(key: ApiKey, quotas: Quotas, count: int, counted: int = 0) -> None:
    wait_s = quotas.take(key, count)
    if wait_s is None:
        return
    quota = key.requests_per_minute or 0
    if count + counted > quota:
        raise ServiceError(
            "quota_exceeded",
            f"The request counts as more than the {quota} a minute of this API key.",
            hint="Send fewer or smaller structures in one request.",
            retry_after_s=wait_s,
        )
    raise ServiceError(
        "quota_exceeded",
        f"The {quota} requests a minute of this API key are spent.",
        hint="Try again after the time in Retry-After.",
        retry_after_s=wait_s,
    )


def charge_for(scope: Scope, count: int) -> None:
    """Count the structures of a request beyond its first against its key, where it has one.

    Raises:
        ServiceError: ``quota_exceeded``.
    """
    charge = scope["state"].get("charge")
    if charge is not None:
        charge(count - 1, 1)


def needed_scope(path: str) -> key_ring.Scope | None:
    """The scope that a path asks for; None for the open ones."""
    if path.startswith(ADMIN_PREFIX):
        return "admin"
    if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
        return None
    return "predict"


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key of a request; empty if there is none.

    X-API-Key goes before Authorization, where a proxy may have put credentials of its own. Bytes stay bytes: a header
    need not be text.
    """
    found = {name.lower(): value.strip() for name, value in headers}
    key = found.get(b"x-api-key", b"")
    if not key:
        scheme, _, token = found.get(b"authorization", b"").partition(b" ")
        key = token.strip() if scheme.lower() == b"bearer" else b""
    return key if len(key) <= MAX_KEY_BYTES else b""
