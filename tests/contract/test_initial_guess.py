"""What /v1/initial-guess sends back, judged by the program that reads it: PySCF."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import ase.io.cube
import numpy as np
import pytest
from pyscf import dft, gto
from pyscf.data import nist
from pyscf.dft import numint
from pyscf.tools import cubegen, molden

from tests.service.test_qcschema import mole_of

EXACT = 1e-9
SAME_NUMBERS = 1e-12
MOLDEN_DIGITS = 1e-6
CUBE_DIGITS = 1e-4
ENERGY_TOLERANCE = 1e-6
"""Hartree; two SCF runs of one molecule from different guesses."""


@pytest.fixture
def mole() -> Any:
    atoms = [("O", (0, 0, 0.119)), ("H", (0, 0.763, -0.477)), ("H", (0, -0.763, -0.477))]
    return gto.M(atom=atoms, basis="def2-svp", unit="Angstrom", verbose=0)


@pytest.fixture
def guess(client, water) -> dict[str, Any]:
    reply = client.post("/v1/initial-guess", json=water)
    assert reply.status_code == 200, reply.text
    return reply.json()


def download(client, water, file_format: str) -> bytes:
    reply = client.post(f"/v1/initial-guess?format_out={file_format}", json=water)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-disposition"] == f'attachment; filename="guess.{file_format}"'
    return reply.content


def test_json_holds_the_four_arrays_of_a_guess(guess, mole):
    results = guess["results"]
    assert set(results) == {"density_matrix", "mo_coeff", "occupations", "orbital_energies"}
    density = np.array(results["density_matrix"])
    assert np.trace(density @ mole.intor("int1e_ovlp")) == pytest.approx(mole.nelectron, abs=EXACT)
    coefficients = np.array(results["mo_coeff"])
    np.testing.assert_allclose(coefficients * results["occupations"] @ coefficients.T, density, atol=EXACT)


def test_pyscf_starts_from_the_chkfile(client, water, guess, mole, tmp_path: Path):
    path = tmp_path / "guess.chk"
    path.write_bytes(download(client, water, "chk"))
    run = dft.RKS(mole, xc="b3lyp")
    run.grids.level = 0
    run.chkfile = str(path)
    run.init_guess = "chkfile"
    np.testing.assert_allclose(run.get_init_guess(key="chkfile"), guess["results"]["density_matrix"], atol=EXACT)
    energy = run.kernel()
    assert run.converged
    usual = dft.RKS(mole, xc="b3lyp")
    usual.grids.level = 0
    assert energy == pytest.approx(usual.kernel(), abs=ENERGY_TOLERANCE)


def test_pyscf_reads_the_molden_file(client, water, guess, mole, tmp_path: Path):
    path = tmp_path / "guess.molden"
    path.write_bytes(download(client, water, "molden"))
    read, energies, coefficients, occupations, *_ = molden.load(str(path))
    np.testing.assert_allclose(energies, guess["results"]["orbital_energies"], atol=MOLDEN_DIGITS, rtol=MOLDEN_DIGITS)
    np.testing.assert_array_equal(occupations, guess["results"]["occupations"])
    np.testing.assert_allclose(read.atom_coords(), mole.atom_coords(), atol=MOLDEN_DIGITS)
    overlap = read.intor("int1e_ovlp")
    np.testing.assert_allclose(coefficients.T @ overlap @ coefficients, np.eye(len(overlap)), atol=1e-4)


def test_the_cube_holds_the_density_at_its_grid_points(client, water, guess, mole):
    text = download(client, water, "cube").decode()
    cube = ase.io.cube.read_cube(io.StringIO(text))
    np.testing.assert_array_equal(cube["atoms"].numbers, [8, 1, 1])
    shape = cube["data"].shape
    index = np.argwhere(np.ones(shape, dtype=bool))[:: max(1, cube["data"].size // 500)]
    points = (cube["origin"] + index @ cube["spacing"]) / nist.BOHR
    orbitals = mole.eval_gto("GTOval_sph", points)
    density = np.einsum("pi,ij,pj->p", orbitals, np.array(guess["results"]["density_matrix"]), orbitals)
    np.testing.assert_allclose(cube["data"][tuple(index.T)], density, atol=CUBE_DIGITS)


def test_the_cube_is_the_file_that_pyscf_writes(client, water, guess, mole, tmp_path: Path):
    lines = download(client, water, "cube").decode().splitlines()
    path = tmp_path / "density.cube"
    shape = [int(line.split()[0]) for line in lines[3:6]]
    extent = [(int(line.split()[0]) - 1) * float(line.split()[1 + axis]) for axis, line in enumerate(lines[3:6])]
    cube = cubegen.Cube(mole, *shape, origin=[float(value) for value in lines[2].split()[1:]], extent=extent)
    density = numint.eval_rho(
        mole, mole.eval_gto("GTOval", cube.get_coords()), np.array(guess["results"]["density_matrix"])
    )
    cube.write(density.reshape(shape), str(path), lines[0])
    theirs = path.read_text().splitlines()
    assert lines[2:9] == theirs[2:9]  # the second line names the writer
    for ours, row in zip(lines[9:], theirs[9:], strict=True):
        assert len(ours) == len(row)
        np.testing.assert_allclose(
            np.fromstring(ours, sep=" "), np.fromstring(row, sep=" "), rtol=1e-3, atol=1e-6
        )  # the origin has six digits


HF = {"kind": "atoms", "numbers": [1, 9], "positions": [[0.1, 0.2, 0.3], [0.7, 0.5, 0.9]]}


@pytest.mark.parametrize("orbital", [None, "0", "homo", "lumo", "homo-1", "lumo+1"])
@pytest.mark.parametrize("name", ["HF", "CH3OH", "N2"])
def test_the_sum_over_a_cube_is_the_number_of_its_electrons(client, molecule, name, orbital):
    atoms = None if name == "HF" else molecule(name)
    structure = (
        HF
        if atoms is None
        else {"kind": "atoms", "numbers": atoms.numbers.tolist(), "positions": atoms.positions_angstrom.tolist()}
    )
    request = {"structure": structure, "format_out": "cube"} | ({} if orbital is None else {"orbital": orbital})
    cube = ase.io.cube.read_cube(io.StringIO(client.post("/v1/initial-guess", json=request).text))
    voxel = abs(np.linalg.det(cube["spacing"] / nist.BOHR))
    right = cube["atoms"].numbers.sum() if orbital is None else 1.0
    assert (cube["data"] ** (1 if orbital is None else 2)).sum() * voxel == pytest.approx(right, rel=5e-3)


def test_orbitals_that_are_not_there_and_formats_without_them(client, water):
    for orbital, form in (("homo-5", "cube"), ("24", "cube"), ("homo", "json"), ("homo", "chk"), ("somo", "cube")):
        reply = client.post("/v1/initial-guess", json=water | {"orbital": orbital, "format_out": form})
        assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (422, "invalid_request", "orbital")
    reply = client.post(
        "/v1/initial-guess?format_out=cube&orbital=lumo",
        files={"file": ("w.xyz", "3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n")},
    )
    assert reply.text.startswith("Orbital")


def test_a_qcschema_document_holds_the_guess_and_its_basis(client, water, guess):
    read = json.loads(download(client, water, "qcschema"))
    assert (read["schema_name"], read["schema_version"]) == ("qcschema_atomic_result", 2)
    wavefunction = read["wavefunction"]
    order = read["extras"]["tracegrad"]["pyscf_order"]
    shape, square = (len(order), -1), np.ix_(order, order)
    density = 2.0 * np.reshape(wavefunction["scf_density_a"], shape)[square]
    np.testing.assert_allclose(density, guess["results"]["density_matrix"], atol=SAME_NUMBERS)
    # with orbitals: the prediction that the guess was made of, not another one of another batch
    outputs = ["hamiltonian", "overlap", "orbital_energies"]
    predicted = client.post("/v1/predict", json={**water, "outputs": outputs}).json()["results"]
    fock = np.reshape(wavefunction["scf_fock_a"], shape)[square]
    np.testing.assert_allclose(fock, predicted["hamiltonian"], atol=SAME_NUMBERS)

    overlap = mole_of(read).intor("int1e_ovlp")
    np.testing.assert_allclose(overlap, predicted["overlap"], atol=EXACT)
    orbitals = np.reshape(wavefunction["scf_orbitals_a"], shape)[order]
    np.testing.assert_allclose(orbitals.T @ overlap @ orbitals, np.eye(orbitals.shape[1]), atol=EXACT)


def test_the_molecule_of_a_qcschema_document_can_be_sent_back(client, water, guess):
    molecule = json.loads(download(client, water, "qcschema"))["molecule"]
    reply = client.post("/v1/initial-guess", json={"structure": {"kind": "qcschema", "molecule": molecule}})
    assert reply.status_code == 200, reply.text
    # through bohr with a conversion factor that is PySCF's to 1e-9 only
    np.testing.assert_allclose(
        reply.json()["results"]["orbital_energies"], guess["results"]["orbital_energies"], atol=MOLDEN_DIGITS
    )


def test_qcelemental_takes_a_qcschema_document(client, water):
    models = pytest.importorskip("qcelemental.models.v2")
    result = models.AtomicResult.model_validate_json(download(client, water, "qcschema"))
    assert result.molecule.get_molecular_formula() == "H2O"
    assert np.trace(result.wavefunction.scf_density_a @ result.wavefunction.scf_fock_a) < 0.0


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/x-hdf5", "application/x-hdf5"),
        ("application/x-qcschema+json", "application/x-qcschema+json"),
        ("chemical/x-molden", "chemical/x-molden"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("application/json;q=0.2, application/x-npz", "application/x-npz"),
        ("application/json;q=0, application/*", "application/json"),
    ],
)
def test_the_accept_header_chooses(client, water, accept, expected):
    reply = client.post("/v1/initial-guess", json=water, headers={"Accept": accept})
    assert reply.headers["content-type"] == expected


def test_format_out_may_be_a_field_of_the_body(client, water):
    reply = client.post("/v1/initial-guess", json={**water, "format_out": "molden"})
    assert reply.headers["content-type"] == "chemical/x-molden"
    both = client.post("/v1/initial-guess?format_out=chk", json={**water, "format_out": "molden"})
    assert (both.status_code, both.json()["code"]) == (422, "invalid_request")


def test_multipart_downloads_a_chkfile(client, water_xyz):
    reply = client.post("/v1/initial-guess?format_out=chk", files={"file": ("water.xyz", water_xyz)})
    assert reply.content.startswith(b"\x89HDF\r\n")


@pytest.mark.parametrize("file_format", ["json", "chk", "npz"])
def test_another_functional_is_a_warning_in_every_format(client, water, file_format):
    body = {**water, "xc": "tpss"}
    reply = client.post(f"/v1/initial-guess?format_out={file_format}", json=body)
    assert reply.status_code == 200
    assert any("xc mismatch" in value for value in reply.headers.get_list("warning"))
    if file_format == "json":
        assert any("xc mismatch" in warning for warning in reply.json()["warnings"])


def test_the_models_own_functional_and_basis_are_no_warning(client, water):
    meta = client.post("/v1/initial-guess", json=water).json()["meta"]
    body = {**water, "xc": meta["xc"].upper(), "basis": meta["basis"].upper().replace("-", "")}
    reply = client.post("/v1/initial-guess", json=body)
    assert reply.status_code == 200
    assert not any("mismatch" in warning for warning in reply.json()["warnings"])


@pytest.mark.parametrize("file_format", ["json", "chk", "npz"])
def test_another_basis_is_answered_in_the_models_own_and_a_warning_in_every_format(client, water, file_format):
    reply = client.post(f"/v1/initial-guess?format_out={file_format}", json={**water, "basis": "6-31g*"})
    assert reply.status_code == 200
    assert "basis mismatch" in reply.headers["warning"]
    if file_format == "json":
        plain = client.post("/v1/initial-guess", json=water).json()
        assert plain["meta"]["projected"] is reply.json()["meta"]["projected"] is False
        assert plain["meta"]["basis"] == reply.json()["meta"]["basis"]
        assert plain["results"] == reply.json()["results"]


def test_further_outputs_are_added(client, water):
    reply = client.post("/v1/initial-guess", json={**water, "outputs": ["hamiltonian"]})
    assert set(reply.json()["results"]) == {
        "density_matrix",
        "mo_coeff",
        "occupations",
        "orbital_energies",
        "hamiltonian",
    }


@pytest.mark.parametrize("option", [{"ao_order": "e3nn"}, {"energy_unit": "eV"}, {"outputs": ["overlap"]}])
def test_a_file_format_does_not_silently_ignore_options(client, water, option):
    reply = client.post("/v1/initial-guess?format_out=chk", json={**water, **option})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")
    assert reply.json()["field"] == next(iter(option))


@pytest.mark.parametrize("query", ["format_out=fchk", "format_out=gbw"])
def test_a_format_that_is_not_there_is_not_acceptable(client, water, query):
    reply = client.post(f"/v1/initial-guess?{query}", json=water)
    assert (reply.status_code, reply.json()["code"]) == (406, "not_acceptable")
    assert "chk" in reply.json()["allowed"]
