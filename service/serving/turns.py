"""Whose turn it is: work is shared out by caller, so that one caller's long work does not make the others wait.

Each caller has a clock that goes on by what it uses, and whose clock is furthest behind is next. A clock never lies further
behind than those that are served: who asks for little is served at once, whatever others do and whatever it used before, and
who asks for much waits for as long as the others need. A caller never seen before begins a little ahead, so that those who
are known for little go before. Where there are several places, one may be kept for callers whose recent use is small and for
work that is cheap: someone who keeps the others busy for seconds at a time gets all of them but that one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, NamedTuple

KEY_CALLER: Final = "key "

caller: ContextVar[str] = ContextVar("caller", default="")
"""Who asks: the name of a key behind ``KEY_CALLER``, or an address. Whatever has no request shares the empty name."""

HALF_LIFE_S: Final = 30.0
LIGHT_S: Final = 1.0
"""Who has used less of late is light."""
NEW_S: Final = 0.1
"""What a caller not seen before counts as having used."""
MOST_CALLERS: Final = 1000
"""Remembered at a time; of more, those with little use are forgotten."""


class Usage:
    """What callers have used of late: of half a minute ago half counts.

    Args:
        new: what a caller not seen before counts as having used; in the unit of what is added.
        clock: seconds of any origin, never set back.
    """

    def __init__(self, new: float = NEW_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._new = new
        self._clock = clock
        self._used: dict[str, tuple[float, float]] = {}

    def recent(self, owner: str) -> float:
        """What a caller has used."""
        used, at = self._used.get(owner, (self._new, self._clock()))
        return used * math.exp2((at - self._clock()) / HALF_LIFE_S)

    def add(self, owner: str, amount: float) -> None:
        """A caller has used something."""
        before = self.recent(owner) if owner in self._used else 0.0
        self._used[owner] = (before + amount, self._clock())
        if len(self._used) > MOST_CALLERS:
            self._used = {name: entry for name, entry in self._used.items() if self.recent(name) > self._new / 10}


SHARED: Final = 4
"""A queue holds so many times what one caller may have in it; who comes to it is served in turn, not in order."""


class Room:
    """Who may wait in a bounded queue: so many of a caller; its last quarter is for light callers with nothing in it yet.

    Args:
        limit: most of a caller that may wait behind the one that is worked on.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside: Counter[str] = Counter()

    @property
    def inside(self) -> int:
        """How many are worked on or wait."""
        return self._inside.total()

    def takes(self, owner: str, *, light: bool = True) -> bool:
        """Whether one more of a caller may enter; what has no caller is not more than one caller.

        Args:
            owner: the caller.
            light: whether it has used little of late.
        """
        if not owner:
            return self.inside <= self.limit
        own = self._inside[owner]
        shares = SHARED if light and not own else SHARED - 1
        return own <= self.limit and self.inside <= shares * self.limit

    def enter(self, owner: str) -> None:
        """One more; each needs its :meth:`leave`."""
        self._inside[owner] += 1

    def leave(self, owner: str) -> None:
        """One less."""
        self._inside[owner] -= 1
        if not self._inside[owner]:
            del self._inside[owner]


class Turn(NamedTuple):
    """Somebody waits.

    Attributes:
        owner: for whom.
        dear: it may take seconds, so it leaves the last place to others whoever asks.
        cost: of the work, in a unit of the pool's own.
        since: how far the clocks were when it began to wait.
        come: done once its turn has come.
    """

    owner: str
    dear: bool
    cost: float
    since: float
    come: asyncio.Future[None]


