"""The Fermi level of a label, from its own bands: a program's number is checked, and an insulator's put into the middle.

Programs state for an insulator any level in the gap: two labels of neighbouring structures differ by the whole gap.
"""

from __future__ import annotations

from dataclasses import replace

from model.electronic.bands import band_energies
from model.electronic.fermi import fermi_level, k_mesh, occupations
from model.formats.matrices import Matrices
from training.data.lint_mesh import ELECTRONS_ERROR
from training.generate.crystals.label import LabelError


def with_checked_level(matrices: Matrices, smearing_hartree: float) -> Matrices:
    """The same with the level that ``model.electronic`` finds on the mesh of the calculation.

    Args:
        matrices: of one label, hartree, with mesh, electrons and the program's Fermi level.
        smearing_hartree: kT of the calculation.

    Raises:
        LabelError: the program's level does not hold its electrons in these bands: H or S were not read rightly.
    """
    level, overlap, electrons = matrices.fermi_energy_hartree, matrices.overlap, matrices.n_electrons
    if level is None or overlap is None or matrices.k_points is None or electrons is None:
        return matrices
    hamiltonian = matrices.require_hamiltonian()
    points, weights = k_mesh(matrices.k_points, halved=hamiltonian.spin != "spinor")
    bands = band_energies(hamiltonian, overlap, points)
    held = float(occupations(bands.energies, level, bands.electrons_each, smearing_hartree).sum(axis=(0, 2)) @ weights)
    if abs(held - electrons) > ELECTRONS_ERROR:
        raise LabelError(
            f"{matrices.program}'s Fermi level holds {held:.2f} electrons in the bands of its H and S, not {electrons:g}."
        )
    found = fermi_level(bands, weights, electrons, smearing=smearing_hartree)
    return replace(matrices, fermi_energy=found.energy * matrices.unit.per_hartree)
