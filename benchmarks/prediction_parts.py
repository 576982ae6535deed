"""Where the time of a prediction goes, and what it costs beside the SCF it shortens.

Process CPU seconds on one thread, median of interleaved repeats after a warm-up; ratios within one run are what counts.
``python benchmarks/prediction_parts.py [--checkpoint FOLDER] [--record]``: recorded figures replace the older ones.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from ase.build import molecule
from machine import DEFAULT_CHECKPOINT, describe
from pyscf import dft, lib
from recorded import Cell, Column, Table, as_markdown, record

from model.integrals.pyscf_molecule import build_mole
from model.predictor import Predictor
from model.structure import Structure

MOLECULES = ("H2O", "CH4", "CH3CH2OH", "C6H6", "C5H8")
REPEATS = 15
COLUMNS = [
    Column(name="molecule"),
    Column(name="AOs"),
    Column(name="total", unit="ms", digits=1),
    Column(name="H0 and integrals", unit="ms", digits=1),
    Column(name="forward", unit="ms", digits=1),
    Column(name="eigensolve", unit="ms", digits=1),
    Column(name="spread", digits=2),
    Column(name="Fock", unit="ms", digits=0),
    Column(name="total / Fock", digits=3),
]


def main() -> None:
    """Print one row per molecule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lib.num_threads(1)
    predictor = Predictor.load(chosen.checkpoint)
    structures = {name: Structure(molecule(name).numbers, molecule(name).positions) for name in MOLECULES}
    found = Table(columns=COLUMNS, rows=measure(predictor, structures))
    print(describe())
    print(as_markdown(found))
    if chosen.record:
        spread = "of the totals between repeats, relative: a column of the table"
        print(record("prediction_parts", tables=[found], spread=spread, checkpoint=predictor.card.version))


def measure(predictor: Predictor, structures: Mapping[str, Structure]) -> list[list[Cell]]:
    """One row per molecule, as in ``COLUMNS``."""
    timings: dict[str, list[dict[str, float]]] = {name: [] for name in structures}
    for repeat in range(REPEATS + 2):
        for name, structure in structures.items():
            started = time.process_time()
            prediction = predictor.predict([structure])[0]
            total = 1e3 * (time.process_time() - started)
            if repeat >= 2:
                timings[name].append({"total": total, **prediction.timings_ms})
    rows: list[list[Cell]] = []
    for name, structure in structures.items():
        median = {key: statistics.median(row[key] for row in timings[name]) for key in timings[name][0]}
        totals = sorted(row["total"] for row in timings[name])
        fock = 1e3 * fock_seconds(structure)
        parts = [round(median[key], 1) for key in ("total", "integrals", "forward", "eigensolve")]
        spread = round((totals[-2] - totals[1]) / median["total"], 2)
        ratio = round(median["total"] / fock, 3)
        rows.append([name, predictor.count_orbitals(structure), *parts, spread, round(fock), ratio])
    return rows


def fock_seconds(structure: Structure) -> float:
    """CPU seconds of one B3LYP Fock build inside an SCF (grid and integrals already there), median of 3."""
    mf = dft.RKS(build_mole(structure, "def2-svp"), xc="b3lyp")
    density = mf.get_init_guess()
    mf.get_veff(dm=density)
    times = []
    for _ in range(3):
        started = time.process_time()
        mf.get_veff(dm=density)
        times.append(time.process_time() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
