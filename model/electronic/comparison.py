"""A predicted Kohn-Sham matrix against a converged one: its elements, its orbitals, its density.

C and e are the converged matrix's orbitals and energies, i is occupied, a virtual, S the overlap. What an error of the Fock
matrix does to the density is, to first order, the mixing D_ia; what it really did, and what a guess that is no Fock
matrix at all (minao) does, is measured in the same measure from the density itself. Definitions: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.electronic.solve import Orbitals, density_matrix
from model.units import EV_PER_HARTREE

Matrix = NDArray[np.float64]

DEGENERATE_HARTREE: Final = 0.05 / EV_PER_HARTREE
"""Orbitals closer than this are one level: a frontier window never cuts through it."""

INTRUDER_DISTANCE: Final = 0.7
"""A frontier window that is farther from the reference's is another orbital: the intruder rule."""


@dataclass(frozen=True)
class MatrixErrors:
    """Figures of a predicted matrix; energies and matrix elements in hartree.

    Attributes:
        hamiltonian, hamiltonian_diagonal, hamiltonian_off_diagonal: mean |dH| of all entries, of the blocks of one atom, of
            those of two.
        occupied_energies: mean |de| of the occupied orbitals.
        homo, lumo, gap: signed errors.
        psi, psi_overlap: mean |cos| of occupied orbitals in percent, without and with the overlap.
        subspace: distance of the occupied spaces.
        homo_distance, lumo_distance: distance of the frontier levels.
        error_oo, error_ov, error_vv: shares of the squared error in the converged matrix's eigenbasis.
        density: first-order |D_ia| of the matrix.
        density_exact: |D_ia| of the very density that is served.
        density_per_electron, density_exact_per_electron: the same over sqrt(occupied orbitals).
    """

    hamiltonian: float
    hamiltonian_diagonal: float
    hamiltonian_off_diagonal: float
    occupied_energies: float
    homo: float
    lumo: float
    gap: float
    psi: float
    psi_overlap: float
    subspace: float
    homo_distance: float
    lumo_distance: float
    error_oo: float
    error_ov: float
    error_vv: float
    density: float
    density_per_electron: float
    density_exact: float
    density_exact_per_electron: float

    @property
    def intruder(self) -> bool:
        """Whether a frontier level is another one."""
        return max(self.homo_distance, self.lumo_distance) > INTRUDER_DISTANCE


ENERGIES: Final = (
    "hamiltonian",
    "hamiltonian_diagonal",
    "hamiltonian_off_diagonal",
    "occupied_energies",
    "homo",
    "lumo",
    "gap",
)
"""The figures of :class:`MatrixErrors` that are energies."""


def compare(
    fock: Matrix,
    hamiltonian: Matrix,
    overlap: Matrix,
    atom_offsets: Sequence[int],
    *,
    label: Orbitals,
    predicted: Orbitals,
    served: Orbitals,
) -> MatrixErrors:
    """All figures of one prediction.

    Args:
        fock: the converged matrix, (ao, ao), hartree.
        hamiltonian: the predicted one.
        overlap: S.
        atom_offsets: first orbital of each atom and, last, their number.
        label: orbitals of ``fock``, a closed shell's.
        predicted: of ``hamiltonian`` itself.
        served: of the guess, which may be protected from an intruder.
    """
    n_occupied = label.n_occupied
    atom = np.repeat(np.arange(len(atom_offsets) - 1), np.diff(atom_offsets))
    error = hamiltonian - fock
    whole, diagonal, off_diagonal = block_errors(np.abs(error), atom)
    kept = min(len(label.energies), len(predicted.energies))
    d_energies = predicted.energies[:kept] - label.energies[:kept]
    homo = float(d_energies[n_occupied - 1])
    lumo = float(d_energies[n_occupied]) if n_occupied < kept else 0.0
    same = (label.coefficients, predicted.coefficients)
    at_homo, at_lumo = frontier_windows(label.energies[:kept], n_occupied)
    shares = eigenbasis_shares(error, label.coefficients, n_occupied)
    density = first_order_density(error, label.energies, label.coefficients, n_occupied)
    exact = density_mixing(density_matrix(served), overlap, label.coefficients, n_occupied)
    per_electron = float(np.sqrt(n_occupied))
    return MatrixErrors(
        hamiltonian=whole,
        hamiltonian_diagonal=diagonal,
        hamiltonian_off_diagonal=off_diagonal,
        occupied_energies=float(np.abs(d_energies[:n_occupied]).mean()),
        homo=homo,
        lumo=lumo,
        gap=lumo - homo,
        psi=orbital_cosine(*same, n_occupied),
        psi_overlap=orbital_overlap(*same, overlap, n_occupied),
        subspace=occupied_distance(label.coefficients, served.coefficients, overlap, n_occupied),
        homo_distance=window_distance(*same, overlap, at_homo),
        lumo_distance=0.0 if at_lumo is None else window_distance(*same, overlap, at_lumo),
        error_oo=shares[0],
        error_ov=shares[1],
        error_vv=shares[2],
        density=density,
        density_per_electron=density / per_electron,
        density_exact=exact,
        density_exact_per_electron=exact / per_electron,
    )


