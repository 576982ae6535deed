"""The client waits where a server says for how long, within its limit, and not otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tracegrad_client import AsyncClient, Client, QuotaExceededError, ServerBusyError, TraceGradError


def busy(server: Any, problem_reply: Callable[..., Any], status: int, after: str | None, times: int) -> None:
    """Let the server refuse so many requests."""
    left = [times]

    def fault(_: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            return None
        code, headers, body = problem_reply(status, "queue_full" if status == 503 else "quota_exceeded")
        return code, headers if after is None else {**headers, "Retry-After": after}, body

    server.fault = fault


@pytest.fixture(params=["sync", "async"])
def models(request: pytest.FixtureRequest) -> Callable[..., list]:
    """Asks for the models with either client."""

    def ask(url: str, **arguments: Any) -> list:
        if request.param == "sync":
            with Client(url, **arguments) as client:
                return client.models()

        async def asked() -> list:
            async with AsyncClient(url, **arguments) as client:
                return await client.models()

        return asyncio.run(asked())

    return ask


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_with_a_time_is_waited_out(
    server: Any, problem_reply: Callable[..., Any], models: Callable[..., list], status: int
) -> None:
    busy(server, problem_reply, status, "0.2", times=2)
    started = time.perf_counter()
    assert models(server.url)[0]["name"] == "oracle"
    assert 0.4 <= time.perf_counter() - started < 5
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("status", "after", "max_wait", "asked"),
    [(503, None, 30, 1), (503, "60", 30, 1), (429, "1", 0, 1), (503, "0.3", 0.5, 2), (500, "0.1", 30, 1)],
)
def test_what_names_no_time_or_too_long_a_one_is_raised(
    server: Any,
    problem_reply: Callable[..., Any],
    models: Callable[..., list],
    status: int,
    after: str | None,
    max_wait: float,
    asked: int,
) -> None:
    busy(server, problem_reply, status, after, times=10)
    started = time.perf_counter()
    with pytest.raises(TraceGradError) as caught:
        models(server.url, max_wait=max_wait)
    assert time.perf_counter() - started < 2
    assert len(server.seen) == asked
    assert caught.value.status == status
    assert caught.value.retry_after == (None if after is None else float(after))


def test_a_server_that_is_always_busy_at_once_does_not_hold_the_caller(
    server: Any, problem_reply: Callable[..., Any]
) -> None:
    busy(server, problem_reply, 503, "0", times=1000)
    with pytest.raises(ServerBusyError):
        Client(server.url, max_wait=0.35).models()
    assert len(server.seen) <= 5


def test_who_wants_to_know_is_told_of_each_wait(server: Any, problem_reply: Callable[..., Any]) -> None:
    busy(server, problem_reply, 429, "0.1", times=1)
    client = Client(server.url)
    told: list[tuple[float, TraceGradError]] = []
    client.on_wait = lambda seconds, error: told.append((seconds, error))
    client.models()
    ((seconds, error),) = told
    assert 0.1 <= seconds <= 0.12
    assert isinstance(error, QuotaExceededError)


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_limit_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="max_wait"):
        Client(max_wait=value)
