"""What the model got wrong at the last geometries, for its guess at the next one.

Along an optimisation, a scan or a trajectory the error of the predicted Fock matrix, E = F - F_model, changes as smoothly
as the geometry does. Once a geometry has converged its E is known, and costs nothing: F = S C ε Cᵀ S from the orbitals
that PySCF holds. At the next geometry E is estimated from the last ones by simple kriging (Gaussian process regression
with zero mean; Rasmussen & Williams, eq. 2.25) and added:

    F_guess = F_model + Σ_k c_k E_k,    c = (K + σ² 1)⁻¹ k,    K_kl = exp(-|S_k - S_l|² / (2 λ² n_atoms))

Overlap matrices stand for geometries, as in the extrapolation of densities (Polack, Mikhalev, Dusson, Stamm & Lipparini,
J. Chem. Theory Comput. 16, 8 (2020)): they change with everything that the matrices themselves change with, rotations
included. Far from all known geometries c is zero and the guess is the model's own. Measured in
docs/decisions: at steps of 0.01 Å a tenth of the density error is left, at steps of 0.001 Å one cycle is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from tracegrad_client.guess import Guess, fock_of

Matrix = NDArray[np.float64]

LENGTH: Final = 0.15
"""λ: over this distance of overlap matrices, per square root of atoms, errors stop being alike."""

NOISE: Final = 1e-5
"""σ²: share of an error that is not smooth."""

MOST_GEOMETRIES: Final = 6
"""More of them change nothing measurable."""

MOST_BYTES: Final = 512 * 2**20
"""All matrices kept for one calculation; of a very large molecule fewer geometries are kept."""


@dataclass(frozen=True, eq=False)
class _Known:
    """One converged geometry: S, (ao, ao), and E, (spin, ao, ao), hartree."""

    overlap: Matrix
    error: Matrix


class ErrorHistory:
    """Errors of the model at the last converged geometries of one molecule at one level of theory."""

    def __init__(self) -> None:
        self._subject: Hashable = None
        self._known: deque[_Known] = deque(maxlen=MOST_GEOMETRIES)

    def __len__(self) -> int:
        return len(self._known)

    def record(self, subject: Hashable, overlap: Matrix, error: Matrix) -> None:
        """Keep a converged geometry; another subject than before forgets all that was kept.

        Args:
            subject: what has to be equal for errors to be comparable: atoms, basis, functional, model.
            overlap: S, (ao, ao).
            error: F - F_model, (spin, ao, ao), hartree.
        """
        if subject != self._subject:
            self._known.clear()
            self._subject = subject
        self._known.append(_Known(overlap, error))
        while len(self._known) * (overlap.nbytes + error.nbytes) > MOST_BYTES:
            self._known.popleft()

    def estimate(self, subject: Hashable, overlap: Matrix, n_atoms: int) -> Matrix | None:
        """The error to be expected at a geometry, (spin, ao, ao), hartree; None where nothing comparable is known.

        Args:
            subject: as in :meth:`record`.
            overlap: S of the geometry, (ao, ao).
            n_atoms: number of atoms.
        """
        if not self._known or subject != self._subject or self._known[0].overlap.shape != overlap.shape:
            return None
        scale = 2 * LENGTH**2 * n_atoms
        known = [entry.overlap for entry in self._known]
        between = np.array([[np.square(a - b).sum() for b in known] for a in known])
        to_here = np.array([np.square(a - overlap).sum() for a in known])
        kernel = np.exp(-between / scale) + NOISE * np.eye(len(known))
        weights = np.linalg.solve(kernel, np.exp(-to_here / scale))
        total = np.zeros_like(self._known[0].error)
        for weight, entry in zip(weights, self._known, strict=True):
            total += weight * entry.error
        return total


@dataclass(frozen=True, eq=False)
class Lesson:
    """One geometry's matrices, (ao, ao), from before the SCF to after it.

    Attributes:
        history: where the error goes.
        subject: what errors must have in common to be comparable.
        overlap: S.
        fock: the model's, hartree.
        spins: 1, or 2 where each spin has a Fock matrix of its own.
    """

    history: ErrorHistory
    subject: Hashable
    overlap: Matrix
    fock: Matrix
    spins: int

    def improved_orbitals(self, like: Matrix, n_atoms: int) -> list[Matrix] | None:
        """Orbitals of the model's Fock matrix less its expected error, (ao, mo) for each spin; None where none is known."""
        error = self.history.estimate(self.subject, self.overlap, n_atoms)
        if error is None:
            return None
        return [orbitals_of_fock(self.fock + part, like) for part in error]

    def learn(self, mf: Any) -> None:
        """Record F - F_model of the converged calculation."""
        coefficients = np.asarray(mf.mo_coeff, dtype=np.float64)
        energies = np.asarray(mf.mo_energy, dtype=np.float64)
        if self.spins == 1:
            coefficients, energies = coefficients[None], energies[None]
        focks = [fock_of(self.overlap, c, e) for c, e in zip(coefficients, energies, strict=True)]
        self.history.record(self.subject, self.overlap, np.stack(focks) - self.fock)


def subject_of(guess: Guess, mf: Any, mol: Any) -> Hashable:
    """What errors must have in common to be comparable: weights, atoms, basis, method, electrons."""
    return (
        guess.sha256,
        guess.ao_labels,
        type(mf).__name__,
        str(getattr(mf, "xc", "hf")),
        int(mol.charge),
        int(mol.spin),
    )


def orbitals_of_fock(fock: Matrix, like: Matrix) -> Matrix:
    """Orbitals of F C = S C ε, lowest first, (ao, mo), within the span of given orbitals.

    Args:
        fock: (ao, ao), hartree.
        like: orthonormal orbitals, (ao, mo): fewer than AOs where the basis is nearly dependent.
    """
    return np.asarray(like @ scipy.linalg.eigh(like.T @ fock @ like)[1])
