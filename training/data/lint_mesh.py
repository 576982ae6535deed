"""Checks of labels that know the k-mesh they were computed on: the number of electrons, and how far H may reach."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

import numpy as np

from model.electronic.bands import band_energies
from model.electronic.fermi import SMEARING_HARTREE, k_mesh, occupations
from model.errors import ModelError
from model.formats.matrices import Matrices
from model.units import EV_PER_HARTREE
from training.data.finding import Finding, severity_of

ELECTRONS_WARNING, ELECTRONS_ERROR = 0.05, 0.5
"""Electrons a cell. Another temperature of the occupations moves a metal's count by less than the first; H, S or a level of
something else moves it by whole electrons."""
MAXIMUM_ORBITALS: Final = 1200
"""H(k) of larger cells is not diagonalised."""
RIM_ANGSTROM: Final = 1.0
"""Width of the outermost shell of the supercell, where H must have decayed."""
RIM_WARNING_HARTREE, RIM_ERROR_HARTREE = 4e-5, 1e-3
"""1 and 27 meV. Good sets have less than 1e-3 meV there; diamond on 3 x 3 x 3 points has 600."""


def check_electrons(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    """Do the bands below the stated Fermi level hold the stated electrons?"""
    found = []
    for name, matrices in structures:
        try:
            held = electrons_at_fermi(matrices)
        except ModelError:  # not hermitian, or S not positive definite: other checks say so
            continue
        if held is not None and matrices.n_electrons is not None:
            found.append((abs(held - matrices.n_electrons), held, matrices.n_electrons, name))
    if not found:
        return []
    worst, held, stated, name = max(found)
    return [
        Finding(
            severity_of(worst, ELECTRONS_WARNING, ELECTRONS_ERROR),
            "electrons",
            f"bands below the Fermi level hold the stated number to {worst:.2g} ({name}: {held:.4f} of {stated:g}, "
            f"{len(found)} checked)",
        )
    ]


def electrons_at_fermi(matrices: Matrices, smearing_hartree: float = SMEARING_HARTREE) -> float | None:
    """Electrons of a cell in the bands of H and S, filled to the stated Fermi level on the stated mesh.

    Args:
        matrices: of one structure, hartree.
        smearing_hartree: kT of the occupations.

    Returns:
        None where mesh, level or overlap are not stated, or the cell is too large.

    Raises:
        ModelError: H or S that has no bands.
    """
    hamiltonian, overlap, level = matrices.hamiltonian, matrices.overlap, matrices.fermi_energy_hartree
    if hamiltonian is None or overlap is None or level is None or matrices.k_points is None:
        return None
    if hamiltonian.n_orbitals > MAXIMUM_ORBITALS:
        return None
    points, weights = k_mesh(matrices.k_points, halved=hamiltonian.spin != "spinor")
    bands = band_energies(hamiltonian, overlap, points)
    filled = occupations(bands.energies, level, bands.electrons_each, smearing_hartree)
    return float(filled.sum(axis=(0, 2)) @ weights)


def check_reach(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    """Has H(R) that was folded back from a mesh decayed where the supercell of the mesh ends?"""
    found = []
    for name, matrices in structures:
        hamiltonian = matrices.hamiltonian
        if hamiltonian is None or not matrices.is_folded or matrices.k_points is None:
            continue
        radius = supercell_radius(matrices)
        distances = hamiltonian.pairs.distances_angstrom
        rim = np.flatnonzero(distances > radius - RIM_ANGSTROM).tolist()
        largest = max((float(np.abs(hamiltonian.block(pair)).max()) for pair in rim), default=0.0)
        found.append((largest, radius, name))
    if not found:
        return []
    largest, radius, name = max(found)
    severity = severity_of(largest, RIM_WARNING_HARTREE, RIM_ERROR_HARTREE)
    remark = "" if severity == "ok" else "; take more k-points"
    return [
        Finding(
            severity,
            "reach",
            f"the k-mesh knows H to {radius:.1f} Å; in the last {RIM_ANGSTROM:g} Å and beyond it is at most "
            f"{largest * 1000 * EV_PER_HARTREE:.2g} meV ({name}){remark}",
        )
    ]


def supercell_radius(matrices: Matrices) -> float:
    """Half of the shortest lattice vector of the mesh's supercell, along the periodic directions, Å."""
    structure = matrices.structure
    assert structure.cell_angstrom is not None
    assert matrices.k_points is not None
    supercell = structure.cell_angstrom * np.array(matrices.k_points)[:, None]
    steps = [(-1, 0, 1) if periodic else (0,) for periodic in structure.pbc]
    vectors = np.array([step for step in product(*steps) if any(step)]).reshape(-1, 3) @ supercell
    return float(np.linalg.norm(vectors, axis=1).min(initial=np.inf)) / 2