class Turns:
    """Places with one queue for each caller. One event loop uses it.

    Args:
        places: most turns at a time.
        keep_last: of several places keep one for light callers and cheap work.
        light_s: who has used less of late is light.
        clock: seconds of any origin, never set back.
    """

    def __init__(
        self,
        places: int,
        *,
        keep_last: bool = True,
        light_s: float = LIGHT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._light_s = light_s
        self._places = places
        self._keep_last = keep_last and places > 1
        self._costs = Usage(clock=clock)
        self._clocks: dict[str, float] = {}
        self._served = 0.0  # how far the clock of the one served last was
        self._waiting: list[Turn] = []
        self._running: list[Turn] = []

    async def take(self, *, dear: bool = False, cost: float = 0.0) -> Turn:
        """Wait for a turn of the caller of this context; give it back with :meth:`leave`.

        A caller who leaves while it waits gives its place up.
        """
        turn = Turn(caller.get(), dear, cost, self._served, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self._start_next()
        try:
            await turn.come
        except asyncio.CancelledError:
            if turn.come.done() and not turn.come.cancelled():
                self.leave(turn, 0.0)  # its turn had come in the same moment
            else:
                self._waiting = [waiting for waiting in self._waiting if waiting is not turn]
            raise
        return turn

    def leave(self, turn: Turn, seconds: float, cost_s: float | None = None) -> None:
        """A turn that had come is over.

        Args:
            turn: as :meth:`take` gave it.
            seconds: for which it had a place, by which its caller's clock goes on.
            cost_s: what it cost, by which its caller is light or not; by default as much. On a busy machine a piece of a
                millisecond has its place for a tenth of a second, and who asks for such pieces is light all the same.
        """
        self._running = [running for running in self._running if running is not turn]
        self._clocks[turn.owner] = self._clocks.get(turn.owner, self._served) + seconds
        if len(self._clocks) > MOST_CALLERS:
            self._clocks = {owner: own for owner, own in self._clocks.items() if own > self._served}
        self._costs.add(turn.owner, seconds if cost_s is None else cost_s)
        self._start_next()

    def cost_ahead(self, owner: str, *, dear: bool) -> float:
        """Cost of what goes before a new turn of a caller: what runs, its own queue, and as long a one of each other caller.

        Args:
            owner: who would wait.
            dear: whether the turn would be; where a place is kept from dear ones, they go before no other.
        """
        before = [each for each in (*self._waiting, *self._running) if dear or not (each.dear and self._keep_last)]
        own = [turn.cost for turn in self._waiting if turn.owner == owner and turn in before]
        others: dict[str, list[float]] = {}
        for turn in self._waiting:
            if turn.owner != owner and turn in before:
                others.setdefault(turn.owner, []).append(turn.cost)
        ahead = sum(sum(costs[: len(own) + 1]) for costs in others.values())
        return ahead + sum(own) + sum(turn.cost for turn in self._running if turn in before)

    def _start_next(self) -> None:
        """Give free places to those whose turn it is."""
        # who was cancelled in this very step of the loop waits here until its task runs again: its place would be lost
        self._waiting = [turn for turn in self._waiting if not turn.come.done()]
        while self._waiting and len(self._running) < self._places:
            last_place = self._keep_last and len(self._running) == self._places - 1
            turns = [turn for turn in self._waiting if not (last_place and self._is_heavy(turn))]
            if not turns:
                return
            # what runs is not known yet: each running piece counts as a light one; of equals who used less, or came first
            running = [turn.owner for turn in self._running]
            turn = min(
                turns,
                key=lambda each: (
                    self._time(each) + LIGHT_S * running.count(each.owner),
                    self._clocks.get(each.owner, self._served),
                ),
            )
            self._clocks[turn.owner] = self._time(turn)
            self._served = max(self._served, self._clocks[turn.owner])
            self._waiting = [waiting for waiting in self._waiting if waiting is not turn]
            self._running.append(turn)
            turn.come.set_result(None)

    def _time(self, turn: Turn) -> float:
        """How far the clock of a waiting turn's caller is."""
        own = self._clocks.get(turn.owner)
        return turn.since + NEW_S if own is None else max(own, turn.since)

    def is_light(self, owner: str) -> bool:
        """Whether a caller has used little of late."""
        return self._costs.recent(owner) < self._light_s

    def _is_heavy(self, turn: Turn) -> bool:
        return turn.dear or not self.is_light(turn.owner)
