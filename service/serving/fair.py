"""A few threads whose work is shared out by caller (``turns``), and work that ends when nobody waits for it any more.

What may take seconds runs in threads of its own at a lower priority: the processor goes first to what is soon done.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Final, TypeVar

from service.observability.logs import bind
from service.serving.turns import Turns

T = TypeVar("T")

DEAR_NICENESS: Final = 10
"""Of threads whose work takes seconds: beside others that want the processor they get a tenth of it."""


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


def give_way() -> None:
    """Lower the priority of the thread that calls, and of those that it starts; it cannot be raised again."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), DEAR_NICENESS)


def dear_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Threads that leave the processor to others."""
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=give_way)


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
        self._dear_threads = dear_threads(workers, f"{name}-dear")
        self._clock = clock

    async def run(
        self,
        function: Callable[..., T],
        *arguments: object,
        dear: bool = False,
        started: Callable[[Future[T]], object] | None = None,
    ) -> T:
        """Run a function in a thread, when its caller's turn comes, with the log fields and the trace of the request.

        A caller who leaves while it waits gives its place up. A function that runs then ends where it next calls
        :func:`stop_if_abandoned`.

        Args:
            function: blocks for a while.
            arguments: of the function.
            dear: it may take seconds, so it leaves a thread to others whoever asks.
            started: told of the step in its thread, which may outlive the caller.
        """
        turn = await self._turns.take(dear=dear)
        began = self._clock()
        abandoned = threading.Event()
        token = _abandoned.set(abandoned)
        bound = bind(function)
        _abandoned.reset(token)
        step = (self._dear_threads if dear else self._threads).submit(bound, *arguments)
        if started is not None:
            started(step)
        future = asyncio.wrap_future(step)

        def done(ended: asyncio.Future[T]) -> None:
            self._turns.leave(turn, self._clock() - began)
            if not ended.cancelled():
                ended.exception()  # read it, so that a caller who left does not leave a complaint in the log

        future.add_done_callback(done)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def close(self) -> None:
        """Wait for what runs."""
        for threads in (self._threads, self._dear_threads):
            threads.shutdown(wait=True, cancel_futures=True)
