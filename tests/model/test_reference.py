"""The reference Hamiltonian: the fast evaluation equals the sum of its terms, and it is worth its cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg

from model.integrals.pyscf_molecule import integrals
from model.predictor import Predictor
from model.reference.fitted import (
    FittedReference,
    ShellIndex,
    Surroundings,
    TermLayout,
    input_matrices,
    response_density,
    term_matrices,
)
from model.structure import Structure
from model.surroundings import surroundings


def surroundings_of(structure: Structure, reference: FittedReference) -> Surroundings:
    return surroundings(structure, integrals(structure, "def2-svp"), reference.exponents)


@pytest.mark.parametrize("name", ["H2O", "CH3CN", "HCOOH", "H2"])
def test_evaluation_is_the_sum_of_the_terms(
    name: str, molecule: Callable[[str], Structure], released: Predictor
) -> None:
    reference = released.checkpoint.reference
    around = surroundings_of(molecule(name), reference)
    layout = TermLayout(reference.basis, len(reference.exponents))
    first = term_matrices(layout, around, len(reference.exponents), None)
    step1 = around.core + np.tensordot(reference.step1, first, axes=1)
    response = response_density(step1, around, ShellIndex(reference.basis, around.numbers))
    terms = term_matrices(layout, around, len(reference.exponents), response)
    expected = around.core + np.tensordot(reference.step2, terms, axes=1)
    result = reference.evaluate(around)
    assert np.abs(result.hamiltonian - expected).max() < 1e-9
    assert np.abs(result.density - response[0]).max() < 1e-9


def test_response_density(molecule: Callable[[str], Structure], released: Predictor) -> None:
    """D1 is the density of H1's occupied orbitals; Löwdin charges add up to the molecule's charge."""
    around = surroundings_of(molecule("CH3CN"), released.checkpoint.reference)
    shells = ShellIndex(released.basis, around.numbers)
    density, charges = response_density(around.core, around, shells)
    _, orbitals = scipy.linalg.eigh(around.core, around.overlap)
    occupied = orbitals[:, : around.n_occupied]
    assert np.abs(density - 2 * occupied @ occupied.T).max() < 1e-9
    assert abs(charges.sum()) < 1e-9


def test_inputs_are_overlap_reference_and_density(molecule: Callable[[str], Structure], released: Predictor) -> None:
    around = surroundings_of(molecule("H2O"), released.checkpoint.reference)
    result = released.checkpoint.reference.evaluate(around)
    overlap, hamiltonian, density = input_matrices(around.overlap, result)
    assert np.array_equal(overlap, around.overlap)
    assert np.array_equal(hamiltonian, result.hamiltonian)
    assert np.trace(np.linalg.solve(around.overlap, density)) == pytest.approx(10.0, abs=1e-8)
