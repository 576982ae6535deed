"""The initial guess, what protects it from intruders, and the checks that cost no Fock build.

An *intruder* is an empty orbital that the predicted H puts among the occupied ones: its virtual-virtual block is wrong
where basis functions nearly depend on each other. H0 is right to 1e-3 about which space is occupied, though not as
exact as H, so the two together tell: if H's occupied space lacks more than ``INTRUDER_THRESHOLD`` pairs of H0's, the guess is
made from H with the virtual-virtual block of H0 (in H0's orbitals). What decides the density to first order, the
occupied-virtual block, stays H's (docs/decisions/0005-intruders.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.electronic.solve import Orbitals, density_matrix

TRACE_TOLERANCE = 1e-6
IDEMPOTENCY_TOLERANCE = 1e-6
SYMMETRY_TOLERANCE = 1e-9
MINIMUM_GAP_HARTREE = 0.02
"""A guess with a smaller gap is not trusted: the wrong orbital may be filled."""


INTRUDER_THRESHOLD = 0.01
"""Electron pairs of H0's occupied space that H's may lack. Sound predictions: 0.003 on average, up to 0.008."""


@dataclass(frozen=True)
class InitialGuess:
    """Where an SCF starts.

    Attributes:
        density_matrix: (ao, ao), PySCF order, trace with the overlap = number of electrons.
        orbitals: what it was made of; the eigenvectors of the predicted H unless there was an intruder.
        displaced: electron pairs of the reference's occupied space that the predicted H's lacks; 0 if there was no
            reference to compare with.
    """

    density_matrix: NDArray[np.float64]
    orbitals: Orbitals
    displaced: float = 0.0

    @property
    def has_intruder(self) -> bool:
        """Whether the guess had to be protected from an intruder."""
        return self.displaced > INTRUDER_THRESHOLD


@dataclass(frozen=True)
class GuessChecks:
    """Sanity of a guess.

    Attributes:
        trace_error: |tr(D S) - N|.
        idempotency_error: largest entry of |D S D - 2 D|.
        symmetry_error: largest entry of |D - D^T|.
        gap: LUMO less HOMO in hartree; None if there is no empty orbital.
    """

    trace_error: float
    idempotency_error: float
    symmetry_error: float
    gap: float | None

    @property
    def ok(self) -> bool:
        """True if nothing speaks against the guess."""
        return (
            self.trace_error <= TRACE_TOLERANCE
            and self.idempotency_error <= IDEMPOTENCY_TOLERANCE
            and self.symmetry_error <= SYMMETRY_TOLERANCE
            and (self.gap is None or self.gap >= MINIMUM_GAP_HARTREE)
        )


def make_guess(orbitals: Orbitals, reference: NDArray[np.float64] | None = None) -> InitialGuess:
    """Density of the occupied orbitals, protected from intruders where there is a reference.

    Args:
        orbitals: of the predicted Hamiltonian.
        reference: H0, (ao, ao), hartree; None, or zero, if there is none to compare with.
    """
    if reference is None or not reference.any():
        return InitialGuess(density_matrix(orbitals), orbitals)
    n_occupied = orbitals.n_occupied
    # in the basis of the orbitals S is 1 and H is diagonal, so neither is needed
    energies, rotation = np.linalg.eigh(orbitals.coefficients.T @ reference @ orbitals.coefficients)
    displaced = float(n_occupied - np.square(rotation[:n_occupied, :n_occupied]).sum())
    if displaced > INTRUDER_THRESHOLD:
        orbitals = _with_empty_space(orbitals, energies, rotation)
    return InitialGuess(density_matrix(orbitals), orbitals, displaced)


def _with_empty_space(orbitals: Orbitals, energies: NDArray[np.float64], rotation: NDArray[np.float64]) -> Orbitals:
    """Orbitals of H with the virtual-virtual block of H0.

    Args:
        orbitals: of H.
        energies, rotation: eigenpairs of H0 in their basis, (mo,) and (mo, mo).
    """
    matrix = (rotation.T * orbitals.energies) @ rotation
    empty = slice(orbitals.n_occupied, None)
    matrix[empty, empty] = np.diag(energies[empty])
    mixed_energies, mixing = np.linalg.eigh(matrix)
    return Orbitals(mixed_energies, orbitals.coefficients @ rotation @ mixing, orbitals.occupations)


def check_guess(guess: InitialGuess, overlap: NDArray[np.float64]) -> GuessChecks:
    """Judge a guess with the overlap it was made for, (ao, ao)."""
    density = guess.density_matrix
    projected = density @ overlap
    return GuessChecks(
        trace_error=float(abs(np.trace(projected) - guess.orbitals.occupations.sum())),
        idempotency_error=float(np.abs(projected @ density - 2.0 * density).max()),
        symmetry_error=float(np.abs(density - density.T).max()),
        gap=guess.orbitals.gap,
    )
