"""How long a request may take, and whether its caller still waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from starlette.requests import Request

from service.errors import ServiceError

T = TypeVar("T")


CLIENT_GONE: Final = 499
"""Status for the records where no answer went out: the client had left, or the process was told to end."""


class ClientGoneError(Exception):
    """The caller closed the connection before the answer was ready."""


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """``asyncio.timeout`` whose TimeoutError is the contract's error.

    Raises:
        ServiceError: ``deadline_exceeded``.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as late:
        if not limit.expired():
            raise
        raise ServiceError(
            "deadline_exceeded",
            f"The answer was not ready within {seconds:g} s.",
            hint="Try again later, or send a smaller structure.",
        ) from late


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Wait for ``work`` as long as the caller does; the body must have been read.

    Raises:
        ClientGoneError: the caller left; ``work`` is cancelled.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        for future in (task, gone):
            if not future.done():
                future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
