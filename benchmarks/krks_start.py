"""Cycles of PySCF's KRKS from its own guess, from the server's, and from CP2K's converged H: cells never trained on.

    python benchmarks/krks_start.py [FILE.h5] [--cells NAME ...] [--runs FILE] [--record]

PBE / DZVP-MOLOPT-SR-GTH with GTH-PBE pseudopotentials, Fermi smearing of 300 K, real-space integration by multigrid at 60
hartree, which suffices to compare two runs of the same setting. The calculation is attached to a server of its own, guard
included. Each runs to a change of 1e-8 hartree, so that energies can be compared; cycles are counted there and where PySCF's
default convergence (1e-7) is reached, both with its rule for the gradient. "CP2K's H" is what FILE
(``cp2k_dzvp.h5`` of ../shared) stores of the cell: the best that a prediction could do. A run takes minutes: with ``--runs``
each is kept as soon as it is done, ours under the versions of the loaded checkpoints, and the next call goes on behind it;
``--starts`` chooses some of the three.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from local_server import local_server
from machine import describe
from pyscf.pbc import dft, gto
from pyscf.pbc.scf.addons import smearing_
from recorded import Cell, Column, Table, as_markdown, record

from model.electronic.density import density_at_k
from model.formats.crystal_h5 import read_crystal_h5
from model.formats.matrices import Matrices
from model.structure import SYMBOLS, Structure
from tracegrad_client import Client

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "crystals" / "cp2k_dzvp.h5"
CELLS: Final = (
    "graphene_0005_1",
    "graphene_0011_1",
    "hbn_0005_1",
    "graphene_0000_1",
    "hbn_0000_1",
    "graphene_0001_1",
    "hbn_0001_1",
    "graphene_0002_1",
)
"""Of another recipe than the checkpoint's training structures; 2x2 cells, rattled by 0.05 Å, strained by 1 %."""
STARTS: Final = ("own", "ours", "label")
CUTOFF_HARTREE: Final = 60.0
PRECISION: Final = 1e-6
SMEARING_HARTREE: Final = 9.5e-4
ZERO: Final = 1e-9
TIGHT_HARTREE: Final = 1e-8
COUNTED_HARTREE: Final = (1e-7, TIGHT_HARTREE)

COLUMNS: Final = [
    Column(name="cell"),
    Column(name="model"),
    *(
        Column(name=f"{who}, to {tolerance}")
        for tolerance in ("1e-7", "1e-8")
        for who in ("own guess", "ours", "CP2K's H")
    ),
    Column(name="energy, ours less own", unit="hartree"),
    Column(name="energy, CP2K's less own", unit="hartree"),
    Column(name="RMS of FDS - SDF", unit="hartree"),
    Column(name="own", unit="CPU s", digits=0),
    Column(name="ours", unit="CPU s", digits=0),
    Column(name="request", unit="s", digits=1),
]


def calculation(structure: Structure, counts: tuple[int, int, int]) -> Any:
    """KRKS of a sheet of eight atoms."""
    symbols = [SYMBOLS[number] for number in structure.numbers]
    cell = gto.M(
        a=structure.cell_angstrom,
        atom=list(zip(symbols, structure.positions_angstrom.tolist(), strict=True)),
        basis="gth-dzvp-molopt-sr",
        pseudo="gth-pbe",
        unit="Angstrom",
        ke_cutoff=CUTOFF_HARTREE,
        precision=PRECISION,
        verbose=0,
    )
    mf = smearing_(
        dft.KRKS(cell, cell.make_kpts(counts), xc="pbe").multigrid_numint(), sigma=SMEARING_HARTREE, method="fermi"
    )
    mf.conv_tol = TIGHT_HARTREE
    return mf


class Cycles:
    """Notes in which cycle a calculation would have ended at each of some convergences."""

    def __init__(self, mf: Any) -> None:
        self._reached: dict[float, int] = {}
        mf.callback = self

    def __call__(self, state: dict[str, Any]) -> None:
        change = abs(state["e_tot"] - state["last_hf_e"])
        for tolerance in COUNTED_HARTREE:
            if change < tolerance and state["norm_gorb"] < tolerance**0.5:
                self._reached.setdefault(tolerance, state["cycle"] + 1)

    def counts(self) -> list[int | None]:
        """Cycles to each of ``COUNTED_HARTREE``, as PySCF counts them."""
        return [self._reached.get(tolerance) for tolerance in COUNTED_HARTREE]


