"""The reference Hamiltonian: the fast evaluation equals the sum of its terms, and it is worth its cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg

from model.blocks.matrices import dense_matrix
from model.integrals.pyscf_molecule import integrals
from model.predictor import Predictor
from model.reference.fitted import (
    FittedReference,
    ShellIndex,
    Surroundings,
    TermLayout,
    response_density,
    term_matrices,
)
from model.structure import Structure


def surroundings_of(structure: Structure) -> Surroundings:
    return integrals(structure, "def2-svp")


@pytest.mark.parametrize("name", ["H2O", "CH3CN", "HCOOH", "H2"])
def test_evaluation_is_the_sum_of_the_terms(
    name: str, molecule: Callable[[str], Structure], released: Predictor
) -> None:
    reference = released.model.reference
    assert isinstance(reference, FittedReference)
    around = surroundings_of(molecule(name))
    layout = TermLayout(reference.basis, len(reference.exponents))
    first = term_matrices(layout, around, reference.exponents, None)
    step1 = around.core + np.tensordot(reference.step1, first, axes=1)
    response = response_density(step1, around, ShellIndex(reference.basis, around.numbers))
    terms = term_matrices(layout, around, reference.exponents, response)
    expected = around.core + np.tensordot(reference.step2, terms, axes=1)
    result = reference.evaluate(around)
    assert np.abs(result.hamiltonian - expected).max() < 1e-9
    assert np.abs(result.density - response[0]).max() < 1e-9


def test_response_density(molecule: Callable[[str], Structure], released: Predictor) -> None:
    """D1 is the density of H1's occupied orbitals; Löwdin charges add up to the molecule's charge."""
    around = surroundings_of(molecule("CH3CN"))
    shells = ShellIndex(released.space, around.numbers)
    density, charges = response_density(around.core, around, shells)
    _, orbitals = scipy.linalg.eigh(around.core, around.overlap)
    occupied = orbitals[:, : around.n_occupied]
    assert np.abs(density - 2 * occupied @ occupied.T).max() < 1e-9
    assert abs(charges.sum()) < 1e-9


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
