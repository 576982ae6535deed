"""Many structures in one request: each gets its answer or its problem; never all or nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from model.errors import ModelError
from service import prediction
from service.answers.arrays import Result
from service.answers.bytes import BatchEntry, encode_batch
from service.errors import ServiceError, is_internal, problem_of
from service.http.intake import read_request
from service.http.negotiation import PREDICT_FORMATS, choose_format
from service.http.observer import CLIENT_GONE
from service.pipeline import ClientGoneError, deadline, structure_response, while_connected
from service.schemas.requests import BatchRequest
from service.schemas.structures import FileStructure
from service.state import Services, ready_services
from service.structures.build import raw_structure
from service.structures.formats import resolve_format
from service.structures.pool import RawStructure

logger = logging.getLogger(__name__)

LARGEST_ALLOWANCE: Final = 4
"""A batch may hold as many matrix elements as this many structures of the largest size: answers wait in memory."""

WORK_SHARE: Final = 0.9
"""Of the time limit; the rest is for writing what is ready."""


async def answer_batch(request: Request) -> Response:
    """Answer the batch route.

    Raises:
        ServiceError: what is wrong with the request as a whole.
    """
    services = ready_services(request)
    started = time.perf_counter()
    try:
        async with deadline(services):
            body = await read_request(request, BatchRequest)
            return await while_connected(request, _answer(request, services, body, started))
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)


async def _answer(request: Request, services: Services, body: BatchRequest, started: float) -> Response:
    limit = services.settings.max_batch_structures
    if len(body.structures) > limit:
        raise ServiceError(
            "too_many_structures",
            f"The request holds {len(body.structures)} structures; this server takes at most {limit}.",
            field="structures",
            hint="Send them in parts.",
        )
    chosen = choose_format(body.format_out, request.headers.get("accept"), PREDICT_FORMATS)
    plan = prediction.make_plan(services, body, chosen)
    raw = await _read_all(services, body, limit)
    request_id = str(request.state.request_id)
    accepted = _accept_all(services, plan, raw, started)
    tasks = [
        asyncio.create_task(_one(services, item, request_id)) if isinstance(item, prediction.Accepted) else item
        for item in accepted
    ]
    running = [task for task in tasks if isinstance(task, asyncio.Task)]
    try:
        if running:
            left = WORK_SHARE * services.settings.request_timeout_s - (time.perf_counter() - started)
            await asyncio.wait(running, timeout=max(0.0, left))
        entries = [_entry(task, request_id) for task in tasks]
    finally:
        for task in running:
            task.cancel()
    succeeded = sum(isinstance(entry, Result) for entry in entries)
    meta = {
        "model": plan.loaded.name,
        "request_id": request_id,
        "count": len(entries),
        "succeeded": succeeded,
        "failed": len(entries) - succeeded,
        "total_ms": round(1000.0 * (time.perf_counter() - started), 3),
    }
    content = await services.encode(encode_batch, chosen.name, meta, entries)
    return structure_response(content, chosen, "predictions", None, ())


async def _read_all(services: Services, body: BatchRequest, limit: int) -> Sequence[RawStructure | Exception]:
    """Every structure as plain numbers, or what is wrong with it; a single file may hold many."""
    if len(body.structures) == 1 and isinstance(body.structures[0], FileStructure):
        file = body.structures[0]
        return await services.parsers.parse_many(resolve_format(file.format), file.text, limit)
    raw: list[RawStructure | Exception] = []
    for wire in body.structures:
        try:
            raw.append(await raw_structure(wire, services.parsers))
        except ServiceError as error:
            raw.append(error)
    return raw


def _accept_all(
    services: Services, plan: prediction.Plan, raw: Sequence[RawStructure | Exception], started: float
) -> list[prediction.Accepted | Exception]:
    allowance = LARGEST_ALLOWANCE * services.settings.max_orbitals**2
    parse_ms = 1000.0 * (time.perf_counter() - started)
    accepted: list[prediction.Accepted | Exception] = []
    for item in raw:
        if isinstance(item, Exception):
            accepted.append(item)
            continue
        try:
            one = prediction.accept(plan, item, services.settings, parse_ms=parse_ms, started=started)
            allowance -= one.n_orbitals**2
            if allowance < 0:
                raise ServiceError(
                    "too_many_orbitals",
                    "The matrices of the structures before this one fill what a batch may hold.",
                    field="structures",
                    hint="Send the rest in another request.",
                )
            accepted.append(one)
        except (ServiceError, ModelError) as error:
            accepted.append(error)
    return accepted


async def _one(services: Services, accepted: prediction.Accepted, request_id: str) -> Result:
    computed = await prediction.compute(services, accepted, patient=True)
    return await services.encode(prediction.result, accepted, computed, request_id)


def _entry(task: asyncio.Task[Result] | Exception, request_id: str) -> BatchEntry:
    if isinstance(task, Exception):
        return problem_of(task, request_id)
    if not task.done():
        return problem_of(
            ServiceError(
                "deadline_exceeded",
                "This structure's turn did not come within the time of the request.",
                hint="Send fewer structures in one request.",
            ),
            request_id,
        )
    error = task.exception()
    if error is None:
        return task.result()
    assert isinstance(error, Exception)
    if is_internal(error):
        logger.error("a structure of request %s failed", request_id, exc_info=error)
    return problem_of(error, request_id)