def block_errors(absolute: Matrix, atom: NDArray[np.int64]) -> tuple[float, float, float]:
    """Mean of all entries, of the diagonal blocks and of the off-diagonal blocks of one molecule.

    Args:
        absolute: |dH|, (ao, ao).
        atom: of each AO, (ao,).

    Returns:
        in the unit of ``absolute``; the last is 0 for a single atom.
    """
    same = atom[:, None] == atom[None, :]
    off = float(absolute[~same].mean()) if not same.all() else 0.0
    return float(absolute.mean()), float(absolute[same].mean()), off


def eigenbasis_shares(error: Matrix, orbitals: Matrix, n_occupied: int) -> tuple[float, float, float]:
    """How the squared error divides over the reference's orbitals.

    With M = C^T dF C the shares are |M_oo|^2, |M_ov|^2 + |M_vo|^2 and |M_vv|^2 over |M|^2. Only the middle one moves
    the density to first order.

    Args:
        error: dF, (ao, ao), symmetric.
        orbitals: C, (ao, mo), the occupied ones first.

    Returns:
        occupied-occupied, occupied-virtual, virtual-virtual; sum 1, or all 0 without an error.
    """
    squares = np.square(orbitals.T @ error @ orbitals)
    whole = float(squares.sum())
    if whole == 0.0:
        return 0.0, 0.0, 0.0
    inner = float(squares[:n_occupied, :n_occupied].sum()) / whole
    outer = float(squares[n_occupied:, n_occupied:].sum()) / whole
    cross = float(squares[:n_occupied, n_occupied:].sum() + squares[n_occupied:, :n_occupied].sum()) / whole
    return inner, cross, outer


def first_order_density(error: Matrix, energies: Matrix, orbitals: Matrix, n_occupied: int) -> float:
    """|D_ia| with D_ia = C_i^T dF C_a / (e_a - e_i).

    Args:
        error: dF, (ao, ao), hartree.
        energies, orbitals: the reference's, (mo,) and (ao, mo).
    """
    rotated = orbitals[:, :n_occupied].T @ error @ orbitals[:, n_occupied:]
    gaps = energies[None, n_occupied:] - energies[:n_occupied, None]
    return float(np.linalg.norm(rotated / gaps))


def density_mixing(density: Matrix, overlap: Matrix, orbitals: Matrix, n_occupied: int) -> float:
    """|D_ia| of a density matrix, D_ia = C_i^T S P S C_a / 2: no perturbation theory, no Hamiltonian.

    For P = 2 sum_i c_i c_i^T with c_i = C_i + sum_a d_ia C_a + ..., D_ia = d_ia to first order, so the figure is to be
    compared with :func:`first_order_density`. A rotation of one orbital by theta gives sin(theta) cos(theta).

    Args:
        density: closed-shell P, (ao, ao), trace of P S = number of electrons; need not be idempotent.
        overlap, orbitals: S and the reference's C.
    """
    projected = overlap @ orbitals
    return float(np.linalg.norm(projected[:, :n_occupied].T @ density @ projected[:, n_occupied:]) / 2.0)


def orbital_cosine(reference: Matrix, predicted: Matrix, n_occupied: int) -> float:
    """Mean |cos| between occupied orbitals of equal rank, from their bare AO coefficients, in percent.

    QH9's psi exactly: no overlap matrix, and no regard for degenerate levels, whose partners may mix freely.
    """
    a, b = reference[:, :n_occupied], predicted[:, :n_occupied]
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(100.0 * np.mean(np.abs(np.sum(a * b, axis=0)) / lengths))


def orbital_overlap(reference: Matrix, predicted: Matrix, overlap: Matrix, n_occupied: int) -> float:
    """Mean |<i|i'>| of occupied orbitals of equal rank, in percent: psi in the metric in which they are normalised."""
    a, b = reference[:, :n_occupied], predicted[:, :n_occupied]
    return float(100.0 * np.mean(np.abs(np.sum(a * (overlap @ b), axis=0))))


def occupied_distance(reference: Matrix, predicted: Matrix, overlap: Matrix, n_occupied: int) -> float:
    """sqrt(sum of sin^2 of the principal angles) between the occupied spaces, in the overlap metric."""
    projection = reference[:, :n_occupied].T @ overlap @ predicted[:, :n_occupied]
    return float(np.sqrt(max(0.0, n_occupied - np.square(projection).sum())))


def frontier_windows(energies: Matrix, n_occupied: int) -> tuple[slice, slice | None]:
    """Ranks of the HOMO's and of the LUMO's level, each with what is degenerate with it.

    Args:
        energies: the reference's, ascending, (mo,), hartree.

    Returns:
        the LUMO's is None if all orbitals are occupied.
    """
    low = n_occupied - 1
    while low > 0 and energies[low] - energies[low - 1] < DEGENERATE_HARTREE:
        low -= 1
    if n_occupied >= len(energies):
        return slice(low, n_occupied), None
    high = n_occupied + 1
    while high < len(energies) and energies[high] - energies[high - 1] < DEGENERATE_HARTREE:
        high += 1
    return slice(low, n_occupied), slice(n_occupied, high)


def window_distance(reference: Matrix, predicted: Matrix, overlap: Matrix, window: slice) -> float:
    """sqrt(1 - mean cos^2 of the principal angles) between the orbitals of a window: 0 the same, 1 orthogonal."""
    projection = reference[:, window].T @ overlap @ predicted[:, window]
    return float(np.sqrt(max(0.0, 1.0 - np.square(projection).sum() / projection.shape[0])))
