"""What a request about an 8-atom cell takes over HTTP: H(R), Fermi level, bands, density of states, a start of an SCF.

    python benchmarks/crystal_requests.py [--repeats N] [--record]

A server of its own with the checkpoint ``bcn``, and one caller. Every request has another geometry (2x2 graphene or boron
nitride, rattled by 0.05 Å), so that nothing comes from the cache; options are those that a caller leaves open. Seconds until
the whole answer is there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

import httpx
import numpy as np
from ase import Atoms
from ase.build import graphene, make_supercell
from local_server import local_server
from machine import describe
from recorded import Cell, Column, Table, as_markdown, record

RATTLE_ANGSTROM: Final = 0.05
CELLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "graphene": {"formula": "C2", "a": 2.46},
    "boron nitride": {"formula": "BN", "a": 2.504},
}
REQUESTS: Final[Mapping[str, tuple[str, Mapping[str, Any], str]]] = {
    "Fermi level and gap": ("/v1/predict", {}, "json"),
    "H(R), S(R)": ("/v1/predict", {"outputs": ["blocks", "overlap_blocks", "fermi_energy"]}, "npz"),
    "H(R), S(R) as text": ("/v1/predict", {"outputs": ["blocks", "overlap_blocks"]}, "json"),
    "D(R)": ("/v1/predict", {"outputs": ["density_blocks"]}, "npz"),
    "DeepH folder": ("/v1/predict", {}, "deeph"),
    "bands": ("/v1/bands", {}, "json"),
    "bands, picture": ("/v1/bands", {}, "png"),
    "density of states": ("/v1/dos", {}, "json"),
    "density of states, picture": ("/v1/dos", {}, "png"),
    "start of KRKS, 3x3x1": ("/v1/initial-guess", {"kmesh": "3x3x1"}, "npz"),
}
"""Route, options and format of each."""

COLUMNS: Final = [
    Column(name="request"),
    Column(name="format"),
    *(Column(name=f"{name}, {which}", unit="s", digits=2) for name in CELLS for which in ("median", "worst")),
    Column(name="eigensolves of it", unit="s", digits=2),
    Column(name="answer", unit="kB", digits=0),
]


def crystal(name: str, seed: int) -> Atoms:
    """Eight atoms of one sheet."""
    atoms: Atoms = make_supercell(graphene(vacuum=6.0, **CELLS[name]), np.diag([2, 2, 1]))
    atoms.pbc = (True, True, False)
    atoms.rattle(RATTLE_ANGSTROM, seed=seed)
    return atoms


def ask(client: httpx.Client, atoms: Atoms, request: str) -> tuple[float, float | None, int]:
    """Seconds of one request, those of its eigensolves where the answer says, and bytes of the answer."""
    path, options, form = REQUESTS[request]
    structure = {
        "kind": "atoms",
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": np.asarray(atoms.cell).tolist(),
        "pbc": atoms.pbc.tolist(),
    }
    started = time.perf_counter()
    reply = client.post(path, params={"format_out": form}, json={"structure": structure, **options})
    seconds = time.perf_counter() - started
    if reply.status_code != 200:
        raise RuntimeError(f"{request}: {reply.status_code} {reply.text[:300]}")
    solved = None
    if form == "json":
        meta = reply.json()["meta"]
        if meta["cached"]:
            raise RuntimeError(f"{request} was answered from memory")
        solved = meta["timings_ms"]["eigensolve"] / 1e3
    return seconds, solved, len(reply.content)


def main() -> None:
    """Print one row per request."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--checkpoints", default="checkpoints")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    rows: list[list[Cell]] = []
    seed = 0
    environment = {"TRACEGRAD_CHECKPOINTS": chosen.checkpoints}
    with (
        local_server(environment=environment, start_timeout=600.0) as url,
        httpx.Client(base_url=url, timeout=120.0) as client,
    ):
        (version,) = (card["version"] for card in client.get("/v1/models").json()["models"] if card["name"] == "bcn")
        for name, (_, _, form) in REQUESTS.items():
            row: list[Cell] = [name, form]
            solves: list[float] = []
            size = 0
            for cell in CELLS:
                times = []
                for _ in range(chosen.repeats):
                    seed += 1
                    seconds, solved, size = ask(client, crystal(cell, seed), name)
                    times.append(seconds)
                    solves += [] if solved is None else [solved]
                row += [median(times), max(times)]
            rows.append([*row, median(solves) if solves else None, size / 1e3])
            print(rows[-1], flush=True)
    found = Table(columns=COLUMNS, rows=rows)
    print(f"bcn {version}; {describe()}")
    print(as_markdown(found))
    if chosen.record:
        spread = f"median and worst of {chosen.repeats}"
        print(record("crystal_requests", tables=[found], spread=spread, checkpoint=version, checkpoint_name="bcn"))


if __name__ == "__main__":
    main()
