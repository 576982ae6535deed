"""Steps in threads that outlive their request: a caller who leaves does not stop an integral, whose memory is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_steps: ContextVar[list[Future[Any]] | None] = ContextVar("steps", default=None)


def track(step: Future[Any]) -> Future[Any]:
    """Note a step of the current request; returns it."""
    steps = _steps.get()
    if steps is not None:
        steps.append(step)
    return step


@contextmanager
def until_done(release: Callable[[], object]) -> Iterator[None]:
    """Call ``release`` once all steps noted inside are over; perhaps later than the end, and then from any thread.

    One around it waits for them, too.
    """
    outer = _steps.get()
    steps: list[Future[Any]] = []
    token = _steps.set(steps)
    try:
        yield
    finally:
        _steps.reset(token)
        if outer is not None:
            outer.extend(steps)
        waiting = [step for step in steps if not step.done()]
        if waiting:
            _after_all(waiting, release)
        else:
            release()


def _after_all(steps: list[Future[Any]], release: Callable[[], object]) -> None:
    step = steps[0]
    rest = steps[1:]
    step.add_done_callback(lambda _: _after_all(rest, release) if rest else release())
