"""Density matrix D(R) of H(R) and S(R): occupations on a mesh of k-points, Fermi-Dirac.

    H(k) C = S(k) C e,    D_ij(R) = sum over k of w_k [C f C^dagger]_ij exp(-2 pi i k.R),    f = n / (1 + exp((e - mu) / kT))

with n = 2 without spin, 1 otherwise. D is given on the pairs of H, since on others it meets zeros only, in tr(D S) over all
R, the number of electrons, as in tr(D H). Without spin D is real, and half of a mesh that is symmetric under k -> -k is
enough: the real part adds the other half. Programs that work in k themselves (PySCF's KRKS) start from D(k) = C f C^dagger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum, rows_and_columns
from model.electronic.fermi import SMEARING_HARTREE, chemical_potential, occupations
from model.electronic.kinetic_damping import KineticDamping
from model.electronic.overlap import Matrix, OverlapFactor
from model.electronic.solve import eigenpairs
from model.errors import NumericalError

UNMOVED: Final = 0.012
"""Distance of the damped density from the other below which no ghost band has taken electrons: 0.006 for graphene and 0.007
for C7N, 0.02 to 0.68 for boron nitride and mixtures."""


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
    damping: KineticDamping | None = None,
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
        damping: of a predicted H(k); None to take it as it is.

    Raises:
        NumericalError: S is not positive definite at a k-point.
        ElectronCountError: electrons that do not fit into the orbitals.
        ValueError: neither or both of electrons and chemical potential, or no smearing.
    """
    if (n_electrons is None) == (fermi_energy_hartree is None) or smearing_hartree <= 0:
        raise ValueError("Give the number of electrons or the chemical potential, and a smearing above 0.")
    (solved,) = _solved(hamiltonian, overlap, k_points, [damping])
    filled = _filled(hamiltonian, solved, weights, n_electrons, fermi_energy_hartree, smearing_hartree)
    total = np.zeros(hamiltonian.values.shape, dtype=np.complex128)
    for index, (k, weight) in enumerate(zip(k_points, weights, strict=True)):
        total += weight * _at_pairs(hamiltonian, filled.density(index), k)
    values = total if hamiltonian.spin == "spinor" else total.real
    return Density(hamiltonian.with_values(values), filled.level, float(filled.occupations.sum(axis=(0, 2)) @ weights))


@dataclass(frozen=True, eq=False)
class KDensity:
    """Density matrices in k, from which an SCF in k starts.

    Attributes:
        matrices: D(k), hermitian, (spin, k, row, column); one spin, both electrons together, without spin; rows are twice
            the orbitals of spinors.
        coefficients: orbitals C, (spin, k, row, level).
        energies: of the levels, ascending, hartree, (spin, k, level).
        occupations: of the levels, (spin, k, level).
        smallest_overlap: smallest eigenvalue of S(k), (k,).
        fermi_energy_hartree: chemical potential.
    """

    matrices: Matrix
    coefficients: Matrix
    energies: NDArray[np.float64]
    occupations: NDArray[np.float64]
    smallest_overlap: NDArray[np.float64]
    fermi_energy_hartree: float


def density_at_k(
    hamiltonian: BlockSet,
    overlap: BlockSet,
    k_points: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_electrons: float,
    *,
    smearing_hartree: float = SMEARING_HARTREE,
    damping: KineticDamping | None = None,
) -> KDensity:
    """D(k) = C f C^dagger at every k-point, the electrons counted exactly: sum over k of w_k tr D(k) S(k) = n_electrons.

    Args:
        hamiltonian, overlap, smearing_hartree, damping: as of :func:`density_matrix`.
        k_points: fractional, (k, 3), every one that is to have a matrix.
        weights: (k,), they add up to 1.
        n_electrons: of a cell.

    Raises:
        NumericalError, ElectronCountError, ValueError: as of :func:`density_matrix`.
    """
    if smearing_hartree <= 0:
        raise ValueError("Give a smearing above 0.")
    (solved,) = _solved(hamiltonian, overlap, k_points, [damping])
    return _of_solved(hamiltonian, solved, weights, n_electrons, smearing_hartree)


def _of_solved(
    hamiltonian: BlockSet, solved: Sequence[_Solved], weights: NDArray[np.float64], n_electrons: float, smearing: float
) -> KDensity:
    filled = _filled(hamiltonian, solved, weights, n_electrons, None, smearing)
    matrices = np.stack([filled.density(index) for index in range(len(solved))], axis=1)
    return KDensity(
        matrices,
        np.stack(filled.vectors, axis=1),
        filled.energies,
        filled.occupations,
        filled.smallest_overlap,
        filled.level,
    )


