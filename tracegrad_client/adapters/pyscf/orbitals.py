"""Orbitals for a calculation: of the molecule itself, or of the closed shell nearest to it; and in which basis they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray
from pyscf import gto

from tracegrad_client.adapters.pyscf.calculation import stated_level
from tracegrad_client.ask import Options
from tracegrad_client.crystal_guess import CrystalGuess
from tracegrad_client.errors import RequestRefusedError
from tracegrad_client.guess import OVERLAP_TOLERANCE, Guess
from tracegrad_client.structure import ao_labels

REFUSED_ELECTRONS: Final = ("unsupported_charge", "unsupported_multiplicity")
"""Codes of the server's that mean: this molecule, but not with these electrons."""


class GuessSource(Protocol):
    """What guesses come from: a :class:`tracegrad_client.Client`, or anything with these methods."""

    def guess(self, molecule: Any, /, **options: Unpack[Options]) -> Guess:
        """The starting point for (numbers, positions in Å); raises TraceGradError where there is none."""

    def crystal_guess(
        self, crystal: Any, *, kpts: Sequence[Sequence[float]], xc: str | None, basis: str | None
    ) -> CrystalGuess:
        """The starting point of a crystal at fractional k-points; raises TraceGradError where there is none."""


def ask_for_orbitals(source: GuessSource, mf: Any, mol: Any, *, parents: bool) -> tuple[Guess, str | None]:
    """The server's guess for a calculation's molecule, or, with ``parents``, for the closed shell nearest to it.

    Returns:
        the guess, and in words what it was asked for where that is not the molecule itself.

    Raises:
        TraceGradError: there is none; the first refusal.
    """
    real = mol.atom_charges() > 0
    atoms = (mol.atom_charges()[real], mol.atom_coords(unit="Angstrom")[real])
    level = stated_level(mf, mol)
    electrons = int(mol.atom_charges().sum())
    itself = (int(mol.charge), int(mol.spin) + 1)
    candidates: list[tuple[int, int]] = [itself]
    if parents and itself[1] != 1 and (electrons - itself[0]) % 2 == 0:
        candidates.append((itself[0], 1))
    if parents and electrons % 2 == 0 and (0, 1) not in candidates:
        candidates.append((0, 1))
    refusal: RequestRefusedError | None = None
    for charge, multiplicity in candidates:
        try:
            guess = source.guess(
                atoms, charge=charge, multiplicity=multiplicity, xc=level.get("xc"), basis=level.get("basis")
            )
        except RequestRefusedError as error:
            if error.code not in REFUSED_ELECTRONS:
                raise
            refusal = refusal or error
            continue
        sign = "" if charge == 0 else f"{charge:+d}"[0]
        return guess, None if (charge, multiplicity) == itself else f"closed shell of charge {sign}{abs(charge)}"
    assert refusal is not None, "there is at least one candidate"
    raise refusal


def in_basis_of(guess: Guess, mol: Any, overlap: NDArray[np.float64]) -> bool:
    """Whether the guess's orbitals are in the basis of ``mol``: the same labels, and D S D = 2 D with its overlap."""
    if guess.ao_labels != ao_labels(mol):
        return False
    density = guess.density_matrix
    return bool(np.abs(density @ overlap @ density - 2 * density).max() <= OVERLAP_TOLERANCE)


def model_molecule(guess: Guess, mol: Any) -> Any:
    """The nuclei of ``mol`` in the guess's basis, which is checked: real atoms alone, spherical functions, no symmetry.

    Raises:
        GuessMismatchError: PySCF's basis of this name is not the model's.
    """
    real = [atom for atom in range(mol.natm) if mol.atom_charge(atom) > 0]
    found = gto.M(
        atom=[(mol.atom_pure_symbol(atom), tuple(map(float, mol.atom_coord(atom)))) for atom in real],
        unit="Bohr",
        basis=guess.basis,
        charge=int(mol.atom_charges().sum()) - guess.n_electrons,
        verbose=0,
        parse_arg=False,
        dump_input=False,
    )
    guess.check_against(found)
    return found
