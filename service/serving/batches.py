"""One thread for each device: it alone runs forward passes, in batches filled by cost, for all models on that device.

A model has a queue of prepared structures. A batch leaves it when it costs enough, when its oldest structure has waited
long enough, or when no further structure is on its way: a lone request never waits. Who has had the least of late goes first,
so that one caller's queue is not everybody's. Whatever has been cancelled by then is dropped before the forward pass. A
batch that fails is halved and tried again, so that memory that does not suffice for all may suffice for each, and only the
structure to blame gets the error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from service.errors import is_out_of_memory
from service.serving.turns import Usage

logger = logging.getLogger(__name__)

NEW_COST: Final = 10.0
"""Blocks that a caller not seen before counts as having had."""


class BatchObserver(Protocol):
    """Who wants to know of batches."""

    def batch(self, model: str, structures: int, cost: int, wait_s: Sequence[float]) -> None:
        """A batch starts; ``wait_s`` of each structure in it."""

    def memory_split(self, model: str) -> None:
        """A batch did not fit into memory and is halved."""


@dataclass(frozen=True)
class ForwardResult:
    """What the forward pass says of one structure.

    Attributes:
        value: the model's answer.
        queue_s: seconds between submission and start.
        forward_s: seconds of the whole batch.
        batch_size: structures in it.
    """

    value: Any
    queue_s: float
    forward_s: float
    batch_size: int


@dataclass(frozen=True, eq=False)
class _Waiting:
    item: Any
    cost: int
    owner: str
    submitted: float
    future: Future[ForwardResult] = field(default_factory=Future)


class BatchQueue:
    """Structures of one model that wait for their device.

    Args:
        worker: of the device.
        model: name, for observers and logs.
        forward: items -> one result for each.
        batch_cost: a batch costs at most this much, unless a single item costs more.
        batch_wait_s: how long an item may wait for others that are on their way.
        observer: told of batches.
    """

    def __init__(
        self,
        worker: DeviceWorker,
        model: str,
        forward: Callable[[list[Any]], Sequence[Any]],
        *,
        batch_cost: int,
        batch_wait_s: float,
        observer: BatchObserver | None = None,
    ) -> None:
        self._worker = worker
        self._model = model
        self._forward = forward
        self._batch_cost = batch_cost
        self._batch_wait_s = batch_wait_s
        self._observer = observer
        self._waiting: list[_Waiting] = []
        self._usage = Usage(NEW_COST)
        self._cost = 0
        self._expected = 0

    def announce(self) -> None:
        """One more item is on its way: :meth:`put` or :meth:`forget` follows."""
        with self._worker.changed:
            self._expected += 1

    def forget(self) -> None:
        """An announced item will not come."""
        with self._worker.changed:
            self._expected -= 1
            self._worker.changed.notify()

    def put(self, item: Any, cost: int, owner: str = "") -> Future[ForwardResult]:
        """Queue an announced item of a caller. Cancelling the future takes it out, until its batch starts."""
        waiting = _Waiting(item, cost, owner, time.perf_counter())
        with self._worker.changed:
            self._expected -= 1
            self._waiting.append(waiting)
            self._cost += cost
            self._worker.changed.notify()
        return waiting.future

    def oldest(self) -> float | None:
        """When the first waiting item was submitted."""
        return self._waiting[0].submitted if self._waiting else None

    def seconds_to_wait(self, now: float) -> float:
        """How long the next batch may still grow; 0 if it is due."""
        if self._expected <= 0 or self._cost >= self._batch_cost:
            return 0.0
        return max(0.0, self._waiting[0].submitted + self._batch_wait_s - now)

    def take(self) -> list[_Waiting]:
        """The next batch, without what has been cancelled; may be empty. Called with the worker's lock held."""
        batch: list[_Waiting] = []
        recent = {waiting.owner: self._usage.recent(waiting.owner) for waiting in self._waiting}
        had: Counter[str] = Counter()
        while self._waiting:
            # of equals the first that came
            waiting = min(self._waiting, key=lambda each: recent[each.owner] + had[each.owner])
            if batch and had.total() + waiting.cost > self._batch_cost:
                break
            self._waiting.remove(waiting)
            self._cost -= waiting.cost
            if waiting.future.set_running_or_notify_cancel():
                batch.append(waiting)
                had[waiting.owner] += waiting.cost
        for owner, cost in had.items():
            self._usage.add(owner, cost)
        return batch

    def run(self, batch: list[_Waiting]) -> None:
        """Forward passes of a batch, in the worker's thread; every future gets a result or an error."""
        started = time.perf_counter()
        waits = [started - waiting.submitted for waiting in batch]
        try:
            if self._observer is not None:
                self._observer.batch(self._model, len(batch), sum(waiting.cost for waiting in batch), waits)
            values = self._forward([waiting.item for waiting in batch])
            if len(values) != len(batch):
                raise RuntimeError(f"{len(values)} results came for {len(batch)} structures")
        # whatever it is: this thread must live, and everyone in the batch must hear of it
        except BaseException as raised:
            error = ordinary(raised)
            if is_device_fault(error):
                self._worker.broken = True
                logger.critical("the device of %s is lost: %s", self._model, type(error).__name__)
            if len(batch) == 1 or self._worker.broken:
                for waiting in batch:
                    waiting.future.set_exception(error)
                return
            if is_out_of_memory(error):
                logger.warning("%d structures of %s do not fit into memory together", len(batch), self._model)
                if self._observer is not None:
                    self._observer.memory_split(self._model)
            del error
        else:
            seconds = time.perf_counter() - started
            for waiting, value, wait in zip(batch, values, waits, strict=True):
                waiting.future.set_result(ForwardResult(value, wait, seconds, len(batch)))
            return
        # outside the handler: an exception holds on to the frames, and they to the memory of the failed pass
        half = len(batch) // 2
        self.run(batch[:half])
        self.run(batch[half:])


