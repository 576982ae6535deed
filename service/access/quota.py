"""How much a key has left of the last minute: a moving window for each key, in this process's memory.

Time is the monotonic clock's: a wall clock that is set back or forward would lock callers out, or let them in.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Final

from service.access.key_ring import ApiKey

WINDOW_S: Final = 60


class Quotas:
    """The windows of all keys. They are empty after a restart. For one thread: the event loop's."""

    def __init__(self) -> None:
        self._taken: dict[str, deque[tuple[float, int]]] = {}

    def take(self, key: ApiKey, count: int = 1) -> int | None:
        """Count requests, or structures of one, against a key: all of them or none.

        Returns:
            None if they are within the quota; else the whole seconds, 1 to 60, after which they will be, if nothing else
            is asked. What is refused is not counted, so a caller that waits that long gets through. More than the
            whole quota never is within it.
        """
        if key.requests_per_minute is None or count <= 0:
            return None
        taken, now = self._taken.setdefault(key.name, deque()), time.monotonic()
        while taken and taken[0][0] <= now - WINDOW_S:
            taken.popleft()
        over = sum(each for _, each in taken) + count - key.requests_per_minute
        if over <= 0:
            taken.append((now, count))
            return None
        for at, each in taken:
            over -= each
            if over <= 0:
                return max(1, min(WINDOW_S, math.floor(at + WINDOW_S - now) + 1))
        return WINDOW_S
