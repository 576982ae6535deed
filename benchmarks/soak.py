"""Does the service hold under fire? A mix of good, bad, huge and abandoned requests, and the books balanced at the end.

``python benchmarks/soak.py [--seconds 60] [--clients 8] [--strict] [--url http://...]`` starts ``python -m service`` with a
small queue and without a cache (or takes the one at the URL), warms it up with the mix, then measures. The exit code is 1
if an accepted request was not answered exactly once, an answer was not the right one, a job was lost, memory grew by more
than 10 %, or work was left behind. ``--throughput`` measures batching instead (soak_throughput.py).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import soak_throughput
from machine import describe
from service_process import HealthProbe, RunningService, started_service
from soak_report import print_report
from soak_requests import Mix, Shot

from service.errors import ERROR_TABLE
from service.http.observer import PROBES

QUEUE_LIMIT = 6
MAX_BODY_BYTES = 1024 * 1024
MEMORY_GROWTH = 0.10
SETTLE_S = 5.0
JOB_PATIENCE_S = 120.0
RESIDUE_PATIENCE_S = 60.0
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
            if shot.kind in ("huge: body", "huge: stream"):
                # refused while the body was still coming: the connection may close before the client looks
                self._books.answers[shot.kind, 413, "connection closed"] += 1
                self._books.abandoned.add(request_id)
            else:
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
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-Request-ID: {request_id}\r\nContent-Type: application/json\r\n"
        )
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


@asynccontextmanager
async def clients(url: str, count: int, seed: int, books: Books, name: str) -> AsyncIterator[list[Client]]:
    """Clients with random numbers of their own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=count)
    async with httpx.AsyncClient(base_url=url, timeout=180, trust_env=False, limits=limits) as http:
        yield [
            Client(http, Mix(100 * seed + k, max_body_bytes=MAX_BODY_BYTES), books, f"{name}-{k}") for k in range(count)
        ]


def fire(service: RunningService, count: int, seconds: float, seed: int, name: str) -> tuple[Books, float]:
    """Send the mix for a time; books, and seconds until the last answer."""

    async def run() -> Books:
        books = Books()
        async with clients(service.url, count, seed, books, name) as everyone:
            end = time.monotonic() + seconds
            await asyncio.gather(*(client.run(end) for client in everyone))
        return books

    started = time.monotonic()
    books = asyncio.run(run())
    return books, time.monotonic() - started


def residue(service: RunningService) -> dict[str, float]:
    """Requests and predictions that are still there once everybody has left; waits a while for none."""
    end = time.monotonic() + RESIDUE_PATIENCE_S
    while True:
        metrics = service.metrics()
        left = {"in flight": metrics["tracegrad_in_flight"] - 1, "queue depth": metrics["tracegrad_queue_depth"]}
        if not any(left.values()) or time.monotonic() > end:
            return left
        time.sleep(0.2)


def check_log(service: RunningService, books: Books) -> list[str]:
    """The service's own account: one line for each request, the status that its client saw, and no error."""
    faults = []
    lines: Counter[str] = Counter()
    for entry in service.log_entries():
        if entry["level"].lower() in ("error", "critical", "unreadable"):
            faults.append(f"log: {entry['level']} {entry.get('logger')}: {entry['message']}")
        if entry.get("logger") != "service.access":
            continue
        request_id = str(entry.get("request_id"))
        lines[request_id] += 1
        if request_id in books.answered and entry["status"] != books.answered[request_id]:
            faults.append(
                f"log: {request_id} has status {entry['status']}, its client saw {books.answered[request_id]}"
            )
    faults += [f"log: {lines[name]} lines for {name}" for name in books.answered if lines[name] != 1]
    faults += [
        f"log: {lines[name]} lines for {name}, which was abandoned" for name in books.abandoned if lines[name] > 1
    ]
    return faults


def soak(service: RunningService, arguments: argparse.Namespace) -> dict[str, Any]:
    """Warm up, settle, fire, settle; all figures."""
    warm_up, _ = fire(service, arguments.clients, arguments.warm_up, arguments.seed + 1, "warm")
    residue(service)
    time.sleep(SETTLE_S)
    before, cpu_before = service.resident_bytes(), service.cpu_seconds()
    probe = HealthProbe(service.url)
    books, seconds = fire(service, arguments.clients, arguments.seconds, arguments.seed, "soak")
    health, failures = probe.stop()
    cpu = service.cpu_seconds() - cpu_before
    left = residue(service)
    time.sleep(SETTLE_S)
    after = service.resident_bytes()
    faults = [f"while warming up: {text}" for text in warm_up.faults] + books.faults
    faults += [f"{name} is {value:g} at the end" for name, value in left.items() if value]
    if after > (1.0 + MEMORY_GROWTH) * before:
        faults.append(f"memory grew from {before / 1e6:.0f} to {after / 1e6:.0f} MB")
    if failures:
        faults.append(f"/health/live failed {failures} times")
    jobs = books.jobs
    if jobs["accepted"] != jobs["fetched"] + jobs["deleted early"]:
        faults.append(f"jobs are missing: {dict(jobs)}")
    return {
        "books": books,
        "seconds": seconds,
        "cpu": cpu,
        "health": health,
        "memory": (before, after),
        "faults": faults,
        "left": left,
    }


def main() -> int:
    """Run as asked; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=30.0, help="seconds of the mix before anything is measured")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--url", help="a service that runs already, with the default limits, without keys")
    parser.add_argument("--strict", action="store_true", help="a slow /health/live is an error too")
    parser.add_argument("--throughput", action="store_true", help="with batching against without")
    parser.add_argument("--rounds", type=int, default=5, help="of --throughput")
    arguments = parser.parse_args()
    print(describe())
    if arguments.throughput:
        return soak_throughput.main(arguments.clients if arguments.clients != 8 else 16, arguments.rounds)
    if arguments.url:
        figures = soak(RunningService(arguments.url.rstrip("/")), arguments)
    else:
        limits = {"QUEUE_LIMIT": str(QUEUE_LIMIT), "CACHE_BYTES": "0", "MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
        with started_service(**limits) as service:
            figures = soak(service, arguments)
            figures["faults"] += check_log(service, figures["books"])
        if service.exit_code != 0:
            figures["faults"].append(f"the service ended with exit code {service.exit_code}")
    return print_report(figures, arguments)


if __name__ == "__main__":
    sys.exit(main())
