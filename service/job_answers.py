"""A job's answer: the same road that a request takes, with the larger limits of jobs and with patience."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from service.answer import NOTHING_NEW, Answered, Ask, answer
from service.answers.output_formats import BAND_FORMATS, GUESS_FORMATS, PREDICT_FORMATS, OutputFormat
from service.errors import ServiceError
from service.jobs.records import JobRequest, Rendered
from service.schemas.jobs import Kind
from service.schemas.requests import BandsRequest, DosRequest, GuessRequest, PredictRequest
from service.serving.backend import Report
from service.state import Services, job_limits_of
from service.structures.pool import RawStructure

READERS: Final[Mapping[Kind, Callable[[str], PredictRequest | GuessRequest | BandsRequest | DosRequest]]] = {
    "predict": PredictRequest.model_validate_json,
    "initial-guess": GuessRequest.model_validate_json,
    "bands": BandsRequest.model_validate_json,
    "dos": DosRequest.model_validate_json,
}
FORMATS: Final[Mapping[Kind, Sequence[OutputFormat]]] = {
    "predict": PREDICT_FORMATS,
    "initial-guess": GUESS_FORMATS,
    "bands": BAND_FORMATS,
    "dos": BAND_FORMATS,
}


def read_job(
    request: JobRequest,
) -> tuple[PredictRequest | GuessRequest | BandsRequest | DosRequest, OutputFormat]:
    """The request of a job as it was stored, and the format of its answer.

    Raises:
        ServiceError: ``invalid_request``, where another version of the service took it in and this one would not.
    """
    try:
        body = READERS[request.kind](request.body)
        return body, {form.name: form for form in FORMATS[request.kind]}[request.format_out]
    except (ValidationError, KeyError):
        raise ServiceError(
            "invalid_request",
            "The job was submitted to another version of this service, which took other fields.",
            hint="Submit it again.",
        ) from None


async def check_job(services: Services, request: JobRequest) -> None:
    """Read the structure, and refuse what no model here can compute.

    Raises:
        ServiceError, ModelError: as the route of this kind.
    """
    await _answer(services, request, _unheard, NOTHING_NEW)


def _unheard(stage: str, done: int = 0, of: int = 0, /) -> None:
    """Nobody follows a check."""


async def compute_job(services: Services, request: JobRequest, report: Report) -> Rendered:
    """The answer of the route of this kind.

    Raises:
        ServiceError, ModelError: as that route.
    """
    return await render_job(services, request, None, report)


async def render_job(
    services: Services, request: JobRequest, structure: RawStructure | None, report: Report
) -> Rendered:
    """The answer of the route of this kind, of a structure that may have been read before.

    Raises:
        ServiceError, ModelError: as that route.
    """
    answered, form = await _answer(services, request, report, None, structure)
    assert isinstance(answered.content, bytes)
    return Rendered(answered.content, form.media_type, dict(answered.headers))


async def _answer(
    services: Services,
    request: JobRequest,
    report: Report,
    known_tags: str | None,
    structure: RawStructure | None = None,
) -> tuple[Answered, OutputFormat]:
    body, form = await asyncio.to_thread(read_job, request)
    ask = Ask(
        body.structure if structure is None else structure,
        body,
        form,
        job_limits_of(services.settings),
        request.request_id,
        known_tags=known_tags,
        patient=True,
        on_stage=report,
    )
    return await answer(services, ask), form
