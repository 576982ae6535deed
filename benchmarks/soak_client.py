"""A client of the soak test: sends what the mix says, knows the right answer of each request, and keeps the books."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import httpx
from soak_requests import Mix, Shot

from service.errors import ERROR_TABLE
from service.http.observer import PROBES

JOB_PATIENCE_S = 120.0
WEIGHTS = {
    "predict": 30,
    "guess": 14,
    "batch": 8,
    "job": 8,
    "invalid": 24,
    "huge": 4,
    "elsewhere": 5,
    "abandoned": 10,
    "half": 3,
}


@dataclass
class Books:
    """What happened.

    Attributes:
        answers: count by kind, status and code.
        seconds: of the answers, by kind.
        answered: status by request id.
        abandoned: ids of requests that the client gave up, or may have.
        structures: predicted ones, those of batches included.
        jobs: count by fate.
        faults: whatever was not right, in words.
    """

    answers: Counter[tuple[str, int, str | None]] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answered: dict[str, int] = field(default_factory=dict)
    abandoned: set[str] = field(default_factory=set)
    structures: int = 0
    jobs: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Client:
    """One of several that send at the same time.

    Args:
        http: shared by all; its own connections for each request.
        mix: what to send.
        books: of all clients.
        name: for request ids.
    """

    def __init__(self, http: httpx.AsyncClient, mix: Mix, books: Books, name: str) -> None:
        self._http = http
        self._mix = mix
        self._books = books
        self._name = name
        self._sent = 0

    async def run(self, end: float) -> None:
        """Send until the time is over; what has begun is finished."""
        while time.monotonic() < end:
            choice = self._mix.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            if choice == "job":
                await self._job()
            elif choice == "abandoned":
                await self._abandon()
            elif choice == "half":
                await self._half()
            else:
                await self._send(getattr(self._mix, choice)())

    async def _send(self, shot: Shot) -> httpx.Response | None:
        request_id = self._next_id()
        started = time.perf_counter()
        try:
            reply = await self._request(shot, request_id)
        except httpx.TransportError as error:
            self._fault(f"{shot.kind}: no answer, {type(error).__name__}")
            return None
        books = self._books
        code = problem_code(reply)
        books.seconds[shot.kind].append(time.perf_counter() - started)
        books.answers[shot.kind, reply.status_code, code] += 1
        if request_id in books.answered or reply.headers.get("x-request-id") != request_id:
            self._fault(f"{shot.kind}: the answer of another request")
        if shot.path not in PROBES:  # they are not in the log
            books.answered[request_id] = reply.status_code
        if (reply.status_code, code) not in shot.expected:
            self._fault(f"{shot.kind}: {reply.status_code} {code}, not one of {sorted(map(str, shot.expected))}")
        if code is not None and (code not in ERROR_TABLE or ERROR_TABLE[code].status != reply.status_code):
            self._fault(f"{shot.kind}: {reply.status_code} {code} is not in the error table")
        if reply.status_code == 200:
            self._count_structures(shot, reply)
        return reply

    async def _request(self, shot: Shot, request_id: str) -> httpx.Response:
        arguments = dict(shot.arguments)
        headers = {"X-Request-ID": request_id, **arguments.pop("headers", {})}
        if callable(arguments.get("content")):
            arguments["content"] = arguments["content"]()
        return await self._http.request(shot.method, shot.path, headers=headers, **arguments)

    async def _job(self) -> None:
        """Submit, ask until it is done, fetch, delete; or delete at a random moment."""
        reply = await self._send(self._mix.job())
        if reply is None or reply.status_code != 202:
            return
        self._books.jobs["accepted"] += 1
        path = reply.json()["links"]["status"]
        ok, gone = frozenset({(200, None)}), frozenset({(204, None)})
        if self._mix.random.random() < 0.25:
            await asyncio.sleep(self._mix.random.uniform(0.0, 1.0))
            await self._send(Shot("job deletion", "DELETE", path, gone))
            await self._send(Shot("job, deleted", "GET", path, frozenset({(404, "unknown_job")})))
            self._books.jobs["deleted early"] += 1
            return
        end = time.monotonic() + JOB_PATIENCE_S
        while time.monotonic() < end:
            reply = await self._send(Shot("job status", "GET", path, ok))
            if reply is None or reply.status_code != 200 or reply.json()["state"] in ("done", "failed"):
                break
            await asyncio.sleep(0.2)
        result = await self._send(Shot("job result", "GET", path + "/result", ok))
        if result is None or result.status_code != 200:
            self._fault("a job was accepted and has no result")
            return
        self._books.jobs["fetched"] += 1
        await self._send(Shot("job deletion", "DELETE", path, gone))

    async def _abandon(self) -> None:
        """Leave at a random moment."""
        shot = self._mix.random.choice((self._mix.predict, self._mix.guess, self._mix.batch))()
        request_id = self._next_id()
        self._books.abandoned.add(request_id)
        try:
            async with asyncio.timeout(self._mix.random.uniform(0.0, 0.4)):
                await self._request(shot, request_id)
            self._books.answers["abandoned", 200, "answered before"] += 1
        except TimeoutError:
            self._books.answers["abandoned", 499, None] += 1

    async def _half(self) -> None:
        """Send half a body and leave."""
        request_id = self._next_id()
        self._books.abandoned.add(request_id)
        url = self._http.base_url
        _, writer = await asyncio.open_connection(url.host, url.port)
        lines = ("POST /v1/predict HTTP/1.1", "Host: localhost", f"X-Request-ID: {request_id}")
        head = "\r\n".join((*lines, "Content-Type: application/json", ""))
        writer.write((head + "Content-Length: 1000\r\n\r\n" + '{"structure": ').encode())
        await writer.drain()
        await asyncio.sleep(self._mix.random.uniform(0.0, 0.1))
        writer.close()
        self._books.answers["half a body", 499, None] += 1

    def _count_structures(self, shot: Shot, reply: httpx.Response) -> None:
        if shot.kind.startswith(("predict", "guess")):
            self._books.structures += 1
        elif shot.kind == "batch":
            right = {200, 503, 504}
            for item in reply.json()["items"]:
                self._books.structures += item["status"] == 200
                gold = item["status"] == 422 and item["problem"]["code"] == "unsupported_element"
                if item["status"] not in right and not gold:
                    self._fault(f"batch: a structure is answered {item['status']} {item['problem']['code']}")

    def _next_id(self) -> str:
        self._sent += 1
        return f"{self._name}-{self._sent}"

    def _fault(self, text: str) -> None:
        self._books.faults.append(text)


def problem_code(reply: httpx.Response) -> str | None:
    """Code of a problem; "no problem" for an error that is none."""
    if reply.status_code < 400:
        return None
    if reply.headers.get("content-type") != "application/problem+json":
        return "no problem"
    return str(reply.json()["code"])
