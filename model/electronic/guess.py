"""The initial guess, what protects it from intruders, and the checks that cost no Fock build.

An *intruder* is an empty orbital that the predicted H puts among the occupied ones: its virtual-virtual block is wrong
where basis functions nearly depend on each other. H0 is right to 1e-3 about which space is occupied, though not as
exact as H, so the two together tell: if H's occupied space lacks more than ``INTRUDER_THRESHOLD`` orbitals of H0's, the guess
is made from H with the virtual-virtual block of H0 (in H0's orbitals). What decides the density to first order, the
occupied-virtual block, stays H's (docs/decisions/0005-intruders.md).

One set of orbitals (closed shell, or spinors) gives an ``InitialGuess``, the two sets of an open shell a ``SpinGuess``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.electronic.overlap import Matrix, OverlapFactor
from model.electronic.solve import Orbitals, SpinOrbitals, density_matrix
from model.geometry import CHECK

TRACE_TOLERANCE = 1e-6
IDEMPOTENCY_TOLERANCE = 1e-6
SYMMETRY_TOLERANCE = 1e-9
MINIMUM_GAP_HARTREE = 0.02
"""A guess with a smaller gap is not trusted: the wrong orbital may be filled."""


INTRUDER_THRESHOLD = 0.01
"""Orbitals of H0's occupied space that H's may lack. Sound predictions: 0.003 on average, up to 0.008."""

INTRUDER_WARNING = (
    "The predicted Hamiltonian has an empty orbital among the occupied ones (an intruder), which most often means a wrong "
    f"structure: {CHECK} Orbitals and guess were made with the reference's empty space; do not trust energies near the gap."
)
SANITY_WARNING = "The guess failed a sanity check (trace, idempotency, symmetry or gap); start from minao instead."


@dataclass(frozen=True, eq=False)
class InitialGuess:
    """Where an SCF starts.

    Attributes:
        density_matrix: (ao, ao), PySCF order, trace with the overlap = number of electrons; (2 ao, 2 ao) for spinors.
        orbitals: what it was made of; the eigenvectors of the predicted H unless there was an intruder.
        displaced: orbitals of the reference's occupied space that the predicted H's lacks; 0 if there was no reference
            to compare with.
    """

    density_matrix: Matrix
    orbitals: Orbitals
    displaced: float = 0.0

    @property
    def has_intruder(self) -> bool:
        """Whether the guess had to be protected from an intruder."""
        return self.displaced > INTRUDER_THRESHOLD


@dataclass(frozen=True, eq=False)
class SpinGuess:
    """Where an unrestricted SCF starts.

    Attributes:
        alpha, beta: a guess for each spin, occupations 1 or 0.
    """

    alpha: InitialGuess
    beta: InitialGuess

    @property
    def density_matrix(self) -> Matrix:
        """Of alpha and of beta, (2, ao, ao), as PySCF's UKS takes them."""
        return np.stack([self.alpha.density_matrix, self.beta.density_matrix])

    @property
    def orbitals(self) -> SpinOrbitals:
        """What it was made of."""
        return SpinOrbitals(self.alpha.orbitals, self.beta.orbitals)

    @property
    def has_intruder(self) -> bool:
        """Whether either spin had to be protected from an intruder."""
        return self.alpha.has_intruder or self.beta.has_intruder


@dataclass(frozen=True)
class GuessChecks:
    """Sanity of a guess.

    Attributes:
        trace_error: |tr(D S) - N|.
        idempotency_error: largest entry of |D S D - n D|, n electrons an orbital.
        symmetry_error: largest entry of |D - D^dagger|.
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


def make_guess(orbitals: Orbitals, reference: Matrix | None = None) -> InitialGuess:
    """Density of the occupied orbitals, protected from intruders where there is a reference.

    Args:
        orbitals: of the predicted Hamiltonian.
        reference: H0, (ao, ao), hartree, (2 ao, 2 ao) for spinors; None, or zero, if there is none to compare with.
    """
    if reference is None or not reference.any() or not orbitals.n_occupied:
        return InitialGuess(density_matrix(orbitals), orbitals)
    n_occupied = orbitals.n_occupied
    # in the basis of the orbitals S is 1 and H is diagonal, so neither is needed
    energies, rotation = np.linalg.eigh(orbitals.coefficients.conj().T @ reference @ orbitals.coefficients)
    displaced = float(n_occupied - np.square(np.abs(rotation[:n_occupied, :n_occupied])).sum())
    if displaced > INTRUDER_THRESHOLD:
        orbitals = _with_empty_space(orbitals, energies, rotation)
    return InitialGuess(density_matrix(orbitals), orbitals, displaced)


def make_spin_guess(orbitals: SpinOrbitals, reference: Matrix | None = None) -> SpinGuess:
    """:func:`make_guess` for each spin.

    Args:
        orbitals: of the predicted Hamiltonians.
        reference: H0 of each spin, (2, ao, ao), hartree, or None.
    """
    return SpinGuess(
        make_guess(orbitals.alpha, None if reference is None else reference[0]),
        make_guess(orbitals.beta, None if reference is None else reference[1]),
    )


def _with_empty_space(orbitals: Orbitals, energies: NDArray[np.float64], rotation: Matrix) -> Orbitals:
    """Orbitals of H with the virtual-virtual block of H0.

    Args:
        orbitals: of H.
        energies, rotation: eigenpairs of H0 in their basis, (mo,) and (mo, mo).
    """
    matrix = (rotation.conj().T * orbitals.energies) @ rotation
    empty = slice(orbitals.n_occupied, None)
    matrix[empty, empty] = np.diag(energies[empty])
    mixed_energies, mixing = np.linalg.eigh(matrix)
    return Orbitals(mixed_energies, orbitals.coefficients @ rotation @ mixing, orbitals.occupations)


def check_guess(guess: InitialGuess | SpinGuess, overlap: Matrix | OverlapFactor) -> GuessChecks:
    """Judge a guess with the overlap it was made for, (ao, ao), or its factor; of two spins the worse counts."""
    matrix = overlap.matrix if isinstance(overlap, OverlapFactor) else overlap
    if isinstance(guess, SpinGuess):
        alpha, beta = (_check_one(one, matrix) for one in (guess.alpha, guess.beta))
        return GuessChecks(
            trace_error=max(alpha.trace_error, beta.trace_error),
            idempotency_error=max(alpha.idempotency_error, beta.idempotency_error),
            symmetry_error=max(alpha.symmetry_error, beta.symmetry_error),
            # electrons of each spin are given, so it is inside a spin that the wrong orbital may be filled
            gap=min((gap for gap in (alpha.gap, beta.gap) if gap is not None), default=None),
        )
    if len(guess.density_matrix) == 2 * len(matrix):  # spinors
        matrix = np.kron(np.eye(2), matrix)
    return _check_one(guess, matrix)


def _check_one(guess: InitialGuess, overlap: Matrix) -> GuessChecks:
    density, occupations = guess.density_matrix, guess.orbitals.occupations
    projected = density @ overlap
    return GuessChecks(
        trace_error=float(abs(np.trace(projected) - occupations.sum())),
        idempotency_error=float(np.abs(projected @ density - occupations.max() * density).max()),
        symmetry_error=float(np.abs(density - density.conj().T).max()),
        gap=guess.orbitals.gap,
    )
