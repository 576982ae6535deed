"""A few threads whose work is shared out by caller, so that one caller's long work does not make the others wait.

Whoever has used the least time of late is next. While anybody's recent use is small, one thread of several is kept for
such callers: someone who keeps the others busy for seconds at a time gets all of them but that one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Final, TypeVar

from service.observability.logs import bind

T = TypeVar("T")

caller: ContextVar[str] = ContextVar("caller", default="")
"""Who asks: the name of a key, or an address. Jobs and whatever else has no request share the empty name."""

HALF_LIFE_S: Final = 30.0
LIGHT_S: Final = 1.0
"""Who has used less of late is light."""


class FairPool:
    """Threads with one queue for each caller. One event loop uses it.

    Args:
        workers: number of threads.
        name: of the threads.
        clock: seconds of any origin, never set back.
    """

    def __init__(self, workers: int, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._clock = clock
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._running: list[str] = []
        self._used: dict[str, tuple[float, float]] = {}

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function in a thread, when its caller's turn comes, with the log fields and the trace of the request.

        A caller who leaves while it waits gives its place up; a function that runs is run to its end.
        """
        owner = caller.get()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, turn))
        self._start_next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._ended(owner, 0.0)  # its turn had come in the same moment
            else:
                self._waiting = [entry for entry in self._waiting if entry[1] is not turn]
            raise
        began = self._clock()
        future = asyncio.get_running_loop().run_in_executor(self._executor, bind(function), *arguments)

        def done(ended: asyncio.Future[T]) -> None:
            self._ended(owner, self._clock() - began)
            if not ended.cancelled():
                ended.exception()  # read it, so that a caller who left does not leave a complaint in the log

        future.add_done_callback(done)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Wait for what runs."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _ended(self, owner: str, seconds: float) -> None:
        self._running.remove(owner)
        self._used[owner] = (self._recent(owner) + seconds, self._clock())
        if len(self._used) > 1000:
            self._used = {name: entry for name, entry in self._used.items() if self._recent(name) > 0.01}
        self._start_next()

    def _start_next(self) -> None:
        """Give free threads to those whose turn it is."""
        while self._waiting and len(self._running) < self._workers:
            # time that runs is not known yet: each running piece counts as a light one
            entry = min(self._waiting, key=lambda each: self._recent(each[0]) + LIGHT_S * self._running.count(each[0]))
            owner, turn = entry
            heavy = self._recent(owner) >= LIGHT_S
            last_thread = self._workers > 1 and len(self._running) == self._workers - 1
            if heavy and last_thread:
                return
            self._waiting.remove(entry)
            self._running.append(owner)
            turn.set_result(None)

    def _recent(self, owner: str) -> float:
        """Seconds used, where those of half a minute ago count half."""
        seconds, at = self._used.get(owner, (0.0, 0.0))
        return seconds * math.exp2((at - self._clock()) / HALF_LIFE_S) if seconds else 0.0
