"""The QCSchema document alone is enough: what its text says about AOs and matrices gives the guess back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyscf import gto
from scipy.special import gamma, sph_harm_y

from model.checkpoint.card import Card, read_card
from model.electronic.guess import check_guess, make_guess
from model.electronic.solve import Orbitals, solve
from model.errors import NumericalError
from model.integrals.pyscf_molecule import build_mole, load_basis
from model.predictor import Prediction
from model.structure import Structure
from service.answers import qcschema_v1
from service.answers.bytes import dump_json
from service.answers.qcschema import document

ROOT = Path(__file__).resolve().parents[2]
ROUND_TRIP = 1e-12
OVERLAP_TOLERANCE = 1e-9
POINT_VALUE_TOLERANCE = 1e-9
"""bohr^-3/2; function values are of order one."""


@pytest.fixture(scope="session")
def card() -> Card:
    return read_card(ROOT / "checkpoints" / "default" / "card.json")


Case = tuple[Prediction, dict[str, Any], Any]


@pytest.fixture(
    params=[
        "def2-svp",
        pytest.param("cc-pvtz", id="cc-pvtz (general contractions and f functions)"),
    ]
)
def case(request: pytest.FixtureRequest, card: Card, molecule: Callable[[str], Structure]) -> Case:
    """Methanol with the core Hamiltonian for a prediction: the prediction, its document read back, PySCF's molecule."""
    mole = build_mole(molecule("CH3OH"), request.param)
    prediction = core_prediction(molecule("CH3OH"), mole, request.param)
    return prediction, read_back(prediction, card, mole), mole


def core_prediction(structure: Structure, mole: Any, basis: str) -> Prediction:
    overlap = mole.intor("int1e_ovlp")
    hamiltonian = mole.intor("int1e_kin") + mole.intor("int1e_nuc")
    orbitals = solve(hamiltonian, overlap, structure.n_electrons)
    guess = make_guess(orbitals)
    return Prediction(
        structure=structure,
        space=load_basis(basis, structure.numbers.tolist()),
        hamiltonian=hamiltonian,
        reference=hamiltonian,
        overlap=overlap,
        ao_labels=tuple(label.strip() for label in mole.ao_labels()),
        atom_offsets=(0, *(int(row[3]) for row in mole.aoslice_by_atom())),
        orbitals=orbitals,
        guess=guess,
        checks=check_guess(guess, overlap),
        in_domain=True,
        warnings=("a warning",),
        timings_ms={},
    )


