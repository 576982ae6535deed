"""SCF cycles of whole jobs, optimisations, scans, dynamics and finite differences, by PySCF alone and through ``attach``.

``OMP_NUM_THREADS=1 python benchmarks/geometry_jobs.py [--jobs NAME ...] [--record]``; a quarter of an hour on one core.
B3LYP/def2-SVP, PySCF's default thresholds, its grids of level 1 for scans and dynamics. Starts a server of its own. Each job
is run twice from the same start; PySCF alone goes on from the last geometry's density. Needs geomeTRIC for the optimisations.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ase.io
import numpy as np
from ase import Atoms
from local_server import local_server
from machine import DEFAULT_CHECKPOINT, describe
from numpy.typing import NDArray
from pyscf import dft, gto, lib, md
from pyscf.geomopt import geometric_solver
from recorded import Cell, Column, Table, as_markdown, record

from model.checkpoint.card import read_card
from tracegrad_client import Client

MOLECULES: Final = Path(__file__).parent / "molecules"
Wrap = Callable[[Any], Any]

COLUMNS = [
    Column(name="job"),
    Column(name="geometries"),
    Column(name="PySCF alone, cycles"),
    Column(name="attach, cycles"),
    Column(name="ratio", digits=2),
    Column(name="PySCF alone, each"),
    Column(name="attach, each"),
    Column(name="largest difference of energies, hartree"),
]


@dataclass
class Run:
    """Cycles and energies of one job, one a geometry."""

    cycles: list[int]
    energies: list[float]


def molecule(name: str) -> Any:
    """A Mole of ``benchmarks/molecules``."""
    atoms = ase.io.read(MOLECULES / f"{name}.xyz")
    assert isinstance(atoms, Atoms), "the file has one molecule"
    pairs = zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True)
    return gto.M(atom=list(pairs), basis="def2-svp", verbose=0)


def mean_field(mol: Any, level: int | None) -> Any:
    """B3LYP, quiet."""
    mf = dft.RKS(mol, xc="b3lyp")
    if level is not None:
        mf.grids.level = level
    return mf


class Counted:
    """Counts the cycles of every SCF of an object and of what PySCF derives from it."""

    def __init__(self, mf: Any) -> None:
        self.run = Run([], [])
        mf.callback = self._cycle

    def _cycle(self, environment: dict[str, Any]) -> None:
        if environment["cycle"] == 0:
            self.run.cycles.append(0)
            self.run.energies.append(0.0)
        self.run.cycles[-1] += 1
        self.run.energies[-1] = float(environment["e_tot"])


def optimisation(name: str) -> Callable[[Wrap], Run]:
    """geomeTRIC from a force field's geometry."""

    def job(wrap: Wrap) -> Run:
        mf = wrap(mean_field(molecule(name), None))
        counted = Counted(mf)
        geometric_solver.optimize(mf, maxsteps=30)
        return counted.run

    return job


def scan(name: str, geometries: Callable[[NDArray[np.float64]], list[NDArray[np.float64]]]) -> Callable[[Wrap], Run]:
    """A scanner along given geometries, Å."""

    def job(wrap: Wrap) -> Run:
        mol = molecule(name)
        mf = wrap(mean_field(mol, 1))
        counted = Counted(mf)
        scanner = mf.as_scanner()
        for positions in geometries(mol.atom_coords(unit="Angstrom")):
            scanner(mol.set_geom_(positions, unit="Angstrom", inplace=False))
        return counted.run

    return job


