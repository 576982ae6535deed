"""Where the time of a prediction goes, and what it costs beside the SCF it shortens.

Process CPU seconds on one thread, median of interleaved repeats after a warm-up; ratios within one run are what counts.
``python benchmarks/prediction_parts.py [checkpoint folder]``
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
from ase.build import molecule
from machine import DEFAULT_CHECKPOINT, describe
from pyscf import dft, lib

from model.integrals.pyscf_molecule import build_mole
from model.predictor import Predictor
from model.structure import Structure

MOLECULES = ("H2O", "CH4", "CH3CH2OH", "C6H6", "C5H8")
REPEATS = 15


def main() -> None:
    """Print one row per molecule."""
    torch.set_num_threads(1)
    lib.num_threads(1)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_CHECKPOINT
    predictor = Predictor.load(folder)
    structures = {name: Structure(molecule(name).numbers, molecule(name).positions) for name in MOLECULES}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in structures}
    for repeat in range(REPEATS + 2):
        for name, structure in structures.items():
            started = time.process_time()
            prediction = predictor.predict([structure])[0]
            total = 1e3 * (time.process_time() - started)
            if repeat >= 2:
                rows[name].append({"total": total, **prediction.timings_ms})
    print(describe())
    print(
        f"{'':10}{'AOs':>5}{'total':>9}{'H0':>8}{'forward':>9}{'eigh':>7}{'spread':>8}{'Fock':>9}{'of a Fock build':>17}"
    )
    for name, structure in structures.items():
        found = {key: statistics.median(row[key] for row in rows[name]) for key in rows[name][0]}
        totals = sorted(row["total"] for row in rows[name])
        fock = 1e3 * fock_seconds(structure)
        print(
            f"{name:10}{predictor.count_orbitals(structure):5d}{found['total']:9.1f}{found['integrals']:8.1f}"
            f"{found['forward']:9.1f}{found['eigensolve']:7.1f}"
            f"{(totals[-2] - totals[1]) / found['total']:8.2f}{fock:9.1f}{found['total'] / fock:17.3f}"
        )


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
