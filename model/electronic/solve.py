"""H C = S C e, by spin treatment, at Gamma or at a k-point, with nearly dependent bases by canonical orthogonalisation.

    restricted     one set of orbitals, pairs of electrons
    unrestricted   one set for each spin; alpha is the majority: n_alpha - n_beta = multiplicity - 1
    spinor         one set over (ao up, ao down), single electrons; H is [[uu, ud], [du, dd]], S is the same for both spins

Occupations are those of a molecule: the lowest orbitals are full. At k, fill by a Fermi level (``electronic.fermi``) instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import dense_matrix
from model.electronic.eigen import eigh
from model.electronic.overlap import OVERLAP_THRESHOLD, Matrix, OverlapFactor
from model.errors import ElectronCountError, NumericalError


@dataclass(frozen=True, eq=False)
class Orbitals:
    """One set of orbitals, lowest first.

    Attributes:
        energies: (mo,), hartree.
        coefficients: (ao, mo), or (2 ao, mo) for spinors, up first; complex for spinors and at k. Fewer mo than rows when
            the basis is nearly dependent.
        occupations: (mo,): 2 or 0 if restricted, else 1 or 0.
    """

    energies: NDArray[np.float64]
    coefficients: Matrix
    occupations: NDArray[np.float64]

    @property
    def n_occupied(self) -> int:
        """Number of occupied orbitals."""
        return int(np.count_nonzero(self.occupations))

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital, hartree; minus infinity if none is (the minority spin of H)."""
        return float(self.energies[self.n_occupied - 1]) if self.n_occupied else float("-inf")

    @property
    def lumo(self) -> float | None:
        """Energy of the lowest empty orbital, hartree; None if all are occupied."""
        return float(self.energies[self.n_occupied]) if self.n_occupied < len(self.energies) else None

    @property
    def gap(self) -> float | None:
        """LUMO less HOMO, hartree; None if all are occupied."""
        return None if self.lumo is None else self.lumo - self.homo


