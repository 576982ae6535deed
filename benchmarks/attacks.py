"""What hostile callers do to honest ones: each attack by itself beside four callers with a water file, or all at once.

``python benchmarks/attacks.py [--seconds 20] [--callers 20] [--only NAME] [--together 600] [--record]`` starts
``python -m service`` with its default limits. Every attacker has an address of its own, as strangers have. For each attack:
how long honest answers and ``/health/live`` took, how far the memory of the service and its processes grew and what was left
of that once it was idle, and what the attackers were told; before them the same of nothing, since the machine may be busy.
The exit code is 1 if an honest request was not answered rightly, the service restarted, or ended other than by our SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
from attack_cases import ATTACKS, PATIENCE_S, Caller
from machine import DEFAULT_CHECKPOINT, describe
from recorded import Column, Table, record
from service_process import HealthProbe, RunningService, resident_bytes, started_service
from soak_report import percentile

WATER = "3\nwater\nO 0 0 {z:.6f}\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
HONEST = 4
PAUSE_S = 0.1
IDLE_S = 3.0
IDLE_SHARE = 0.1
IDLE_AFTER_S = 90.0
"""What is left of an attack, structures that run on without anybody waiting, has ended by then."""


@dataclass
class Outcome:
    """What one attack did.

    Attributes:
        water: seconds of honest answers.
        faults: honest requests that were not answered rightly.
        told: what attackers heard, by attack.
    """

    water: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    told: Counter[tuple[str, str]] = field(default_factory=Counter)


class MemoryWatch:
    """The most memory of a process with its children, looked at ten times a second."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._stopped = threading.Event()
        self.first = self.most = resident_bytes(process)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[int, int]:
        """Bytes that it grew by at most, and those that are left once it has nothing to do."""
        self._stopped.set()
        self._thread.join()
        end = time.monotonic() + IDLE_AFTER_S
        used = cpu_seconds(self._process)
        while time.monotonic() < end:
            time.sleep(IDLE_S)
            before, used = used, cpu_seconds(self._process)
            if used - before < IDLE_SHARE * IDLE_S:
                break
        return self.most - self.first, resident_bytes(self._process) - self.first

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            self.most = max(self.most, resident_bytes(self._process))


def cpu_seconds(process: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def fire(
    service: RunningService, names: Sequence[str], seconds: float, seed: int, callers_of_each: int | None = None
) -> Outcome:
    """Attack for a time, while honest callers ask from a process of their own; None takes each attack's number of callers."""
    outcome = Outcome()
    url = httpx.URL(service.url)
    async with AsyncExitStack() as stack:
        callers: list[tuple[str, Caller]] = []
        for index, name in enumerate(names):
            for k in range(callers_of_each or ATTACKS[name][0]):
                address = f"127.0.{index + 2}.{k + 1}"
                http = await stack.enter_async_context(client(service.url, address))
                callers.append(
                    (name, Caller(http, address, str(url.host), int(url.port or 80), random.Random(seed + k)))
                )
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=ask_honestly, args=(service.url, seconds, seed, theirs), daemon=True)
        process.start()
        await asyncio.to_thread(ours.recv)  # it is ready
        end = time.monotonic() + seconds
        await asyncio.gather(*(hostile(caller, name, ATTACKS[name][1], end, outcome) for name, caller in callers))
        outcome.water, outcome.faults = await asyncio.to_thread(ours.recv)
        process.join()
    return outcome


def client(url: str, address: str) -> httpx.AsyncClient:
    """Connections from an address of their own."""
    transport = httpx.AsyncHTTPTransport(local_address=address, verify=False)
    return httpx.AsyncClient(base_url=url, transport=transport, timeout=PATIENCE_S, trust_env=False)


def ask_honestly(url: str, seconds: float, seed: int, pipe: Connection) -> None:
    """What the process of the honest callers does; sends the seconds of their answers, and the faults."""
    water: list[float] = []
    faults: Counter[str] = Counter()

    async def everybody() -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client(url, f"127.0.1.{k + 1}")) for k in range(HONEST)]
            pipe.send("ready")
            end = time.monotonic() + seconds
            await asyncio.gather(*(honest(http, end, random.Random(seed + k)) for k, http in enumerate(clients)))

    async def honest(http: httpx.AsyncClient, end: float, numbers: random.Random) -> None:
        """Send waters that nobody has sent before, one after another."""
        while time.monotonic() < end:
            text = WATER.format(z=numbers.uniform(0.1, 0.14))
            started = time.perf_counter()
            try:
                reply = await http.post("/v1/predict?format=xyz", content=text, headers={"Content-Type": "text/plain"})
                if reply.status_code != 200:
                    faults[f"water: {reply.status_code} {reply.text[:80]}"] += 1
            except httpx.HTTPError as error:
                faults[f"water: {type(error).__name__}"] += 1
            water.append(time.perf_counter() - started)
            await asyncio.sleep(PAUSE_S)

    asyncio.run(everybody())
    pipe.send((water, faults))


