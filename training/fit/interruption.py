"""What a machine may do to a run: stop it at any moment, or start it twice.

SIGTERM and SIGINT (Ctrl-C) end a run after the step that is under way, saved, as if its time were up; a second one ends it at
once. While reference and samples are being made there is nothing to save, and the run ends there. A run folder belongs to one
process at a time.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from training.tables import ConfigError

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
LOCK_FILE: Final = "lock"


class StoppedError(Exception):
    """A signal came before there was anything to save; its text is the signal's name."""


class StopSignals:
    """Signals as a wish to stop.

    Attributes:
        received: name of the signal that came while :meth:`at_a_step` held; empty if none did.
    """

    def __init__(self) -> None:
        self.received = ""
        self._deferred = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Take the signals over; outside of the main thread, where Python allows no handlers, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_a_step(self) -> Iterator[None]:
        """From here on a signal is noted, and whoever runs the steps looks at ``received`` after each."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self._deferred or self.received:
            raise StoppedError(name)
        self.received = name


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder; the lock goes with the process, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    path = folder / LOCK_FILE
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{folder} is being trained in by another process ({file.read().strip() or 'unknown'}); wait for it, stop "
                "it, or give this run another [run] output."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield
