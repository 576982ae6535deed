"""Bands: eigenvalues of H(k) C = S(k) C e along given k-points, from the blocks H(R) and S(R) alone.

An error of H is magnified by up to 1 / s, s the smallest eigenvalue of S(k), so s is reported with every k-point, and
functions that are nearly dependent are projected out: a predicted H makes ghost bands of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.blocks.block_set import BlockSet, Spin
from model.blocks.matrices import BlochSum
from model.electronic.eigen import eigvalsh
from model.electronic.kinetic_damping import KineticDamping
from model.electronic.overlap import Matrix, OverlapFactor
from model.electronic.solve import reduced_hamiltonian
from model.errors import NumericalError, StructureError

PROJECTION_THRESHOLD: Final = 5e-4
"""Eigenvectors of S(k) with eigenvalues not above this are projected out; DeepH's value."""

HERMITIAN_TOLERANCE: Final = 1e-5
"""Largest |H - H^dagger|, as a share of the largest entry, that counts as rounding of a file."""


@dataclass(frozen=True, eq=False)
class Bands:
    """Eigenvalues on k-points.

    Attributes:
        k_points: fractional coordinates, (k, 3).
        energies: ascending, (spin, k, band), in H's unit; spin is 2 if unrestricted (alpha, beta), else 1. NaN beyond the
            bands that are left where functions were projected out.
        smallest_overlap: smallest eigenvalue of S(k), projected out or not, (k,).
        n_projected: functions that were projected out, (k,); of spinors each is two bands.
        spin: spin treatment.
    """

    k_points: NDArray[np.float64]
    energies: NDArray[np.float64]
    smallest_overlap: NDArray[np.float64]
    n_projected: NDArray[np.int64]
    spin: Spin

    @property
    def electrons_each(self) -> int:
        """Electrons that a state holds: 2 if restricted, else 1."""
        return 2 if self.spin == "restricted" else 1


def band_energies(
    hamiltonian: BlockSet,
    overlap: BlockSet,
    k_points: ArrayLike,
    *,
    threshold: float = PROJECTION_THRESHOLD,
    damping: KineticDamping | None = None,
    on_point: Callable[[int], None] | None = None,
) -> Bands:
    """Diagonalise at each k-point.

    Of H(k) and S(k) only the lower triangles are read, as LAPACK does, so files that are hermitian to rounding give the
    numbers that other programs make of them.

    Args:
        hamiltonian: H(R), any spin treatment, hartree (or any unit: the energies have it).
        overlap: S(R), restricted, of the same atoms and orbitals; its pairs may be others.
        k_points: fractional coordinates, in reciprocal lattice vectors, (k, 3).
        threshold: eigenvectors of S(k) with eigenvalues not above it are projected out.
        damping: of a predicted H(k); None to take it as it is.
        on_point: told the number of k-points that are done, after each.

    Raises:
        StructureError: blocks of different atoms, orbitals or orders, an overlap with spin, or k-points of another shape.
        NumericalError: blocks that are not hermitian or not finite, or LAPACK failed.
    """
    points = np.asarray(k_points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise StructureError(f"k-points are finite rows of three fractional coordinates, not of shape {points.shape}.")
    require_alike(hamiltonian, overlap)
    for name, blocks in (("Hamiltonian", hamiltonian), ("overlap", overlap)):
        require_hermitian(name, blocks)
    h_at, s_at = BlochSum(hamiltonian), BlochSum(overlap)
    n_bands = hamiltonian.n_orbitals * (2 if hamiltonian.spin == "spinor" else 1)
    energies = np.full((2 if hamiltonian.spin == "unrestricted" else 1, len(points), n_bands), np.nan)
    smallest, projected = np.empty(len(points)), np.empty(len(points), dtype=np.int64)
    for index, point in enumerate(points):
        factor = OverlapFactor.of(s_at(point))
        smallest[index], projected[index] = factor.smallest, factor.n_dependent(threshold)
        matrix = h_at(point)
        for spin, part in enumerate(matrix if hamiltonian.spin == "unrestricted" else matrix[None]):
            lower = np.tril(part) + np.tril(part, -1).conj().T
            found = _eigenvalues(lower if damping is None else damping(lower, factor, point), factor, threshold)
            energies[spin, index, : len(found)] = found
        if on_point is not None:
            on_point(index + 1)
    return Bands(points, energies, smallest, projected, hamiltonian.spin)


def k_path(
    corners: Sequence[Sequence[float]], n_points: int | Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Straight lines between corners, evenly divided.

    Args:
        corners: fractional coordinates, at least two.
        n_points: intervals of every line, or of each.

    Returns:
        k-points, (k, 3), each corner once; the index of each corner.

    Raises:
        StructureError: fewer than two corners, or numbers of points that do not fit them.
    """
    fixed = np.asarray(corners, dtype=np.float64)
    lines = len(fixed) - 1
    counts = [n_points] * lines if isinstance(n_points, int) else list(n_points)
    if lines < 1 or fixed.shape[1:] != (3,) or len(counts) != lines or min(counts) < 1:
        raise StructureError("A path needs at least two corners (three coordinates each) and a count for each line.")
    parts = [
        start + (end - start) * np.arange(count)[:, None] / count
        for start, end, count in zip(fixed, fixed[1:], counts, strict=False)
    ]
    return np.concatenate([*parts, fixed[-1:]]), np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _eigenvalues(hamiltonian: Matrix, factor: OverlapFactor, threshold: float) -> NDArray[np.float64]:
    reduced, _ = reduced_hamiltonian(hamiltonian, factor, threshold)
    try:
        return eigvalsh(reduced)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise NumericalError(f"The eigensolver failed: {error}.") from error


def require_alike(hamiltonian: BlockSet, overlap: BlockSet) -> None:
    """Refuse an overlap that is not of the Hamiltonian's orbitals.

    Raises:
        StructureError: it has spin, or other atoms, orbitals or another order.
    """
    ours, theirs = hamiltonian.space, overlap.space
    if overlap.spin != "restricted":
        raise StructureError(f"An overlap has no spin; these blocks are {overlap.spin}.")
    if not np.array_equal(hamiltonian.numbers, overlap.numbers):
        raise StructureError("Hamiltonian and overlap are of different atoms.")
    if ours.order != theirs.order or any(ours.shells_of(z) != theirs.shells_of(z) for z in set(hamiltonian.numbers)):
        raise StructureError(
            f"Hamiltonian and overlap have different orbitals or orders ({ours.order}, {theirs.order}).",
            hint="Bring both into one order with BlockSet.in_order.",
        )


def require_hermitian(name: str, blocks: BlockSet) -> None:
    """Refuse blocks that no eigensolver should see; ``name`` is for the message.

    Raises:
        NumericalError: entries that are not finite, or H_ij(R) and H_ji(-R) that differ by more than a file's rounding.
    """
    if not np.isfinite(blocks.values).all():
        raise NumericalError(f"The {name} has entries that are not finite.", hint="Report the structure.")
    error, scale = blocks.hermitian_error(), float(np.abs(blocks.values).max(initial=0.0))
    if error > HERMITIAN_TOLERANCE * scale:
        raise NumericalError(
            f"The {name} is not hermitian: H_ij(R) and H_ji(-R) differ by {error:.1e}, its largest entry is {scale:.1e}.",
            hint="Check the signs of R; if the error is a model's own, take BlockSet.hermitised().",
        )
