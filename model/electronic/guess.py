"""The initial guess and the checks that cost no Fock build."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.electronic.eigensolve import Orbitals, density_matrix

TRACE_TOLERANCE = 1e-6
IDEMPOTENCY_TOLERANCE = 1e-6
SYMMETRY_TOLERANCE = 1e-9
MINIMUM_GAP_HARTREE = 0.02
"""A guess with a smaller gap is not trusted: the wrong orbital may be filled."""


@dataclass(frozen=True)
class InitialGuess:
    """Where an SCF starts.

    Attributes:
        density_matrix: (ao, ao), PySCF order, trace with the overlap = number of electrons.
        orbitals: what it was made of.
    """

    density_matrix: NDArray[np.float64]
    orbitals: Orbitals


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


def make_guess(orbitals: Orbitals) -> InitialGuess:
    """Density of the occupied orbitals."""
    return InitialGuess(density_matrix(orbitals), orbitals)


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
