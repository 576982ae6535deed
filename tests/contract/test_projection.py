"""``basis=`` with ``project=true`` on /v1/initial-guess: a guess in the caller's basis, or an honest refusal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyscf import dft, gto, scf
from pyscf.tools import molden
from scipy.linalg import eigh

from tracegrad_client.adapters.pyscf.other_basis import atomic_charges, carried_over

EXACT = 1e-9
ATOMS = [("O", (0, 0, 0.119)), ("H", (0, 0.763, -0.477)), ("H", (0, -0.763, -0.477))]
N_OCCUPIED = 5


def mole_in(basis: str) -> Any:
    return gto.M(atom=ATOMS, basis=basis, unit="Angstrom", verbose=0)


def ask(client, water, **options: Any) -> Any:
    return client.post("/v1/initial-guess", json={**water, "project": True, **options})


def carried(own: dict[str, Any], mole: Any) -> tuple[Any, Any]:
    """Energies and orbitals in another basis, by the client's parts."""
    inner = mole_in("def2-svp")
    charges = atomic_charges(inner)
    assert charges is not None
    sc = inner.intor("int1e_ovlp") @ np.array(own["mo_coeff"])
    fock = (sc * np.array(own["orbital_energies"])) @ sc.T
    return eigh(carried_over(fock, inner, mole, charges), mole.intor("int1e_ovlp"))


@pytest.mark.parametrize("basis", ["cc-pVDZ", "6-31G*", "def2-TZVP", "sto-3g"])
def test_the_guess_is_in_the_basis_that_was_asked_for(client, water, basis):
    """The same orbitals as the client makes; PySCF starts from their density and converges to its own energy."""
    own = client.post("/v1/initial-guess", json=water).json()["results"]
    reply = ask(client, water, basis=basis)
    assert reply.status_code == 200, reply.text
    answer, mole = reply.json(), mole_in(basis)
    meta, results = answer["meta"], {name: np.array(value) for name, value in answer["results"].items()}
    assert (meta["projected"], meta["basis"], meta["n_ao"]) == (True, basis.lower(), mole.nao)
    assert meta["ao_labels"] == [label.strip() for label in mole.ao_labels()]
    assert [w.split(":")[0] for w in answer["warnings"] if "basis" in w] == ["projected"]
    overlap = mole.intor("int1e_ovlp")
    energies, coefficients = carried(own, mole)
    expected = coefficients[:, :N_OCCUPIED]
    np.testing.assert_allclose(results["density_matrix"], 2.0 * expected @ expected.T, atol=1e-7)
    assert np.trace(results["density_matrix"] @ overlap) == pytest.approx(10.0, abs=EXACT)
    assert results["mo_coeff"].shape == (mole.nao, mole.nao)
    np.testing.assert_allclose(results["orbital_energies"], energies, atol=1e-7)
    assert answer["checks"]["trace_error"] < EXACT
    assert answer["checks"]["gap"] == pytest.approx(energies[N_OCCUPIED] - energies[N_OCCUPIED - 1], abs=1e-6)
    if basis == "cc-pVDZ":
        run, usual = dft.RKS(mole, xc="b3lyp"), dft.RKS(mole, xc="b3lyp")
        run.grids.level = usual.grids.level = 0
        assert run.kernel(dm0=results["density_matrix"]) == pytest.approx(usual.kernel(), abs=1e-6)
        assert run.converged


def test_files_are_in_that_basis_too(client, water, tmp_path: Path):
    mole = mole_in("cc-pvdz")
    density = np.array(ask(client, water, basis="cc-pvdz").json()["results"]["density_matrix"])
    chk = tmp_path / "guess.chk"
    chk.write_bytes(ask(client, water, basis="cc-pvdz", format_out="chk").content)
    np.testing.assert_allclose(scf.hf.init_guess_by_chkfile(mole, str(chk), project=False), density, atol=EXACT)
    text = tmp_path / "guess.molden"
    text.write_bytes(ask(client, water, basis="cc-pvdz", format_out="molden").content)
    assert molden.load(str(text))[2].shape == (mole.nao, mole.nao)
    assert ask(client, water, basis="cc-pvdz", format_out="cube", orbital="lumo").status_code == 200
    assert ask(client, water, basis="cc-pvdz", format_out="cube").status_code == 200


