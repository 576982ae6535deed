"""Orbitals and densities of a prediction against the reference's.

C and e are the reference's orbitals and energies, i is occupied, a virtual, S the overlap. What an error of the Fock
matrix does to the density is, to first order, the mixing D_ia; what it really did, and what a guess that is no Fock
matrix at all (minao) does, is measured in the same measure from the density itself.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pyscf import scf

from model.units import EV_PER_HARTREE

Matrix = NDArray[np.float64]

DEGENERATE_HARTREE: Final = 0.05 / EV_PER_HARTREE
"""Orbitals closer than this are one level: a frontier window never cuts through it."""

INTRUDER_DISTANCE: Final = 0.7
"""A frontier window that is farther from the reference's is another orbital: the intruder rule."""


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


def minao_density(mole: Any) -> Matrix:
    """PySCF's minao guess of a molecule: densities of neutral atoms, (ao, ao)."""
    return np.asarray(scf.hf.init_guess_by_minao(mole), dtype=np.float64)


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
