"""Where the time of a prediction goes, and what it costs beside the SCF it shortens.

Process CPU seconds on one thread, median of interleaved repeats after a warm-up; ratios within one run are what counts.
``python benchmarks/prediction_parts.py [--checkpoint FOLDER] [--compiled FOLDER] [--record]``: recorded figures replace the
older ones. With a folder that holds the checkpoint's package (``python -m model.exported``) the columns "exported" are of the
compiled forward pass: in each repeat all molecules are predicted with the network, and then all with the package.
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
from machine import DEFAULT_CHECKPOINT, describe
from pyscf import dft, lib
from recorded import Cell, Column, Table, as_markdown, record
from structures import structures_of

from model.integrals.pyscf_molecule import MoleculeIntegrals, build_mole
from model.predictor import Predictor
from model.structure import Structure

MOLECULES = ("H2O", "CH4", "CH3CH2OH", "C6H6")
FILES = ("c6h11no2", "c11h13no4", "c17h17no4")
REPEATS = 7
REPEATS_WITHOUT = 3
FOCK_BUILDS = 7
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
    structures = structures_of(MOLECULES, FILES)
    found = Table(columns=COLUMNS, rows=measure(predictor, structures))
    print(describe())
    print(as_markdown(found))
    if chosen.record:
        spread = "of the totals between repeats, relative: a column of the table"
        print(record("prediction_parts", tables=[found], spread=spread, checkpoint=predictor.card.version))


@dataclass(frozen=True)
class Parts:
    """CPU milliseconds of a prediction: preparation, forward pass, and what follows."""

    prepare: float
    network: float
    finish: float

    @property
    def outside(self) -> float:
        return self.prepare + self.finish

    @property
    def total(self) -> float:
        return self.outside + self.network


def measure(predictor: Predictor, structures: Mapping[str, Structure]) -> list[list[Cell]]:
    """One row per molecule, as in ``COLUMNS``."""
    found, exported, without = ({name: list[Parts]() for name in structures} for _ in range(3))
    compiled = predictor.model.exported
    for repeat in range(REPEATS + 1):
        predictor.model.exported = None
        timed(predictor, structures, found)
        if repeat <= REPEATS_WITHOUT:
            with patch.object(MoleculeIntegrals, "coulomb", lambda *_: None):
                timed(predictor, structures, without)
        if compiled is not None:
            predictor.model.exported = compiled
            timed(predictor, structures, exported)
        if not repeat:  # to warm up
            for kept in (found, exported, without):
                for parts in kept.values():
                    parts.clear()
    return [
        row(predictor, name, structure, found[name], exported[name], without[name])
        for name, structure in structures.items()
    ]


def timed(predictor: Predictor, structures: Mapping[str, Structure], into: Mapping[str, list[Parts]]) -> None:
    """Predict each structure once."""
    for name, structure in structures.items():
        started = time.process_time()
        prepared = predictor.prepare(structure)
        known = time.process_time()
        blocks = predictor.forward([prepared])[0]
        passed = time.process_time()
        predictor.finish(prepared, blocks, orbitals=True, forward_ms=0.0)
        done = time.process_time()
        into[name].append(Parts(1e3 * (known - started), 1e3 * (passed - known), 1e3 * (done - passed)))


def row(
    predictor: Predictor,
    name: str,
    structure: Structure,
    found: list[Parts],
    exported: list[Parts],
    without: list[Parts],
) -> list[Cell]:
    """As in ``COLUMNS``; without a package its cells are empty."""
    prepare, network, finish = (
        statistics.median(getattr(parts, part) for parts in found) for part in ("prepare", "network", "finish")
    )
    totals = sorted(parts.total for parts in found)
    total, outside = statistics.median(totals), prepare + finish
    spread = (totals[-2] - totals[1]) / total
    by_pyscf = statistics.median(parts.outside for parts in without)
    with_it = statistics.median(parts.total for parts in exported) if exported else None
    cells: list[Cell] = [name, len(structure), predictor.count_orbitals(structure), round(total, 1), round(spread, 2)]
    cells += [round(time, 1) for time in (network, prepare, finish)]
    cells += [round(outside / network, 2), round(by_pyscf / network, 2)]
    cells += (
        [None, None]
        if with_it is None
        else [round(statistics.median(e.network for e in exported), 1), round(with_it, 1)]
    )
    if predictor.count_orbitals(structure) > MOST_ORBITALS_OF_A_BUILD:
        return [*cells, *[None] * 4]
    fock = fock_ms(structure)
    ratios: list[Cell] = [round(time / fock, 3) for time in (total, network)]
    return [*cells, round(fock), *ratios, None if with_it is None else round(with_it / fock, 3)]


def fock_ms(structure: Structure) -> float:
    """CPU ms of one B3LYP Fock build inside an SCF (grid and integrals are there), median of builds one after another."""
    mf = dft.RKS(build_mole(structure, "def2-svp"), xc="b3lyp")
    density = mf.get_init_guess()
    mf.get_veff(dm=density)  # builds the grid and keeps the four-centre integrals
    times = []
    for _ in range(FOCK_BUILDS):
        started = time.process_time()
        mf.get_veff(dm=density)
        times.append(1e3 * (time.process_time() - started))
    return statistics.median(times)


if __name__ == "__main__":
    main()
