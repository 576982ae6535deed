"""A crystal's initial guess in k, as it came from the server, and the laws that it must obey before an SCF may start from it.

An answer is checked in itself when it is parsed (shapes, finite numbers, D = C n C^dagger, electrons of the mesh). Against a
calculation it is checked with the *caller's* overlap: only in the basis that the guess was made for is C^dagger S C = 1, so a
basis with as many functions, or the same one with other cells, is found out without trusting anybody's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.errors import GuessMismatchError, InvalidAnswerError
from tracegrad_client.guess import DENSITY_TOLERANCE
from tracegrad_client.wire import Tensors

ORTHONORMAL_TOLERANCE: Final = 1e-2
"""How far C^dagger S C of the occupied orbitals may be from 1 with the caller's S (largest element): a model's pairs end at
its cutoff, those of a calculation do not. That makes 5e-5 in boron nitride (0.1 of empty orbitals that depend on others);
another basis misses by 0.3 or more."""

FILLED: Final = 1e-3
"""Occupation from which an orbital counts as occupied."""


@dataclass(frozen=True, eq=False, repr=False)
class CrystalGuess:
    """A starting point of an SCF in k: PySCF's order of orbitals, spin-restricted, hartree.

    Attributes:
        kpts: fractional coordinates, (k, 3).
        dm_kpts: D(k), hermitian, (k, ao, ao).
        mo_coeff_kpts: orbitals C(k), (k, ao, mo).
        mo_occ_kpts: Fermi-Dirac occupations at 300 K, 0 to 2, (k, mo).
        mo_energy_kpts: energies, ascending, (k, mo).
        fermi_energy: hartree.
        xc, basis: that the model was trained for, as PySCF spells them.
        model, version: which weights made this.
        n_electrons: of a cell, those outside of the cores.
        in_domain: whether the structure is of the kind that the model was tested on.
        warnings: what the server had to say.
        seconds: what the request cost from the caller's point of view.
    """

    kpts: NDArray[np.float64]
    dm_kpts: NDArray[np.complex128]
    mo_coeff_kpts: NDArray[np.complex128]
    mo_occ_kpts: NDArray[np.float64]
    mo_energy_kpts: NDArray[np.float64]
    fermi_energy: float
    xc: str
    basis: str
    model: str
    version: str
    n_electrons: int
    in_domain: bool
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def __repr__(self) -> str:
        points, orbitals = self.dm_kpts.shape[:2]
        level = f"{self.xc}/{self.basis}"
        return f"CrystalGuess({self.model} {self.version}, {level}, {orbitals} orbitals at {points} k-points)"

    def orbitals_in(self, overlap: NDArray[Any], n_electrons: int) -> NDArray[np.complex128]:
        """The orbitals, made orthonormal with the caller's own overlap: C L^-dagger, L L^dagger = C^dagger S C; (k, ao, mo).

        Each is changed by those below it alone: high ones that nearly depend on others, of which a model's pair cutoff leaves
        out more than of any else, do not get into the density. Whether the basis is the same is judged by the occupied ones.

        Args:
            overlap: S(k) at the same k-points, (k, ao, ao).
            n_electrons: of the caller's cell.

        Raises:
            GuessMismatchError: another number of orbitals or electrons, or another basis.
        """
        hint = f"Build the Cell with basis={self.basis!r}, and the pseudopotentials that belong to it."
        shape = (len(self.kpts), *(self.mo_coeff_kpts.shape[1:2] * 2))
        if np.shape(overlap) != shape:
            raise GuessMismatchError(
                f"The guess is for {self.basis}: its overlap has shape {shape}, the calculation's {np.shape(overlap)}.",
                hint=hint,
            )
        if n_electrons != self.n_electrons:
            raise GuessMismatchError(
                f"The guess has {self.n_electrons} electrons a cell, the calculation {n_electrons}.", hint=hint
            )
        metric = self.mo_coeff_kpts.conj().swapaxes(1, 2) @ overlap @ self.mo_coeff_kpts
        filled = self.mo_occ_kpts > FILLED
        away = np.abs(metric - np.eye(metric.shape[1])) * (filled[:, :, None] & filled[:, None, :])
        error = float(away.max())
        if not error <= ORTHONORMAL_TOLERANCE:
            raise GuessMismatchError(
                f"With the calculation's own overlap the guess's orbitals are not orthonormal (by {error:.1e}): the basis "
                f"functions are not those of {self.basis}.",
                hint=hint,
            )
        try:
            lower = np.linalg.cholesky(metric)
        except np.linalg.LinAlgError as failure:
            raise GuessMismatchError("The calculation's own overlap is not positive definite.", hint=hint) from failure
        return np.asarray(np.linalg.solve(lower, self.mo_coeff_kpts.conj().swapaxes(1, 2)).conj().swapaxes(1, 2))


def read_crystal_guess(answer: Tensors, seconds: float) -> CrystalGuess:
    """A :class:`CrystalGuess` from the answer of ``/v1/initial-guess``, checked in itself.

    Raises:
        InvalidAnswerError: anything that the contract does not allow, or a model with spin.
    """
    meta, count = answer.about(), len(answer.ao_labels())
    if meta.get("ao_order") != "pyscf" or meta.get("energy_unit") != "hartree":
        raise InvalidAnswerError("The guess came in another order or unit than was asked for.")
    raw = answer.arrays.get("kpts")
    points = answer.float64("kpts", (0 if raw is None else len(raw), 3))
    coefficients = answer.arrays.get("mo_coeff_kpts")
    orbitals = 0 if coefficients is None or coefficients.ndim != 4 else coefficients.shape[2]
    if not len(points) or not 0 < orbitals <= count:
        raise InvalidAnswerError("`mo_coeff_kpts` should be complex matrices of `n_ao` rows, one for each k-point.")
    c = _complex(answer, "mo_coeff_kpts", (len(points), count, orbitals))
    density = _complex(answer, "dm_kpts", (len(points), count, count))
    occupations = answer.float64("mo_occ_kpts", (len(points), orbitals))
    energies = answer.float64("mo_energy_kpts", (len(points), orbitals))
    made = (c * occupations[:, None, :]) @ c.conj().swapaxes(1, 2)
    error = float(np.abs(density - made).max())
    if not error <= DENSITY_TOLERANCE or occupations.min() < 0 or occupations.max() > 2:
        raise InvalidAnswerError(f"The density is not that of its own orbitals (largest difference {error:.1e}).")
    electrons = meta.get("n_electrons")
    if (
        not isinstance(electrons, int)
        or abs(occupations.sum() / len(points) - electrons) > DENSITY_TOLERANCE * electrons
    ):
        raise InvalidAnswerError(f"The occupations are not those of {electrons!r} electrons a cell.")
    results = answer.meta.get("results")
    level = results.get("fermi_energy") if isinstance(results, dict) else None
    if isinstance(level, bool) or not isinstance(level, (int, float)):
        raise InvalidAnswerError("The answer has no Fermi level.")
    return CrystalGuess(
        points,
        density,
        c,
        occupations,
        energies,
        float(level),
        str(meta.get("xc", "")),
        str(meta.get("basis", "")),
        str(meta.get("model", "")),
        str(meta.get("version", "")),
        electrons,
        answer.in_domain(),
        answer.warnings(),
        seconds,
    )


def _complex(answer: Tensors, name: str, shape: tuple[int, ...]) -> NDArray[np.complex128]:
    """An array with a last axis of real and imaginary part as complex numbers of ``shape``."""
    parts = answer.float64(name, (*shape, 2))
    return np.asarray(parts[..., 0] + 1j * parts[..., 1])
