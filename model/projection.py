"""A prediction's guess at another level than the model's: in another basis, for another functional.

In another basis (docs/decisions/0023-other-bases.md): what the model says beyond a potential that every basis knows is
carried over, and the sum is solved there:

    F' = V' + c S' + Q^T (F - V - c S) Q,    Q = S^-1 S'',    c = <F - V, S> / <S, S>

with S and S' the overlaps of the model's and the other basis, S'' that of both, and V and V' the kinetic energy, the nuclei
and a superposition of atomic potentials in each (SAP; Lehtola, Visscher and Engel, J. Chem. Phys. 152, 144105, 2020). Its
orbitals start an SCF; as a Hamiltonian it is not shown, since the model knows nothing of the space that is added.

For another functional (docs/decisions/0024-other-functionals.md): F and a fitted difference of the two, ``reference.shift``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.df import incore

from model.electronic.guess import check_guess, make_guess
from model.electronic.solve import solve
from model.errors import NumericalError, UnsupportedBasisError
from model.integrals.pyscf_molecule import MoleculeIntegrals, bare_mole, load_basis
from model.orbitals.space import OrbitalSpace
from model.structure import SYMBOLS

if TYPE_CHECKING:
    from model.predictor import Prediction
    from model.reference.shift import FunctionalShift
    from model.structure import Structure

POTENTIALS: Final = "sapgrasplarge"
"""PySCF's name of the atomic potentials: charges of Gaussians, exchange of the local density, relativistic atoms."""

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


def shifted(prediction: Prediction, shift: FunctionalShift) -> Prediction:
    """The same molecule's guess for another functional; its Hamiltonian and reference are empty.

    Args:
        prediction: with orbitals and guess, in the model's basis.
        shift: of the model's checkpoint.
    """
    integrals = MoleculeIntegrals(prediction.structure, prediction.space.name)
    fock = _fock(prediction)
    return _with_guess_of(prediction, fock + shift.evaluate(fock, integrals), integrals)


def _with_guess_of(prediction: Prediction, fock: NDArray[np.float64], integrals: MoleculeIntegrals) -> Prediction:
    """The prediction with the guess that a Fock matrix makes; what is the model's own is left out."""
    guess = make_guess(solve(fock, integrals.factor, prediction.structure.n_electrons))
    return replace(
        prediction,
        hamiltonian=np.empty((0, 0)),
        reference=np.empty((0, 0)),
        orbitals=guess.orbitals,
        guess=guess,
        checks=check_guess(guess, integrals.overlap),
        expected=None,
    )


def _fock(prediction: Prediction) -> NDArray[np.float64]:
    """The matrix whose eigenpairs the guess's orbitals are: H, less the intruders that were taken out of them."""
    if prediction.orbitals is None:
        raise NumericalError("The prediction has no orbitals.")
    own = prediction.overlap @ prediction.orbitals.coefficients
    return np.asarray((own * prediction.orbitals.energies) @ own.T)


def projected(prediction: Prediction, space: OrbitalSpace) -> Prediction:
    """The same molecule's guess in another basis; its Hamiltonian and reference are empty.

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
    across = np.asarray(gto.intor_cross("int1e_ovlp", source, integrals.bare))
    coefficients = prediction.orbitals.coefficients
    try:
        occupied = across.T @ coefficients[:, :n_occupied]
        lost = float((1.0 - np.einsum("am,am->m", occupied, np.linalg.solve(integrals.overlap, occupied))).max())
        if lost > MOST_LOST:
            raise UnsupportedBasisError(
                f"{refused}: one of them loses {lost:.0%} of its norm.",
                field="basis",
                hint="The model is all-electron; a basis made for pseudopotentials has no functions for the core.",
            )
        overlap = prediction.overlap
        beyond = _fock(prediction) - _potential(source, structure)
        shift = np.vdot(beyond, overlap) / np.vdot(overlap, overlap)  # the added functions' levels move with the others
        carry = np.linalg.solve(overlap, across)
        fock = _potential(integrals.bare, structure) + shift * integrals.overlap
        fock += carry.T @ (beyond - shift * overlap) @ carry
        found = _with_guess_of(prediction, fock, integrals)
    except np.linalg.LinAlgError as error:
        raise NumericalError(f"The guess could not be projected to {space.name}: {error}.") from error
    return replace(
        found,
        space=space,
        overlap=integrals.overlap,
        ao_labels=integrals.labels,
        atom_offsets=tuple(int(offset) for offset in space.atom_offsets(structure.numbers)),
    )


def _potential(mole: Any, structure: Structure) -> NDArray[np.float64]:
    """Kinetic energy, nuclei and the atoms' potentials in the basis of ``mole``, (ao, ao), hartree."""
    total = mole.intor_symmetric("int1e_kin") + mole.intor_symmetric("int1e_nuc")
    for number, position in zip(structure.numbers.tolist(), mole.atom_coords(), strict=True):
        exponents, charges = _atomic_charges(number).T
        atom = gto.fakemol_for_cgtf_charge(position[None], exponents, charges)
        total -= incore.aux_e2(mole, atom, "int3c2e")[:, :, 0]
    return np.asarray(total)


@lru_cache
def _atomic_charges(number: int) -> NDArray[np.float64]:
    """Exponents and charges of the Gaussians that stand for an atom's electrons, (Gaussian, 2)."""
    symbol = SYMBOLS[number]
    shells = gto.basis.load(POTENTIALS, symbol)
    return np.asarray((shells[symbol] if isinstance(shells, dict) else shells)[0][1:], dtype=np.float64)
