"""Does the service live within a container's memory? Structures at every cap, jobs, and small requests beside them.

``python benchmarks/little_memory.py [--gigabytes 1 4] [--seconds 400] [--record]`` starts ``python -m service`` with its
default settings in a control group of each size (root, or a group that was handed over). The exit code is 1 if the kernel
killed anything, an answer or an accepted job is missing, or small requests beside a running job took longer than a second
at the 95th percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import memory_peak
import numpy as np
from ase import Atoms
from ase.build import graphene
from control_group import MemoryGroup, memory_group
from machine import DEFAULT_CHECKPOINT, describe
from recorded import RESULTS, Cell, Column, Result, Table, as_markdown, record
from service_process import RunningService, started_service
from soak_client import problem_code
from soak_report import percentile
from soak_requests import Mix, wire

GIB: Final = 1024**3
SMALL_PAUSE_S: Final = 0.3
JOB_PATIENCE_S: Final = 300.0
SLOWEST_S: Final = 1.0
REFUSED: Final = frozenset({"too_large_for_memory", "queue_full", "deadline_exceeded"})
"""Answers that tell a caller what to do; everything else that is no success counts as lost."""
COLUMNS: Final = [
    Column(name="container", unit="GiB", digits=0),
    Column(name="requests"),
    Column(name="kills"),
    Column(name="lost"),
    Column(name="jobs done of accepted"),
    Column(name="peak of the container", unit="MB", digits=0),
    Column(name="small: n beside a job"),
    Column(name="small beside a job, p50", unit="s", digits=2),
    Column(name="small beside a job, p95", unit="s", digits=2),
    Column(name="worst", unit="s", digits=2),
]
KINDS: Final = [Column(name="container", unit="GiB", digits=0), Column(name="what was sent"), Column(name="answers")]


@dataclass
class Books:
    """What happened; ``lost`` in words."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    beside_job: list[float] = field(default_factory=list)
    jobs_accepted: int = 0
    jobs_done: int = 0
    job_runs: bool = False
    lost: list[str] = field(default_factory=list)


def body_of(atoms: Atoms, **fields: Any) -> dict[str, Any]:
    """A request for a structure."""
    found = wire(atoms)
    if np.any(atoms.pbc):
        found |= {"cell": atoms.cell[:].tolist(), "pbc": atoms.pbc.tolist()}
    return {"structure": found, **fields}


def alkane(carbons: int) -> Atoms:
    """The chain of ``memory_peak``."""
    chain = memory_peak.alkane(carbons)
    return Atoms(chain.numbers, chain.positions_angstrom)


