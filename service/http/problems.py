"""Problems as responses, and the exception handlers that make every error of the app one (RFC 9457)."""

from __future__ import annotations

import logging
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model.errors import ModelError
from service.answers.bytes import dump_json
from service.errors import Problem, ServiceError, is_internal, problem_of
from service.http.deadline import CLIENT_GONE, ClientGoneError
from service.http.route_table import fitting, route_patterns

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

_CODE_OF_STATUS: Final = {
    400: ("malformed_body", "The request cannot be read."),
    404: ("not_found", "There is no such route."),
    405: ("method_not_allowed", "The route does not know this method."),
    413: ("body_too_large", "The body is too large."),
}


class _ProblemResponse(Response):
    """Leaves its code in the state of the scope, where metrics and the log find it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(dump_json(problem.body), problem.status, problem.headers, media_type=MEDIA_TYPE)
        self._code = str(problem.body["code"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["problem_code"] = self._code
        await super().__call__(scope, receive, send)


def problem_response(problem: Problem) -> Response:
    """The response for a problem."""
    return _ProblemResponse(problem)


def install_handlers(app: FastAPI) -> None:
    """Make every exception that the routes raise a problem response."""
    app.add_exception_handler(ServiceError, _handle)
    app.add_exception_handler(ModelError, _handle)
    app.add_exception_handler(HTTPException, _handle_http)
    app.add_exception_handler(RequestValidationError, _handle_parameters)
    app.add_exception_handler(ClientGoneError, _handle_gone)


async def _handle(request: Request, error: Exception) -> Response:
    request_id = str(request.state.request_id)
    if is_internal(error):
        logger.error("request %s failed", request_id, exc_info=error)
    return problem_response(problem_of(error, request_id))


async def _handle_http(request: Request, error: Exception) -> Response:
    """Starlette's own errors: unknown routes and methods above all."""
    assert isinstance(error, HTTPException)
    if error.status_code not in _CODE_OF_STATUS:
        return await _handle(request, RuntimeError(f"unexpected HTTP error {error.status_code}"))
    code, detail = _CODE_OF_STATUS[error.status_code]
    allow = ", ".join(_methods(request)) if error.status_code == 405 else None
    return await _handle(
        request,
        ServiceError(
            code,
            detail,
            allowed=[method.strip() for method in allow.split(",")] if allow else None,
            hint="GET /openapi.json lists routes and methods.",
            headers={"Allow": allow} if allow else None,
        ),
    )


def _methods(request: Request) -> list[str]:
    """Every method that this path knows: the router's own Allow names those of one route only."""
    routes = fitting(route_patterns(request.app), request.scope)
    known = frozenset().union(*(route.methods for route in routes))
    return sorted(known | {"HEAD"} if "GET" in known else known)


async def _handle_parameters(request: Request, _: Exception) -> Response:
    """FastAPI's own validation (path parameters only): its findings hold the input, so none is repeated."""
    return await _handle(request, ServiceError("invalid_request", "A parameter of the request is not valid."))


async def _handle_gone(_request: Request, _error: Exception) -> Response:
    """For the records: nobody is there to read it."""
    return Response(status_code=CLIENT_GONE)
