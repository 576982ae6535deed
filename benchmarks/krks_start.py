"""Cycles of PySCF's KRKS from its own guess and from the server's: rattled 2x2 graphene, none of it trained on.

    python benchmarks/krks_start.py [--structures N] [--rows FILE] [--record]

PBE / DZVP-MOLOPT-SR-GTH with GTH-PBE pseudopotentials, Fermi smearing of 300 K, real-space integration by multigrid at 60
hartree, which suffices to compare two runs of the same setting. The calculation is attached to a server of its own, guard
included; cycles are PySCF's own count at its default convergence. A structure takes minutes: with ``--rows`` each is kept as
soon as it is done, and the next run goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.build import graphene, make_supercell
from local_server import local_server
from machine import describe
from pyscf.pbc import dft, gto
from pyscf.pbc.scf.addons import smearing_
from recorded import Cell, Column, Table, as_markdown, record

from tracegrad_client import Client

SEEDS: Final = (101, 102, 103, 104)
RATTLE_ANGSTROM: Final = 0.05
CUTOFF_HARTREE: Final = 60.0
PRECISION: Final = 1e-6
SMEARING_HARTREE: Final = 9.5e-4

COLUMNS: Final = [
    Column(name="seed"),
    Column(name="cycles, own guess"),
    Column(name="cycles, ours"),
    Column(name="energy difference", unit="hartree"),
    Column(name="RMS of FDS - SDF", unit="hartree"),
    Column(name="own", unit="CPU s", digits=0),
    Column(name="ours", unit="CPU s", digits=0),
    Column(name="request", unit="s", digits=1),
]


def calculation(seed: int, counts: tuple[int, int, int]) -> Any:
    """KRKS of one sheet of eight atoms."""
    atoms = make_supercell(graphene(vacuum=6.0), np.diag([2, 2, 1]))
    atoms.rattle(RATTLE_ANGSTROM, seed=seed)
    cell = gto.M(
        a=np.asarray(atoms.cell),
        atom=list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True)),
        basis="gth-dzvp-molopt-sr",
        pseudo="gth-pbe",
        unit="Angstrom",
        ke_cutoff=CUTOFF_HARTREE,
        precision=PRECISION,
        verbose=0,
    )
    mf = dft.KRKS(cell, cell.make_kpts(counts), xc="pbe").multigrid_numint()
    return smearing_(mf, sigma=SMEARING_HARTREE, method="fermi")


def compare(seed: int, counts: tuple[int, int, int], client: Client) -> list[Cell]:
    """One row."""
    own, ours = calculation(seed, counts), client.attach(calculation(seed, counts))
    started = time.process_time()
    own.kernel()
    between = time.process_time()
    ours.kernel()
    ended = time.process_time()
    if not (own.converged and ours.converged):
        raise RuntimeError(f"seed {seed} did not converge")
    report = ours.tracegrad
    if not report.used:
        print(f"seed {seed}: {report.reason}")
    difference = f"{abs(ours.e_tot - own.e_tot):.1e}"
    rms = None if report.rms_commutator is None else f"{report.rms_commutator:.1e}"
    return [seed, own.cycles, ours.cycles, difference, rms, between - started, ended - between, report.seconds]


def main() -> None:
    """Print one row per structure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kmesh", type=int, nargs=3, default=(3, 3, 1), help="counts (default: 3 3 1)")
    parser.add_argument("--structures", type=int, default=len(SEEDS), help="the first so many")
    parser.add_argument("--checkpoints", default="checkpoints")
    parser.add_argument("--rows", type=Path, help="file of the rows that are done")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    a, b, c = chosen.kmesh
    rows: list[list[Cell]] = json.loads(chosen.rows.read_text()) if chosen.rows and chosen.rows.exists() else []
    done = {row[0] for row in rows}
    settings = {"TRACEGRAD_CHECKPOINTS": chosen.checkpoints}
    with local_server(environment=settings, start_timeout=600.0) as url, Client(url) as client:
        (version,) = (card["version"] for card in client.models() if card["name"] == "bcn")
        for seed in [seed for seed in SEEDS[: chosen.structures] if seed not in done]:
            rows.append(compare(seed, (a, b, c), client))
            print(rows[-1], flush=True)
            if chosen.rows:
                chosen.rows.write_text(json.dumps(rows))
    found = Table(columns=COLUMNS, rows=rows)
    print(f"bcn {version}; {describe()}")
    print(as_markdown(found))
    if chosen.record:
        print(record("krks_start", tables=[found], spread="each once", checkpoint=version))


if __name__ == "__main__":
    main()
