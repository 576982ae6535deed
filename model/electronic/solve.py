"""H C = S C e for one molecule, with nearly dependent bases handled by canonical orthogonalisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from model.errors import ElectronCountError, NumericalError

OVERLAP_THRESHOLD = 1e-7
"""Eigenvectors of S below this are dropped; PySCF's own default for linear dependence is 1e-8 on a condition number."""


@dataclass(frozen=True)
class Orbitals:
    """Closed-shell orbitals, lowest first.

    Attributes:
        energies: (mo,), hartree.
        coefficients: (ao, mo); fewer mo than ao when the basis is nearly dependent.
        occupations: (mo,), 2 or 0.
    """

    energies: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    occupations: NDArray[np.float64]

    @property
    def n_occupied(self) -> int:
        return int(np.count_nonzero(self.occupations))

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital, hartree."""
        return float(self.energies[self.n_occupied - 1])

    @property
    def lumo(self) -> float | None:
        """Energy of the lowest empty orbital, hartree; None if all are occupied."""
        return float(self.energies[self.n_occupied]) if self.n_occupied < len(self.energies) else None

    @property
    def gap(self) -> float | None:
        """LUMO less HOMO, hartree; None if all are occupied."""
        return None if self.lumo is None else self.lumo - self.homo


def solve(hamiltonian: NDArray[np.float64], overlap: NDArray[np.float64], n_electrons: int) -> Orbitals:
    """Solve the generalised eigenproblem and fill the lowest orbitals with pairs.

    Args:
        hamiltonian, overlap: symmetric, (ao, ao).
        n_electrons: even.

    Raises:
        ElectronCountError: odd, or more electrons than the basis holds.
        NumericalError: a matrix that is not finite, or LAPACK failed.
    """
    if n_electrons % 2 or n_electrons < 2:
        raise ElectronCountError(f"{n_electrons} electrons are not a closed shell.", field="charge")
    if not (np.isfinite(hamiltonian).all() and np.isfinite(overlap).all()):
        raise NumericalError("The Hamiltonian has entries that are not finite.", hint="Report the structure.")
    try:
        overlap_values = scipy.linalg.eigvalsh(overlap)
        if overlap_values[0] > OVERLAP_THRESHOLD:
            energies, coefficients = scipy.linalg.eigh(hamiltonian, overlap)
        else:
            values, vectors = scipy.linalg.eigh(overlap)
            keep = values > OVERLAP_THRESHOLD
            basis = vectors[:, keep] / np.sqrt(values[keep])
            energies, rotated = scipy.linalg.eigh(basis.T @ hamiltonian @ basis)
            coefficients = basis @ rotated
    except (np.linalg.LinAlgError, ValueError) as error:
        raise NumericalError(f"The eigensolver failed: {error}.") from error
    n_occupied = n_electrons // 2
    if n_occupied > len(energies):
        raise ElectronCountError(f"{n_electrons} electrons do not fit into {len(energies)} orbitals.", field="charge")
    occupations = np.zeros(len(energies))
    occupations[:n_occupied] = 2.0
    return Orbitals(energies, coefficients, occupations)


def density_matrix(orbitals: Orbitals) -> NDArray[np.float64]:
    """Closed-shell density 2 C_occ C_occ^T, (ao, ao)."""
    occupied = orbitals.coefficients[:, : orbitals.n_occupied]
    return np.asarray(2.0 * occupied @ occupied.T)
