"""From an HTTP request to its response: read, negotiate, predict, encode; with a deadline, and an eye on the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from service import prediction
from service.errors import ServiceError
from service.http.intake import read_request
from service.http.negotiation import JSON, OutputFormat, choose_format
from service.http.observer import CLIENT_GONE
from service.observability.tracing import span
from service.schemas.requests import GuessRequest, PredictRequest
from service.serving.cache import matches
from service.state import Services, ready_services
from service.structures.build import raw_structure

T = TypeVar("T")
StructureRequest = TypeVar("StructureRequest", PredictRequest, GuessRequest)


class ClientGoneError(Exception):
    """The caller closed the connection before the answer was ready."""


async def answer_request(
    request: Request, model: type[StructureRequest], formats: Sequence[OutputFormat], file_stem: str
) -> Response:
    """Answer a structure route.

    Args:
        request: of any of the three ways.
        model: the request model of the route.
        formats: what the route can write.
        file_stem: stem of the file name offered for binary answers.

    Raises:
        ServiceError, ModelError: with a code of the error table.
    """
    services = ready_services(request)
    try:
        async with deadline(services):
            return await _answer(request, services, model, formats, file_stem)
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)


def deadline(services: Services) -> _Deadline:
    """The time that a request may take."""
    return _Deadline(services.settings.request_timeout_s)


class _Deadline:
    """``asyncio.timeout`` whose TimeoutError is the contract's error."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)  # type: ignore[arg-type]
        except TimeoutError as late:
            raise ServiceError(
                "deadline_exceeded",
                f"The answer was not ready within {self._seconds:g} s.",
                hint="Try again later, or send a smaller structure.",
            ) from late


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Wait for ``work`` as long as the caller does; the body must have been read.

    Raises:
        ClientGoneError: the caller left; ``work`` is cancelled.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        for future in (task, gone):
            if not future.done():
                future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _answer(
    request: Request,
    services: Services,
    model: type[StructureRequest],
    formats: Sequence[OutputFormat],
    file_stem: str,
) -> Response:
    started = time.perf_counter()
    body = await read_request(request, model)
    chosen = choose_format(body.format_out, request.headers.get("accept"), formats)
    plan = prediction.make_plan(services, body, chosen)

    async def work() -> Response:
        parse_started = time.perf_counter()
        with span("parse"):
            raw = await raw_structure(body.structure, services.parsers)
        parse_ms = 1000.0 * (time.perf_counter() - parse_started)
        services.metrics.stage(plan.loaded.name, "parse", parse_ms / 1e3)
        accepted = prediction.accept(plan, raw, services.settings, parse_ms=parse_ms, started=started)
        tag = accepted.entity_tag
        if matches(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers=_headers(tag))
        computed = await prediction.compute(services, accepted)
        serialise_started = time.perf_counter()
        with span("serialise"):
            content = await prediction.render(services, accepted, computed, request.state.request_id)
        services.metrics.stage(plan.loaded.name, "serialise", time.perf_counter() - serialise_started)
        return structure_response(content, chosen, file_stem, tag, prediction.all_warnings(accepted, computed))

    return await while_connected(request, work())


def structure_response(
    content: bytes, chosen: OutputFormat, file_stem: str, tag: str | None, warnings: Sequence[str]
) -> Response:
    """An encoded answer with its headers."""
    response = Response(content, media_type=chosen.media_type, headers=_headers(tag))
    if chosen is not JSON:
        response.headers["Content-Disposition"] = f'attachment; filename="{file_stem}.{chosen.suffix}"'
    for warning in warnings:
        response.headers.append("Warning", f'299 tracegrad "{header_text(warning)}"')
    return response


def _headers(tag: str | None) -> dict[str, str]:
    headers = {"Vary": "Accept"}
    if tag is not None:
        # it may be kept by the caller, and must be asked about again: the model may have been replaced
        headers |= {"ETag": tag, "Cache-Control": "private, no-cache"}
    return headers


def header_text(text: str, limit: int = 500) -> str:
    """A text as the inside of a quoted string in a header: printable ASCII, no quotes or backslashes."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in text)[:limit]
