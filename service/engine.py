"""One worker thread for each loaded model, behind a bounded queue: the forward pass never runs on the event loop.

This is the seam for batching: whoever collects several waiting structures into one ``Predictor.predict`` call does it
in :meth:`Engine._run` and :meth:`Engine.predict`; the routes see only one structure in, one answer out.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from model.structure import Structure
from service.error_table import ServiceError

if TYPE_CHECKING:
    from model.predictor import Prediction

MAX_RETRY_AFTER_S = 60


class PredictorLike(Protocol):
    """The part of ``model.predictor.Predictor`` that an engine needs."""

    def predict(self, structures: Sequence[Structure], *, orbitals: bool = True) -> list[Prediction]:
        """Predict a list of structures as one batch."""
        ...


@dataclass(frozen=True)
class Answer:
    """A prediction with what the queue knows about it.

    Attributes:
        prediction: the model's answer.
        queue_ms: milliseconds between submission and start.
        batch_size: structures in the same forward pass.
    """

    prediction: Prediction
    queue_ms: float
    batch_size: int


class Engine:
    """Runs one model's predictions in its own thread, one after another."""

    def __init__(self, predictor: PredictorLike, *, name: str, queue_limit: int) -> None:
        self._predictor = predictor
        self._queue_limit = queue_limit
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"model-{name}")
        self._lock = threading.Lock()
        self._unfinished = 0
        self._last_seconds = 1.0

    @property
    def unfinished(self) -> int:
        """Predictions that run or wait."""
        return self._unfinished

    async def predict(self, structure: Structure, *, orbitals: bool) -> Answer:
        """Wait for the thread and predict one structure.

        Cancelling the caller takes a waiting prediction out of the queue; one that runs already runs to its end.

        Raises:
            ServiceError: ``queue_full`` if ``queue_limit`` predictions wait already, ``draining`` after :meth:`close`.
            ModelError: what the model raises.
        """
        with self._lock:
            # One runs; the limit is on those that wait behind it.
            if self._unfinished > self._queue_limit:
                wait = math.ceil(self._unfinished * self._last_seconds)
                raise ServiceError(
                    "queue_full",
                    "Too many requests are waiting for this model.",
                    hint="Try again after the time in Retry-After.",
                    retry_after_s=max(1, min(MAX_RETRY_AFTER_S, wait)),
                )
            self._unfinished += 1
        try:
            future = self._executor.submit(self._run, structure, orbitals, time.perf_counter())
        except RuntimeError as error:
            with self._lock:
                self._unfinished -= 1
            raise ServiceError("draining", "The service is shutting down.", retry_after_s=5) from error
        future.add_done_callback(self._finished)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish the running prediction, drop the waiting ones, end the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _run(self, structure: Structure, orbitals: bool, submitted: float) -> Answer:
        started = time.perf_counter()
        try:
            (prediction,) = self._predictor.predict([structure], orbitals=orbitals)
        finally:
            self._last_seconds = time.perf_counter() - started
        return Answer(prediction, queue_ms=1000.0 * (started - submitted), batch_size=1)

    def _finished(self, _: Future[Answer]) -> None:
        with self._lock:
            self._unfinished -= 1
