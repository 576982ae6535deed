"""``/v1/jobs``: structures too large to wait for. 202 at once, then status, result and deletion by the job's id."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, BinaryIO, Final

from fastapi import APIRouter, Path, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.answers.bytes import dump_json
from service.answers.output_formats import JOB_FORMATS
from service.errors import Problem, ServiceError, retry_after
from service.http.deadline import deadline
from service.http.intake import read_request
from service.http.negotiation import choose_format
from service.http.openapi import job_result_operation, refusals, structure_operation
from service.http.problems import problem_response
from service.http.validation import service_error
from service.job_answers import FORMATS
from service.jobs.records import JobRecord, JobRequest
from service.jobs.runner import JobRunner
from service.observability.logs import utc_text
from service.routes.ready import ready_services
from service.schemas.jobs import JobStatus, JobSubmission, Kind
from service.schemas.requests import BandsOptions, DosOptions, GuessOptions, PredictOptions, StructureOptions
from service.state import Services

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobId = Annotated[str, Path(alias="id", description="As the submission's answer says.")]

_KEY: Final = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")
OPTIONS: Final[Mapping[Kind, type[StructureOptions]]] = {
    "predict": PredictOptions,
    "initial-guess": GuessOptions,
    "bands": BandsOptions,
    "dos": DosOptions,
}
_CHUNK_BYTES: Final = 1024 * 1024

_SUBMISSION: Final = structure_operation(JobSubmission, JOB_FORMATS, None)
_SUBMISSION["parameters"].append(
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "description": "The same request under the same key is the same job; another request under it is refused.",
    }
)


@router.post(
    "",
    status_code=202,
    summary="Submit a structure that is too large to wait for",
    openapi_extra=_SUBMISSION,
    responses={202: {"model": JobStatus, "description": "Accepted, and on disk."}},
    response_class=Response,
)
async def submit_job(request: Request) -> Response:
    """Send what `/v1/predict`, `/v1/initial-guess`, `/v1/bands` or `/v1/dos` takes, and which of them in `kind`.

    With an `Idempotency-Key` of the caller's choice the same request makes one job, however often it is sent.
    """
    services = ready_services(request)
    async with deadline(services.settings.request_timeout_s):
        submission = await read_request(request, JobSubmission)
        chosen = choose_format(submission.format_out, request.headers.get("accept"), FORMATS[submission.kind])
        body = await run_in_threadpool(_stored_body, submission)
        key = _idempotency_key(request)
        job = JobRequest(submission.kind, body, chosen.name, str(request.state.request_id), key)
        record = await _runner(services).submit(job, _owner(request))
    response = _status(request, record, 202)
    response.headers["Location"] = _links(request, record)["status"]
    return response


@router.get(
    "/{id}",
    summary="How far a job is",
    openapi_extra=refusals("job", "ready"),
    responses={200: {"model": JobStatus}},
    response_class=Response,
)
async def show_job(request: Request, job_id: JobId) -> Response:
    """State, progress and times of a job. While it is not finished, Retry-After says when to ask again."""
    record = await _runner(ready_services(request)).status(job_id, _owner(request))
    return _status(request, record, 200)


@router.get(
    "/{id}/result",
    summary="What a job gave",
    openapi_extra=job_result_operation(JOB_FORMATS),
    response_class=Response,
)
async def job_result(request: Request, job_id: JobId) -> Response:
    """The answer in the format chosen at submission; the job's problem if it failed; 409 if it is not finished."""
    runner = _runner(ready_services(request))
    record = await runner.status(job_id, _owner(request))
    if record.problem is not None:
        return problem_response(_problem(request, record.problem))
    if record.result is None:
        raise ServiceError(
            "job_not_finished",
            f"The job is {record.state}.",
            hint="Ask again after the time in Retry-After; the job's status tells how far it is.",
            retry_after_s=_retry_after_s(record),
        )
    file = await runner.open_result(record)
    return _FileResponse(file, record.result.size, record.result.media_type, record.result.headers)


