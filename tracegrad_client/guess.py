"""The initial guess as it came from the server, and the laws that it must obey before a calculation may start from it.

Two kinds of check. An answer is checked in itself (shapes, finite numbers, D = C n Cᵀ, the electron count) when it is
parsed. Against a PySCF Mole it is checked with the *caller's* overlap matrix: only in the basis that the guess was made
for is D S D = 2 D and tr(D S) = N, so a basis that merely has the same orbital labels (cc-pVDZ instead of def2-SVP)
is found out without trusting anybody's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.errors import GuessMismatchError, InvalidAnswerError
from tracegrad_client.structure import Molecule, ao_labels, is_mole
from tracegrad_client.wire import Tensors

DENSITY_TOLERANCE: Final = 1e-6
"""How far D may be from C n Cᵀ and from its own transpose (largest element)."""

OVERLAP_TOLERANCE: Final = 1e-5
"""How far D S D may be from 2 D (largest element) and tr(D S) from N, per electron; another basis misses by more."""


@dataclass(frozen=True, eq=False)
class Guess:
    """A closed-shell starting point for an SCF, orbitals in PySCF's order.

    Attributes:
        density_matrix: D, shape (ao, ao); its trace with the overlap is the number of electrons.
        mo_coeff: C, shape (ao, mo), one column per molecular orbital.
        mo_occ: occupations, shape (mo,), 2.0 or 0.0.
        mo_energy: orbital energies, shape (mo,), hartree.
        xc: the functional that the model was trained for, as PySCF spells it.
        basis: the name of the basis set.
        model, version, sha256: which weights made this.
        ao_labels: one label for each orbital, ``"0 O 2px"``.
        n_electrons: the number of electrons.
        in_domain: whether the structure is of the kind and size that the model was tested on.
        warnings: what the server had to say.
        checks: the server's own figures (trace and idempotency errors, gap).
        seconds: what the request cost from the caller's point of view.
    """

    density_matrix: NDArray[np.float64]
    mo_coeff: NDArray[np.float64]
    mo_occ: NDArray[np.float64]
    mo_energy: NDArray[np.float64]
    xc: str
    basis: str
    model: str
    version: str
    sha256: str
    ao_labels: tuple[str, ...]
    n_electrons: int
    in_domain: bool
    warnings: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def fock(self, overlap: NDArray[np.float64]) -> NDArray[np.float64]:
        """The Fock matrix whose eigenpairs the orbitals are, S C ε Cᵀ S, (ao, ao), hartree; ``overlap`` is S."""
        return fock_of(overlap, self.mo_coeff, self.mo_energy)

    def check_against(self, mol: Any, overlap: NDArray[np.float64] | None = None) -> None:
        """Hold this guess against the caller's Mole.

        Args:
            mol: a PySCF Mole.
            overlap: its overlap matrix, shape (ao, ao), where it is known already.

        Raises:
            GuessMismatchError: other atoms, another order of orbitals, or another basis set.
        """
        labels = ao_labels(mol)
        if labels != self.ao_labels:
            if len(labels) != len(self.ao_labels):
                difference = f"the Mole has {len(labels)} orbitals and the guess {len(self.ao_labels)}"
            else:
                pairs = zip(labels, self.ao_labels, strict=True)
                index, mine, theirs = next((i, a, b) for i, (a, b) in enumerate(pairs) if a != b)
                difference = f"orbital {index} is {mine!r} in the Mole and {theirs!r} in the guess"
            raise GuessMismatchError(
                f"The guess is for {self.basis}; {difference}.", hint=f"Build the Mole with basis={self.basis!r}."
            )
        if int(mol.nelectron) != self.n_electrons:
            raise GuessMismatchError(f"The guess has {self.n_electrons} electrons, the Mole {mol.nelectron}.")
        s = mol.intor_symmetric("int1e_ovlp") if overlap is None else overlap
        ds = self.density_matrix @ s
        electrons = abs(float(np.trace(ds)) - self.n_electrons) / self.n_electrons
        idempotency = float(np.abs(ds @ self.density_matrix - 2 * self.density_matrix).max())
        if not (electrons <= OVERLAP_TOLERANCE and idempotency <= OVERLAP_TOLERANCE):
            raise GuessMismatchError(
                f"With the Mole's own overlap matrix the guess is no density of {self.n_electrons} electrons "
                f"(DSD - 2D reaches {idempotency:.1e}): the basis functions are not those of {self.basis}, although "
                "they bear the same names.",
                hint=f"Build the Mole with basis={self.basis!r}.",
            )


def fock_of(
    overlap: NDArray[np.float64], coefficients: NDArray[np.float64], energies: NDArray[np.float64]
) -> NDArray[np.float64]:
    """S C ε Cᵀ S, (ao, ao): the matrix with these orbitals, (ao, mo), and energies, (mo,), on what the orbitals span."""
    sc = overlap @ coefficients
    return np.asarray((sc * energies) @ sc.T)


def parse_guess(answer: Tensors, molecule: Molecule, seconds: float) -> Guess:
    """A :class:`Guess` from the answer of ``/v1/initial-guess``, checked in itself and against what was asked.

    Raises:
        InvalidAnswerError: anything that the contract does not allow.
    """
    meta = answer.about()
    labels = answer.ao_labels()
    if meta.get("ao_order") != "pyscf":
        raise InvalidAnswerError(f"The orbitals came in the order {meta.get('ao_order')!r}, not in 'pyscf' order.")
    coefficients = answer.columns("mo_coeff", len(labels))
    orbitals = coefficients.shape[1]
    occupations = answer.float64("occupations", (orbitals,))
    density = answer.float64("density_matrix", (len(labels), len(labels)))
    energies = answer.float64("orbital_energies", (orbitals,))
    electrons = int(molecule.numbers.sum()) - molecule.charge
    if not np.isin(occupations, (0.0, 2.0)).all() or int(occupations.sum()) != electrons:
        raise InvalidAnswerError(f"The occupations are not those of a closed shell of {electrons} electrons.")
    made = (coefficients * occupations) @ coefficients.T
    for other, law in ((density.T, "symmetric"), (made, "the density of its own orbitals")):
        error = float(np.abs(density - other).max())
        if not error <= DENSITY_TOLERANCE:
            raise InvalidAnswerError(f"The density matrix is not {law} (largest difference {error:.1e}).")
    return Guess(
        density_matrix=density,
        mo_coeff=coefficients,
        mo_occ=occupations,
        mo_energy=energies,
        xc=str(meta.get("xc", "")),
        basis=str(meta.get("basis", "")),
        model=str(meta.get("model", "")),
        version=str(meta.get("version", "")),
        sha256=str(meta.get("sha256", "")),
        ao_labels=labels,
        n_electrons=electrons,
        in_domain=answer.in_domain(),
        warnings=answer.warnings(),
        checks=answer.checks(),
        seconds=seconds,
    )


def guess_for(asked: Any, answer: Tensors, sent: Molecule, seconds: float) -> Guess:
    """:func:`parse_guess`, and the check against what was asked for where that is a PySCF Mole.

    Raises:
        InvalidAnswerError, GuessMismatchError: of the two.
    """
    guess = parse_guess(answer, sent, seconds)
    if is_mole(asked):
        guess.check_against(asked)
    return guess
