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
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import soak_throughput
from machine import describe
from service_process import HealthProbe, RunningService, started_service
from soak_client import Books, Client
from soak_report import print_report
from soak_requests import Mix

QUEUE_LIMIT = 6
MAX_BODY_BYTES = 1024 * 1024
MEMORY_GROWTH = 0.10
SETTLE_S = 5.0
RESIDUE_PATIENCE_S = 60.0


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
