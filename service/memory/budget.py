"""Who may begin: memory is promised before it is used, so that the kernel never has to kill for it.

Small structures pass those that wait for a large place; large ones come in turn. What can never fit is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from service.errors import ServiceError
from service.memory.steps import until_done
from service.memory.usage import give_back

SMALL: Final = 1 / 16
"""Of the capacity; what needs less does not wait behind what needs more."""

TRIMMED_FROM: Final = 64 * 1024 * 1024
"""After a structure of this size free pages are handed back to the system."""

RETRY_AFTER_S: Final = 5


class Memory(Protocol):
    """What promises memory: the service's own budget, or, in the process of the jobs, the service's from afar."""

    def check(self, need: int) -> None:
        """Refuse what can never fit."""

    def hold(self, need: int) -> AbstractAsyncContextManager[None]:
        """Memory for the time of a ``with``; waits for its turn."""


class MemoryBudget:
    """Bytes for computing. Its methods belong to one event loop.

    Args:
        capacity: what there is beyond an idle service; None where nothing limits it.
        waiting_limit: structures that may wait for memory.
    """

    def __init__(self, capacity: int | None, waiting_limit: int = 32) -> None:
        self.capacity = capacity
        self._waiting_limit = waiting_limit
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are promised."""
        return self._held

    def check(self, need: int) -> None:
        """Refuse what can never fit.

        Raises:
            ServiceError: ``too_large_for_memory``.
        """
        if self.capacity is not None and need > self.capacity:
            raise too_large(need, self.capacity)

    @asynccontextmanager
    async def hold(self, need: int) -> AsyncIterator[None]:
        """Memory for the time of a ``with``, and of the steps in threads that go on after it; waits for its turn.

        Args:
            need: bytes.

        Raises:
            ServiceError: as of :meth:`take`.
        """
        await self.take(need)
        loop = asyncio.get_running_loop()
        with until_done(lambda: self._release_from_anywhere(loop, need)):
            yield

    async def take(self, need: int) -> None:
        """Wait for memory; :meth:`release` gives it back.

        Args:
            need: bytes.

        Raises:
            ServiceError: ``too_large_for_memory``; ``queue_full`` where too many wait already.
        """
        self.check(need)
        if self._may_begin(need):
            self._held += need
        else:
            await self._turn(need)

    def release(self, need: int) -> None:
        """Give back what :meth:`take` gave, from the event loop."""
        self._held -= need
        self._admit()

    def _release_from_anywhere(self, loop: asyncio.AbstractEventLoop, need: int) -> None:
        """A step that outlives its request ends in its own thread."""
        if need >= TRIMMED_FROM:
            give_back()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended
            loop.call_soon_threadsafe(self.release, need)

    async def _turn(self, need: int) -> None:
        if len(self._waiting) >= self._waiting_limit:
            raise ServiceError(
                "queue_full",
                "Too many structures are waiting for memory.",
                hint="Try again after the time in Retry-After.",
                retry_after_s=RETRY_AFTER_S,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (need, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._held -= need  # its turn had come in the same moment
            else:
                self._waiting.remove(entry)
            self._admit()
            raise

    def _fits(self, need: int) -> bool:
        return self.capacity is None or self._held + need <= self.capacity

    def _is_small(self, need: int) -> bool:
        return self.capacity is None or need <= SMALL * self.capacity

    def _may_begin(self, need: int) -> bool:
        return self._fits(need) and (not self._waiting or self._is_small(need))

    def _admit(self) -> None:
        """Let in who waits: the first while it fits, and small ones behind a first that does not."""
        first = True
        for entry in list(self._waiting):
            need, turn = entry
            if turn.done():
                continue
            if self._fits(need) and (first or self._is_small(need)):
                self._waiting.remove(entry)
                self._held += need
                turn.set_result(None)
            else:
                first = False


def too_large(need: int, capacity: int) -> ServiceError:
    """The error for a structure that no wait will make fit."""
    return ServiceError(
        "too_large_for_memory",
        f"The structure needs about {need / 1e6:.0f} MB, and this server has {capacity / 1e6:.0f} MB for a structure.",
        field="structure",
        hint="Send a smaller structure, or ask for fewer outputs; the operator can give the service more memory.",
    )
