"""What limits a guess in settings that are not the model's: the model, or that it is another level's density?

``OMP_NUM_THREADS=1 python benchmarks/guess_limits.py [--settings NAME ...] [--runs FILE] [--record]``; half an hour.
SCF cycles from PySCF's own guess, from the model's Fock matrix, and from the *exact* one of B3LYP/def2-SVP, each carried over
to another basis; molecules that took no part in guess_settings.py. With ``--runs`` every row is a line of that file, and not
run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.linalg
from ase.build import molecule
from guess_settings import SETTINGS, Setting
from machine import DEFAULT_CHECKPOINT, describe
from numpy.typing import NDArray
from pyscf import dft, lib
from recorded import Cell, Column, Table, as_markdown, record

from model.integrals.pyscf_molecule import build_mole
from model.predictor import Predictor
from model.structure import Structure
from tracegrad_client.adapters.pyscf.density import starting_density
from tracegrad_client.adapters.pyscf.other_basis import atomic_charges, carried_over

MOLECULES: Final = ("N2H4", "H3CNH2", "H2CCO", "H2CCHF", "CH3OCH3", "C3H4_C3v", "HCF3", "CH2NHCH2")
FOREIGN: Final = ("PCM", "PBE", "PBE0", "wB97X", "r2SCAN", "HF", "6-31G*", "cc-pVDZ", "PBE0/cc-pVDZ")
STARTS: Final = ("own", "model", "exact")
COLUMNS: Final = [
    Column(name="setting"),
    Column(name="molecules"),
    Column(name="own guess, cycles"),
    Column(name="model, cycles"),
    Column(name="exact Fock matrix, cycles"),
    Column(name="model, ratio", digits=2),
    Column(name="exact, ratio", digits=2),
]


def main() -> None:
    """Print one row per setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--settings", nargs="+", default=list(FOREIGN), choices=list(SETTINGS))
    parser.add_argument("--molecules", nargs="+", default=list(MOLECULES))
    parser.add_argument("--runs", type=Path, help="file of finished runs, one JSON object a line")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    lib.num_threads(1)
    has_runs = chosen.runs is not None and chosen.runs.is_file()
    known = [json.loads(line) for line in chosen.runs.read_text().splitlines()] if has_runs else []
    runs = {(run["setting"], run["molecule"]): run for run in known}
    predictor = Predictor.load(DEFAULT_CHECKPOINT, verify_golden=False)
    for name in chosen.molecules:
        missing = [setting for setting in chosen.settings if (setting, name) not in runs]
        for run in measure(predictor, name, missing) if missing else []:
            runs[run["setting"], name] = run
            if chosen.runs:
                with chosen.runs.open("a") as file:
                    file.write(json.dumps(run) + "\n")
    rows = [row_of(setting, [runs[setting, name] for name in chosen.molecules]) for setting in chosen.settings]
    table = Table(columns=COLUMNS, rows=rows)
    print(describe(), as_markdown(table), sep="\n")
    if chosen.record:
        spread = "none: cycles repeat exactly"
        print(record("guess_limits", tables=[table], spread=spread, checkpoint=predictor.card.version))


def measure(predictor: Predictor, name: str, settings: list[str]) -> list[dict[str, Any]]:
    """Cycles of a molecule in some settings, from each start."""
    atoms = molecule(name)
    structure = Structure(atoms.numbers, atoms.positions)
    prediction = predictor.predict([structure])[0]
    exact = dft.RKS(build_mole(structure, "def2-svp"), xc="b3lyp")
    exact.kernel()
    focks = {"own": None, "model": prediction.hamiltonian, "exact": exact.get_fock()}
    found = []
    for setting in settings:
        cycles = {start: cycles_from(SETTINGS[setting], name, exact.mol, given) for start, given in focks.items()}
        found.append({"setting": setting, "molecule": name, **cycles})
    return found


def cycles_from(setting: Setting, name: str, source: Any, given: NDArray[np.float64] | None) -> int:
    """Cycles to convergence from a Fock matrix in the basis of ``source``, or from PySCF's own guess."""
    mf = setting.calculation(name)
    density = None
    if given is not None:
        if setting.basis != "def2-svp":
            charges = atomic_charges(source)
            assert charges is not None
            given = carried_over(given, source, mf.mol, charges)
        _, orbitals = scipy.linalg.eigh(given, mf.get_ovlp())
        density = starting_density("restricted", [orbitals], mf.mol.nelec)
    mf.kernel(dm0=density)
    if not mf.converged:
        raise RuntimeError(f"{name} did not converge.")
    return int(mf.cycles)


def row_of(setting: str, runs: list[dict[str, Any]]) -> list[Cell]:
    """One row of the table."""
    own, model, exact = (sum(run[start] for run in runs) for start in STARTS)
    return [setting, len(runs), own, model, exact, round(model / own, 3), round(exact / own, 3)]


if __name__ == "__main__":
    main()