def density_start(
    hamiltonian: BlockSet,
    overlap: BlockSet,
    k_points: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_electrons: float,
    damping: KineticDamping | None,
) -> KDensity:
    """What an SCF starts from: damped where the damping moves electrons, that is where a ghost band had taken some.

    Elsewhere the damping costs more than it mends: of held-out graphene it raised the error of D from 0.005 to 0.007, while
    boron nitride's fell from 0.44 to 0.03 (:func:`density_distance`; docs/decisions/0018).

    Args:
        hamiltonian, overlap, k_points, weights, n_electrons, damping: as of :func:`density_at_k`.

    Raises:
        NumericalError, ElectronCountError: as of :func:`density_matrix`.
    """
    if damping is None:
        return density_at_k(hamiltonian, overlap, k_points, weights, n_electrons)
    plain, damped = (
        _of_solved(hamiltonian, solved, weights, n_electrons, SMEARING_HARTREE)
        for solved in _solved(hamiltonian, overlap, k_points, [None, damping])
    )
    moved = density_distance(plain, damped, overlap, k_points, weights, n_electrons)
    return plain if moved < UNMOVED else damped


def density_distance(
    one: KDensity,
    other: KDensity,
    overlap: BlockSet,
    k_points: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_electrons: float,
) -> float:
    """sqrt(sum over k of w_k tr(dD S dD S) / 2N), 0 for equal densities; 1 where all electrons are elsewhere."""
    at, total = BlochSum(overlap), 0.0
    for index, k in enumerate(k_points):
        metric = at(k)
        for first, second in zip(one.matrices[:, index], other.matrices[:, index], strict=True):
            if len(first) == 2 * len(metric):
                metric = np.kron(np.eye(2), metric)
            change = (first - second) @ metric
            total += float(weights[index] * np.einsum("ij,ji->", change, change).real)
    return float(np.sqrt(max(total, 0.0) / (2 * n_electrons)))


@dataclass(frozen=True, eq=False)
class _Filled:
    """Orbitals (spin, row, level) of each k-point, energies and occupations (spin, k, level), S's smallest eigenvalue (k,),
    and the level in hartree."""

    vectors: list[Matrix]
    energies: NDArray[np.float64]
    occupations: NDArray[np.float64]
    smallest_overlap: NDArray[np.float64]
    level: float

    def density(self, k: int) -> Matrix:
        """D of one k-point, (spin, row, column)."""
        vectors = self.vectors[k]
        return np.asarray((vectors * self.occupations[:, k, None, :]) @ vectors.conj().swapaxes(1, 2))


_Solved = tuple[NDArray[np.float64], Matrix, float]
"""Energies (spin, level), vectors (spin, row, level) and S's smallest eigenvalue of one k-point; spinors are one spin of
twice the size."""


def _filled(
    hamiltonian: BlockSet,
    solved: Sequence[_Solved],
    weights: NDArray[np.float64],
    n_electrons: float | None,
    level: float | None,
    smearing: float,
) -> _Filled:
    each = 2 if hamiltonian.spin == "restricted" else 1
    energies = np.stack([energy for energy, _, _ in solved], axis=1)  # (spin, k, level)
    smallest = np.array([value for _, _, value in solved])
    if level is None:
        assert n_electrons is not None
        level = chemical_potential(energies, weights, n_electrons, each, smearing)
    vectors = [found for _, found, _ in solved]
    return _Filled(vectors, energies, occupations(energies, level, each, smearing), smallest, level)


def _solved(
    hamiltonian: BlockSet,
    overlap: BlockSet,
    k_points: NDArray[np.float64],
    dampings: Sequence[KineticDamping | None],
) -> list[list[_Solved]]:
    """Orbitals of each damping and k-point; S(k) is diagonalised once.

    Raises:
        NumericalError: S is not positive definite.
    """
    h_at, s_at = BlochSum(hamiltonian), BlochSum(overlap)
    solved: list[list[_Solved]] = [[] for _ in dampings]
    for k in k_points:
        h, factor = h_at(k), OverlapFactor.of(s_at(k))
        if factor.n_dependent():
            raise NumericalError(
                f"The overlap is not positive definite at k = {np.round(k, 4).tolist()}: its smallest eigenvalue is "
                f"{factor.smallest:.1e}.",
                hint="Is the overlap complete, and in the same order of orbitals as the Hamiltonian?",
            )
        parts = h if hamiltonian.spin == "unrestricted" else h[None]
        for own, damping in zip(solved, dampings, strict=True):
            found = [eigenpairs(part if damping is None else damping(part, factor, k), factor) for part in parts]
            energies, vectors = (np.stack(values) for values in zip(*found, strict=True))
            own.append((energies, vectors, factor.smallest))
    return solved


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