def test_other_orders_units_and_binary_formats(client, water):
    plain = ask(client, water, basis="cc-pvdz").json()
    turned = ask(client, water, basis="cc-pvdz", ao_order="e3nn", energy_unit="eV", outputs=["overlap"]).json()
    order = [plain["meta"]["ao_labels"].index(label) for label in turned["meta"]["ao_labels"]]
    assert order != sorted(order)
    overlap = mole_in("cc-pvdz").intor("int1e_ovlp")
    np.testing.assert_allclose(turned["results"]["overlap"], overlap[np.ix_(order, order)], atol=EXACT)
    density = np.array(plain["results"]["density_matrix"])
    np.testing.assert_allclose(turned["results"]["density_matrix"], density[np.ix_(order, order)], atol=EXACT)
    reply = ask(client, water, basis="cc-pvdz", format_out="npz")
    with np.load(io.BytesIO(reply.content)) as arrays:
        np.testing.assert_allclose(arrays["density_matrix"], density, atol=EXACT)
    assert "projected" in reply.headers["warning"]


def test_in_the_models_own_basis_there_is_nothing_to_project(client, water):
    own, asked = client.post("/v1/initial-guess", json=water).json(), ask(client, water, basis="def2-SVP").json()
    assert asked["meta"]["projected"] is False
    assert asked["results"] == own["results"]
    not_asked = client.post("/v1/initial-guess", json={**water, "basis": "cc-pvdz"})
    assert (not_asked.json()["meta"]["projected"], not_asked.json()["meta"]["basis"]) == (False, "def2-svp")
    assert not_asked.headers["etag"] != ask(client, water, basis="cc-pvdz").headers["etag"]


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        ({}, "invalid_request", "basis"),
        ({"basis": "no-such-basis"}, "unsupported_basis", None),
        ({"basis": "../../etc/passwd"}, "unsupported_basis", None),
        ({"basis": "gth-dzvp"}, "unsupported_basis", "basis"),  # no core functions: nonsense, were it answered
        ({"basis": "cc-pvdz", "format_out": "qcschema"}, "invalid_request", "format_out"),
        ({"basis": "cc-pvdz", "outputs": ["hamiltonian"]}, "invalid_request", "outputs"),
    ],
)
def test_what_cannot_be_projected_is_refused(client, water, options, code, field):
    reply = ask(client, water, **options)
    assert reply.status_code == 422, reply.text
    assert reply.json()["code"] == code
    assert field is None or reply.json()["field"] == field
    assert "passwd" not in reply.text


def test_it_is_a_form_field_and_a_query_parameter_too(client, water_xyz):
    sent = client.post(
        "/v1/initial-guess", files={"file": ("water.xyz", water_xyz)}, data={"basis": "cc-pvdz", "project": "true"}
    )
    assert sent.status_code == 200, sent.text
    assert sent.json()["meta"]["projected"] is True
    raw = client.post(
        "/v1/initial-guess?basis=cc-pvdz&project=true", content=water_xyz, headers={"content-type": "chemical/x-xyz"}
    )
    assert raw.json()["meta"]["projected"] is True


def test_a_basis_that_is_too_large_is_refused_before_it_is_made(client, water):
    many = {"kind": "atoms", "numbers": [1] * 300, "positions": [[2.0 * i, 0.0, 0.0] for i in range(300)]}
    reply = ask(client, {**water, "structure": many}, basis="cc-pv5z")
    assert reply.status_code in (413, 422), reply.text
    assert reply.json()["code"] in ("too_many_orbitals", "too_many_atoms")
