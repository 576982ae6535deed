"""What hostile callers do to honest ones: each attack by itself beside four callers with a water file, or all at once.

``python benchmarks/attacks.py [--seconds 20] [--only NAME] [--together 600]`` starts ``python -m service`` with its default
limits. Every attacker has an address of its own, as strangers have. For each attack: how long honest answers and
``/health/live`` took, how far the memory of the service and its processes grew, and what the attackers were told. The exit
code is 1 if an honest request was not answered rightly, the service restarted, or ended otherwise than by our SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from attack_cases import ATTACKS, PATIENCE_S, Caller
from machine import describe
from service_process import HealthProbe, RunningService, started_service
from soak_report import percentile

WATER = "3\nwater\nO 0 0 {z:.6f}\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
HONEST = 4
PAUSE_S = 0.1
SETTLE_S = 3.0


@dataclass
class Outcome:
    """What one attack did.

    Attributes:
        water: seconds of honest answers.
        faults: honest requests that were not answered rightly.
        told: what attackers heard.
    """

    water: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)


class MemoryWatch:
    """The most memory of a process with its children, looked at ten times a second."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._stopped = threading.Event()
        self.first = self.most = resident_bytes(process)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Bytes that it grew by at most."""
        self._stopped.set()
        self._thread.join()
        return self.most - self.first

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            self.most = max(self.most, resident_bytes(self._process))


def resident_bytes(process: int) -> int:
    """Resident memory of a process and its children."""
    total = 0
    for number in (process, *children(process)):
        try:
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1]) * 4096
        except OSError:
            continue  # it has just ended
    return total


def children(process: int) -> list[int]:
    """Child processes."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return found


async def fire(service: RunningService, names: Sequence[str], seconds: float, seed: int) -> Outcome:
    """Attack for a time, while honest callers ask."""
    outcome, end = Outcome(), time.monotonic() + seconds
    url = httpx.URL(service.url)
    async with AsyncExitStack() as stack:

        async def client(address: str) -> httpx.AsyncClient:
            transport = httpx.AsyncHTTPTransport(local_address=address)
            return await stack.enter_async_context(
                httpx.AsyncClient(base_url=service.url, transport=transport, timeout=PATIENCE_S, trust_env=False)
            )

        tasks = [
            asyncio.create_task(honest(await client(f"127.0.1.{k + 1}"), end, outcome, random.Random(seed + k)))
            for k in range(HONEST)
        ]
        for index, name in enumerate(names):
            count, attack = ATTACKS[name]
            for k in range(count):
                address = f"127.0.{index + 2}.{k + 1}"
                caller = Caller(await client(address), address, str(url.host), int(url.port or 80), random.Random(k))
                tasks.append(asyncio.create_task(hostile(caller, attack, end, outcome)))
        await asyncio.gather(*tasks)
    return outcome


async def honest(http: httpx.AsyncClient, end: float, outcome: Outcome, numbers: random.Random) -> None:
    """Send waters that nobody has sent before, one after another."""
    while time.monotonic() < end:
        text = WATER.format(z=numbers.uniform(0.1, 0.14))
        started = time.perf_counter()
        try:
            reply = await http.post("/v1/predict?format=xyz", content=text, headers={"Content-Type": "text/plain"})
            if reply.status_code != 200:
                outcome.faults[f"water: {reply.status_code} {reply.text[:80]}"] += 1
        except httpx.HTTPError as error:
            outcome.faults[f"water: {type(error).__name__}"] += 1
        outcome.water.append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE_S)


async def hostile(caller: Caller, attack: Any, end: float, outcome: Outcome) -> None:
    """Do it again and again."""
    while time.monotonic() < end:
        outcome.told[await attack(caller)] += 1
        await asyncio.sleep(PAUSE_S)


def report(name: str, outcome: Outcome, health: list[float], grown: float) -> None:
    """A line of figures, and one of what was told."""
    water, live = sorted(outcome.water), [1e3 * value for value in health]
    print(
        f"{name:28} water n {len(water):4} p50 {statistics.median(water):6.2f} p95 {percentile(water, 95):6.2f} "
        f"max {water[-1]:6.2f} s; live p99 {percentile(live, 99):6.0f} max {max(live):6.0f} ms; "
        f"memory +{grown / 1e6:.0f} MB",
        flush=True,
    )
    print("    " + ", ".join(f"{count} x {what}" for what, count in outcome.told.most_common(6)), flush=True)
    for fault, count in outcome.faults.items():
        print(f"    FAULT {count} x {fault}", flush=True)


def main() -> int:
    """Run as asked; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack")
    parser.add_argument("--only", action="append", choices=list(ATTACKS), help="these attacks")
    parser.add_argument("--together", type=float, default=0.0, help="seconds of all attacks at once, instead")
    arguments = parser.parse_args()
    print(describe())
    names = arguments.only or list(ATTACKS)
    rounds = [("nothing", [], 10.0)] + [(name, [name], arguments.seconds) for name in names]
    if arguments.together:
        rounds = [("all together", names, arguments.together)]
    faults: Counter[str] = Counter()
    with started_service(MAX_CONNECTIONS_PER_ADDRESS="64") as service:
        asyncio.run(fire(service, [], 5.0, seed=1))  # warm
        assert service.process is not None
        for number, (name, attacks, seconds) in enumerate(rounds):
            probe, memory = HealthProbe(service.url), MemoryWatch(service.process)
            outcome = asyncio.run(fire(service, attacks, seconds, seed=1000 * (number + 1)))
            health, failures = probe.stop()
            outcome.faults.update({"/health/live failed": failures} if failures else {})
            report(name, outcome, health, memory.stop())
            faults += outcome.faults
            time.sleep(SETTLE_S)
    if service.exit_code != 0:
        faults[f"the service ended with {service.exit_code}"] += 1
    print(f"{faults.total()} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