@router.delete(
    "/{id}",
    status_code=204,
    summary="Delete a job with all its data",
    openapi_extra=refusals("job", "ready"),
    response_class=Response,
)
async def delete_job(request: Request, job_id: JobId) -> Response:
    """Takes a job out of the queue, stops it, or deletes its result; nothing of it is kept."""
    await _runner(ready_services(request)).remove(job_id, _owner(request))
    return Response(status_code=204)


def _runner(services: Services) -> JobRunner:
    if services.jobs is None:
        raise ServiceError(
            "not_found",
            "This server takes no jobs.",
            hint="Ask the operator which one does; behind a proxy it is the one that /v1/jobs leads to.",
        )
    return services.jobs


class _FileResponse(StreamingResponse):
    """An open file as a response; it is closed whatever becomes of the connection.

    Not by its name, which may be gone: a download that has begun survives the deletion of its job.
    """

    def __init__(self, file: BinaryIO, size: int, media_type: str, headers: dict[str, str]) -> None:
        super().__init__(_chunks(file), media_type=media_type, headers={**headers, "Content-Length": str(size)})
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await run_in_threadpool(file.read, _CHUNK_BYTES):
        yield chunk


def _stored_body(submission: JobSubmission) -> str:
    """The request of the submission's kind as JSON, with what the caller gave and no defaults.

    Raises:
        ServiceError: an option that this kind does not have.
    """
    given = submission.model_fields_set - {"kind", "structure", "overlap"}
    try:
        OPTIONS[submission.kind].model_validate({name: getattr(submission, name) for name in given})
    except ValidationError as error:
        raise service_error(error) from None
    return submission.model_dump_json(exclude_unset=True, exclude={"kind"})


def _idempotency_key(request: Request) -> str | None:
    """The header's text, None where it is absent.

    Raises:
        ServiceError: ``invalid_request``.
    """
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or _KEY.fullmatch(keys[0]) is None:
        raise ServiceError(
            "invalid_request",
            "The Idempotency-Key is not one text of 1 to 255 printable ASCII characters.",
            field="Idempotency-Key",
            hint="Send a UUID, a new one for each new request.",
        )
    return keys[0]


def _owner(request: Request) -> str | None:
    """Name of the request's API key; None where keys are off."""
    name: str | None = request.scope.get("state", {}).get("key_name")
    return name


def _status(request: Request, record: JobRecord, status: int) -> Response:
    known = vars(record)
    body = {
        **{name: known[name] for name in ("id", "kind", "format_out", "state", "attempts", "request_id")},
        **{name: _utc(known[name]) for name in ("created", "started", "finished", "expires")},
        "progress": record.progress.model_dump(),
        "problem": None if record.problem is None else _problem(request, record.problem).body,
        "links": _links(request, record),
        "artifacts": _artifacts(request, record),
    }
    response = Response(dump_json(body), status, media_type="application/json")
    if record.state in ("queued", "running"):
        response.headers["Retry-After"] = str(_retry_after_s(record))
    return response


def _links(request: Request, record: JobRecord) -> dict[str, str]:
    path = f"{request.scope.get('root_path', '')}{router.prefix}/{record.id}"
    return {"status": path, "result": f"{path}/result"}


def _artifacts(request: Request, record: JobRecord) -> list[dict[str, str | int | None]]:
    """What the job gave: one file, its answer."""
    result = record.result
    if result is None:
        return []
    form = next(form for form in FORMATS[record.kind] if form.name == record.format_out)
    return [
        {
            "name": f"{record.kind}.{form.suffix or form.name}",
            "media_type": result.media_type,
            "bytes": result.size,
            "sha256": result.sha256,
            "link": _links(request, record)["result"],
        }
    ]


def _problem(request: Request, stored: Problem) -> Problem:
    """A stored problem as the answer to this request."""
    return Problem(stored.status, {**stored.body, "request_id": str(request.state.request_id)}, stored.headers)


def _retry_after_s(record: JobRecord) -> int:
    """A second while the job runs, and one more for each job before it."""
    return retry_after(1 + (record.progress.position or 0))


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else utc_text(seconds)
