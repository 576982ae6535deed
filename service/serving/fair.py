"""A few threads whose work is shared out by caller, so that one caller's long work does not make the others wait.

Whoever has used the least time of late is next; of a caller never seen before a little is assumed, so that those who are
known for little go before. One thread of several is kept for callers whose recent use is small and for work that is cheap:
someone who keeps the others busy for seconds at a time gets all of them but that one.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Final, NamedTuple, TypeVar

from service.observability.logs import bind

T = TypeVar("T")

KEY_CALLER: Final = "key "

caller: ContextVar[str] = ContextVar("caller", default="")
"""Who asks: the name of a key behind ``KEY_CALLER``, or an address. Whatever has no request shares the empty name."""

HALF_LIFE_S: Final = 30.0
LIGHT_S: Final = 1.0
"""Who has used less of late is light."""
NEW_S: Final = 0.1
"""What a caller not seen before counts as having used."""


class _Turn(NamedTuple):
    owner: str
    dear: bool
    come: asyncio.Future[None]


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
        clock: seconds of any origin, never set back.
    """

    def __init__(self, workers: int, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._clock = clock
        self._waiting: list[_Turn] = []
        self._running: list[str] = []
        self._used: dict[str, tuple[float, float]] = {}

    async def run(self, function: Callable[..., T], *arguments: object, dear: bool = False) -> T:
        """Run a function in a thread, when its caller's turn comes, with the log fields and the trace of the request.

        A caller who leaves while it waits gives its place up. A function that runs then ends where it next calls
        :func:`stop_if_abandoned`.

        Args:
            function: blocks for a while.
            arguments: of the function.
            dear: it may take seconds, so it leaves a thread to others whoever asks.
        """
        owner = caller.get()
        turn = _Turn(owner, dear, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self._start_next()
        try:
            await turn.come
        except asyncio.CancelledError:
            if turn.come.done() and not turn.come.cancelled():
                self._ended(owner, 0.0)  # its turn had come in the same moment
            else:
                self._waiting = [waiting for waiting in self._waiting if waiting is not turn]
            raise
        began = self._clock()
        abandoned = threading.Event()
        token = _abandoned.set(abandoned)
        bound = bind(function)
        _abandoned.reset(token)
        future = asyncio.get_running_loop().run_in_executor(self._executor, bound, *arguments)

        def done(ended: asyncio.Future[T]) -> None:
            self._ended(owner, self._clock() - began)
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
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _ended(self, owner: str, seconds: float) -> None:
        self._running.remove(owner)
        before = self._recent(owner) if owner in self._used else 0.0
        self._used[owner] = (before + seconds, self._clock())
        if len(self._used) > 1000:
            self._used = {name: entry for name, entry in self._used.items() if self._recent(name) > 0.01}
        self._start_next()

    def _start_next(self) -> None:
        """Give free threads to those whose turn it is."""
        while self._waiting and len(self._running) < self._workers:
            last_thread = self._workers > 1 and len(self._running) == self._workers - 1
            turns = [turn for turn in self._waiting if not (last_thread and self._is_heavy(turn))]
            if not turns:
                return
            # time that runs is not known yet: each running piece counts as a light one
            turn = min(turns, key=lambda each: self._recent(each.owner) + LIGHT_S * self._running.count(each.owner))
            self._waiting = [waiting for waiting in self._waiting if waiting is not turn]
            self._running.append(turn.owner)
            turn.come.set_result(None)

    def _is_heavy(self, turn: _Turn) -> bool:
        return turn.dear or self._recent(turn.owner) >= LIGHT_S

    def _recent(self, owner: str) -> float:
        """Seconds used, where those of half a minute ago count half."""
        seconds, at = self._used.get(owner, (NEW_S, self._clock()))
        return seconds * math.exp2((at - self._clock()) / HALF_LIFE_S)
