"""The ASGI layer that keeps pages of other sites away from a service that takes everybody who reaches it.

A browser on the machine of a service without keys is such a caller, and it does what any page says: it posts across
sites without asking first where the body is text, and reads answers where the page's own name has been pointed at this
machine (DNS rebinding). Host tells the second, Origin the first; no page can forge either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError, problem_of
from service.http.problems import problem_response

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class LocalCallersMiddleware:
    """Refuses requests to names that are not the service's, and those of other sites' pages.

    Args:
        app: what is behind.
        hosts: names that Host may have, without a port.
        origins: of pages that may call; "*" for all.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            error = self._refusal(headers.getlist("host"), headers.getlist("origin"))
            if error is not None:
                request_id = scope.setdefault("state", {}).get("request_id", "")
                await problem_response(problem_of(error, request_id))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, hosts: Sequence[str], origins: Sequence[str]) -> ServiceError | None:
        # HTTP/1.0 has no Host, but no browser speaks it
        if any(_name_of(host) not in self._hosts for host in hosts):
            return ServiceError(
                "forbidden",
                "This service is not called by that name.",
                field="Host",
                hint="Call it by an address of its own, or name the host in TRACEGRAD_ALLOWED_HOSTS.",
            )
        own = {f"http://{host}" for host in hosts} | {f"https://{host}" for host in hosts}
        if "*" not in self._origins and any(origin not in self._origins | own for origin in origins):
            return ServiceError(
                "forbidden",
                "Pages of other sites may not call this service.",
                field="Origin",
                hint="Name the page's origin in TRACEGRAD_CORS_ORIGINS.",
            )
        return None


def _name_of(host: str) -> str | None:
    """The name in a Host header, in lower case and without its port; None where it is more than that."""
    if any(character in host for character in "@/?#\\"):
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