async def hostile(caller: Caller, name: str, attack: Any, end: float, outcome: Outcome) -> None:
    """Do it again and again."""
    while time.monotonic() < end:
        outcome.told[name, await attack(caller)] += 1
        await asyncio.sleep(PAUSE_S)


Row = list[str | int | float | None]
COLUMNS = [
    Column(name="attack"),
    Column(name="callers"),
    Column(name="waters"),
    Column(name="p50", unit="s", digits=2),
    Column(name="p95", unit="s", digits=2),
    Column(name="longest", unit="s", digits=2),
    Column(name="live p99", unit="ms", digits=0),
    Column(name="longest", unit="ms", digits=0),
    Column(name="memory at most", unit="MB", digits=0),
    Column(name="left", unit="MB", digits=0),
    Column(name="load", digits=1),
    Column(name="faults"),
]


def report(name: str, callers: int, outcome: Outcome, health: list[float], grown: tuple[int, int]) -> Row:
    """A row of figures, printed with what was told."""
    water, live = sorted(outcome.water), [1e3 * value for value in health]
    timed = [statistics.median(water), percentile(water, 95), water[-1], percentile(live, 99), max(live)]
    memory, load = [each / 1e6 for each in grown], os.getloadavg()[0]
    row: Row = [name, callers, len(water), *timed, *memory, load, outcome.faults.total()]
    print(
        f"{name:28} water n {len(water):4} p50 {timed[0]:6.2f} p95 {timed[1]:6.2f} max {timed[2]:6.2f} s; live p99 "
        f"{timed[3]:6.0f} max {timed[4]:6.0f} ms; memory +{memory[0]:.0f} MB, left {memory[1]:.0f}; load {load:.1f}",
        flush=True,
    )
    for (attack, answer), count in sorted(outcome.told.items()):
        print(f"    {attack}: {count} x {answer}", flush=True)
    for fault, count in outcome.faults.items():
        print(f"    FAULT {count} x {fault}", flush=True)
    return row


def told_table(told: Counter[tuple[str, str]]) -> Table:
    """What each attack was answered."""
    names = dict.fromkeys(name for name, _ in told)
    rows: list[Row] = []
    for name in names:
        answers = Counter({answer: count for (attack, answer), count in told.items() if attack == name})
        rows.append([name, ", ".join(f"{count} x {answer}" for answer, count in answers.most_common())])
    return Table(columns=[Column(name="attack"), Column(name="answers")], rows=rows)


def main() -> int:
    """Run as asked; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack")
    parser.add_argument("--only", action="append", choices=list(ATTACKS), help="these attacks")
    parser.add_argument("--callers", type=int, help="of each attack, instead of its own number")
    parser.add_argument("--together", type=float, default=0.0, help="seconds of all attacks at once, instead")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/attacks.json")
    arguments = parser.parse_args()
    print(describe())
    names = arguments.only or list(ATTACKS)
    rounds: list[tuple[str, list[str], float]] = [("nothing", [], 20.0)]
    if arguments.together:
        rounds.append(("all together", names, arguments.together))
    else:
        rounds += [(name, [name], arguments.seconds) for name in names]
    faults: Counter[str] = Counter()
    told: Counter[tuple[str, str]] = Counter()
    rows: list[Row] = []
    with started_service(MAX_CONNECTIONS_PER_ADDRESS="64") as service:
        asyncio.run(fire(service, [], 5.0, seed=1))  # warm
        assert service.process is not None
        for number, (name, attacks, seconds) in enumerate(rounds):
            probe, memory = HealthProbe(service.url), MemoryWatch(service.process)
            outcome = asyncio.run(fire(service, attacks, seconds, 1000 * (number + 1), arguments.callers))
            health, failures = probe.stop()
            outcome.faults.update({"/health/live failed": failures} if failures else {})
            callers = sum(arguments.callers or ATTACKS[attack][0] for attack in attacks)
            rows.append(report(name, callers, outcome, health, memory.stop()))
            faults += outcome.faults
            told += outcome.told
    if service.exit_code != 0:
        faults[f"the service ended with {service.exit_code}"] += 1
    print(f"{faults.total()} faults")
    if arguments.record:
        checkpoint = str(json.loads((DEFAULT_CHECKPOINT / "card.json").read_text())["version"])
        tables = [Table(columns=COLUMNS, rows=rows), told_table(told)]
        record("attacks", tables=tables, spread="one run", checkpoint=checkpoint)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
