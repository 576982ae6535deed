"""ASGI layers around all routes: the request id (with the last word on errors), other origins, HEAD, the cap on the body."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError, is_internal, problem_of
from service.http.observer import Observer
from service.http.problems import problem_response

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER: Final = "X-Request-ID"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIdMiddleware:
    """Gives each request an id, puts it on the answer, and turns an exception that nobody handled into a problem.

    A caller's own X-Request-ID is kept if it is made of 1 to 64 letters, digits, dots, dashes and underscores; anything
    else is replaced, since it would go into logs and headers.

    Args:
        app: what is behind.
        observer: counts, logs and traces every request.
    """

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            record.sent(message)
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with self._observer.request(scope, request_id) as record:
            try:
                await self._app(scope, receive, send_with_id)
            except ClientDisconnect:
                logger.info("the client left before its request was read")
            except Exception as error:
                if is_internal(error):
                    logger.exception("request %s failed", request_id)
                if started:
                    record.broken()
                    raise  # half an answer is out: the connection must break
                await problem_response(problem_of(error, request_id))(scope, receive, send_with_id)


class CrossOriginMiddleware(CORSMiddleware):
    """Lets pages of the operator's origins call the service from a browser, and read the headers that matter.

    Args:
        app: what is behind.
        origins: such as ``https://example.org``, or ``*`` for all.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=("Authorization", "X-API-Key", "Content-Type", "If-None-Match", REQUEST_ID_HEADER),
            expose_headers=(REQUEST_ID_HEADER, "ETag", "Location", "Retry-After", "Warning", "Content-Disposition"),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Starlette's answer; a refusal is a problem like every other."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        raise ServiceError(
            "forbidden",
            "Pages of this origin may not send such a request.",
            hint="The operator names the origins in TRACEGRAD_CORS_ORIGINS.",
        )


class HeadMiddleware:
    """Answers HEAD as GET, without the body: routes need not know of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)


class BodyLimitMiddleware:
    """Refuses a body above the limit: at once if Content-Length says so, else when the bytes counted exceed it.

    Counting matters: a chunked body has no Content-Length.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > self._limit):
            request_id = scope.get("state", {}).get("request_id", "")
            await problem_response(problem_of(self._error(), request_id))(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._limit:
                    raise self._error()
            return message

        await self._app(scope, counting_receive, send)

    def _error(self) -> ServiceError:
        return ServiceError(
            "body_too_large",
            f"The body is larger than {self._limit} bytes, the limit of this server.",
            hint="Send one structure for each request, without trajectories or volume data.",
            headers={"Connection": "close"},
        )