def bond_lengths(positions: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The O-H bond of methanol (atoms 1 and 5) from 0.85 to 1.20 Å."""
    found = []
    along = positions[5] - positions[1]
    for length in np.linspace(0.85, 1.20, 6):
        moved = positions.copy()
        moved[5] = positions[1] + along / np.linalg.norm(along) * length
        found.append(moved)
    return found


def torsions(positions: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The O-H bond of methanol turned about C-O in steps of 30 degrees."""
    axis = (positions[1] - positions[0]) / np.linalg.norm(positions[1] - positions[0])
    along = positions[5] - positions[1]
    found = []
    for angle in np.radians(np.arange(0, 180, 30)):
        moved = positions.copy()
        turned = along * np.cos(angle) + np.cross(axis, along) * np.sin(angle)
        moved[5] = positions[1] + turned + axis * (axis @ along) * (1 - np.cos(angle))
        found.append(moved)
    return found


def displacements(positions: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Every coordinate of methanol's first three atoms by ±0.005 Å: half of a numerical Hessian."""
    found = [positions]
    for atom in range(3):
        for axis in range(3):
            for sign in (1, -1):
                moved = positions.copy()
                moved[atom, axis] += 0.005 * sign
                found.append(moved)
    return found


def dynamics(name: str, step_au: float) -> Callable[[Wrap], Run]:
    """Ten steps of NVE from velocities of 300 K, the same in every run."""

    def job(wrap: Wrap) -> Run:
        mol = molecule(name)
        mf = wrap(mean_field(mol, 1))
        counted = Counted(mf)
        rng = np.random.default_rng(1)
        masses = mol.atom_mass_list(isotope_avg=True)[:, None] * 1822.888
        velocities = rng.normal(size=(mol.natm, 3)) * np.sqrt(300 * 3.1668e-6 / masses)
        run = md.NVE(mf, dt=step_au, steps=10, veloc=velocities)
        run.verbose = 0
        run.kernel()
        return counted.run

    return job


JOBS: Final[dict[str, Callable[[Wrap], Run]]] = {
    "optimisation, methanol": optimisation("methanol_mmff"),
    "optimisation, ethanol": optimisation("ethanol_mmff"),
    "optimisation, formamide": optimisation("formamide"),
    "optimisation, vinyl alcohol": optimisation("vinyl_alcohol"),
    "O-H scan, methanol": scan("methanol_mmff", bond_lengths),
    "torsion scan, methanol": scan("methanol_mmff", torsions),
    "dynamics, methanol, 20 au": dynamics("methanol_mmff", 20.0),
    "dynamics, methanol, 40 au": dynamics("methanol_mmff", 40.0),
    "finite differences, methanol": scan("methanol_mmff", displacements),
}
PUBLISHED_SIX: Final = 6
"""The first six are what users were seen to run; the sum of these is the figure to watch."""


def main() -> None:
    """Print one row per job, then the sums."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    lib.num_threads(1)
    rows: list[list[Cell]] = []
    with local_server() as url, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = Client(url)
        for name in chosen.jobs:
            alone, ours = JOBS[name](lambda mf: mf), JOBS[name](client.attach)
            rows.append(row(name, alone, ours))
            print(rows[-1], flush=True)
    for label, part in (("the first six", rows[:PUBLISHED_SIX]), ("all", rows)):
        before, after = (sum(int(str(line[column])) for line in part) for column in (2, 3))
        rows = [*rows, [f"sum of {label}", "", before, after, round(after / before, 3), "", "", ""]]
    table = Table(columns=COLUMNS, rows=rows)
    print(describe())
    print(as_markdown(table))
    if chosen.record:
        version = read_card(DEFAULT_CHECKPOINT / "card.json").version
        print(record("geometry_jobs", tables=[table], spread="none: cycles repeat exactly", checkpoint=version))


def row(name: str, alone: Run, ours: Run) -> list[Cell]:
    """One line of the table; energies are compared where both runs are at the same geometries (scans)."""
    paired = zip(alone.energies, ours.energies, strict=False)
    largest = max(abs(a - b) for a, b in paired) if len(alone.energies) == len(ours.energies) else None
    final = abs(alone.energies[-1] - ours.energies[-1])
    said = f"{final:.0e} (last)" if largest is None else f"{largest:.0e}"
    ratio = round(sum(ours.cycles) / sum(alone.cycles), 3)
    each = [" ".join(map(str, run.cycles)) for run in (alone, ours)]
    return [name, len(ours.cycles), sum(alone.cycles), sum(ours.cycles), ratio, *each, said]


if __name__ == "__main__":
    main()