@dataclass(frozen=True, eq=False)
class SpinOrbitals:
    """Orbitals of an unrestricted calculation.

    Attributes:
        alpha: of the majority spin.
        beta: of the other one.
    """

    alpha: Orbitals
    beta: Orbitals

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital of either spin, hartree."""
        return max(self.alpha.homo, self.beta.homo)

    @property
    def lumo(self) -> float | None:
        """Energy of the lowest empty orbital of either spin, hartree; None if all are occupied."""
        empty = [lumo for lumo in (self.alpha.lumo, self.beta.lumo) if lumo is not None]
        return min(empty) if empty else None

    @property
    def gap(self) -> float | None:
        """LUMO less HOMO, hartree, below zero if the occupations are not the lowest; None if all are occupied."""
        return None if self.lumo is None else self.lumo - self.homo


def solve(hamiltonian: Matrix, overlap: Matrix | OverlapFactor, n_electrons: int) -> Orbitals:
    """Restricted: solve the generalised eigenproblem and fill the lowest orbitals with pairs.

    Args:
        hamiltonian: hermitian, (ao, ao), hartree.
        overlap: S, (ao, ao), or its factor if it is at hand.
        n_electrons: even.

    Raises:
        ElectronCountError: odd, or more electrons than the basis holds.
        NumericalError: a matrix that is not finite, or LAPACK failed.
    """
    if n_electrons % 2 or n_electrons < 2:
        raise ElectronCountError(f"{n_electrons} electrons are not a closed shell.", field="charge")
    return _filled(*eigenpairs(hamiltonian, overlap), n_electrons, electrons_each=2)


def solve_unrestricted(
    hamiltonian: Matrix, overlap: Matrix | OverlapFactor, n_electrons: int, multiplicity: int
) -> SpinOrbitals:
    """Solve for each spin and fill its lowest orbitals with single electrons.

    Args:
        hamiltonian: of alpha and of beta, each hermitian, (2, ao, ao), hartree.
        overlap: S, (ao, ao), or its factor.
        n_electrons: of both spins together.
        multiplicity: 2S + 1, one more than there are alpha electrons above beta's.

    Raises:
        ElectronCountError: electrons that do not fit the multiplicity, or more than the basis holds.
        NumericalError: a matrix that is not finite, or LAPACK failed.
    """
    alpha, beta = count_spins(n_electrons, multiplicity)
    factor = OverlapFactor.of(overlap)
    return SpinOrbitals(
        _filled(*eigenpairs(hamiltonian[0], factor), alpha, electrons_each=1),
        _filled(*eigenpairs(hamiltonian[1], factor), beta, electrons_each=1),
    )


def solve_spinor(hamiltonian: Matrix, overlap: Matrix | OverlapFactor, n_electrons: int) -> Orbitals:
    """Solve for spinors and fill the lowest with single electrons.

    Args:
        hamiltonian: hermitian, (2 ao, 2 ao), spin outermost, hartree.
        overlap: S, (ao, ao), or its factor.
        n_electrons: any number from 1.

    Raises:
        ElectronCountError: none, or more electrons than the basis holds.
        NumericalError: a matrix that is not finite, or LAPACK failed.
    """
    if n_electrons < 1:
        raise ElectronCountError(f"{n_electrons} electrons cannot be put into orbitals.", field="charge")
    return _filled(*eigenpairs(hamiltonian, overlap), n_electrons, electrons_each=1)


def solve_blocks(
    hamiltonian: BlockSet,
    overlap: BlockSet,
    n_electrons: int,
    *,
    multiplicity: int = 1,
    k: Sequence[float] = (0.0, 0.0, 0.0),
) -> Orbitals | SpinOrbitals:
    """Solve by the spin treatment of the blocks.

    Args:
        hamiltonian: any spin treatment, hartree.
        overlap: restricted, of the same structure and orbitals.
        n_electrons: of a cell.
        multiplicity: of unrestricted blocks.
        k: fractional coordinates.

    Raises:
        ElectronCountError, NumericalError: as for the three functions above.
    """
    matrix, factor = dense_matrix(hamiltonian, k), OverlapFactor.of(dense_matrix(overlap, k))
    if hamiltonian.spin == "unrestricted":
        return solve_unrestricted(matrix, factor, n_electrons, multiplicity)
    if hamiltonian.spin == "spinor":
        return solve_spinor(matrix, factor, n_electrons)
    return solve(matrix, factor, n_electrons)


def count_spins(n_electrons: int, multiplicity: int) -> tuple[int, int]:
    """Alpha and beta electrons.

    Raises:
        ElectronCountError: electrons that do not fit the multiplicity.
    """
    unpaired = multiplicity - 1
    if n_electrons < 1 or unpaired < 0 or unpaired > n_electrons or (n_electrons - unpaired) % 2:
        raise ElectronCountError(
            f"{n_electrons} electrons do not fit multiplicity {multiplicity}.",
            hint="An even electron count needs an odd multiplicity (1, 3, ...), an odd count an even one.",
            field="multiplicity",
        )
    return (n_electrons + unpaired) // 2, (n_electrons - unpaired) // 2


def eigenpairs(
    hamiltonian: Matrix, overlap: Matrix | OverlapFactor, threshold: float = OVERLAP_THRESHOLD
) -> tuple[NDArray[np.float64], Matrix]:
    """Eigenvalues and eigenvectors of H C = S C e where S is not nearly singular.

    Args:
        hamiltonian: hermitian, (ao, ao), or (2 ao, 2 ao) for spinors.
        overlap: S, (ao, ao), or its factor.
        threshold: eigenvectors of S with eigenvalues not above it are projected out.

    Returns:
        energies, ascending, (mo,), in H's unit; coefficients, C^dagger S C = 1, (ao or 2 ao, mo).

    Raises:
        NumericalError: a matrix that is not finite, or LAPACK failed.
    """
    reduced, basis = reduced_hamiltonian(hamiltonian, overlap, threshold)
    try:
        energies, rotated = eigh(reduced)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise NumericalError(f"The eigensolver failed: {error}.") from error
    if len(reduced) == basis.shape[1]:
        return energies, np.asarray(basis @ rotated)
    n_kept = basis.shape[1]
    return energies, np.concatenate([basis @ rotated[:n_kept], basis @ rotated[n_kept:]])


def reduced_hamiltonian(
    hamiltonian: Matrix, overlap: Matrix | OverlapFactor, threshold: float = OVERLAP_THRESHOLD
) -> tuple[Matrix, Matrix]:
    """H in the orthonormal functions X that S leaves: X^dagger H X, (mo, mo), and X, (ao, kept).

    Spinors have the same X for both spins, and twice as many mo as functions. Arguments and errors as in :func:`eigenpairs`.
    """
    if not np.isfinite(hamiltonian).all():
        raise NumericalError("The Hamiltonian has entries that are not finite.", hint="Report the structure.")
    factor = OverlapFactor.of(overlap)
    basis = factor.orthonormal_basis(threshold)
    n_ao, n_kept = basis.shape
    if len(hamiltonian) == n_ao:
        return np.asarray(basis.conj().T @ hamiltonian @ basis), basis
    if len(hamiltonian) != 2 * n_ao:
        raise NumericalError(f"A Hamiltonian of {len(hamiltonian)} rows does not fit an overlap of {n_ao}.")
    parts = hamiltonian.reshape(2, n_ao, 2, n_ao).transpose(0, 2, 1, 3)
    reduced = basis.conj().T @ parts @ basis
    return np.asarray(reduced.transpose(0, 2, 1, 3).reshape(2 * n_kept, 2 * n_kept)), basis


def _filled(energies: NDArray[np.float64], coefficients: Matrix, n_electrons: int, *, electrons_each: int) -> Orbitals:
    n_occupied = n_electrons // electrons_each
    if n_occupied > len(energies):
        raise ElectronCountError(f"{n_electrons} electrons do not fit into {len(energies)} orbitals.", field="charge")
    occupations = np.zeros(len(energies))
    occupations[:n_occupied] = electrons_each
    return Orbitals(energies, coefficients, occupations)


def density_matrix(orbitals: Orbitals) -> Matrix:
    """C n C^dagger of the occupied orbitals, tr(D S) = number of electrons.

    Returns:
        (ao, ao), or (2 ao, 2 ao) for spinors, [[uu, ud], [du, dd]].
    """
    occupied = orbitals.coefficients[:, : orbitals.n_occupied]
    each = orbitals.occupations[0] if orbitals.n_occupied else 0.0
    return np.asarray(each * occupied @ occupied.conj().T)


def spin_density_matrices(orbitals: SpinOrbitals) -> Matrix:
    """Density matrices of alpha and beta, (2, ao, ao)."""
    return np.stack([density_matrix(orbitals.alpha), density_matrix(orbitals.beta)])
