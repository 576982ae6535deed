"""A job's computation: the same road that a request takes, with the larger limits of jobs and with patience."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.concurrency import run_in_threadpool

from service import prediction
from service.errors import ServiceError
from service.http.negotiation import GUESS_FORMATS, PREDICT_FORMATS, OutputFormat, choose_format
from service.jobs.location import open_job_store
from service.jobs.records import JobKind, JobRequest, Progress, Rendered
from service.jobs.runner import JobRunner
from service.jobs.store import JobStore
from service.pipeline import structure_response
from service.schemas.requests import GuessRequest, PredictRequest
from service.state import Services
from service.structures.build import raw_structure

FORMATS: Final[Mapping[JobKind, Sequence[OutputFormat]]] = {"predict": PREDICT_FORMATS, "initial-guess": GUESS_FORMATS}
FILE_STEMS: Final[Mapping[JobKind, str]] = {"predict": "prediction", "initial-guess": "guess"}

_OWN_HEADERS: Final = frozenset({"content-disposition", "warning"})
"""What a stored answer keeps of an answer's headers; the others belong to the request that fetches it."""


def make_runner(services: Services, store: JobStore | None) -> JobRunner:
    """A runner that computes with these services; it must be started.

    Args:
        services: of the app.
        store: open, or None to open what the settings name.

    Raises:
        StartupError: the store cannot be used.
    """
    computation = JobComputation(services)
    return JobRunner(
        store if store is not None else open_job_store(services.settings),
        computation.compute,
        check=computation.check,
        workers=services.settings.job_workers,
        timeout_s=services.settings.job_timeout_s,
    )


class JobComputation:
    """``check`` and ``compute`` of the jobs of an app."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = services.settings.for_jobs()

    async def check(self, request: JobRequest) -> None:
        """Read the structure, and refuse what no model here can compute.

        Raises:
            ServiceError, ModelError: as the route of this kind.
        """
        await self._accept(request)

    async def compute(self, request: JobRequest, progress: Progress) -> Rendered:
        """The answer of the route of this kind.

        Raises:
            ServiceError, ModelError: as that route.
        """
        progress("parse")
        accepted = await self._accept(request)
        computed = await prediction.compute(self._services, accepted, patient=True, on_stage=progress)
        progress("serialise")
        content = await prediction.render(self._services, accepted, computed, request.request_id)
        warnings = prediction.all_warnings(accepted, computed)
        response = structure_response(content, accepted.plan.chosen, FILE_STEMS[request.kind], None, warnings)
        headers: dict[str, str] = {}
        for name, value in response.headers.items():
            if name in _OWN_HEADERS:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Rendered(content, accepted.plan.chosen.media_type, headers)

    async def _accept(self, request: JobRequest) -> prediction.Accepted:
        started = time.perf_counter()
        kinds: Mapping[JobKind, type[PredictRequest | GuessRequest]]
        kinds = {"predict": PredictRequest, "initial-guess": GuessRequest}
        body: PredictRequest | GuessRequest
        body = await run_in_threadpool(kinds[request.kind].model_validate_json, request.body)
        chosen = choose_format(request.format_out, None, FORMATS[request.kind])
        plan = prediction.make_plan(self._services, body, chosen)
        raw = await raw_structure(body.structure, self._services.parsers, max_atoms=self._limits.max_atoms)
        parse_ms = 1000.0 * (time.perf_counter() - started)
        return prediction.accept(plan, raw, self._limits, parse_ms=parse_ms, started=started)


def runner_of(services: Services) -> JobRunner:
    """The runner of an app that is ready."""
    if services.jobs is None:
        raise ServiceError("not_ready", "The jobs are not there yet.", retry_after_s=1)
    return services.jobs
