"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Return once the condition holds; fail if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether a service is there and ready."""
    try:
        return httpx.get(url + "/health/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
