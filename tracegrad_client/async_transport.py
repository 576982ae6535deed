"""The same as ``transport``, for code that awaits: with asyncio's own time limit on the whole exchange."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import httpx

from tracegrad_client.endpoint import Endpoint
from tracegrad_client.errors import QuotaExceededError, ServerBusyError
from tracegrad_client.exchange import NO_ANSWER, Answer, Request, Talk

T = TypeVar("T")


class AsyncTransport(Endpoint):
    """Sends requests to one server; arguments as of :class:`tracegrad_client.endpoint.Endpoint`."""

    def __init__(self, base_url: str, **options: Any) -> None:
        super().__init__(base_url, **options)
        self._http = httpx.AsyncClient(**self.http_options)

    async def close(self) -> None:
        """Close the connections; the transport cannot be used afterwards."""
        await self._http.aclose()

    async def run(self, talk: Talk[T]) -> T:
        """Carry out a talk and return its result.

        Raises:
            TraceGradError: one of its leaves; never an httpx exception.
        """
        answer: Answer | None = None
        try:
            while True:
                step = next(talk) if answer is None else talk.send(answer)
                if isinstance(step, Request):
                    answer = await self.send(step)
                else:
                    await asyncio.sleep(step.seconds)
                    answer = NO_ANSWER
        except StopIteration as done:
            result: T = done.value
            return result

    async def send(self, request: Request) -> Answer:
        """Send a request and return the answer; waits where the server says for how long, up to ``max_wait``.

        Raises:
            TraceGradError: one of its leaves; never an httpx exception.
        """
        waited = 0.0
        while True:
            try:
                return await self._sent(request)
            except (QuotaExceededError, ServerBusyError) as error:
                seconds = self.wait_before_next(error, waited)
            await asyncio.sleep(seconds)
            waited += seconds

    async def _sent(self, request: Request) -> Answer:
        arguments = request.arguments()
        try:
            async with asyncio.timeout(self.timeout):
                response, body = await self._received(self._http.build_request(**arguments))
        except TimeoutError as error:
            raise self.timed_out() from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self.translated(error) from error
        return self.read(response, body)

    async def _received(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """Headers and the body, within its size."""
        response = await self._http.send(request, stream=True)
        try:
            self.check_encoding(response)
            body = bytearray()
            async for chunk in response.aiter_raw():
                self.add(body, chunk, response)
            return response, bytes(body)
        finally:
            await response.aclose()
