"""HTTP with limits: one request in, the bytes of a successful answer out, everything else a typed error.

Three limits that httpx alone does not give: the time limit covers the whole exchange from the connection to the last
trailer (``deadline``), the size of an answer is capped and no compressed one is taken, and proxies from the environment
are not used for a server on this very machine.
"""

from __future__ import annotations

import time
import weakref
from typing import Any, TypeVar

import httpx

from tracegrad_client.deadline import Deadline
from tracegrad_client.endpoint import Endpoint
from tracegrad_client.errors import QuotaExceededError, ServerBusyError
from tracegrad_client.exchange import NO_ANSWER, Answer, Request, Talk

T = TypeVar("T")


class Transport(Endpoint):
    """Sends requests to one server; arguments as of :class:`tracegrad_client.endpoint.Endpoint`."""

    def __init__(self, base_url: str, **options: Any) -> None:
        super().__init__(base_url, **options)
        self._http = httpx.Client(**self.http_options)
        weakref.finalize(self, self._http.close)  # `Client().attach(mf).kernel()` leaves nobody to close it

    def close(self) -> None:
        """Close the connections; the transport cannot be used afterwards."""
        self._http.close()

    def run(self, talk: Talk[T]) -> T:
        """Carry out a talk and return its result.

        Raises:
            TraceGradError: one of its leaves; never an httpx exception.
        """
        answer: Answer | None = None
        try:
            while True:
                step = next(talk) if answer is None else talk.send(answer)
                if isinstance(step, Request):
                    answer = self.send(step)
                else:
                    time.sleep(step.seconds)
                    answer = NO_ANSWER
        except StopIteration as done:
            result: T = done.value
            return result

    def request(self, method: str, path: str, **rest: Any) -> Answer:
        """:meth:`send`, with the fields of the request as arguments."""
        return self.send(Request(method, path, **rest))

    def send(self, request: Request) -> Answer:
        """Send a request and return the answer; waits where the server says for how long, up to ``max_wait``.

        Raises:
            TraceGradError: one of its leaves; never an httpx exception.
        """
        waited = 0.0
        while True:
            try:
                return self._sent(request)
            except (QuotaExceededError, ServerBusyError) as error:
                seconds = self.wait_before_next(error, waited)
            time.sleep(seconds)
            waited += seconds

    def _sent(self, request: Request) -> Answer:
        arguments = request.arguments()
        try:
            return self._exchange(self._http.build_request(**arguments))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self.translated(error) from error

    def _exchange(self, request: httpx.Request) -> Answer:
        with Deadline(self.timeout) as deadline:
            request.extensions["trace"] = deadline.trace
            try:
                response, body = self._received(request)
            except httpx.HTTPError as error:
                if deadline.over:
                    raise self.timed_out() from error
                raise
            if deadline.over:
                raise self.timed_out()
        return self.read(response, body)

    def _received(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """Headers and the body, within its size."""
        response = self._http.send(request, stream=True)
        try:
            self.check_encoding(response)
            body = bytearray()
            for chunk in response.iter_raw():
                self.add(body, chunk, response)
            return response, bytes(body)
        finally:
            response.close()