class DeviceWorker:
    """The thread of one device.

    Args:
        device: its name.

    Attributes:
        changed: guards all queues of this device.
        broken: the device has failed for good; nothing but a new process helps.
    """

    def __init__(self, device: str) -> None:
        self.changed = threading.Condition()
        self.broken = False
        self._queues: list[BatchQueue] = []
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"device-{device}", daemon=True)
        self._thread.start()

    def add(self, queue: BatchQueue) -> None:
        """Serve a model's queue too."""
        with self.changed:
            self._queues.append(queue)

    def remove(self, queue: BatchQueue) -> None:
        """Stop serving a queue; it should be empty."""
        with self.changed:
            self._queues.remove(queue)

    def close(self) -> None:
        """Run what waits, then end the thread."""
        with self.changed:
            self._closing = True
            self.changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self.changed:
                queue = self._next()
                while queue is None:
                    if self._closing:
                        return
                    self.changed.wait(self._pause())
                    queue = self._next()
                batch = queue.take()
            if batch:
                queue.run(batch)
            del queue, batch  # a finished batch, and an unloaded model, must not stay alive until the next one

    def _next(self) -> BatchQueue | None:
        """The queue with a due batch whose oldest item is oldest."""
        now = time.perf_counter()
        due = [
            (oldest, index)
            for index, queue in enumerate(self._queues)
            if (oldest := queue.oldest()) is not None and (self._closing or queue.seconds_to_wait(now) <= 0.0)
        ]
        return self._queues[min(due)[1]] if due else None

    def _pause(self) -> float | None:
        now = time.perf_counter()
        return min((queue.seconds_to_wait(now) for queue in self._queues if queue.oldest() is not None), default=None)


def ordinary(error: BaseException) -> Exception:
    """The error, or in place of one that ends threads, tasks or event loops a RuntimeError that names it."""
    if isinstance(error, Exception) and not isinstance(error, (CancelledError, StopIteration, StopAsyncIteration)):
        return error
    replacement = RuntimeError(f"{type(error).__name__} was raised")
    replacement.__cause__ = error
    return replacement


def is_device_fault(error: Exception) -> bool:
    """True for an error after which a CUDA context is of no more use (not: out of memory)."""
    return type(error).__name__ == "AcceleratorError" or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error) and not is_out_of_memory(error)
    )
