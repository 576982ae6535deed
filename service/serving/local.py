"""The road of a structure through one model, and the bounded queue in front of it.

    prepare (threads: integrals, H0) -> batch (one thread for each device: forward pass) -> finish (threads: eigensolve)

Nothing of it runs on the event loop, and a forward pass never waits for an eigensolve.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from model.structure import Structure
from service.errors import ServiceError, draining, retry_after
from service.memory.machine import usable_cores
from service.memory.steps import track
from service.observability.logs import bind
from service.serving.backend import Predicted
from service.serving.batches import BatchObserver, BatchQueue, DeviceWorker, ordinary

if TYPE_CHECKING:
    from model.predictor import CrystalPrediction, Prediction

T = TypeVar("T")
DEFAULT_BATCH_COST = 1000
DEFAULT_BATCH_WAIT_S = 0.01
DEAR_ATOMS: Final = 25
"""From here on a structure takes a thread for a good part of a second, and the largest take gigabytes on their way: fewer are
on it than there are threads, so that smaller ones pass."""


class PredictorLike(Protocol):
    """The part of ``model.predictor.Predictor`` that a backend needs."""

    def prepare(self, structure: Structure) -> Any:
        """Everything before the network; the answer has a ``cost``."""

    def forward(self, prepared: Sequence[Any]) -> Sequence[Any]:
        """One batch through the network."""

    def finish(self, item: Any, hamiltonian: Any, *, orbitals: bool, forward_ms: float) -> Prediction:
        """Everything after the network, for a molecule."""

    def finish_crystal(self, item: Any, blocks: Any, *, forward_ms: float) -> CrystalPrediction:
        """Everything after the network, for a crystal."""


class LocalBackend:
    """A model in this process. Its methods belong to one event loop, except :meth:`close`.

    Args:
        predictor: the model.
        name: of the model.
        queue_limit: requests that may wait behind the one that runs.
        worker: of the model's device, shared by all models there; by default the backend's own.
        batch_cost: most blocks (atoms and pairs) in a forward pass.
        batch_wait_s: how long a structure may wait for others that are being prepared.
        observer: told of batches.
    """

    def __init__(
        self,
        predictor: PredictorLike,
        *,
        name: str,
        queue_limit: int,
        worker: DeviceWorker | None = None,
        batch_cost: int = DEFAULT_BATCH_COST,
        batch_wait_s: float = DEFAULT_BATCH_WAIT_S,
        observer: BatchObserver | None = None,
    ) -> None:
        self._predictor = predictor
        self._queue_limit = queue_limit
        self._owns_worker = worker is None
        self._worker = worker or DeviceWorker(name)
        self._queue = BatchQueue(
            self._worker,
            name,
            predictor.forward,
            batch_cost=batch_cost,
            batch_wait_s=batch_wait_s,
            observer=observer,
        )
        self._worker.add(self._queue)
        cores = usable_cores()
        # threads of their own: what is nearly done must not wait behind all that has just come
        self._before, self._after = (ThreadPoolExecutor(cores, thread_name_prefix=f"model-{name}") for _ in range(2))
        self._dear = asyncio.Semaphore(max(1, cores - 1))
        self._idle = threading.Condition()
        self._unfinished = 0
        self._patient: deque[asyncio.Future[None]] = deque()
        self._draining = False
        self._seconds_each = 0.2

    @property
    def unfinished(self) -> int:
        """Predictions that run or wait."""
        return self._unfinished

    @property
    def healthy(self) -> bool:
        """False once the device has failed for good."""
        return not self._worker.broken

    async def predict(
        self,
        structure: Structure,
        *,
        orbitals: bool,
        patient: bool = False,
        on_stage: Callable[[str], None] | None = None,
    ) -> Predicted:
        """Predict one structure; see ``Backend.predict``.

        Raises:
            ServiceError: ``queue_full`` if ``queue_limit`` predictions wait already, ``draining`` after :meth:`close`.
            ModelError: what the model raises.
        """
        await self._enter(patient)
        started = time.perf_counter()
        stage = on_stage or _ignore
        # a job has its own pace, and must not keep requests from their turn
        turn = self._dear if len(structure.numbers) >= DEAR_ATOMS and not patient else contextlib.nullcontext()
        try:
            async with turn:
                return await self._predicted(structure, orbitals, stage)
        finally:
            self._leave(time.perf_counter() - started)

    async def _predicted(self, structure: Structure, orbitals: bool, stage: Callable[[str], None]) -> Predicted:
        stage("integrals")
        self._queue.announce()
        try:
            prepared = await _in_thread(self._before, self._predictor.prepare, structure)
        except BaseException:
            self._queue.forget()
            raise
        stage("forward")
        result = await asyncio.wrap_future(track(self._queue.put(prepared, prepared.cost)))
        forward_ms = 1e3 * result.forward_s
        prediction: Prediction | CrystalPrediction
        if structure.is_periodic:
            prediction = await _in_thread(
                self._after, self._predictor.finish_crystal, prepared, result.value, forward_ms=forward_ms
            )
        else:
            stage("eigensolve")
            prediction = await _in_thread(
                self._after,
                self._predictor.finish,
                prepared,
                result.value,
                orbitals=orbitals,
                forward_ms=forward_ms,
            )
        return Predicted(prediction, queue_ms=1e3 * result.queue_s, batch_size=result.batch_size)

    async def study(self, function: Callable[..., T], *arguments: Any, patient: bool = False) -> T:
        """Work on a finished prediction; see ``Backend.study``.

        Raises:
            ServiceError: as of :meth:`predict`; and what the function raises.
        """
        await self._enter(patient)
        started = time.perf_counter()
        try:
            return await _in_thread(self._after, function, *arguments)
        finally:
            self._leave(time.perf_counter() - started)

    def close(self, timeout_s: float | None = None) -> None:
        """Refuse new predictions, finish the accepted ones, end the threads; from any thread but the event loop's."""
        with self._idle:
            self._draining = True
            self._idle.wait_for(lambda: self._unfinished == 0, timeout_s)
        self._worker.remove(self._queue)
        if self._owns_worker:
            self._worker.close()
        for threads in (self._before, self._after):
            threads.shutdown(wait=True, cancel_futures=True)

    async def _enter(self, patient: bool) -> None:
        """Take a place."""
        while True:
            with self._idle:
                if self._draining:
                    self._wake_next()  # to learn the same
                    raise draining()
                # one runs; the limit is on those that wait behind it
                if self._unfinished <= (self._queue_limit // 2 if patient else self._queue_limit):
                    self._unfinished += 1
                    return
            if not patient:
                wait = math.ceil(self._unfinished * self._seconds_each)
                raise ServiceError(
                    "queue_full",
                    "Too many requests are waiting for this model.",
                    hint="Try again after the time in Retry-After.",
                    retry_after_s=retry_after(wait),
                )
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._patient.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake_next()  # it was ours already
                raise

    def _leave(self, seconds: float) -> None:
        with self._idle:
            self._seconds_each += 0.1 * (seconds / self._unfinished - self._seconds_each)
            self._unfinished -= 1
            self._idle.notify_all()
        self._wake_next()

    def _wake_next(self) -> None:
        while self._patient:
            turn = self._patient.popleft()
            if not turn.done():
                turn.set_result(None)
                break


async def _in_thread(threads: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    def run() -> T:
        try:
            return function(*arguments, **options)
        except BaseException as error:
            plain = ordinary(error)
            if plain is error:
                raise
            raise plain from error  # a SystemExit would end the event loop

    return await asyncio.wrap_future(track(threads.submit(bind(run))))


def _ignore(_: str) -> None:
    """No one asked."""