def stored_density(stored: Matrices, mf: Any) -> Any:
    """D(k) of a stored H(R) and S(R) at the calculation's k-points."""
    assert stored.hamiltonian is not None
    assert stored.overlap is not None
    points = np.asarray(mf.cell.get_scaled_kpts(mf.kpts))
    points[np.abs(points) < ZERO] = 0.0
    made = density_at_k(
        stored.hamiltonian.in_order("pyscf"),
        stored.overlap.in_order("pyscf"),
        points,
        np.full(len(points), 1.0 / len(points)),
        float(mf.cell.nelectron),
        smearing_hartree=SMEARING_HARTREE,
    )
    return made.matrices[0]


def calculate(path: Path, name: str, counts: tuple[int, int, int], start: str, client: Client) -> dict[str, Any]:
    """One run: from PySCF's own guess ("own"), from the server's ("ours"), or from the stored H ("label")."""
    stored = read_crystal_h5(path, name)
    mf = calculation(stored.structure, counts)
    given = stored_density(stored, mf) if start == "label" else None
    mf = client.attach(mf) if start == "ours" else mf
    cycles = Cycles(mf)
    started = time.process_time()
    mf.kernel(dm0=given)
    if not mf.converged:
        raise RuntimeError(f"{name} did not converge")
    found = {"cycles": cycles.counts(), "energy": float(mf.e_tot), "seconds": time.process_time() - started}
    if start == "ours":
        report = mf.tracegrad
        if not report.used:
            print(f"{name}: {report.reason}")
        found |= {"rms": report.rms_commutator, "request": report.seconds, "model": report.model}
    return found


def row(name: str, own: dict[str, Any], ours: dict[str, Any], label: dict[str, Any]) -> list[Cell]:
    """Of a cell, its three runs."""
    by_tolerance = zip(own["cycles"], ours["cycles"], label["cycles"], strict=True)
    return [
        name,
        ours["model"],
        *(count for counts_of in by_tolerance for count in counts_of),
        *(f"{run['energy'] - own['energy']:.1e}" for run in (ours, label)),
        None if ours["rms"] is None else f"{ours['rms']:.1e}",
        own["seconds"],
        ours["seconds"],
        ours["request"],
    ]


def main() -> None:
    """Print one row per cell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=DATA)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), help="names of structures of the file")
    parser.add_argument("--kmesh", type=int, nargs=3, default=(3, 3, 1), help="counts (default: 3 3 1)")
    parser.add_argument("--checkpoints", default="checkpoints")
    parser.add_argument("--runs", type=Path, help="file of the runs that are done")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS), help="runs to make")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    a, b, c = chosen.kmesh
    done: dict[str, Any] = json.loads(chosen.runs.read_text()) if chosen.runs and chosen.runs.exists() else {}
    settings = {"TRACEGRAD_CHECKPOINTS": chosen.checkpoints}
    with local_server(environment=settings, start_timeout=600.0) as url, Client(url) as client:
        crystals = {card["name"]: card["version"] for card in client.models() if card["periodic"]}
        loaded = ", ".join(f"{name} {version}" for name, version in crystals.items())
        keys = {start: f"{start} {loaded}" if start == "ours" else start for start in STARTS}
        for name in chosen.cells:
            for start in chosen.starts:
                key = f"{name} {keys[start]}"
                if key in done:
                    continue
                done[key] = calculate(chosen.file, name, (a, b, c), start, client)
                print(key, done[key], flush=True)
                if chosen.runs:
                    chosen.runs.write_text(json.dumps(done))
    rows = [
        row(name, *(done[f"{name} {keys[start]}"] for start in STARTS))
        for name in chosen.cells
        if all(f"{name} {key}" in done for key in keys.values())
    ]
    if not rows:
        print("No cell has all three runs yet.")
        return
    found = Table(columns=COLUMNS, rows=rows)
    print(f"{loaded}; {describe()}")
    print(as_markdown(found))
    if chosen.record:
        print(record("krks_start", tables=[found], spread="each once", checkpoint=None))


if __name__ == "__main__":
    main()
