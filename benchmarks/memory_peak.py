"""Peak memory of a prediction by its size, step by step: what the constants of service/memory/estimate.py were fitted to.

Every structure is computed in a forked copy of one loaded process, so that all peaks are counted from the same floor. Last,
the smallest constants that lie at or above every peak are printed, for comparison with those in the code.
``python benchmarks/memory_peak.py [--largest ATOMS] [--record]``; 122 atoms take a minute of one core.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import torch
from ase.build import graphene
from machine import DEFAULT_CHECKPOINT, describe
from pyscf import lib
from recorded import Cell, Column, Figure, Table, as_markdown, record

from model.electronic.bands import band_energies
from model.predictor import CrystalPrediction, Predictor
from model.structure import Structure
from service.memory.estimate import Size, estimate
from service.memory.usage import peak_bytes, resident_bytes

MOLECULE_MATRICES = 4
CRYSTAL_MATRICES = 2
LARGEST_ATOMS = 122
COLUMNS = [
    Column(name="structure"),
    Column(name="backbone"),
    Column(name="atoms"),
    Column(name="AOs"),
    Column(name="blocks"),
    Column(name="numbers"),
    Column(name="integrals", unit="MB", digits=0),
    Column(name="network", unit="MB", digits=0),
    Column(name="levels", unit="MB", digits=0),
    Column(name="answer", unit="MB", digits=0),
    Column(name="peak", unit="MB", digits=0),
    Column(name="estimate", unit="MB", digits=0),
    Column(name="CPU", unit="s", digits=1),
]


class Meter:
    """Peaks between two looks, in MB beyond what the process held at first."""

    def __init__(self) -> None:
        self._floor = resident_bytes() or 0
        peak_bytes(reset=True)

    def look(self) -> float:
        """Peak since the last look."""
        return round(((peak_bytes(reset=True) or 0) - self._floor) / 1e6, 1)


def alkane(n_carbon: int) -> Structure:
    """A zigzag chain, C_n H_2n+2: pairs far apart, as in the long molecules of chemistry."""
    sides = [1 if index % 2 else -1 for index in range(n_carbon)]
    carbons = [(1.26 * index, 0.44 * side, 0.0) for index, side in enumerate(sides)]
    hydrogens = [(x, y + 0.63 * np.sign(y), z) for x, y, _ in carbons for z in (0.89, -0.89)]
    first, last = carbons[0], carbons[-1]
    ends = [(first[0] - 0.9, first[1] + 0.63, 0.0), (last[0] + 0.9, last[1] - 0.63 * np.sign(last[1]), 0.0)]
    return Structure(np.array([6] * n_carbon + [1] * (2 * n_carbon + 2)), np.array([*carbons, *hydrogens, *ends]))


def water_cluster(edge: int) -> Structure:
    """Water molecules on a cubic grid: as dense as a liquid."""
    water = np.array([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])
    grid = 3.1 * np.stack(np.meshgrid(*[np.arange(edge)] * 3), axis=-1).reshape(-1, 1, 3)
    return Structure(np.array([8, 1, 1] * edge**3), (grid + water).reshape(-1, 3))


def sheet(edge: int) -> Structure:
    """A supercell of graphene."""
    atoms = graphene(size=(edge, edge, 1), vacuum=10.0)
    return Structure(atoms.numbers, atoms.positions, 0, 1, np.array(atoms.cell), (True, True, False))


def molecule_row(name: str, predictor: Predictor, structure: Structure) -> list[Cell]:
    """Measure all steps of a molecule; as in ``COLUMNS``."""
    began, meter = time.process_time(), Meter()
    prepared = predictor.prepare(structure)
    integrals = meter.look()
    blocks = predictor.forward([prepared])[0]
    network = meter.look()
    found = predictor.finish(prepared, blocks, orbitals=True, forward_ms=0.0)
    levels = meter.look()
    assert found.guess is not None
    matrices = [found.hamiltonian, found.overlap, found.guess.density_matrix, found.guess.orbitals.coefficients]
    order = np.arange(len(found.hamiltonian))
    text = orjson.dumps([matrix[np.ix_(order, order)] for matrix in matrices], option=orjson.OPT_SERIALIZE_NUMPY)
    del text
    steps = (integrals, network, levels, meter.look())
    numbers = MOLECULE_MATRICES * len(order) ** 2
    return row(name, predictor, structure, prepared.cost, numbers, steps, time.process_time() - began)


def crystal_row(name: str, predictor: Predictor, structure: Structure) -> list[Cell]:
    """Measure all steps of a crystal; as in ``COLUMNS``."""
    began, meter = time.process_time(), Meter()
    prepared = predictor.prepare(structure)
    integrals = meter.look()
    blocks = predictor.forward([prepared])[0]
    network = meter.look()
    found: CrystalPrediction = predictor.finish_crystal(prepared, blocks, forward_ms=0.0)
    overlap = found.integrals.overlap
    band_energies(found.hamiltonian, overlap, np.array([[0.1, 0.2, 0.0]]))  # type: ignore[arg-type]
    levels = meter.look()
    held = [np.asarray(matrix) for matrix in (found.hamiltonian.values, overlap.values)]  # type: ignore[union-attr]
    text = orjson.dumps([values.copy() for values in held], option=orjson.OPT_SERIALIZE_NUMPY)
    del text
    steps = (integrals, network, levels, meter.look())
    numbers = sum(values.size for values in held)
    return row(name, predictor, structure, prepared.cost, numbers, steps, time.process_time() - began)


def row(
    name: str,
    predictor: Predictor,
    structure: Structure,
    blocks: int,
    numbers: int,
    steps: tuple[float, ...],
    seconds: float,
) -> list[Cell]:
    """A row of ``COLUMNS``."""
    backbone = str(predictor.card.architecture["backbone"])
    n_orbitals = predictor.count_orbitals(structure)
    size = Size(len(structure), n_orbitals, blocks, n_orbitals)
    guess = estimate(
        size,
        backbone=backbone,
        on_cpu=True,
        periodic=structure.is_periodic,
        answer_numbers=numbers,
        export=False,
    )
    sizes = (len(structure), n_orbitals, blocks, numbers)
    return [name, backbone, *sizes, *steps, max(steps), round(guess / 1e6, 1), round(seconds, 1)]


def forked(measure: Callable[[], list[Cell]]) -> list[Cell]:
    """Run in a copy of this process.

    Raises:
        RuntimeError: the copy died.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.write(writer, orjson.dumps(measure()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        raise RuntimeError("the measuring process died")
    found: list[Cell] = orjson.loads(data)
    return found


def fitted(rows: list[list[Cell]], backbone: str) -> Figure:
    """Smallest bytes of a block with which base + block x blocks + 120 N^2 lies above all measured forward passes."""
    values = [(float(r[4]), float(r[3]), float(r[7])) for r in rows if r[1] == backbone]  # type: ignore[arg-type]
    base = min(peak for _, _, peak in values)
    slopes = [(peak - base - 120e-6 * orbitals**2) / count for count, orbitals, peak in values]
    return Figure(name=f"{backbone}: a block of the network", value=round(max(slopes), 4), unit="MB")


def main() -> None:
    """Print a row for each structure, and the fitted constants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--largest", type=int, default=LARGEST_ATOMS, metavar="ATOMS")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lib.num_threads(1)
    molecules = Predictor.load(DEFAULT_CHECKPOINT, verify_golden=False)
    crystals = Predictor.load(Path(DEFAULT_CHECKPOINT).with_name("bcn"), verify_golden=False)
    wanted = [
        *[(f"alkane C{n}", molecules, alkane(n), molecule_row) for n in (1, 3, 7, 15, 20, 30, 40)],
        *[(f"water {n}x{n}x{n}", molecules, water_cluster(n), molecule_row) for n in (1, 2, 3)],
        *[(f"graphene {n}x{n}", crystals, sheet(n), crystal_row) for n in (1, 2, 4, 6)],
    ]
    rows = []
    for name, predictor, structure, measure in wanted:
        if len(structure) <= chosen.largest:
            rows.append(forked(lambda m=measure, n=name, p=predictor, s=structure: m(n, p, s)))  # type: ignore[misc]
            print(*rows[-1], flush=True)
    table = Table(columns=COLUMNS, rows=rows)
    figures = [fitted(rows, backbone) for backbone in ("qhnetv2", "deeph_e3")]
    print(describe())
    print(as_markdown(table))
    print(figures)
    if chosen.record:
        spread = "allocators differ by some MB between runs"
        print(record("memory_peak", tables=[table], figures=figures, spread=spread, checkpoint=molecules.card.version))


if __name__ == "__main__":
    main()
