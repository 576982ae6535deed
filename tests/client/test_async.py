"""The client that awaits gives what the other one gives, several questions at a time."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from typing import Any

import numpy as np
import pytest

from tracegrad_client import (
    AsyncClient,
    AsyncGuessJob,
    Client,
    Guess,
    InvalidInputError,
    RequestTimeoutError,
    ServerUnreachableError,
    UnsupportedError,
)

WATER = ([8, 1, 1], [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
SILANE = (
    [14, 1, 1, 1, 1],
    [[0, 0, 0], [0.85, 0.85, 0.85], [-0.85, -0.85, 0.85], [-0.85, 0.85, -0.85], [0.85, -0.85, -0.85]],
)


def test_answers_are_those_of_the_other_client(live: Client) -> None:
    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(live.base_url) as client:
            first = await asyncio.gather(
                client.guess(WATER),
                client.hamiltonian(WATER),
                client.orbital_energies(WATER, unit="eV"),
                client.models(),
            )
            many = await client.guesses([WATER, SILANE, "none.xyz"])
            job = await client.submit(WATER)
            assert isinstance(job, AsyncGuessJob)
            waited = await job.wait(60)
            assert (await job.state()).finished
            again = await client.job(job.id, WATER).result()
            await job.delete()
            return (*first, many, waited, again)

    guess, (h, s), energies, models, many, waited, again = asyncio.run(ask())
    expected = live.guess(WATER)
    np.testing.assert_allclose(guess.density_matrix, expected.density_matrix, atol=2e-5)
    for other in (waited, again):
        np.testing.assert_allclose(other.density_matrix, expected.density_matrix, atol=2e-5)
    for one, other in zip((h, s), live.hamiltonian(WATER), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert energies.gap == pytest.approx(live.orbital_energies(WATER, unit="eV").gap, abs=1e-4)
    assert [card["name"] for card in models] == [card["name"] for card in live.models()]
    assert [type(outcome) for outcome in many] == [Guess, UnsupportedError, InvalidInputError]


def test_errors_are_those_of_the_other_client(server: Any, dead_url: str) -> None:
    async def fails(url: str, **limits: Any) -> None:
        async with AsyncClient(url, **limits) as client:
            await client.models()

    with pytest.raises(ServerUnreachableError, match=dead_url):
        asyncio.run(fails(dead_url))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and says nothing
        started = time.perf_counter()
        with pytest.raises(RequestTimeoutError, match=r"0\.3 s"):
            asyncio.run(fails(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.3))
        assert time.perf_counter() - started < 3
    server.fault = lambda _: (200, {"Content-Encoding": "gzip"}, b"x")
    with pytest.raises(Exception, match="compressed"):
        asyncio.run(fails(server.url))


def test_a_question_that_is_cancelled_ends_at_once() -> None:
    async def cancelled() -> float:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with AsyncClient(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                task = asyncio.create_task(client.models())
                await asyncio.sleep(0.1)
                started = time.perf_counter()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return time.perf_counter() - started

    assert asyncio.run(cancelled()) < 1


def test_methods_have_the_arguments_of_the_other_client() -> None:
    """What is there under the same name takes the same arguments; what is not there is said in the documents."""
    left_out = {"attach", "submit_file", "file_job"}
    public = {name for name in dir(AsyncClient) if callable(getattr(AsyncClient, name)) and not name.startswith("_")}
    of_other = {name for name in dir(Client) if callable(getattr(Client, name)) and not name.startswith("_")}
    assert of_other - public == left_out
    assert public <= of_other
    for name in public:
        one, other = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (AsyncClient, Client))
        assert one == other, name