def hydrogen(count: int) -> dict[str, Any]:
    """A row of H2 molecules: five orbitals an atom."""
    x = np.repeat(np.arange(count // 2) * 3.0, 2) + np.tile([0.0, 0.74], count // 2)
    positions = np.stack([x, np.zeros(count), np.zeros(count)], axis=1).tolist()
    return {"structure": {"kind": "atoms", "numbers": [1] * count, "positions": positions}}


def large_requests(mix: Mix) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, route and body of what is at a cap of the settings, and of what is below it and may be at that of memory."""
    everything = ["hamiltonian", "overlap", "mo_coeff", "density_matrix"]
    alkanes: list[tuple[str, str, dict[str, Any]]] = [
        (f"alkane C{carbons}, all matrices", "predict", body_of(alkane(carbons), outputs=everything))
        for carbons in (40, 30, 20, 12, 8)
    ]
    files = [
        (f"alkane C12, {name}", "initial-guess", body_of(alkane(12), format_out=name)) for name in ("chk", "molden")
    ]
    batch = {"structures": [body_of(mix.atoms())["structure"] for _ in range(256)]}
    sheet = body_of(graphene(size=(6, 6, 1), vacuum=10.0), model="bcn")
    return [
        ("200 atoms and 1000 orbitals", "predict", hydrogen(200)),
        ("batch of 256", "predict/batch", batch),
        ("graphene, 72 atoms", "predict", sheet),
        *alkanes,
        *files,
    ]


class Load:
    """Everything that is sent to one service.

    Args:
        http: open.
        books: of the run.
        end: when nothing new is begun, in seconds of ``time.monotonic``.
    """

    def __init__(self, http: httpx.AsyncClient, books: Books, end: float) -> None:
        self._http, self._books, self._end = http, books, end
        self._mix = Mix(18, max_body_bytes=1024 * 1024)

    async def run(self) -> None:
        """Until the time is over and what was begun is answered."""
        await asyncio.gather(*(self._until_end(work) for work in (self._small, self._small, self._large, self._jobs)))

    async def _until_end(self, work: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self._end:
            await work()

    async def _send(self, name: str, method: str, path: str, body: Any = None) -> httpx.Response | None:
        try:
            reply = await self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            self._books.lost.append(f"{name}: {type(error).__name__}")
            return None
        code = problem_code(reply)
        self._books.answers[name, code or str(reply.status_code)] += 1
        if name.startswith("batch") and code is None:
            for item in reply.json()["items"]:
                self._books.answers["structures of batches", item.get("problem", {}).get("code", "200")] += 1
        if code is not None and code not in REFUSED:
            self._books.lost.append(f"{name}: {reply.status_code} {code}")
        return reply

    async def _small(self) -> None:
        began, beside = time.monotonic(), self._books.job_runs
        reply = await self._send("small", "POST", "/v1/predict", body_of(self._mix.atoms()))
        if beside and self._books.job_runs and reply is not None:
            self._books.beside_job.append(time.monotonic() - began)
        await asyncio.sleep(SMALL_PAUSE_S)

    async def _large(self) -> None:
        for name, route, body in large_requests(self._mix):
            if time.monotonic() > self._end:
                return
            await self._send(name, "POST", f"/v1/{route}", body)

    async def _jobs(self) -> None:
        for carbons in (124, 100, 60, 50, 40, 30, 20, 12, 10):
            if time.monotonic() > self._end:
                return
            name = f"job, alkane C{carbons}"
            reply = await self._send(name, "POST", "/v1/jobs", body_of(alkane(carbons), kind="predict"))
            if reply is not None and reply.status_code == 202:
                self._books.jobs_accepted += 1
                await self._follow(name, reply.json()["links"]["status"])

    async def _follow(self, name: str, path: str) -> None:
        end = time.monotonic() + JOB_PATIENCE_S
        while time.monotonic() < end:
            try:
                state = (await self._http.get(path)).raise_for_status().json()["state"]
            except (httpx.HTTPError, KeyError) as error:
                self._books.lost.append(f"{name}: {type(error).__name__} when asked for")
                return
            self._books.job_runs = state == "running"
            if state in ("done", "failed"):
                break
            await asyncio.sleep(0.2)
        result = await self._send(name + ", result", "GET", path + "/result")
        self._books.jobs_done += result is not None and result.status_code == 200
        await self._send(name + ", deletion", "DELETE", path)


def measure(service: RunningService, seconds: float) -> Books:
    """The load for a time."""

    async def run() -> Books:
        books = Books()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=service.url, timeout=180, trust_env=False, limits=limits) as http:
            await Load(http, books, time.monotonic() + seconds).run()
        return books

    return asyncio.run(run())


def row_of(gigabytes: int, books: Books, group: MemoryGroup) -> list[Cell]:
    """As in ``COLUMNS``."""
    times = books.beside_job
    slow: list[Cell] = [percentile(times, 50), percentile(times, 95), max(times)] if times else [None, None, None]
    peak = group.peak_bytes()
    return [
        gigabytes,
        sum(books.answers.values()),
        group.kills(),
        len(books.lost),
        f"{books.jobs_done} of {books.jobs_accepted}",
        None if peak is None else peak / 1e6,
        len(times),
        *slow,
    ]


def kinds_of(gigabytes: int, books: Books) -> list[list[Cell]]:
    """As in ``KINDS``."""
    by_name: dict[str, list[str]] = {}
    for (name, code), count in sorted(books.answers.items()):
        if ", deletion" not in name:
            by_name.setdefault(name, []).append(f"{count} x {code}")
    return [[gigabytes, name, ", ".join(codes)] for name, codes in by_name.items()]


def with_other_sizes(table: Table, index: int) -> Table:
    """The table with what was recorded of containers that were not run today."""
    recorded = Result.model_validate_json((RESULTS / "little_memory.json").read_bytes()).tables
    sizes = {row[0] for row in table.rows}
    rest = [row for row in recorded[index].rows if row[0] not in sizes] if index < len(recorded) else []
    return Table(columns=table.columns, rows=sorted([*rest, *table.rows], key=lambda row: float(row[0] or 0)))


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    print(describe())
    rows: list[list[Cell]] = []
    kinds: list[list[Cell]] = []
    faults: list[str] = []
    for gigabytes in arguments.gigabytes:
        with memory_group(gigabytes * GIB) as group, started_service(group.folder) as service:
            books = measure(service, arguments.seconds)
            kills = group.kills()
            rows.append(row_of(gigabytes, books, group))
            kinds += kinds_of(gigabytes, books)
            entries = service.log_entries()
        told = [entry["message"] for entry in entries if entry.get("logger", "").startswith("service.memory")]
        print(*told, sep="\n")
        faults += [f"{gigabytes} GiB: {text}" for text in books.lost]
        faults += [f"{gigabytes} GiB: killed for memory"] * kills
        if not books.beside_job or percentile(books.beside_job, 95) > SLOWEST_S:
            faults.append(f"{gigabytes} GiB: small requests beside a job")
        if service.exit_code != 0:
            faults.append(f"{gigabytes} GiB: exit code {service.exit_code}")
    tables = [Table(columns=COLUMNS, rows=rows), Table(columns=KINDS, rows=kinds)]
    print(*(as_markdown(table) for table in tables), sep="\n\n")
    for text, count in Counter(faults).most_common():
        print(f"FAULT {count} x {text}")
    if arguments.record:
        version = json.loads((DEFAULT_CHECKPOINT / "card.json").read_bytes())["version"]
        merged = [with_other_sizes(table, index) for index, table in enumerate(tables)]
        record("little_memory", tables=merged, spread="one run of each size", checkpoint=version)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
