"""What batching brings: the same clients and molecules against two services, one of which sends every structure alone.

Called by ``soak.py --throughput``. Rounds alternate between the two processes, so that what else runs on the machine hits
both; the ratio of neighbouring rounds is the figure. CPU seconds for each structure say the same with less noise.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from ase.build import molecule
from service_process import RunningService, started_service
from soak_requests import wire

MOLECULES = ("H2O", "CH3OH", "CH3CH2OH")
REQUESTS_EACH = 12
RATTLE_ANGSTROM = 0.02
STAGES = ("integrals", "forward", "eigensolve")


@dataclass(frozen=True)
class Round:
    """One round against one service.

    Attributes:
        rate: structures per second of wall time.
        cpu_ms: of the service, for each structure.
        client_cpu_ms: of the clients, for each structure.
        stages_ms: mean for each structure by stage; of a forward pass its share.
        queue_ms: mean wait.
        batch_size: mean over structures.
        latency_ms: median.
    """

    rate: float
    cpu_ms: float
    client_cpu_ms: float
    stages_ms: dict[str, float]
    queue_ms: float
    batch_size: float
    latency_ms: float


ROWS: tuple[tuple[str, Callable[[Round], float]], ...] = (
    ("structures per second", lambda r: r.rate),
    ("structures in a forward pass", lambda r: r.batch_size),
    ("latency p50, ms", lambda r: r.latency_ms),
    ("wait for the device, ms", lambda r: r.queue_ms),
    ("service CPU per structure, ms", lambda r: r.cpu_ms),
    ("  integrals, wall", lambda r: r.stages_ms["integrals"]),
    ("  forward, wall, its share", lambda r: r.stages_ms["forward"]),
    ("  eigensolve, wall", lambda r: r.stages_ms["eigensolve"]),
    ("client CPU per structure, ms", lambda r: r.client_cpu_ms),
)


def one_round(service: RunningService, n_clients: int, numbers: np.random.Generator) -> Round:
    """Each client sends its requests one after another."""
    bodies = [[body(numbers, k) for k in range(REQUESTS_EACH)] for _ in range(n_clients)]

    async def run() -> list[tuple[dict[str, Any], float]]:
        async with httpx.AsyncClient(base_url=service.url, timeout=180, trust_env=False) as http:

            async def client(mine: list[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
                metas = []
                for each in mine:
                    started = time.perf_counter()
                    reply = await http.post("/v1/predict", json=each)
                    metas.append((reply.raise_for_status().json()["meta"], time.perf_counter() - started))
                return metas

            return [meta for mine in await asyncio.gather(*map(client, bodies)) for meta in mine]

    cpu, client_cpu, started = service.cpu_seconds(), time.process_time(), time.perf_counter()
    answers = asyncio.run(run())
    seconds, client_cpu = time.perf_counter() - started, time.process_time() - client_cpu
    cpu = service.cpu_seconds() - cpu
    metas = [meta for meta, _ in answers]
    n = len(metas)

    def mean(name: str) -> float:
        shares = [meta["timings_ms"][name] / (meta["batch_size"] if name == "forward" else 1) for meta in metas]
        return statistics.fmean(shares)

    return Round(
        rate=n / seconds,
        cpu_ms=1e3 * cpu / n,
        client_cpu_ms=1e3 * client_cpu / n,
        stages_ms={name: mean(name) for name in STAGES},
        queue_ms=mean("queue"),
        batch_size=statistics.fmean(meta["batch_size"] for meta in metas),
        latency_ms=1e3 * statistics.median(latency for _, latency in answers),
    )


def body(numbers: np.random.Generator, index: int) -> dict[str, Any]:
    """A molecule that no cache knows."""
    atoms = molecule(MOLECULES[index % len(MOLECULES)])
    atoms.positions += numbers.normal(scale=RATTLE_ANGSTROM, size=atoms.positions.shape)
    return {"structure": wire(atoms)}


def main(n_clients: int, rounds: int) -> int:
    """Measure and print."""
    numbers = np.random.default_rng(11)
    common = {"QUEUE_LIMIT": "64", "CACHE_BYTES": "0"}
    found: dict[str, list[Round]] = {"batched": [], "alone": []}
    with started_service(**common) as batched, started_service(**common, BATCH_COST="1") as alone:
        services = {"batched": batched, "alone": alone}
        for repeat in range(rounds + 1):
            for name in ("batched", "alone") if repeat % 2 else ("alone", "batched"):
                measured = one_round(services[name], n_clients, numbers)
                if repeat:  # the first one warms up
                    found[name].append(measured)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{n_clients} clients, {REQUESTS_EACH} requests each of {', '.join(MOLECULES)}, {rounds} rounds each, alternating"
    )
    print(f"load of the machine (1, 5, 15 minutes): {load} on {os.cpu_count()} cores\n")
    print(f"{'median of rounds':34}{'batched':>10}{'alone':>10}")
    for title, of in ROWS:
        cells = [statistics.median(of(measured) for measured in found[name]) for name in found]
        print(f"{title:34}" + "".join(f"{cell:10.2f}" for cell in cells))
    print()
    pairs = list(zip(found["batched"], found["alone"], strict=True))
    print("throughput ratio: " + spread([a.rate / b.rate for a, b in pairs]))
    print("CPU ratio (alone / batched): " + spread([b.cpu_ms / a.cpu_ms for a, b in pairs]))
    return 0


def spread(ratios: Sequence[float]) -> str:
    """Median, smallest and largest."""
    return f"median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} pairs"
