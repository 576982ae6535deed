"""Which reference Hamiltonian H0 pays: distance from the converged Fock matrix, density error, CPU time, SCF cycles.

``python benchmarks/reference_hamiltonians.py DATA.h5 [n molecules]`` on the validation split; docs/decisions/0001.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from machine import DEFAULT_CHECKPOINT, describe
from numpy.typing import NDArray
from pyscf import dft, lib, scf
from pyscf.gto.basis import load as load_pyscf_basis

from model.electronic.comparison import first_order_density
from model.integrals.pyscf_molecule import MoleculeIntegrals, integrals
from model.predictor import Predictor
from model.reference.fitted import FittedReference, ingredients, total
from model.units import MICROHARTREE_PER_HARTREE
from training.data.sources import Frame, read_frames

Matrix = NDArray[np.float64]
Candidate = Callable[[Frame, MoleculeIntegrals], Matrix]


def core(frame: Frame, data: MoleculeIntegrals) -> Matrix:
    """Kinetic energy and nuclear attraction."""
    return data.core


def sap(frame: Frame, data: MoleculeIntegrals) -> Matrix:
    """PySCF's superposition of atomic potentials (Gaussian fit, analytic)."""
    table: dict[str, Any] = {}
    for symbol in set(frame.structure.symbols):
        loaded = load_pyscf_basis("sapgrasplarge", symbol)
        table[symbol] = np.asarray(loaded[0][1:], dtype=float)
    return np.asarray(data.core + scf.hf.make_sap(data.mole, table))


def minao_fock(frame: Frame, data: MoleculeIntegrals, level: int) -> Matrix:
    """Fock matrix of the minao density, exact integrals, on a grid of this level."""
    mf = dft.RKS(data.mole, xc="b3lyp")
    mf.grids.level = level
    return np.asarray(mf.get_fock(dm=mf.get_init_guess()))


def fitted_step1(frame: Frame, data: MoleculeIntegrals, reference: FittedReference) -> Matrix:
    """The fitted reference without its response terms."""
    atoms = reference.layout.step1(reference.step1[None])
    found: Matrix = data.core + total(atoms, ingredients(reference.basis, reference.exponents, data, atoms, []))[0]
    return found


def fitted(frame: Frame, data: MoleculeIntegrals, reference: FittedReference) -> Matrix:
    """The reference as it is used."""
    return reference.evaluate(data).hamiltonian


def main() -> None:
    """Print one row per candidate."""
    torch.set_num_threads(1)
    lib.num_threads(1)
    reference = Predictor.load(DEFAULT_CHECKPOINT).model.reference
    if not isinstance(reference, FittedReference):
        raise SystemExit("the default checkpoint has no fitted reference to compare")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    frames = list(read_frames(Path(sys.argv[1]), ["val"], frames_per_molecule=1, max_molecules=count))
    candidates: dict[str, Candidate] = {
        "core": core,
        "SAP": sap,
        "fitted, atoms only": partial(fitted_step1, reference=reference),
        "fitted": partial(fitted, reference=reference),
        "minao Fock, grid 0": partial(minao_fock, level=0),
        "minao Fock, grid 3": partial(minao_fock, level=3),
    }
    print(describe())
    print(f"{len(frames)} molecules, minao {np.mean([f.cycles_minao for f in frames]):.2f} cycles")
    print(f"{'H0':22}{'mean |dF| uEh':>15}{'|D_ia|':>9}{'CPU s':>9}{'of a Fock':>11}{'cycles':>8}{'of minao':>10}")
    datas = [integrals(frame.structure, "def2-svp") for frame in frames]
    fock = np.median([seconds(partial(minao_fock, frame, data, 3)) for frame, data in zip(frames, datas, strict=True)])
    for name, candidate in candidates.items():
        rows = []
        for frame, data in zip(frames, datas, strict=True):
            started = time.process_time()
            hamiltonian = candidate(frame, data)
            spent = time.process_time() - started
            n_occupied = frame.structure.n_electrons // 2
            energies, orbitals = scipy.linalg.eigh(frame.fock, data.overlap)
            error = hamiltonian - frame.fock
            occupied = scipy.linalg.eigh(hamiltonian, data.overlap)[1][:, :n_occupied]
            mf = dft.RKS(data.mole, xc="b3lyp")
            mf.kernel(dm0=2 * occupied @ occupied.T)
            rows.append(
                [
                    MICROHARTREE_PER_HARTREE * np.abs(error).mean(),
                    first_order_density(error, energies, orbitals, n_occupied),
                    spent,
                    mf.cycles,
                    frame.cycles_minao,
                ]
            )
        mean = np.mean(rows, axis=0)
        print(
            f"{name:22}{mean[0]:15.0f}{mean[1]:9.4f}{np.median([r[2] for r in rows]):9.4f}"
            f"{np.median([r[2] for r in rows]) / fock:11.3f}{mean[3]:8.2f}{mean[3] / mean[4]:10.3f}"
        )


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
