"""One label by PySCF in this process: KRKS with Gaussians on grids (multigrid); for tiny sets, and to check others by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyscf
from pyscf.pbc import dft, gto
from pyscf.pbc.scf import addons

from model.electronic.fermi import chemical_potential, k_mesh
from model.formats.matrices import Matrices
from model.formats.rearrange import cells_of, moved
from model.integrals.pyscf_molecule import load_basis
from model.structure import Structure
from training.generate.crystals.folding import fold_back
from training.generate.crystals.label import CrystalLabel, LabelError
from training.generate.crystals.settings import PyscfSettings


def label_with_pyscf(structure: Structure, settings: PyscfSettings, k_points: Sequence[int]) -> CrystalLabel:
    """Run PySCF's KRKS.

    Args:
        structure: with a cell; as it will be stored. All three directions are treated as periodic.
        settings: level and thresholds.
        k_points: Gamma-centred mesh, three counts; also the supercell that H(R) is folded back to.

    Raises:
        LabelError: the SCF does not converge.
    """
    assert structure.cell_angstrom is not None
    cells = cells_of(structure)
    inside = replace(structure, positions_angstrom=structure.positions_angstrom - cells @ structure.cell_angstrom)
    numbers = structure.numbers.tolist()
    cell: Any = gto.Cell(
        atom=list(zip(structure.symbols, inside.positions_angstrom.tolist(), strict=True)),
        a=structure.cell_angstrom,
        unit="Angstrom",
        basis=settings.basis,
        pseudo=settings.potential,
        precision=settings.precision,
        ke_cutoff=settings.cutoff_hartree,
        spin=None,  # an odd number of electrons is shared by both spins
        verbose=0,
    ).build()
    points, weights = k_mesh(k_points)
    smearing = settings.smearing_hartree
    mf: Any = dft.KRKS(cell, cell.get_abs_kpts(points)).multigrid_numint()
    mf = addons.smearing_(mf, sigma=smearing, method="fermi")
    mf.xc, mf.conv_tol, mf.max_cycle = settings.functional, settings.convergence, settings.maximum_cycles
    energy = float(mf.kernel())
    if not mf.converged:
        raise LabelError(f"PySCF's SCF did not converge in {settings.maximum_cycles} cycles.")
    space = load_basis(settings.basis, numbers)
    hamiltonian, overlap = fold_back(
        inside, space, points, [np.asarray(mf.get_fock())[None], np.asarray(mf.get_ovlp())[None]], k_points
    )
    n_electrons = float(cell.nelectron)
    fermi = chemical_potential(np.asarray(mf.mo_energy)[None], weights, n_electrons, 2, smearing)
    program = f"PySCF {pyscf.__version__}"
    matrices = Matrices(
        inside,
        hamiltonian,
        overlap,
        fermi_energy=fermi,
        n_electrons=n_electrons,
        program=program,
        k_points=(int(k_points[0]), int(k_points[1]), int(k_points[2])),
        is_folded=True,
    )
    return CrystalLabel(
        matrices=moved(matrices, -cells, structure.positions_angstrom),
        level=settings.level(k_points),
        cycles=int(mf.cycles),
        energy_hartree=energy,
    )
