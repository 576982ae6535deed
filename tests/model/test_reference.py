"""The reference Hamiltonian: every term is its formula, and one pass gives the sum of the terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

from model.blocks.matrices import dense_matrix
from model.integrals.pyscf_molecule import MoleculeIntegrals, integrals
from model.predictor import Predictor
from model.reference.fitted import FittedReference, Surroundings, ingredients, respond
from model.reference.none import NoReference
from model.reference.registry import REFERENCES
from model.reference.terms import Response
from model.structure import Structure

SAME_MATRIX = 1e-9
"""Rounding of the sums, hartree."""


def surroundings_of(structure: Structure) -> MoleculeIntegrals:
    return integrals(structure, "def2-svp")


@pytest.mark.parametrize("name", ["H2O", "CH3CN", "HCOOH", "H2"])
def test_one_pass_gives_the_sum_of_all_terms(
    name: str, molecule: Callable[[str], Structure], released: Predictor
) -> None:
    """H0 is linear in its coefficients: contracted at once, it is the sum of every coefficient's own matrix."""
    reference = released.model.reference
    assert isinstance(reference, FittedReference)
    around = surroundings_of(molecule(name))
    first = own_matrices(reference, around, None)
    response = respond(
        around.core + np.tensordot(reference.step1, first, axes=1), around, offsets_of(reference, around)
    )
    expected = around.core + np.tensordot(reference.step2, own_matrices(reference, around, response), axes=1)
    result = reference.evaluate(around)
    assert np.abs(result.hamiltonian - expected).max() < SAME_MATRIX
    assert np.abs(result.density - response.density).max() < SAME_MATRIX


def test_terms_are_their_formulas(molecule: Callable[[str], Structure], released: Predictor) -> None:
    """Every coefficient's matrix of formic acid, against the formula written out with S, D, charges and PySCF's integrals."""
    reference, around = released.model.reference, surroundings_of(molecule("HCOOH"))
    assert isinstance(reference, FittedReference)
    offsets, numbers, s = offsets_of(reference, around), around.numbers.tolist(), around.overlap
    response = respond(around.core, around, offsets)
    density, charges = response.density, response.charges
    atom_of = np.repeat(np.arange(len(numbers)), np.diff(offsets))
    matrices = dict(zip(reference.layout.names, own_matrices(reference, around, response), strict=True))

    def mean_of_ends(of_atom: np.ndarray) -> np.ndarray:
        return s * (of_atom[atom_of][:, None] + of_atom[atom_of][None, :]) / 2

    def shells(atom: int) -> list[np.ndarray]:
        ls = reference.basis.shells[numbers[atom]]
        ends = offsets[atom] + np.cumsum([2 * ang + 1 for ang in ls])
        return [np.arange(end - 2 * ang - 1, end) for end, ang in zip(ends, ls, strict=True)]

    carbon = np.array([z == 6 for z in numbers], dtype=float)
    assert np.abs(matrices["o/6/0"] - mean_of_ends(carbon)).max() < SAME_MATRIX
    assert np.abs(matrices["r/6/0"] - mean_of_ends(carbon * charges)).max() < SAME_MATRIX
    ends = np.array(numbers)[atom_of]
    between = ((ends[:, None] == 1) & (ends[None, :] == 8)) | ((ends[:, None] == 8) & (ends[None, :] == 1))
    assert (
        np.abs(matrices["x/0/3"] - between * (s @ density @ s)).max() < SAME_MATRIX
    )  # elements 1 6 7 8: H-O is pair 3
    exponent = reference.exponents[2]
    for letter, weight in (("g", carbon), ("q", carbon * charges)):
        expected = sum(w * potential(around, atom, exponent) for atom, w in enumerate(weight))
        assert np.abs(matrices[f"{letter}/6/2"] - expected).max() < SAME_MATRIX
    for letter in "py":  # the second pair of carbon's shells is (1s, 2s), the eighth (2p, 3p)
        for number, (a, b) in ((1, (0, 1)), (7, (3, 4))):
            expected = np.zeros_like(s)
            for atom in np.flatnonzero(carbon):
                rows, columns = shells(int(atom))[a], shells(int(atom))[b]
                middle = np.eye(len(rows)) if letter == "p" else density[np.ix_(rows, columns)]
                half = s[:, rows] @ middle @ s[columns] / 2
                expected += half + half.T
            assert np.abs(matrices[f"{letter}/6/{number}"] - expected).max() < SAME_MATRIX
    silent = [name for name in matrices if name.split("/")[1] == "7"]
    assert silent, "the released reference knows nitrogen, of which formic acid has none"
    assert not any(matrices[name].any() for name in silent)


def own_matrices(reference: FittedReference, around: Surroundings, response: Response | None) -> np.ndarray:
    """Every coefficient's own matrix, (coefficient of step 1 or of both, ao, ao)."""
    atoms = reference.layout.alone(1)
    answer = [] if response is None else reference.layout.alone(2)
    parts = replace(ingredients(reference.basis, reference.exponents, around, atoms, answer), response=response)
    return np.concatenate([term.contract(parts) for term in [*atoms, *answer]])


def offsets_of(reference: FittedReference, around: Surroundings) -> np.ndarray:
    return reference.basis.atom_offsets(around.numbers)


def potential(around: MoleculeIntegrals, atom: int, exponent: float) -> np.ndarray:
    """PySCF: a unit charge spread as a Gaussian is a nucleus of finite size."""
    mole = around.mole
    with mole.with_rinv_at_nucleus(atom), mole.with_rinv_zeta(exponent):
        return mole.intor("int1e_rinv")


def test_response_density(molecule: Callable[[str], Structure], released: Predictor) -> None:
    """D1 is the density of H1's occupied orbitals; Löwdin charges add up to the molecule's charge."""
    around = surroundings_of(molecule("CH3CN"))
    response = respond(around.core, around, released.space.atom_offsets(around.numbers))
    _, orbitals = scipy.linalg.eigh(around.core, around.overlap)
    occupied = orbitals[:, : around.n_occupied]
    assert np.abs(response.density - 2 * occupied @ occupied.T).max() < 1e-9
    assert abs(response.charges.sum()) < 1e-9


def test_inputs_are_overlap_reference_and_density(molecule: Callable[[str], Structure], released: Predictor) -> None:
    """What the network reads of water is S, H0 and S D S: their blocks come back from the coefficients."""
    prepared = released.prepare(molecule("H2O"))
    overlap = np.asarray(prepared.integrals.overlap)
    result = prepared.reference
    assert result is not None
    coefficients = np.concatenate([prepared.on_site, prepared.pair])
    transform = released.model.block_space.matrix
    for index, matrix in enumerate((overlap, result.hamiltonian, overlap @ result.density @ overlap)):
        blocks = (coefficients[:, index] @ transform.T).reshape(-1, 1, 14, 14)
        back = dense_matrix(prepared.blocks.to_blocks(blocks, released.model.block_space))
        assert np.abs(back - matrix).max() < 1e-12
    assert np.trace(result.density @ overlap) == pytest.approx(10.0, abs=1e-8)


def test_a_reference_comes_back_from_what_is_stored(released: Predictor) -> None:
    """Names and shapes are what the registry's class asks of a checkpoint."""
    for reference in (released.model.reference, NoReference()):
        kind, stored = REFERENCES[reference.kind], reference.tensors()
        assert {name: value.shape for name, value in stored.items()} == kind.shapes(released.space, stored)
        again = kind.from_tensors(released.space, stored)
        assert {name: value.tobytes() for name, value in again.tensors().items()} == {
            name: value.tobytes() for name, value in stored.items()
        }
