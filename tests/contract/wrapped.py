"""A predictor that does something else first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Wrapped:
    """A real predictor one of whose steps does something else first."""

    def __init__(self, inner: Any, before: Callable[[], object], *, step: str = "forward") -> None:
        self._inner = inner
        self._step = step
        self._before = before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name != self._step:
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            self._before()
            return method(*arguments, **options)

        return call
