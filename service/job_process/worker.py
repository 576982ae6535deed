"""What a process of jobs runs: the same road that a request takes, with models of its own.

Started by ``service.job_process.child``. It leaves the processor to the service (priority), dies first when memory ends, and
ends with the service: its standard input closes then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from service.settings import Settings

if TYPE_CHECKING:
    from service.checkpoints.registry import Registry
    from service.job_process.frames import Frame
    from service.state import Services

logger = logging.getLogger(__name__)

NICENESS: Final = 10
KILLED_BEFORE_THE_SERVICE: Final = "800"


class RemoteMemory:
    """Asks the service for memory."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.largest: int | None = None

    def check(self, need: int) -> None:
        """Refuse what can never fit."""
        from service.memory.budget import too_large

        if self.largest is not None and need > self.largest:
            raise too_large(need, self.largest)

    @asynccontextmanager
    async def hold(self, need: int, *, patient: bool = False) -> AsyncIterator[None]:
        """Memory for the rest of the job; the service takes it back itself."""
        self.check(need)
        self._link.send("hold", need=need)
        await self._link.held.wait()
        yield


class RemoteMetrics:
    """Counts in the service."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._link.send("metric", name=name, arguments=list(arguments))


class Link:
    """The pipes to the service."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._loop = asyncio.get_running_loop()
        self.held = asyncio.Event()

    def send(self, kind: str, content: bytes = b"", /, **fields: Any) -> None:
        """Send a message, from any thread; short ones are written whole."""
        from service.job_process.frames import pack

        data = memoryview(pack(kind, content, **fields))
        while data:
            data = data[os.write(self._output, data) :]


class Worker:
    """Computes one job after another."""

    def __init__(self, settings: Settings, link: Link) -> None:
        self._settings = settings
        self._link = link
        self._memory = RemoteMemory(link)
        self._models: list[dict[str, str]] = []
        self._services: Services | None = None

    async def compute(self, frame: Frame) -> None:
        """One job; its answer or its failure is sent."""
        from service.errors import ServiceError, is_internal, problem_of
        from service.job_answers import render_job
        from service.jobs.records import JobRequest
        from service.observability.logs import context
        from service.structures.pool import RawStructure

        fields = frame.fields
        request = JobRequest(**fields["request"])
        given = fields["structure"]
        structure = RawStructure(**{**given, "pbc": tuple(given["pbc"]), "notes": tuple(given["notes"])})
        self._memory.largest = fields["largest"]
        self._link.held.clear()
        with context(request_id=request.request_id):
            try:
                services = await self._current(fields["models"], fields["defaults"])
                found = await render_job(services, request, structure, self._report)
            except Exception as error:
                if is_internal(error):
                    logger.error("the job failed", exc_info=error)
                    self._link.send("failed", internal=type(error).__name__)
                    return
                body = problem_of(error, "").body
                known = {name: body[name] for name in ("hint", "allowed", "field", "errors") if name in body}
                retry = error.retry_after_s if isinstance(error, ServiceError) else None
                self._link.send("failed", code=body["code"], detail=body["detail"], retry_after_s=retry, **known)
                return
        self._link.send("done", found.content, media_type=found.media_type, headers=found.headers)

    def _report(self, stage: str, done: int = 0, of: int = 0, /) -> None:
        self._link.send("stage", stage=stage, done=done, of=of)

    async def _current(self, models: list[dict[str, str]], defaults: list[str]) -> Services:
        """Services around the models that the service has now."""
        if self._services is None or models != self._models:
            if self._services is not None:
                await asyncio.to_thread(self._services.registry.close)
            registry = await asyncio.to_thread(self._load, models, defaults)
            self._services, self._models = self._around(registry), models
        return self._services

    def _load(self, models: list[dict[str, str]], defaults: list[str]) -> Registry:
        from model.predictor import Predictor
        from service.checkpoints.loaded import LoadedModel
        from service.checkpoints.loading import ModelLoader
        from service.checkpoints.registry import Registry
        from service.checkpoints.startup import resolve_device

        observer = cast(Any, RemoteMetrics(self._link))
        loader = ModelLoader(self._settings, resolve_device(self._settings.device), observer)
        loaded = []
        for entry in models:
            # the service has tested these weights; here only that they are the same
            compiled = self._settings.compiled if entry["forward"] == "exported" else None
            folder = Path(entry["folder"])
            predictor = Predictor.load(folder, device=loader.device, verify_golden=False, compiled=compiled)
            name = predictor.card.name
            if predictor.card.weights_sha256 != entry["sha256"]:
                raise RuntimeError(f"the files of {name} are not those that the service has loaded")
            loaded.append(LoadedModel(name, predictor, loader.build_backend(predictor, name)))
        return Registry(loaded, defaults, loader=loader)

    def _around(self, registry: Registry) -> Services:
        from service.checkpoints.swap import ModelManager
        from service.serving.cache import PredictionCache
        from service.state import Services
        from service.structures.pool import ParserPool

        return Services(
            settings=self._settings,
            registry=registry,
            parsers=ParserPool(self._settings),  # never asked: structures come read
            cache=PredictionCache(0),
            metrics=cast(Any, RemoteMetrics(self._link)),
            manager=ModelManager(registry, self._settings),
            memory=self._memory,
        )


async def serve(settings: Settings, output: int) -> None:
    """Compute what comes until the service ends."""
    from service.job_process.frames import read_frame

    link = Link(output)
    worker = Worker(settings, link)
    reader = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    link.send("ready")
    job: asyncio.Task[None] | None = None
    while (frame := await read_frame(reader)) is not None:
        if frame.kind == "held":
            link.held.set()
        elif frame.kind == "ping":
            link.send("ready")
        else:
            if job is not None:
                await job
            job = asyncio.create_task(worker.compute(frame))
    os._exit(0)  # what runs in threads has nobody to answer to


def main() -> None:
    """Serve until standard input closes. Argument: the settings as JSON."""
    output = os.dup(1)
    os.dup2(2, 1)  # what libraries print belongs in the log
    os.setpgid(0, 0)  # a Ctrl-C in the terminal is the service's, which then ends its jobs
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(KILLED_BEFORE_THE_SERVICE)
    from service.__main__ import prepare_environment

    prepare_environment()
    from service.observability.logs import configure_logging

    settings = Settings.model_validate_json(sys.argv[1])
    configure_logging(settings)
    import service.answer  # noqa: F401  imported before the first job, not during it

    asyncio.run(serve(settings, output))
