"""Shifts to other functionals: linear in their coefficients, covariant, and read only where they belong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from model.checkpoint.shifts import FILE, read_shifts
from model.errors import CheckpointError
from model.integrals.pyscf_molecule import integrals
from model.predictor import Predictor
from model.reference.fitted import FittedReference, respond
from model.reference.shift import FunctionalShift
from model.reference.terms import TermLayout
from model.structure import Structure
from training.fit.reference import term_matrices

SHA = "0" * 64


def random_shift(predictor: Predictor) -> FunctionalShift:
    reference = predictor.model.reference
    assert isinstance(reference, FittedReference)
    count = len(TermLayout(reference.basis, len(reference.exponents)))
    return FunctionalShift(
        reference.basis, reference.exponents, np.random.default_rng(1).normal(scale=1e-2, size=count)
    )


def test_a_shift_is_the_sum_of_its_terms(molecule: Callable[[str], Structure], released: Predictor) -> None:
    structure, shift = molecule("CH3OH"), random_shift(released)
    around = integrals(structure, shift.basis.name)
    hamiltonian = released.predict([structure])[0].hamiltonian
    response = respond(hamiltonian, around, shift.basis.atom_offsets(structure.numbers))
    layout = TermLayout(shift.basis, len(shift.exponents))
    terms = term_matrices(layout, around, shift.exponents, response)
    expected = np.tensordot(shift.coefficients, terms, axes=1)
    np.testing.assert_allclose(shift.evaluate(hamiltonian, around), 0.5 * (expected + expected.T), atol=1e-10)


def test_a_turned_molecule_has_the_same_levels(molecule: Callable[[str], Structure], released: Predictor) -> None:
    shift, found = random_shift(released), []
    structure = molecule("CH3OH")
    for turn in (np.eye(3), Rotation.from_euler("xyz", [0.3, 1.1, -2.0]).as_matrix()):
        turned = Structure(structure.numbers, structure.positions_angstrom @ turn.T)
        around = integrals(turned, shift.basis.name)
        # of the core Hamiltonian, which turns exactly
        found.append(
            np.sort(np.linalg.eigvals(np.linalg.solve(around.overlap, shift.evaluate(around.core, around))).real)
        )
    np.testing.assert_allclose(found[0], found[1], atol=1e-8)


def stored(predictor: Predictor, **changes: Any) -> dict[str, Any]:
    shift = random_shift(predictor)
    one = {"xc": "pbe", "coefficients": shift.coefficients.tolist(), "molecules": 5, "misplaced": [0.2, 0.1]}
    return {"weights_sha256": SHA, "exponents": shift.exponents.tolist(), "functionals": [one], **changes}


def test_a_file_is_read_by_any_spelling_of_the_functional(tmp_path: Path, released: Predictor) -> None:
    assert read_shifts(tmp_path, SHA, released.space) is None
    (tmp_path / FILE).write_text(json.dumps(stored(released)))
    shifts = read_shifts(tmp_path, SHA, released.space)
    assert shifts is not None
    assert shifts.find("PBE,PBE") is shifts.find("pbe") is not None
    assert shifts.find("revpbe") is None


def test_a_file_that_does_not_belong_is_refused(tmp_path: Path, released: Predictor) -> None:
    good = stored(released)
    short = {**good["functionals"][0], "coefficients": [0.0]}
    broken = [
        ({**good, "weights_sha256": "1" * 64}, "of weights 1111"),
        ({**good, "functionals": [short]}, "has 1 coefficients for pbe; there are"),
        ({**good, "functionals": good["functionals"] * 2}, "stands there twice"),
        ({**good, "exponents": [-1.0]}, "positive"),
        ({**good, "more": 1}, "cannot be read"),
    ]
    for text, said in [*((json.dumps(document), said) for document, said in broken), ("{", "cannot be read")]:
        (tmp_path / FILE).write_text(text)
        with pytest.raises(CheckpointError, match=said):
            read_shifts(tmp_path, SHA, released.space)
