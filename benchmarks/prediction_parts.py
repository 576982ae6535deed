"""Where the time of a prediction goes, and what it costs beside the SCF it shortens.

Process CPU seconds on one thread, median of interleaved repeats after a warm-up; ratios within one run are what counts.
``python benchmarks/prediction_parts.py [--checkpoint FOLDER] [--compiled FOLDER] [--record]``: recorded figures replace the
older ones. With a folder that holds the checkpoint's package (``python -m model.exported``) the columns "exported" are of the
compiled forward pass, run in turn with the network in the same repeats; everything around it is the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from ase.build import molecule
from ase.io import read
from machine import DEFAULT_CHECKPOINT, describe
from pyscf import dft, lib
from recorded import Cell, Column, Table, as_markdown, record

from model.integrals.pyscf_molecule import MoleculeIntegrals, build_mole
from model.predictor import Predictor
from model.structure import Structure

MOLECULES = ("H2O", "CH4", "CH3CH2OH", "C6H6")
FILES = ("c6h11no2", "c11h13no4", "c17h17no4")
REPEATS = 7
REPEATS_WITHOUT = 3
MOST_ORBITALS_OF_A_BUILD = 200
"""Of larger molecules a Fock build takes minutes, and is not timed."""
COLUMNS = [
    Column(name="molecule"),
    Column(name="atoms"),
    Column(name="AOs"),
    Column(name="total", unit="ms", digits=1),
    Column(name="spread", digits=2),
    Column(name="network", unit="ms", digits=1),
    Column(name="H0, inputs", unit="ms", digits=1),
    Column(name="damping, orbitals, guess", unit="ms", digits=1),
    Column(name="outside / network", digits=2),
    Column(name="the same without the kernel", digits=2),
    Column(name="exported", unit="ms", digits=1),
    Column(name="total, exported", unit="ms", digits=1),
    Column(name="Fock", unit="ms", digits=0),
    Column(name="total / Fock", digits=3),
    Column(name="network / Fock", digits=3),
    Column(name="total / Fock, exported", digits=3),
]


def main() -> None:
    """Print one row per molecule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--compiled", type=Path, metavar="FOLDER", help="of packages")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lib.num_threads(1)
    predictor = Predictor.load(chosen.checkpoint, compiled=chosen.compiled)
    if chosen.compiled and predictor.model.exported is None:
        parser.error(f"{chosen.compiled} has no package of this checkpoint: python -m model.exported makes one")
    atoms = {name: molecule(name) for name in MOLECULES}
    atoms |= {name: read(Path(__file__).parent / "molecules" / f"{name}.xyz") for name in FILES}
    structures = {name: Structure(one.numbers, one.positions) for name, one in atoms.items()}
    found = Table(columns=COLUMNS, rows=measure(predictor, structures))
    print(describe())
    print(as_markdown(found))
    if chosen.record:
        spread = "of the totals between repeats, relative: a column of the table"
        print(record("prediction_parts", tables=[found], spread=spread, checkpoint=predictor.card.version))


def measure(predictor: Predictor, structures: Mapping[str, Structure]) -> list[list[Cell]]:
    """One row per molecule, as in ``COLUMNS``."""
    timings: dict[str, list[Parts]] = {name: [] for name in structures}
    without: dict[str, list[Parts]] = {name: [] for name in structures}
    for repeat in range(REPEATS + 1):
        for name, structure in structures.items():
            parts = timed_parts(predictor, structure)
            if not repeat:
                continue
            timings[name].append(parts)
            if repeat <= REPEATS_WITHOUT:
                with patch.object(MoleculeIntegrals, "coulomb", lambda *_: None):
                    without[name].append(timed_parts(predictor, structure))
    rows: list[list[Cell]] = []
    for name, structure in structures.items():
        found = timings[name]
        prepare, network, finish = (
            statistics.median(getattr(parts, part) for parts in found) for part in ("prepare", "network", "finish")
        )
        totals = sorted(parts.prepare + parts.network + parts.finish for parts in found)
        total, outside = statistics.median(totals), prepare + finish
        by_pyscf = statistics.median(parts.prepare + parts.finish for parts in without[name])
        small = predictor.count_orbitals(structure) <= MOST_ORBITALS_OF_A_BUILD
        fock = 1e3 * fock_seconds(structure) if small else None
        spread = (totals[-2] - totals[1]) / total
        times = [round(time, 1) for time in (network, prepare, finish)]
        ratios = [round(outside / network, 2), round(by_pyscf / network, 2)]
        size = [len(structure), predictor.count_orbitals(structure)]
        exported: list[Cell] = [None] * 2
        to_fock: list[Cell] = [None] * 4
        if fock is not None:
            to_fock = [round(fock), round(total / fock, 3), round(network / fock, 3), None]
        passes = [parts.exported for parts in found if parts.exported is not None]
        if passes:
            with_it = statistics.median(p.prepare + p.finish + e for p, e in zip(found, passes, strict=True))
            exported = [round(statistics.median(passes), 1), round(with_it, 1)]
            if fock is not None:
                to_fock[3] = round(with_it / fock, 3)
        rows.append([name, *size, round(total, 1), round(spread, 2), *times, *ratios, *exported, *to_fock])
    return rows


@dataclass(frozen=True)
class Parts:
    """CPU milliseconds of a prediction: preparation, network, the compiled pass if there is one, and what follows."""

    prepare: float
    network: float
    exported: float | None
    finish: float


def timed_parts(predictor: Predictor, structure: Structure) -> Parts:
    """One prediction, and beside it one more forward pass."""
    exported = predictor.model.exported
    started = time.process_time()
    prepared = predictor.prepare(structure)
    known = time.process_time()
    predictor.model.exported = None
    blocks = predictor.forward([prepared])[0]
    passed = time.process_time()
    predictor.model.exported = exported
    other = None
    if exported is not None:
        began = time.process_time()
        blocks = predictor.forward([prepared])[0]
        other = 1e3 * (time.process_time() - began)
    after = time.process_time()
    predictor.finish(prepared, blocks, orbitals=True, forward_ms=0.0)
    return Parts(1e3 * (known - started), 1e3 * (passed - known), other, 1e3 * (time.process_time() - after))


def fock_seconds(structure: Structure) -> float:
    """CPU seconds of one B3LYP Fock build inside an SCF (grid and integrals are there), median of 3."""
    mf = dft.RKS(build_mole(structure, "def2-svp"), xc="b3lyp")
    density = mf.get_init_guess()
    mf.get_veff(dm=density)  # builds the grid and keeps the four-centre integrals
    times = []
    for _ in range(3):
        started = time.process_time()
        mf.get_veff(dm=density)
        times.append(time.process_time() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
