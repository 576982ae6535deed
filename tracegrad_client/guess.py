"""The initial guess as it came from the server, and the laws that it must obey before a calculation may start from it.

Two kinds of check. An answer is checked in itself (shapes, finite numbers, D = C n Cᵀ, the electron count) when it is
parsed. Against a PySCF Mole it is checked with the *caller's* overlap matrix: only in the basis that the guess was made
for is D S D = 2 D and tr(D S) = N, so a basis that merely has the same orbital labels (cc-pVDZ instead of def2-SVP)
is found out without trusting anybody's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.containers import as_document, from_document, load_tensors, save_tensors
from tracegrad_client.errors import GuessMismatchError, InvalidAnswerError
from tracegrad_client.frontier import Frontier, told
from tracegrad_client.structure import Sent, ao_labels, is_mole
from tracegrad_client.wire import Tensors

DENSITY_TOLERANCE: Final = 1e-6
"""How far D may be from C n Cᵀ and from its own transpose (largest element)."""

OVERLAP_TOLERANCE: Final = 1e-5
"""How far D S D may be from 2 D (largest element) and tr(D S) from N, per electron; another basis misses by more."""


SCHEMA: Final = "tracegrad-guess"
SCHEMA_VERSION: Final = 1
"""Of the files that :meth:`Guess.save` writes; their layout is that of the server's own answers."""


@dataclass(frozen=True, eq=False, repr=False)
class Guess(Frontier):
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
        checks: the server's own figures (trace and idempotency errors, gap), and under ``expected`` the density error and the
            share of PySCF's cycles to expect, each with ``value``, ``lower``, ``upper``.
        seconds: what the request cost from the caller's point of view.
        projected_from: the model's basis, where the orbitals were projected to another one; then ``basis`` is that one.
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
    projected_from: str | None = None

    def __repr__(self) -> str:
        level = f"{self.xc}/{self.basis}"
        if self.projected_from is not None:
            level += f" projected from {self.projected_from}"
        marks = "" if self.in_domain else ", not in_domain"
        marks += f", {len(self.warnings)} warnings" if self.warnings else ""
        return (
            f"Guess({self.model} {self.version}, {level}, {self.n_electrons} electrons in {len(self.ao_labels)} orbitals, "
            f"gap {told(self.gap, 'hartree')}{marks})"
        )

    def levels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Energies and occupations, (mo,)."""
        return self.mo_energy, self.mo_occ

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write everything into one file, .npz or .json: the layout of the server's own answers, read by :meth:`load`.

        Raises:
            ValueError: another suffix.
            OSError: it could not be written; an older file is untouched.
        """
        save_tensors(path, self._tensors())

    @classmethod
    def load(cls, path: str | Path) -> Guess:
        """Read what :meth:`save` or the server (json, npz, safetensors) wrote, and check it as an answer is checked.

        Nothing is unpickled.

        Raises:
            ValueError: another suffix.
            InvalidAnswerError: a file that holds no guess.
            OSError: it cannot be read.
        """
        return parse_guess(load_tensors(path), None, None)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON knows it, for ``json.dumps`` and for databases (monty's MSONable protocol)."""
        return {"@module": type(self).__module__, "@class": type(self).__name__, **as_document(self._tensors())}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Guess:
        """The opposite of :meth:`as_dict`.

        Raises:
            InvalidAnswerError: the document holds no guess.
        """
        return parse_guess(from_document(dict(document)), None, None)

    def _tensors(self) -> Tensors:
        about = {name: getattr(self, name) for name in ("model", "version", "sha256", "xc", "basis", "n_electrons")}
        told_too = {"seconds": self.seconds, "projected_from": self.projected_from}
        document = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "meta": {
                **about,
                "ao_order": "pyscf",
                "energy_unit": "hartree",
                "ao_labels": list(self.ao_labels),
                **told_too,
            },
            "checks": {**self.checks, "in_domain": self.in_domain},
            "warnings": list(self.warnings),
        }
        arrays = {
            "density_matrix": self.density_matrix,
            "mo_coeff": self.mo_coeff,
            "occupations": self.mo_occ,
            "orbital_energies": self.mo_energy,
        }
        return Tensors(arrays, document)

    # -- checks -----------------------------------------------------------------------------------------------------

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
                f"The guess is for {self.basis}; {difference}.",
                hint=f"Build the Mole with basis={self.basis!r}, or ask with project=True.",
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
                hint=f"Build the Mole with basis={self.basis!r}, or ask with project=True.",
            )


def fock_of(
    overlap: NDArray[np.float64], coefficients: NDArray[np.float64], energies: NDArray[np.float64]
) -> NDArray[np.float64]:
    """S C ε Cᵀ S, (ao, ao): the matrix with these orbitals, (ao, mo), and energies, (mo,), on what the orbitals span."""
    sc = overlap @ coefficients
    return np.asarray((sc * energies) @ sc.T)


def parse_guess(answer: Tensors, asked_electrons: int | None, seconds: float | None) -> Guess:
    """A :class:`Guess` from the answer of ``/v1/initial-guess``, checked in itself and against what was asked.

    Args:
        answer: as read.
        asked_electrons: of what was asked; None takes the answer's word for it (of a structure file, which only the server
            has read).
        seconds: what it cost; None for what a file says.

    Raises:
        InvalidAnswerError: anything that the contract does not allow.
    """
    meta = answer.about()
    if answer.meta.get("schema", SCHEMA) != SCHEMA or answer.meta.get("schema_version", 1) != SCHEMA_VERSION:
        raise InvalidAnswerError(f"The file is no {SCHEMA} of version {SCHEMA_VERSION}.")
    labels = answer.ao_labels()
    if meta.get("ao_order") != "pyscf":
        raise InvalidAnswerError(f"The orbitals came in the order {meta.get('ao_order')!r}, not in 'pyscf' order.")
    if meta.get("energy_unit", "hartree") != "hartree":
        raise InvalidAnswerError(f"The energies came in {meta['energy_unit']!r}, not in hartree.")
    coefficients = answer.columns("mo_coeff", len(labels))
    orbitals = coefficients.shape[1]
    occupations = answer.float64("occupations", (orbitals,))
    density = answer.float64("density_matrix", (len(labels), len(labels)))
    energies = answer.float64("orbital_energies", (orbitals,))
    said = meta.get("n_electrons")
    electrons = said if asked_electrons is None and isinstance(said, int) else asked_electrons
    if electrons is None:
        raise InvalidAnswerError("The answer does not say how many electrons there are.")
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
        seconds=float(meta.get("seconds") or 0.0) if seconds is None else seconds,
        projected_from=meta.get("projected_from"),
    )


def guess_for(asked: Any, answer: Tensors, sent: Sent, seconds: float) -> Guess:
    """:func:`parse_guess`, and the check against what was asked for where that is a PySCF Mole.

    Raises:
        InvalidAnswerError, GuessMismatchError: of the two.
    """
    guess = parse_guess(answer, sent.electrons, seconds)
    if is_mole(asked):
        guess.check_against(asked)
    return guess
