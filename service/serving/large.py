"""Large structures: few at a time, in turn by caller, in threads of their own.

From a certain size on a structure takes a thread for a good part of a second, and the largest take gigabytes and half a
minute on their way. Whoever would wait for longer than a request may take is told so at once.

Their threads have the priority of all others: one of a low priority that holds Python's lock keeps the whole process waiting
(beside two busy processes a coroutine of 5 ms took 240 ms at most with threads of niceness 10, and 64 ms with those of 0).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from service.errors import ServiceError, retry_after
from service.memory.steps import until_done
from service.observability.logs import bind
from service.serving.turns import Turn, Turns, caller

T = TypeVar("T")

DEAR_ATOMS: Final = 25
"""From here on a structure is large."""

HUGE_ORBITALS: Final = 500
"""From here on it takes ten seconds and more, and leaves the last place to those that take less."""

LIGHT_S: Final = 20.0
"""Callers who have used more of late leave it, too."""

LEARNING: Final = 0.3
"""Weight of the last structure in what a structure takes."""


def is_huge(n_orbitals: int) -> bool:
    """Whether a structure of so many orbitals (0: nobody knows) keeps out of the last place."""
    return n_orbitals == 0 or n_orbitals >= HUGE_ORBITALS


class LargeLane:
    """Turns and threads of large structures. One event loop uses it.

    Args:
        cores: that there are; as many structures are on their way at a time, and at least two, one of them not huge.
        name: of the model.
        clock: seconds of any origin, never set back.
    """

    def __init__(self, cores: int, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = max(2, cores)
        self._turns = Turns(self._places, light_s=LIGHT_S, clock=clock)
        self._threads = ThreadPoolExecutor(self._places + 1, thread_name_prefix=f"model-{name}-large")
        self._clock = clock
        self._seconds_each: float | None = None  # for a square of orbitals

    @asynccontextmanager
    async def turn(self, n_orbitals: int, time_left_s: float | None, *, patient: bool) -> AsyncIterator[None]:
        """A turn for the time of a ``with``, and for the steps in threads that go on after it.

        Args:
            n_orbitals: of the structure: its time grows with their square. 0 where nobody knows.
            time_left_s: seconds until nobody waits for it any more; None for no limit.
            patient: of a batch or a job. A job, which has no caller, has a pace of its own and waits for nobody.

        Raises:
            ServiceError: ``queue_full`` where the turn would come too late.
        """
        cost, huge = float(n_orbitals) ** 2, is_huge(n_orbitals)
        if patient and not caller.get():
            yield
            return
        if time_left_s is not None and not patient:
            self._refuse_what_comes_too_late(cost, time_left_s, huge=huge)
        turn = await self._turns.take(cost=cost, dear=huge)
        began = self._clock()
        loop = asyncio.get_running_loop()
        done = False
        with until_done(lambda: self._release(loop, turn, began)):
            try:
                yield
                done = True
            finally:
                self._learn(cost, self._clock() - began, done=done)

    async def run(self, function: Callable[[], T], *, started: Callable[[Future[T]], object]) -> T:
        """Run a function in one of the threads, with the log fields and the trace of the request.

        Args:
            function: blocks for a while.
            started: told of the step in its thread, which may outlive the caller.
        """
        step = self._threads.submit(bind(function))
        started(step)
        return await asyncio.wrap_future(step)

    def is_light(self, owner: str) -> bool:
        """Whether a caller has used little of late."""
        return self._turns.is_light(owner)

    def close(self) -> None:
        """Wait for what runs."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _refuse_what_comes_too_late(self, cost: float, time_left_s: float, *, huge: bool) -> None:
        ahead = self._turns.cost_ahead(caller.get(), dear=huge)
        if self._seconds_each is None or not ahead:
            return  # the only one is always tried
        wait_s = self._seconds_each * ahead / (self._places - 1)
        if wait_s + self._seconds_each * cost > time_left_s:
            raise ServiceError(
                "queue_full",
                f"Large structures that came before keep this one waiting for about {wait_s:.0f} s, which is longer than a "
                "request may take.",
                hint="Try again after the time in Retry-After, or send it to POST /v1/jobs, which has time.",
                retry_after_s=retry_after(math.ceil(wait_s)),
            )

    def _learn(self, cost: float, seconds: float, *, done: bool) -> None:
        """What a structure took; of one that nobody waited for any more it is known that it takes longer than that."""
        if cost and (done or (self._seconds_each or 0.0) < seconds / cost):
            each = seconds / cost
            known = each if self._seconds_each is None else self._seconds_each
            self._seconds_each = known + LEARNING * (each - known)

    def _release(self, loop: asyncio.AbstractEventLoop, turn: Turn, began: float) -> None:
        """From any thread: a step that outlives its request ends in its own."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended
            loop.call_soon_threadsafe(self._turns.leave, turn, self._clock() - began)
