"""Loading, swapping and unloading while the service runs: one after another, in a thread of its own.

An operation that has begun runs to its end even if its caller leaves, so the models are never left in between.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from service.checkpoints.catalogue import NAME, scan
from service.checkpoints.checks import CheckList, RejectedError
from service.checkpoints.loaded import LoadedModel
from service.checkpoints.loading import ModelLoader, fingerprint
from service.checkpoints.registry import Loader, Registry
from service.checkpoints.startup import resolve_device
from service.errors import ServiceError, draining
from service.observability.logs import bind
from service.schemas.models import CheckpointIdentity, CheckReport
from service.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAITING: Final = 4
"""Operations that may wait behind the one that runs."""

RETRY_AFTER_BUSY_S: Final = 10


@dataclass(frozen=True)
class Loading:
    """What a load did.

    Attributes:
        status: "loaded", or "unchanged" if the checkpoint in the folder is the one that serves.
        model: that serves now.
        replaced: what served before under this name, if anything did; None if nothing changed.
        checks: what ran; empty if nothing changed.
        seconds: from the scan of the folder to the swap.
    """

    status: Literal["loaded", "unchanged"]
    model: LoadedModel
    replaced: CheckpointIdentity | None
    checks: tuple[CheckReport, ...]
    seconds: float


class ModelManager:
    """Changes what a registry holds.

    Args:
        registry: of the service.
        settings: as given to the service.
    """

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._lock = threading.Lock()
        self._pending = 0
        self._closing = False

    async def load(self, name: str, *, version: str | None = None, force: bool = False) -> Loading:
        """Load a checkpoint of the folder, or another version of a model that is loaded.

        Args:
            name: of the checkpoint.
            version: which; by default the newest in the folder.
            force: also if the checkpoint in the folder is the one that serves.

        Raises:
            ServiceError: ``unknown_model``; ``model_rejected`` if a check failed (what served goes on serving);
                ``model_busy`` if too many operations wait; ``draining``.
        """
        _refuse_odd_name(name)
        return await self._run(self._load, name, version, force)

    async def unload(self, name: str, *, force: bool = False) -> tuple[CheckpointIdentity, int]:
        """Take a model out of service. New requests no longer find it; those that it has are finished.

        Args:
            name: of a loaded model.
            force: also if it is the default or the last one.

        Returns:
            what was unloaded, and how many predictions it still had to finish.

        Raises:
            ServiceError: ``unknown_model``; ``model_needed`` if only ``force`` would do it; ``model_busy``; ``draining``.
        """
        _refuse_odd_name(name)
        return await self._run(self._unload, name, force)

    def close(self) -> None:
        """Let a running operation end at its next check, drop the waiting ones."""
        self._closing = True
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        with self._lock:
            if self._pending > MAX_WAITING:
                raise ServiceError(
                    "model_busy",
                    "Other models are being loaded or unloaded, and enough requests wait for their turn.",
                    hint="Try again after the time in Retry-After.",
                    retry_after_s=RETRY_AFTER_BUSY_S,
                )
            self._pending += 1
        try:
            future = self._thread.submit(bind(function), *arguments)
        except RuntimeError as error:
            self._finished(None)
            raise draining() from error
        future.add_done_callback(self._finished)
        return await asyncio.wrap_future(future)

    def _finished(self, _: Future[T] | None) -> None:
        with self._lock:
            self._pending -= 1

    def _load(self, name: str, version: str | None, force: bool) -> Loading:
        started = time.perf_counter()
        loaded = self._registry.find(name)
        replaced = None if loaded is None else loaded.identity
        try:
            root = self._settings.checkpoints
            with CheckList(root.absolute()).check("folder"):
                catalogue = scan(root)
            candidate = catalogue.pick(name, version)
            if loaded is not None and not force and _is_unchanged(loaded, candidate.folder):
                return Loading("unchanged", loaded, None, (), time.perf_counter() - started)
            model = self._loader().load(candidate, before_each=self._refuse_when_closing)
        except RejectedError as error:
            logger.warning("%s was not loaded: %s", name, error.for_operator)
            serves = "No model of this name is loaded." if replaced is None else "What served before still serves."
            raise ServiceError(
                "model_rejected",
                f"The check {error.check!r} failed: {error.reason} {serves}",
                hint=error.hint,
                errors=[{"field": error.check, "detail": error.reason}],
            ) from error
        self._registry.install(model)
        return Loading("loaded", model, replaced, model.checks, time.perf_counter() - started)

    def _unload(self, name: str, force: bool) -> tuple[CheckpointIdentity, int]:
        model = self._registry.get(name)
        if not force:
            reason = None
            if self._registry.names == [name]:
                reason = "It is the only model that is loaded."
            elif name in self._registry.defaults.values():
                reason = "It is the model that answers when a request names none."
            if reason is not None:
                raise ServiceError(
                    "model_needed", reason, hint="Send force: true to unload it all the same.", field="name"
                )
        self._registry.remove(name)
        logger.info("unloaded %s", name)
        return model.identity, model.backend.unfinished

    def _loader(self) -> Loader:
        if self._registry.loader is None:
            self._registry.loader = ModelLoader(self._settings, resolve_device(self._settings.device))
        return self._registry.loader

    def _refuse_when_closing(self, _: str) -> None:
        if self._closing:
            raise draining()


def _is_unchanged(loaded: LoadedModel, folder: Path) -> bool:
    """Whether a folder holds, to the bit, what a model was loaded from."""
    return loaded.fingerprint is not None and loaded.fingerprint == fingerprint(folder)


def _refuse_odd_name(name: str) -> None:
    """A name that no checkpoint can have is not looked for."""
    if not NAME.fullmatch(name):
        hint = (
            "Names have lower-case letters, digits, dots, dashes and underscores; GET /v1/models lists what is loaded."
        )
        raise ServiceError("unknown_model", "No checkpoint can have this name.", field="name", hint=hint)
