"""``POST /v1/predict/batch``: many structures in one request, each with its answer or its problem; never all or nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.answer import Ask, answer
from service.answers.arrays import Result
from service.answers.bytes import BatchEntry, encode_batch
from service.answers.output_formats import ARRAY_FORMATS, OutputFormat, headers_of
from service.errors import ServiceError, is_internal, problem_of
from service.http.access import charge_for
from service.http.deadline import deadline, while_connected
from service.http.intake import read_request
from service.http.negotiation import choose_format
from service.http.openapi import structure_operation
from service.routes.ready import ready_services
from service.schemas.requests import BatchRequest
from service.schemas.responses import BatchAnswer
from service.schemas.structures import FileStructure
from service.state import Services, limits_of
from service.structures.build import SizeLimits, read_structure
from service.structures.formats import resolve_format
from service.structures.pool import RawStructure

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1", tags=["structures"])

LARGEST_ALLOWANCE: Final = 4
"""A batch may hold as many matrix elements as this many structures of the largest size: answers wait in memory."""

WORK_SHARE: Final = 0.9
"""Of the time limit; the rest is for writing what is ready."""


@dataclass(frozen=True)
class _Allowance(SizeLimits):
    """The caps on one structure, and one on the matrices of all structures of a batch together.

    Attributes:
        elements_left: of one matrix for each structure, in a list of one number.
    """

    elements_left: list[int] = field(default_factory=list)

    def check_orbitals(self, count: int, *, sparse: bool = False, sparse_as_job: bool = False) -> None:
        """Raise ``too_many_orbitals`` for this structure, or because those before it took all the room."""
        super().check_orbitals(count, sparse=sparse, sparse_as_job=sparse_as_job)
        self.elements_left[0] -= count**2
        if self.elements_left[0] < 0:
            raise ServiceError(
                "too_many_orbitals",
                "The matrices of the structures before this one fill what a batch may hold.",
                field="structures",
                hint="Send the rest in another request.",
            )


@router.post(
    "/predict/batch",
    summary="Predict the Kohn-Sham Hamiltonians of many structures",
    openapi_extra=structure_operation(BatchRequest, ARRAY_FORMATS, BatchAnswer),
    response_class=Response,
)
async def predict_batch(request: Request) -> Response:
    """Send up to 256 structures as JSON, or a file of many frames; each gets its own answer or its own problem."""
    services = ready_services(request)
    started = time.perf_counter()
    async with deadline(services.settings.request_timeout_s):
        limit = services.settings.max_batch_structures
        body = await read_request(request, BatchRequest, max_structures=limit)
        form = choose_format(body.format_out, request.headers.get("accept"), ARRAY_FORMATS)
        work = _answers(
            services, body, form, str(request.state.request_id), started, partial(charge_for, request.scope)
        )
        return await while_connected(request, work)


async def _answers(
    services: Services,
    body: BatchRequest,
    form: OutputFormat,
    request_id: str,
    started: float,
    charge: Callable[[int], None],
) -> Response:
    services.registry.expect(body.model)
    caps = limits_of(services.settings)
    limits = _Allowance(**vars(caps), elements_left=[LARGEST_ALLOWANCE * caps.max_orbitals**2])

    async def one(raw: RawStructure) -> Result:
        ask = Ask(raw, body, form, limits, request_id, encoded=False, patient=True, started=started)
        content = (await answer(services, ask)).content
        assert isinstance(content, Result)
        return content

    if not _is_one_file(body):
        charge(len(body.structures))
    raw = await _read_all(services, body)
    if _is_one_file(body):
        charge(len(raw))
    tasks = [item if isinstance(item, Exception) else asyncio.create_task(one(item)) for item in raw]
    running = [task for task in tasks if isinstance(task, asyncio.Task)]
    try:
        if running:
            left = WORK_SHARE * services.settings.request_timeout_s - (time.perf_counter() - started)
            await asyncio.wait(running, timeout=max(0.0, left))
        entries = [_entry(task, request_id) for task in tasks]
    finally:
        for task in running:
            task.cancel()
    answered = [entry.meta.model for entry in entries if isinstance(entry, Result)]
    meta = {
        "model": answered[0] if answered else body.model or services.registry.defaults["molecules"],
        "models": sorted(set(answered)),
        "request_id": request_id,
        "count": len(entries),
        "succeeded": len(answered),
        "failed": len(entries) - len(answered),
        "total_ms": round(1000.0 * (time.perf_counter() - started), 3),
    }
    content = await services.encode(encode_batch, form.name, meta, entries)
    return Response(
        content, media_type=form.media_type, headers={**headers_of(form, "predictions", ()), "Vary": "Accept"}
    )


def _is_one_file(body: BatchRequest) -> bool:
    (first, *others) = body.structures
    return not others and isinstance(first, FileStructure) and first.frame is None


async def _read_all(services: Services, body: BatchRequest) -> Sequence[RawStructure | Exception]:
    """Every structure as plain numbers, or what is wrong with it; a single file may hold many."""
    if _is_one_file(body):
        file = cast(FileStructure, body.structures[0])
        most = services.settings.max_batch_structures
        return await services.parsers.parse_many(resolve_format(file.format), file.text, most)
    raw: list[RawStructure | Exception] = []
    for wire in body.structures:
        try:
            raw.append(await read_structure(wire, services.parsers, limits_of(services.settings)))
        except ServiceError as error:
            raw.append(error)
    return raw


def _entry(task: asyncio.Task[Result] | Exception, request_id: str) -> BatchEntry:
    if isinstance(task, Exception):
        return problem_of(task, request_id)
    if not task.done():
        late = "This structure's turn did not come within the time of the request."
        hint = "Send fewer structures in one request."
        return problem_of(ServiceError("deadline_exceeded", late, hint=hint), request_id)
    error = task.exception()
    if error is None:
        return task.result()
    assert isinstance(error, Exception)
    if is_internal(error):
        logger.error("a structure of request %s failed", request_id, exc_info=error)
    return problem_of(error, request_id)
