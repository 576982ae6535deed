"""A text file in memory."""

from __future__ import annotations

import io
import time
from typing import Final

from service.serving.fair import stop_if_abandoned

CHECK_EVERY_S: Final = 0.1


class MemoryText(io.StringIO):
    """A file in memory whose writer ends when nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__()
        self._checked = 0.0

    def write(self, text: str, /) -> int:
        now = time.monotonic()
        if now - self._checked > CHECK_EVERY_S:
            self._checked = now
            stop_if_abandoned()
        return super().write(text)

    def content(self) -> bytes:
        """What was written."""
        return self.getvalue().encode()
