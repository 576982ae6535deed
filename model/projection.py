"""A prediction's guess in another basis: its occupied orbitals, projected.

    C' = S'^-1 S'' C, orthonormal again from the lowest up

with S' the overlap of the other basis and S'' that of both. Empty orbitals and the Hamiltonian are not projected: the
model knows nothing of the space that another basis adds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from pyscf import gto

from model.electronic.guess import check_guess, make_guess
from model.electronic.solve import Orbitals
from model.errors import NumericalError, UnsupportedBasisError
from model.integrals.pyscf_molecule import MoleculeIntegrals, bare_mole, load_basis
from model.orbitals.space import OrbitalSpace

if TYPE_CHECKING:
    from model.predictor import Prediction
    from model.structure import Structure

MOST_LOST: Final = 0.1
"""Of the norm of one orbital. Minimal bases lose 0.03; bases for pseudopotentials, which have no core functions, 0.9."""


def target_space(basis: str, structure: Structure) -> OrbitalSpace:
    """The orbitals of a basis of PySCF's library for the elements of a structure.

    Raises:
        UnsupportedBasisError: no such basis.
        UnsupportedElementError: it has nothing for one of the elements.
    """
    try:
        return load_basis(basis.strip().lower(), structure.numbers.tolist())
    except UnsupportedBasisError as error:  # said without the name, which came from outside
        raise UnsupportedBasisError(
            "PySCF's library has no basis of this name.", field="basis", hint="Give a name such as cc-pvdz or 6-31g*."
        ) from error


def projected(prediction: Prediction, space: OrbitalSpace) -> Prediction:
    """The same molecule's guess in another basis; its Hamiltonian and reference are empty, its energies the model's own.

    Args:
        prediction: with orbitals and guess.
        space: of :func:`target_space`.

    Raises:
        UnsupportedBasisError: the basis does not hold the occupied orbitals.
    """
    if prediction.orbitals is None:
        raise NumericalError("The prediction has no orbitals.")
    structure, n_occupied = prediction.structure, prediction.orbitals.n_occupied
    integrals = MoleculeIntegrals(structure, space.name)
    refused = f"The basis {space.name} does not hold this molecule's occupied orbitals"
    if len(integrals.overlap) < n_occupied:
        raise UnsupportedBasisError(f"{refused}: it has fewer functions.", field="basis", hint="Name a larger basis.")
    source = bare_mole(structure.numbers, structure.positions_angstrom, prediction.space.name)
    across = (
        np.asarray(gto.intor_cross("int1e_ovlp", integrals.bare, source))
        @ prediction.orbitals.coefficients[:, :n_occupied]
    )
    try:
        raw = np.linalg.solve(integrals.overlap, across)
        lost = float((1.0 - np.einsum("am,am->m", across, raw)).max())
        if lost > MOST_LOST:
            raise UnsupportedBasisError(
                f"{refused}: one of them loses {lost:.0%} of its norm.",
                field="basis",
                hint="The model is all-electron; a basis made for pseudopotentials has no functions for the core.",
            )
        # Cholesky's triangle is Gram-Schmidt in the order of the columns
        lower = np.linalg.cholesky(raw.T @ integrals.overlap @ raw)
    except np.linalg.LinAlgError as error:
        raise NumericalError(f"The guess could not be projected to {space.name}: {error}.") from error
    coefficients = np.linalg.solve(lower, raw.T).T
    occupied = slice(0, n_occupied)
    orbitals = Orbitals(prediction.orbitals.energies[occupied], coefficients, prediction.orbitals.occupations[occupied])
    guess = make_guess(orbitals)
    return replace(
        prediction,
        space=space,
        hamiltonian=np.empty((0, 0)),
        reference=np.empty((0, 0)),
        overlap=integrals.overlap,
        ao_labels=integrals.labels,
        atom_offsets=tuple(int(offset) for offset in space.atom_offsets(structure.numbers)),
        orbitals=orbitals,
        guess=guess,
        checks=check_guess(guess, integrals.overlap),
        expected=None,
    )
