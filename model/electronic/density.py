"""Density matrix D(R) of H(R) and S(R): occupations on a mesh of k-points, Fermi-Dirac.

    H(k) C = S(k) C e,    D_ij(R) = sum over k of w_k [C f C^dagger]_ij exp(-2 pi i k.R),    f = n / (1 + exp((e - mu) / kT))

with n = 2 without spin, 1 otherwise. D is given on the pairs of H, since on others it meets zeros only, in tr(D S) over all
R, the number of electrons, as in tr(D H). Without spin D is real, and half of a mesh that is symmetric under k -> -k is
enough: the real part adds the other half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum, rows_and_columns
from model.electronic.fermi import SMEARING_HARTREE, chemical_potential, occupations
from model.electronic.overlap import Matrix, OverlapFactor
from model.electronic.solve import eigenpairs
from model.errors import NumericalError


@dataclass(frozen=True, eq=False)
class Density:
    """Density matrix and where the electrons end.

    Attributes:
        blocks: D(R); both spins together without spin.
        fermi_energy_hartree: chemical potential.
        n_electrons: sum of all occupations.
    """

    blocks: BlockSet
    fermi_energy_hartree: float
    n_electrons: float


def density_matrix(
    hamiltonian: BlockSet,
    overlap: BlockSet,
    k_points: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    n_electrons: float | None = None,
    fermi_energy_hartree: float | None = None,
    smearing_hartree: float = SMEARING_HARTREE,
) -> Density:
    """The density matrix.

    Args:
        hamiltonian: hartree.
        overlap: restricted, same orbitals.
        k_points: fractional, (k, 3); of spinors and collinear spins the whole mesh.
        weights: (k,), they add up to 1 (:func:`model.electronic.fermi.k_mesh` gives both).
        n_electrons: fills the levels up to so many, exactly; or
        fermi_energy_hartree: the chemical potential, if it is known.
        smearing_hartree: kT of the occupations, above 0.

    Raises:
        NumericalError: S is not positive definite at a k-point.
        ElectronCountError: electrons that do not fit into the orbitals.
        ValueError: neither or both of electrons and chemical potential, or no smearing.
    """
    if (n_electrons is None) == (fermi_energy_hartree is None) or smearing_hartree <= 0:
        raise ValueError("Give the number of electrons or the chemical potential, and a smearing above 0.")
    each = 2 if hamiltonian.spin == "restricted" else 1
    h_at, s_at = BlochSum(hamiltonian), BlochSum(overlap)
    solved = [_solved(h_at(k), s_at(k), hamiltonian.spin, k) for k in k_points]
    energies = np.stack([energy for energy, _ in solved], axis=1)  # (spin, k, level)
    level = fermi_energy_hartree
    if level is None:
        assert n_electrons is not None
        level = chemical_potential(energies, weights, n_electrons, each, smearing_hartree)
    filled = occupations(energies, level, each, smearing_hartree)
    total = np.zeros(hamiltonian.values.shape, dtype=np.complex128)
    for k, weight, (_, vectors), occupation in zip(k_points, weights, solved, filled.swapaxes(0, 1), strict=True):
        parts = (vectors * occupation[:, None, :]) @ vectors.conj().swapaxes(1, 2)
        total += weight * _at_pairs(hamiltonian, parts, k)
    values = total if hamiltonian.spin == "spinor" else total.real
    electrons = float(filled.sum(axis=(0, 2)) @ weights)
    return Density(hamiltonian.with_values(values), level, electrons)


def _solved(h: Matrix, s: Matrix, spin: str, k: NDArray[np.float64]) -> tuple[NDArray[np.float64], Matrix]:
    """Energies (spin, level) and vectors (spin, row, level) at one k-point; spinors are one spin of twice the size."""
    factor = OverlapFactor.of(s)
    if factor.n_dependent():
        raise NumericalError(
            f"The overlap is not positive definite at k = {np.round(k, 4).tolist()}: its smallest eigenvalue is "
            f"{factor.smallest:.1e}.",
            hint="Is the overlap complete, and in the same order of orbitals as the Hamiltonian?",
        )
    found = [eigenpairs(part, factor) for part in (h if spin == "unrestricted" else h[None])]
    return np.stack([energies for energies, _ in found]), np.stack([vectors for _, vectors in found])


def _at_pairs(blocks: BlockSet, parts: Matrix, k: NDArray[np.float64]) -> Matrix:
    """Entries P_ij exp(-2 pi i k.R) of the pairs, (spin part, entry).

    Args:
        blocks: gives pairs and spin.
        parts: P, (spin, row, column).
        k: fractional.
    """
    if blocks.spin == "spinor":
        n = blocks.n_orbitals
        parts = np.stack([parts[0][row : row + n, column : column + n] for row in (0, n) for column in (0, n)])
    values = np.empty(blocks.values.shape, dtype=np.complex128)
    phases = np.exp(-2j * np.pi * (blocks.pairs.shift @ k))
    for group in blocks.groups:
        rows, columns = rows_and_columns(blocks, group)
        values[:, group.entries] = parts[:, rows, columns] * phases[group.pairs][:, None, None]
    return values
