"""A guess in the basis of a Mole that is not the model's: ``client.guess(mol, project=True)``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tracegrad_client.adapters.pyscf.orbitals import in_basis_of
from tracegrad_client.adapters.pyscf.other_basis import orbitals_in_basis
from tracegrad_client.errors import InvalidInputError
from tracegrad_client.guess import Guess
from tracegrad_client.structure import Molecule, ao_labels


def atoms_of(mol: Any) -> Molecule:
    """What is sent for a Mole in any basis: its real atoms, charge and multiplicity.

    Raises:
        InvalidInputError: a Cell, or effective core potentials, with which there are other electrons.
    """
    if not mol._built:
        mol.build(False, False)
    if hasattr(mol, "lattice_vectors"):
        raise InvalidInputError("A periodic Cell came to what is for molecules.", hint="Ask for crystal_guess().")
    if mol.has_ecp():
        raise InvalidInputError("The Mole uses effective core potentials; the models are all-electron.")
    real = mol.atom_charges() > 0
    numbers = np.asarray(mol.atom_charges()[real], dtype=np.int64)
    positions = np.asarray(mol.atom_coords(unit="Angstrom")[real], dtype=np.float64)
    return Molecule(numbers, positions, int(mol.charge), int(mol.spin) + 1)


def projected_guess(guess: Guess, mol: Any) -> Guess:
    """The guess in the Mole's basis: as it is where that is the model's, else carried over (``other_basis``).

    With a PySCF that has no atomic potentials it has no empty orbitals (``lumo`` and ``gap`` are None), and its energies are
    those of the model's basis.

    Args:
        guess: in the model's basis, of the same nuclei and electrons.
        mol: with ghost atoms and Cartesian functions, if it has them.

    Raises:
        GuessMismatchError: PySCF's basis of this name is not the model's.
        InvalidInputError: the Mole's basis has fewer functions than there are occupied orbitals.
    """
    overlap = np.asarray(mol.intor_symmetric("int1e_ovlp"))
    if in_basis_of(guess, mol, overlap):
        return guess
    n_occupied = int((guess.mo_occ > 0).sum())
    if len(overlap) < n_occupied:
        raise InvalidInputError(
            f"The Mole has {len(overlap)} orbitals, too few for {guess.n_electrons} electrons.", hint="Set its basis."
        )
    orbitals, energies = orbitals_in_basis(guess, mol, overlap, n_occupied)
    occupied = orbitals[:, :n_occupied]
    return replace(
        guess,
        density_matrix=2.0 * occupied @ occupied.T,
        mo_coeff=orbitals,
        mo_occ=np.where(np.arange(orbitals.shape[1]) < n_occupied, 2.0, 0.0),
        mo_energy=energies,
        basis=mol.basis if isinstance(mol.basis, str) else "the Mole's own",
        ao_labels=ao_labels(mol),
        projected_from=guess.basis,
    )
