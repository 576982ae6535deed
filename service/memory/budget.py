"""Who may begin: memory is promised before it is used, so that the kernel never has to kill for it.

A part of the memory is kept for small structures, which pass those that wait for a large place; large ones come in turn;
those of batches wait behind all others. What can never fit is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from service.errors import ServiceError
from service.memory.steps import until_done
from service.memory.usage import give_back
from service.serving.turns import Usage, caller

SMALL_SHARE: Final = 1 / 16
"""Of the capacity, kept for small structures: what needs no more than that passes those that wait for a larger place."""

SMALL_BYTES: Final = 64_000_000
"""At least so much is kept, since the network's base alone takes 36 MB; but never more than a third of the capacity."""

PATIENT_SHARE: Final = 1 / 2
"""Of the capacity, for all structures of batches together."""

TRIMMED_FROM: Final = 64 * 1024 * 1024
"""After a structure of this size free pages are handed back to the system."""

RETRY_AFTER_S: Final = 5


class Memory(Protocol):
    """What promises memory: the service's own budget, or, in the process of the jobs, the service's from afar."""

    def check(self, need: int) -> None:
        """Refuse what can never fit."""

    def hold(self, need: int, *, patient: bool = False) -> AbstractAsyncContextManager[None]:
        """Memory for the time of a ``with``; waits for its turn."""


@dataclass(eq=False)
class _Entry:
    """One that waits."""

    need: int
    patient: bool
    owner: str
    turn: asyncio.Future[None]