def read_back(prediction: Prediction, card: Card, mole: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(dump_json(document(prediction, card, mole)))
    return read


def matrix(read: dict[str, Any], name: str) -> NDArray[np.float64]:
    """A matrix of the wavefunction in the document's own AO order."""
    return np.reshape(read["wavefunction"][read["wavefunction"][name]], (read["properties"]["calcinfo_nbasis"], -1))


def pyscf_order(read: dict[str, Any]) -> list[int]:
    order: list[int] = read["extras"]["tracegrad"]["pyscf_order"]
    return order


def functions_at(read: dict[str, Any], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every basis function by its textbook formula, from nothing but the document, (point, ao)."""
    basis, centres = read["wavefunction"]["basis"], np.reshape(read["molecule"]["geometry"], (-1, 3))
    columns = []
    for key, centre in zip(basis["atom_map"], centres, strict=True):
        x, y, z = (points - centre).T
        r = np.sqrt(x * x + y * y + z * z)
        for shell in basis["center_data"][key]["electron_shells"]:
            (ell,), (coefficients,) = shell["angular_momentum"], shell["coefficients"]
            a = np.array(shell["exponents"])
            norms = np.sqrt(2.0 * (2.0 * a) ** (ell + 1.5) / gamma(ell + 1.5))
            radial = r**ell * (np.exp(-np.outer(r * r, a)) @ (norms * coefficients))
            columns += [
                radial * real_harmonic(ell, m, np.arccos(z / r), np.arctan2(y, x)) for m in range(-ell, ell + 1)
            ]
    return np.transpose(columns)


def real_harmonic(ell: int, m: int, polar: NDArray[np.float64], azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real spherical harmonic without the Condon-Shortley phase: m = -1, 0, 1 are y, z, x."""
    value = sph_harm_y(ell, abs(m), polar, azimuth)
    if m == 0:
        return np.real(value)
    return np.sqrt(2.0) * (-1.0) ** m * (np.real(value) if m > 0 else np.imag(value))


def test_plain_json_gives_the_guess_back(case: Case) -> None:
    prediction, read, _ = case
    order = pyscf_order(read)
    square = np.ix_(order, order)
    assert prediction.guess is not None
    assert prediction.orbitals is not None
    density = 2.0 * matrix(read, "density_a")[square]
    np.testing.assert_allclose(density, prediction.guess.density_matrix, atol=ROUND_TRIP)
    np.testing.assert_allclose(matrix(read, "fock_a")[square], prediction.hamiltonian, atol=ROUND_TRIP)
    np.testing.assert_allclose(matrix(read, "orbitals_a")[order], prediction.orbitals.coefficients, atol=ROUND_TRIP)
    wavefunction = read["wavefunction"]
    np.testing.assert_allclose(wavefunction["scf_eigenvalues_a"], prediction.orbitals.energies, atol=ROUND_TRIP)
    np.testing.assert_array_equal(2.0 * np.array(wavefunction["scf_occupations_a"]), prediction.orbitals.occupations)


def mole_of(read: dict[str, Any]) -> gto.Mole:
    """PySCF's molecule, from geometry and basis of a document alone."""
    basis = read["wavefunction"]["basis"]
    shells = {
        key: [
            [*shell["angular_momentum"], *zip(shell["exponents"], *shell["coefficients"], strict=True)]
            for shell in centre["electron_shells"]
        ]
        for key, centre in basis["center_data"].items()
    }
    positions = np.reshape(read["molecule"]["geometry"], (-1, 3))
    atoms = [(symbol, tuple(x)) for symbol, x in zip(read["molecule"]["symbols"], positions, strict=True)]
    return gto.M(atom=atoms, basis=shells, unit="Bohr", verbose=0)


def test_basis_and_geometry_of_the_document_give_the_overlap(case: Case) -> None:
    prediction, read, _ = case
    np.testing.assert_allclose(mole_of(read).intor("int1e_ovlp"), prediction.overlap, atol=OVERLAP_TOLERANCE)


def test_shells_order_signs_and_norms_are_those_of_the_textbook(case: Case, rng: np.random.Generator) -> None:
    _, read, mole = case
    points = rng.normal(scale=2.0, size=(40, 3))
    mine = functions_at(read, points)[:, pyscf_order(read)]
    np.testing.assert_allclose(mine, mole.eval_gto("GTOval_sph", points), atol=POINT_VALUE_TOLERANCE)


def test_labels_name_the_functions_in_the_order_of_the_document(case: Case) -> None:
    prediction, read, _ = case
    labels = read["extras"]["tracegrad"]["ao_labels"]
    assert [labels[index] for index in pyscf_order(read)] == list(prediction.ao_labels)
    first_p_shell = next(index for index, label in enumerate(labels) if "p" in label)
    assert [label[-1] for label in labels[first_p_shell : first_p_shell + 3]] == ["y", "z", "x"]


def test_fewer_orbitals_than_functions_are_rows_of_functions(case: Case, card: Card) -> None:
    prediction, _, mole = case
    assert prediction.orbitals is not None
    all_of_them = prediction.orbitals
    kept = slice(len(all_of_them.energies) - 3)
    fewer = Orbitals(all_of_them.energies[kept], all_of_them.coefficients[:, kept], all_of_them.occupations[kept])
    read = read_back(replace(prediction, orbitals=fewer, guess=make_guess(fewer)), card, mole)
    assert read["properties"]["calcinfo_nmo"] == len(fewer.energies)
    np.testing.assert_allclose(matrix(read, "orbitals_a")[pyscf_order(read)], fewer.coefficients, atol=ROUND_TRIP)


def test_nothing_is_in_it_that_a_guess_does_not_have(case: Case) -> None:
    prediction, read, _ = case
    assert all(name.startswith("calcinfo_") for name in read["properties"])
    assert set(read["return_result"]) == {"homo", "lumo", "gap"}
    assert sum(read["wavefunction"]["scf_occupations_a"]) == prediction.structure.n_electrons / 2
    assert not any(name.endswith("_b") for name in read["wavefunction"])
    assert "not a converged one" in read["extras"]["tracegrad"]["content"]
    assert read["extras"]["tracegrad"]["warnings"] == ["a warning"]


def test_without_an_empty_orbital_there_is_no_lumo(card: Card) -> None:
    helium_pairs = Structure(np.array([2, 2]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
    mole = build_mole(helium_pairs, "sto-3g")
    assert set(read_back(core_prediction(helium_pairs, mole, "sto-3g"), card, mole)["return_result"]) == {"homo"}


def test_a_prediction_without_a_guess_has_no_document(case: Case, card: Card) -> None:
    prediction, _, mole = case
    with pytest.raises(NumericalError):
        document(replace(prediction, orbitals=None, guess=None, checks=None), card, mole)


def test_qcelemental_reads_it_and_changes_nothing(case: Case) -> None:
    models = pytest.importorskip("qcelemental.models.v2")
    prediction, read, _ = case
    result = models.AtomicResult.model_validate(read)
    np.testing.assert_array_equal(result.molecule.geometry.ravel(), read["molecule"]["geometry"])
    assert result.wavefunction.basis.nbf == len(prediction.ao_labels)
    for name in ("scf_orbitals_a", "scf_density_a", "scf_fock_a"):
        np.testing.assert_array_equal(getattr(result.wavefunction, name), matrix(read, name.removeprefix("scf_")))
    written = json.loads(result.model_dump_json())
    assert written["wavefunction"]["scf_orbitals_a"] == read["wavefunction"]["scf_orbitals_a"]
    assert written["extras"] == read["extras"]
    assert written["return_result"] == read["return_result"]


def test_qcelemental_reads_the_first_version_and_it_says_the_same(case: Case, card: Card) -> None:
    models = pytest.importorskip("qcelemental.models")
    prediction, second, mole = case
    read = json.loads(dump_json(qcschema_v1.document(prediction, card, mole)))
    result = models.AtomicResult(**read)
    assert type(result).__module__.startswith("qcelemental.models.v1")
    np.testing.assert_array_equal(result.molecule.geometry.ravel(), read["molecule"]["geometry"])
    for name in ("scf_orbitals_a", "scf_density_a", "scf_fock_a"):
        np.testing.assert_array_equal(getattr(result.wavefunction, name), matrix(read, name.removeprefix("scf_")))
        assert read["wavefunction"][name] == second["wavefunction"][name]
    assert result.wavefunction.basis.nbf == len(prediction.ao_labels)
    assert result.return_result == second["return_result"]
    assert read["extras"] == second["extras"]


def test_pyscf_builds_its_molecule_from_the_first_version(case: Case, card: Card) -> None:
    qcschema = pytest.importorskip("pyscf.tools.qcschema")
    prediction, _, mole = case
    read = json.loads(dump_json(qcschema_v1.document(prediction, card, mole)))
    np.testing.assert_allclose(qcschema.recreate_mol_obj(read).atom_coords(), mole.atom_coords(), atol=ROUND_TRIP)
    assert not qcschema.recreate_mol_obj(read).cart
    with pytest.raises(KeyError, match="return_energy"):
        qcschema.load_qcschema_scf_info(read)  # rather than orbitals in another order
