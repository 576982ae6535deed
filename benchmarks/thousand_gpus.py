"""A thousand GPUs in numbers: what one replica does, what a queue makes of it, and what processors, bytes and money follow.

``python benchmarks/thousand_gpus.py [--check] [--record]``. Times of a structure are those of prediction_parts.json, by part;
``--check`` measures a replica of this machine on one core, alone and under Poisson arrivals, beside the simulated queue.
What is not measured is in ``ASSUMED``, with its source. docs/scaling.md reads the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
from ase.build import molecule
from numpy.typing import NDArray
from queue_model import simulate, simulate_closed
from recorded import RESULTS, Column, Figure, Result, Table, as_markdown, record
from service_process import started_service

HTTP_MS: Final = 10.0
"""HTTP and scheduling of one request, CPU (batching.json)."""
BULK_MS: Final = 1.0
"""Reading, sorting and writing of one structure in ``training predict``, CPU; assumed, bulk_prediction.json has all."""
REPLICAS: Final = 1000


@dataclass(frozen=True)
class Assumed:
    """What nobody here has measured.

    Attributes:
        forward_ms: of a structure on a GPU, in batches: three cases.
        cores: of a machine, for each GPU: common servers have 16 to 32.
        gpu_hour, core_hour: prices, dollars; a GPU's with its 24 cores.
        failures_per_gpu_hour: 419 unexpected interruptions in 54 days of 16,384 GPUs (arXiv:2407.21783, section 3.3.4).
        replaced_minutes: until another replica has taken a failed one's place, a new node included.
    """

    forward_ms: tuple[float, ...] = (0.3, 1.0, 3.0)
    cores: tuple[int, ...] = (16, 24, 32)
    gpu_hour: float = 2.5
    core_hour: float = 0.04
    failures_per_gpu_hour: float = 419 / (54 * 24 * 16_384)
    replaced_minutes: float = 10.0


ASSUMED: Final = Assumed()


def parts_ms() -> dict[str, tuple[float, float, float]]:
    """Integrals with H0, forward pass and eigensolve of each molecule, one thread."""
    table = Result.model_validate_json((RESULTS / "prediction_parts.json").read_bytes()).tables[0]
    names = [column.name for column in table.columns]
    places = [names.index(name) for name in ("H0 and integrals", "forward", "eigensolve")]
    return {str(row[0]): tuple(float(str(row[place])) for place in places) for row in table.rows}  # type: ignore[misc]


def plan_table() -> Table:
    """For each molecule and GPU: processors that keep a GPU busy, and what a server of 24 cores really does."""
    rows: list[list[Any]] = []
    for name, (integrals, forward, solve) in parts_ms().items():
        outside = integrals + solve
        for gpu_ms in ASSUMED.forward_ms:
            served = min(24e3 / (outside + HTTP_MS), 1e3 / gpu_ms)
            bulk = min(24e3 / (outside + BULK_MS), 1e3 / gpu_ms)
            alone_ms = outside + forward + BULK_MS
            rows.append(
                [
                    name,
                    gpu_ms,
                    round((outside + HTTP_MS) / gpu_ms),
                    round((outside + BULK_MS) / gpu_ms),
                    round(served),
                    round(bulk),
                    round(100 * bulk * gpu_ms / 1e3),
                    round(ASSUMED.gpu_hour / 3600 / bulk * 1e6, 2),
                    round(ASSUMED.core_hour / 3600 * alone_ms / 1e3 * 1e6, 2),
                ]
            )
    return Table(
        columns=[
            Column(name="molecule"),
            Column(name="GPU forward, assumed", unit="ms"),
            Column(name="cores a GPU, service"),
            Column(name="cores a GPU, bulk"),
            Column(name="service on 24 cores", unit="1/s"),
            Column(name="bulk on 24 cores", unit="1/s"),
            Column(name="GPU busy in bulk", unit="%"),
            Column(name="a million, GPU", unit="$", digits=2),
            Column(name="a million, cores alone", unit="$", digits=2),
        ],
        rows=rows,
    )


def queue_table(service_s: NDArray[np.float64], cores: int = 24) -> Table:
    """Answer times of many replicas by use and by how a balancer chooses; the CPU is the server."""
    rows: list[list[Any]] = []
    replicas = 50  # of a thousand, which differ in nothing; a drawn choice knows no more than two of them
    for use in (0.5, 0.7, 0.8, 0.9, 0.95):
        rate = use * replicas * cores / float(service_s.mean())
        found = [
            simulate(service_s, servers=cores, rate=rate, count=40_000, replicas=replicas, choices=choices)
            for choices in (1, 2)
        ]
        rows.append([use, *(round(1e3 * value) for one in found for value in (one.mean, one.p99))])
    return Table(
        columns=[
            Column(name="use of cores"),
            Column(name="drawn: mean", unit="ms"),
            Column(name="p99", unit="ms"),
            Column(name="better of two: mean", unit="ms"),
            Column(name="p99", unit="ms"),
        ],
        rows=rows,
    )


def failure_figures() -> list[Figure]:
    """Failures of a thousand replicas."""
    hours = 1.0 / (REPLICAS * ASSUMED.failures_per_gpu_hour)
    away = ASSUMED.replaced_minutes / 60 / hours
    training = 1.0 - (ASSUMED.replaced_minutes / 60 + 0.5 * 250 * 1.0 / 3600) / hours
    return [
        Figure(name="hours between failures of any of 1000 GPUs", value=round(hours, 1), unit="h"),
        Figure(name="replicas away on average, at 10 minutes each", value=round(away, 4)),
        Figure(
            name="share of time that a run over all of them trains (saved every 250 s)",
            value=round(training, 4),
        ),
    ]


async def _closed(client: httpx.AsyncClient, seconds: float, offset: int) -> list[float]:
    taken: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        taken.append(await _one(client, offset + len(taken)))
    return taken


async def _open(client: httpx.AsyncClient, rate: float, seconds: float, offset: int) -> list[float]:
    random = np.random.default_rng(offset)
    tasks: list[asyncio.Task[float]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tasks.append(asyncio.create_task(_one(client, offset + len(tasks))))
        await asyncio.sleep(random.exponential(1.0 / rate))
    return list(await asyncio.gather(*tasks))


async def _one(client: httpx.AsyncClient, number: int) -> float:
    shift = 1e-7 * number
    positions = [[0.0, 0.0, 0.117], [0.0, 0.757 + shift, -0.469], [0.0, -0.757, -0.469 - shift]]
    body = {
        "structure": {"kind": "atoms", "numbers": [8, 1, 1], "positions": positions},
        "outputs": ["orbital_energies"],
    }
    begun = time.perf_counter()
    (await client.post("/v1/predict", json=body)).raise_for_status()
    return time.perf_counter() - begun


def check() -> list[Figure]:
    """One replica on one core: alone, then under Poisson arrivals, in turns; and the same simulated with one server."""
    figures = []
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with started_service(batch_cost="1", cache_bytes="0", queue_limit="1000", jobs="off") as service:

        async def run() -> dict[float, tuple[list[float], list[float], float]]:
            found: dict[float, tuple[list[float], list[float], float]] = {}
            async with httpx.AsyncClient(base_url=service.url, timeout=120, trust_env=False) as client:
                await _closed(client, 3.0, 0)
                for index, use in enumerate((0.3, 0.6)):
                    alone, under, rates = [], [], []
                    for turn in range(3):
                        offset = 100_000 * (3 * index + turn + 1)
                        own = await _closed(client, 3.0, offset)
                        rates.append(use / float(np.mean(own)))
                        alone += own
                        under += await _open(client, rates[-1], 6.0, offset + 50_000)
                    found[use] = alone, under, float(np.mean(rates))
            return found

        figures += answer_figures(service.url)
        for use, (alone, under, rate) in asyncio.run(run()).items():
            model = simulate(np.array(alone), servers=1, rate=rate, count=50_000)
            figures += [
                Figure(
                    name=f"use {use}: mean answer, measured", value=round(1e3 * float(np.mean(under)), 1), unit="ms"
                ),
                Figure(name=f"use {use}: mean answer, simulated", value=round(1e3 * model.mean, 1), unit="ms"),
                Figure(name=f"use {use}: measured over simulated", value=round(float(np.mean(under)) / model.mean, 2)),
            ]
    return figures


def answer_figures(url: str) -> list[Figure]:
    """Bytes of an answer about ethanol, by what is asked."""
    atoms = molecule("CH3CH2OH")
    structure = {"kind": "atoms", "numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
    matrices = ["hamiltonian", "overlap", "density_matrix"]
    figures = []
    for outputs, kind in (
        (["orbital_energies"], "json"),
        (matrices, "json"),
        (matrices, "npz"),
        (["hamiltonian"], "npz"),
    ):
        body = {"structure": structure, "outputs": outputs, "format_out": kind}
        content = httpx.post(f"{url}/v1/predict", json=body, timeout=120, trust_env=False).raise_for_status().content
        name = f"answer about ethanol: {', '.join(outputs)} as {kind}"
        figures.append(Figure(name=name, value=round(len(content) / 1e3, 1), unit="kB"))
    return figures


def against_batching() -> list[Figure]:
    """The recorded run of 16 clients without batches, from its own throughput and Little's law."""
    table = Result.model_validate_json((RESULTS / "batching.json").read_bytes()).tables[0]
    rows = {str(row[0]): row for row in table.rows}
    rate, median_ms = float(str(rows["structures per second"][2])), float(str(rows["latency p50, ms"][2]))
    cost = np.array([sum(parts) + HTTP_MS for name, parts in parts_ms().items() if name in ("H2O", "CH4", "CH3CH2OH")])
    service_s = cost / cost.mean() * 2.0 / rate  # two cores did what they did beside other work
    model = simulate_closed(service_s, servers=2, clients=16, count=50_000)
    return [
        Figure(name="16 clients, recorded p50 (batching.json)", value=median_ms, unit="ms"),
        Figure(name="16 clients, simulated p50", value=round(1e3 * model.median), unit="ms"),
    ]


def main() -> None:
    """Print the plan, or record it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="also measure a replica here, half a minute of one core")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    cores_s = np.array([(a + c + HTTP_MS) / 1e3 for a, _, c in parts_ms().values()])
    tables = [plan_table(), queue_table(cores_s)]
    figures = [*failure_figures(), *against_batching()]
    if chosen.check or chosen.record:  # in a process of its own: it stays on one core
        code = "import json, thousand_gpus; print(json.dumps([f.model_dump() for f in thousand_gpus.check()]))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=RESULTS.parent, stdout=subprocess.PIPE, text=True, check=True
        )
        figures += [Figure.model_validate(values) for values in json.loads(done.stdout.splitlines()[-1])]
    for table in tables:
        print(as_markdown(table))
    print(*figures, sep="\n")
    if chosen.record:
        record(
            "thousand_gpus",
            tables=tables,
            figures=figures,
            spread="of the simulation: 5 %; of the check: one run",
            checkpoint=None,
        )


if __name__ == "__main__":
    main()