class MemoryBudget:
    """Bytes for computing. Its methods belong to one event loop.

    Args:
        capacity: what there is beyond an idle service; None where nothing limits it.
        waiting_limit: structures that may wait for memory.

    Attributes:
        capacity: as given; may be set later.
        when_short: called when one begins to wait, for whoever keeps memory that it could do without.
    """

    def __init__(self, capacity: int | None, waiting_limit: int = 32) -> None:
        self.capacity = capacity
        self.when_short: Callable[[], None] = _nothing
        self._waiting_limit = waiting_limit
        self._held = self._held_by_small = self._held_by_patient = 0
        self._usage = Usage()
        self._waiting: deque[_Entry] = deque()
        self._waiting_patiently: deque[_Entry] = deque()

    @property
    def held(self) -> int:
        """Bytes that are promised."""
        return self._held

    @property
    def small(self) -> int:
        """Most bytes of a small structure, and what the others leave to such; 0 without a limit."""
        whole = self.capacity or 0
        return int(min(whole / 3, max(SMALL_SHARE * whole, SMALL_BYTES)))

    @property
    def largest(self) -> int | None:
        """Most bytes of any structure; None without a limit."""
        return None if self.capacity is None else self.capacity - self.small

    def check(self, need: int) -> None:
        """Refuse what can never fit.

        Raises:
            ServiceError: ``too_large_for_memory``.
        """
        if self.largest is not None and need > self.largest:
            raise too_large(need, self.largest)

    @asynccontextmanager
    async def hold(self, need: int, *, patient: bool = False) -> AsyncIterator[None]:
        """Memory for the time of a ``with``, and of the steps in threads that go on after it; waits for its turn.

        Args:
            need: bytes.
            patient: as of :meth:`take`.

        Raises:
            ServiceError: as of :meth:`take`.
        """
        await self.take(need, patient=patient)
        loop = asyncio.get_running_loop()
        with until_done(lambda: self._release_from_anywhere(loop, need, patient)):
            yield

    async def take(self, need: int, *, patient: bool = False) -> None:
        """Wait for memory; :meth:`release` gives it back.

        Args:
            need: bytes.
            patient: one of many of a caller, such as a batch: it waits behind all others, however many wait, and together
                they leave half of the memory free.

        Raises:
            ServiceError: ``too_large_for_memory``; ``queue_full`` where too many wait already.
        """
        self.check(need)
        if self._may_begin(need, patient):
            self._count(need, patient)
        else:
            await self._turn(need, patient)

    def release(self, need: int, *, patient: bool = False) -> None:
        """Give back what :meth:`take` gave, from the event loop."""
        self._count(-need, patient)
        self._admit()

    def _release_from_anywhere(self, loop: asyncio.AbstractEventLoop, need: int, patient: bool) -> None:
        """A step that outlives its request ends in its own thread."""
        if need >= TRIMMED_FROM:
            # gigabytes take a good part of a second, and this may be the event loop's thread
            threading.Thread(target=give_back, name="trim", daemon=True).start()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended
            loop.call_soon_threadsafe(partial(self.release, need, patient=patient))

    async def _turn(self, need: int, patient: bool) -> None:
        if not patient and len(self._waiting) >= self._waiting_limit:
            raise ServiceError(
                "queue_full",
                "Too many structures are waiting for memory.",
                hint="Try again after the time in Retry-After.",
                retry_after_s=RETRY_AFTER_S,
            )
        entry = _Entry(need, patient, caller.get(), asyncio.get_running_loop().create_future())
        line = self._waiting_patiently if patient else self._waiting
        line.append(entry)
        self.when_short()
        try:
            await entry.turn
        except asyncio.CancelledError:
            if entry.turn.done() and not entry.turn.cancelled():
                self.release(need, patient=patient)  # its turn had come in the same moment
            else:
                line.remove(entry)
                self._admit()
            raise

    def _count(self, change: int, patient: bool, owner: str | None = None) -> None:
        if change > 0:
            self._usage.add(caller.get() if owner is None else owner, change)
        self._held += change
        self._held_by_small += change if abs(change) <= self.small else 0
        self._held_by_patient += change if patient else 0

    def _fits(self, need: int, *, passes: bool = False) -> bool:
        """Whether there is room; for one that passes others that wait, in what is kept for small ones alone."""
        if self.capacity is None:
            return True
        if need > self.small:
            others = self._held - self._held_by_small
            return not passes and others + need <= self.capacity - self.small and self._held + need <= self.capacity
        return self._held + need <= self.capacity and not (passes and self._held_by_small + need > self.small)

    def _fits_patiently(self, need: int) -> bool:
        share = PATIENT_SHARE * (self.capacity or 0)
        within = self.capacity is None or not self._held_by_patient or self._held_by_patient + need <= share
        return within and self._fits(need)

    def _may_begin(self, need: int, patient: bool) -> bool:
        if patient:
            return not self._waiting and not self._waiting_patiently and self._fits_patiently(need)
        return self._fits(need, passes=bool(self._waiting))

    def _admit(self) -> None:
        """Let in who waits: the first while it fits, small ones behind a first that does not, then the patient.

        Callers who have had the least of late go before the others.
        """
        blocked = False
        had = {entry.owner: self._usage.recent(entry.owner) for entry in self._waiting}
        for entry in sorted(self._waiting, key=lambda each: had[each.owner]):
            if entry.turn.done():
                continue
            if self._fits(entry.need, passes=blocked):
                self._begin(self._waiting, entry)
            else:
                blocked = True
        while not self._waiting and self._waiting_patiently:
            entry = self._waiting_patiently[0]
            if not entry.turn.done() and not self._fits_patiently(entry.need):
                return
            self._begin(self._waiting_patiently, entry)

    def _begin(self, line: deque[_Entry], entry: _Entry) -> None:
        line.remove(entry)
        if not entry.turn.done():
            self._count(entry.need, entry.patient, entry.owner)
            entry.turn.set_result(None)


def _nothing() -> None:
    """No one asked."""


def too_large(need: int, capacity: int) -> ServiceError:
    """The error for a structure that no wait will make fit."""
    return ServiceError(
        "too_large_for_memory",
        f"The structure needs about {need / 1e6:.0f} MB, and this server has {capacity / 1e6:.0f} MB for a structure.",
        field="structure",
        hint="Send a smaller structure, or ask for fewer outputs; the operator can give the service more memory.",
    )
