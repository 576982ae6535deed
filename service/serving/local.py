"""The road of a structure through one model, and the bounded queue in front of it.

    prepare (threads: integrals, H0) -> batch (one thread for each device: forward pass) -> finish (threads: eigensolve)

Nothing of it runs on the event loop, and a forward pass never waits for an eigensolve. All of it is shared out by caller
(``turns``). Large structures have threads of their own, few at work at a time, and on a CPU others for their forward passes:
small ones pass large ones, and these huge ones.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from model.structure import Structure
from service.errors import ServiceError, draining, retry_after
from service.memory.machine import usable_cores
from service.memory.steps import track
from service.serving.backend import Predicted, Report
from service.serving.batches import BatchObserver, BatchQueue, DeviceWorker, ordinary
from service.serving.fair import FairPool
from service.serving.large import DEAR_ATOMS, LargeLane, is_huge
from service.serving.turns import Room, caller

if TYPE_CHECKING:
    from model.predictor import CrystalPrediction, Prediction

T = TypeVar("T")
DEFAULT_BATCH_COST = 1000
DEFAULT_BATCH_WAIT_S = 0.01


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
        large_workers: of forward passes of large structures and of huge ones, beside the others; by default there is one
            thread for all.
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
        large_workers: tuple[DeviceWorker, DeviceWorker] | None = None,
        batch_cost: int = DEFAULT_BATCH_COST,
        batch_wait_s: float = DEFAULT_BATCH_WAIT_S,
        observer: BatchObserver | None = None,
    ) -> None:
        self._predictor = predictor
        self._owns_worker = worker is None
        self._worker = worker or DeviceWorker(name)

        def queue(device: DeviceWorker) -> BatchQueue:
            made = BatchQueue(
                device, name, predictor.forward, batch_cost=batch_cost, batch_wait_s=batch_wait_s, observer=observer
            )
            device.add(made)
            return made

        self._queue = queue(self._worker)
        self._large_queues = {device: queue(device) for device in large_workers or ()}
        large, huge = self._large_queues.values() if large_workers else (self._queue, self._queue)
        self._queues = {"small": self._queue, "large": large, "huge": huge}
        cores = usable_cores()
        # threads of their own: what is nearly done must not wait behind all that has just come
        self._before, self._after = (FairPool(cores, f"model-{name}", keep_last=False) for _ in range(2))
        self._large = LargeLane(cores, name)
        self._room = Room(queue_limit)
        self._idle = threading.Condition()
        self._patient: deque[asyncio.Future[None]] = deque()
        self._draining = False
        self._seconds_each = 0.2

    @property
    def unfinished(self) -> int:
        """Predictions that run or wait."""
        return self._room.inside

    @property
    def healthy(self) -> bool:
        """False once the device has failed for good."""
        return not any(worker.broken for worker in (self._worker, *self._large_queues))

    async def predict(
        self,
        structure: Structure,
        *,
        orbitals: bool,
        patient: bool = False,
        on_stage: Report | None = None,
        n_orbitals: int = 0,
        time_left_s: float | None = None,
    ) -> Predicted:
        """Predict one structure; see ``Backend.predict``.

        Raises:
            ServiceError: ``queue_full`` if ``queue_limit`` predictions wait already or its turn would come too late,
                ``draining`` after :meth:`close`.
            ModelError: what the model raises.
        """
        owner = await self._enter(patient)
        started = time.perf_counter()
        stage = on_stage or _ignore
        try:
            if len(structure.numbers) < DEAR_ATOMS:
                return await self._predicted(structure, orbitals, stage, "small")
            async with self._large.turn(n_orbitals, time_left_s, patient=patient):
                return await self._predicted(structure, orbitals, stage, "huge" if is_huge(n_orbitals) else "large")
        finally:
            self._leave(owner, time.perf_counter() - started)

    async def _predicted(
        self,
        structure: Structure,
        orbitals: bool,
        stage: Callable[[str], None],
        size: Literal["small", "large", "huge"],
    ) -> Predicted:
        small = size == "small"
        before, after = (self._before.run, self._after.run) if small else (self._large.run, self._large.run)
        queue = self._queues[size]
        stage("integrals")
        queue.announce()
        try:
            prepared = await before(_plain(self._predictor.prepare, structure), started=track)
        except BaseException:
            queue.forget()
            raise
        stage("forward")
        result = await asyncio.wrap_future(track(queue.put(prepared, prepared.cost, caller.get())))
        forward_ms = 1e3 * result.forward_s
        finish: Callable[[], Prediction | CrystalPrediction]
        if structure.is_periodic:
            finish = partial(self._predictor.finish_crystal, prepared, result.value, forward_ms=forward_ms)
        else:
            stage("eigensolve")
            finish = partial(self._predictor.finish, prepared, result.value, orbitals=orbitals, forward_ms=forward_ms)
        prediction = await after(_plain(finish), started=track)
        return Predicted(prediction, queue_ms=1e3 * result.queue_s, batch_size=result.batch_size)

    async def study(self, function: Callable[..., T], *arguments: Any, patient: bool = False, dear: bool = False) -> T:
        """Work on a finished prediction; see ``Backend.study``.

        Raises:
            ServiceError: as of :meth:`predict`; and what the function raises.
        """
        owner = await self._enter(patient)
        started = time.perf_counter()
        work = _plain(function, *arguments)
        try:
            if not dear:
                return await self._after.run(work, started=track)
            async with self._large.turn(0, None, patient=patient):
                return await self._large.run(work, started=track)
        finally:
            self._leave(owner, time.perf_counter() - started)

    def close(self, timeout_s: float | None = None) -> None:
        """Refuse new predictions, finish the accepted ones, end the threads; from any thread but the event loop's."""
        with self._idle:
            self._draining = True
            self._idle.wait_for(lambda: self._room.inside == 0, timeout_s)
        self._worker.remove(self._queue)
        for worker, queue in self._large_queues.items():
            worker.remove(queue)
        if self._owns_worker:
            self._worker.close()
        for threads in (self._before, self._after, self._large):
            threads.close()

    async def _enter(self, patient: bool) -> str:
        """Take a place; for whom."""
        owner = caller.get()
        light = all(threads.is_light(owner) for threads in (self._before, self._after, self._large))
        while True:
            with self._idle:
                if self._draining:
                    self._wake_next()  # to learn the same
                    raise draining()
                # one runs; the limit is on those that wait behind it
                if self._room.inside <= self._room.limit // 2 if patient else self._room.takes(owner, light=light):
                    self._room.enter(owner)
                    return owner
            if not patient:
                wait = math.ceil(self._room.inside * self._seconds_each)
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

    def _leave(self, owner: str, seconds: float) -> None:
        with self._idle:
            self._seconds_each += 0.1 * (seconds / self._room.inside - self._seconds_each)
            self._room.leave(owner)
            self._idle.notify_all()
        self._wake_next()

    def _wake_next(self) -> None:
        while self._patient:
            turn = self._patient.popleft()
            if not turn.done():
                turn.set_result(None)
                break


def _plain(function: Callable[..., T], *arguments: Any) -> Callable[[], T]:
    """The call of a function, for a thread."""

    def call() -> T:
        try:
            return function(*arguments)
        except BaseException as error:
            plain = ordinary(error)
            if plain is error:
                raise
            raise plain from error  # a SystemExit would end the event loop

    return call


def _ignore(stage: str, done: int = 0, of: int = 0, /) -> None:
    """No one asked."""
