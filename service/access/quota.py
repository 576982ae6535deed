"""How many requests a key has left in the last minute: a moving window for each key, in this process's memory."""

from __future__ import annotations

import math
import time
from typing import Final

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from service.access.key_ring import ApiKey

WINDOW_S: Final = 60


class Quotas:
    """The windows of all keys. They are empty after a restart."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def take(self, key: ApiKey) -> int | None:
        """Count one request against a key.

        Returns:
            None if it is within the quota; else the whole seconds, 1 to 60, after which one more will be. A request
            that is refused is not counted, so a caller that waits that long gets through.
        """
        if key.requests_per_minute is None:
            return None
        limit = RateLimitItemPerMinute(key.requests_per_minute)
        if self._limiter.hit(limit, key.name):
            return None
        # The window frees just after its oldest request is a minute old: one second more than the whole ones.
        left = self._limiter.get_window_stats(limit, key.name).reset_time - time.time()
        return max(1, min(WINDOW_S, math.floor(left) + 1))
