"""A few threads whose work is shared out by caller (``turns``), and work that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

from service.observability.logs import bind
from service.serving.turns import Turns

T = TypeVar("T")


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


_abandoned: ContextVar[threading.Event | None] = ContextVar("abandoned", default=None)


def stop_if_abandoned() -> None:
    """To be called now and then by what runs in a pool.

    Raises:
        AbandonedError: who asked has left, or its time is over.
    """
    event = _abandoned.get()
    if event is not None and event.is_set():
        raise AbandonedError


class FairPool:
    """Threads with one queue for each caller. One event loop uses it.

    Args:
        workers: number of threads.
        name: of the threads.
        keep_last: of several threads keep one for light callers and cheap work.
        clock: seconds of any origin, never set back.
    """

    def __init__(
        self, workers: int, name: str, *, keep_last: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._turns = Turns(workers, keep_last=keep_last, clock=clock)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._clock = clock

    async def run(
        self,
        function: Callable[..., T],
        *arguments: object,
        dear: bool = False,
        started: Callable[[Future[T]], object] | None = None,
        cost_s: Callable[[T], float] | None = None,
    ) -> T:
        """Run a function in a thread, when its caller's turn comes, with the log fields and the trace of the request.

        A caller who leaves while it waits gives its place up. A function that runs then ends where it next calls
        :func:`stop_if_abandoned`.

        Args:
            function: blocks for a while.
            arguments: of the function.
            dear: it may take seconds, so it leaves a thread to others whoever asks.
            started: told of the step in its thread, which may outlive the caller.
            cost_s: what a result has cost, where that is less than the seconds that passed; see ``Turns.leave``.
        """
        turn = await self._turns.take(dear=dear)
        began = self._clock()
        abandoned = threading.Event()
        token = _abandoned.set(abandoned)
        bound = bind(function)
        _abandoned.reset(token)
        step = self._threads.submit(bound, *arguments)
        if started is not None:
            started(step)
        future = asyncio.wrap_future(step)

        def done(ended: asyncio.Future[T]) -> None:
            # read it, so that a caller who left does not leave a complaint in the log
            failed = ended.cancelled() or ended.exception() is not None
            cost = None if failed or cost_s is None else cost_s(ended.result())
            self._turns.leave(turn, self._clock() - began, cost)

        future.add_done_callback(done)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def is_light(self, owner: str) -> bool:
        """Whether a caller has used little of late."""
        return self._turns.is_light(owner)

    def close(self) -> None:
        """Wait for what runs."""
        self._threads.shutdown(wait=True, cancel_futures=True)
