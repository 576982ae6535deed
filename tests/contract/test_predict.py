"""What /v1/predict sends back: the right arrays, in the asked order and unit, whichever way the structure came."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from ase import Atoms
from ase.io import write
from pyscf import gto
from pyscf.data import nist

from model.predictor import Predictor
from model.structure import Structure

ROUND_TRIP = 0.0
"""JSON and binary formats carry float64 exactly."""
EXACT = 1e-9
EV_TOLERANCE = 1e-7
"""CODATA sets of different years differ by a few 1e-9."""

ALL_OUTPUTS = ["orbital_energies", "hamiltonian", "overlap", "mo_coeff", "density_matrix", "blocks"]
WITH_ENERGIES = {"orbital_energies", "occupations", "homo", "lumo", "gap"}


def ask(client: httpx.Client, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    reply = client.post("/v1/predict", json={**body, **options})
    assert reply.status_code == 200, reply.text
    return reply.json()


def array(answer: dict[str, Any], name: str) -> np.ndarray:
    return np.array(answer["results"][name])


@pytest.fixture(scope="module")
def mole(client: httpx.Client) -> Any:
    """PySCF's own water, built without our code."""
    return gto.M(
        atom=[("O", (0, 0, 0.119)), ("H", (0, 0.763, -0.477)), ("H", (0, -0.763, -0.477))],
        basis="def2-svp",
        unit="Angstrom",
        verbose=0,
    )


def test_default_output_is_the_orbital_energies_and_what_comes_with_them(client, water):
    answer = ask(client, water)
    assert set(answer) == {"meta", "results", "checks", "warnings", "defaults_applied"}
    assert set(answer["results"]) == WITH_ENERGIES
    results = answer["results"]
    energies, occupations = results["orbital_energies"], results["occupations"]
    assert energies == sorted(energies)
    assert sum(occupations) == answer["meta"]["n_electrons"] == 10
    assert results["homo"] == energies[4]
    assert results["lumo"] == energies[5]
    assert results["gap"] == pytest.approx(energies[5] - energies[4], abs=EXACT)
    assert answer["checks"]["gap"] == pytest.approx(results["gap"], abs=EXACT)


def test_every_default_is_reported_and_none_that_was_given(client, water):
    assert set(ask(client, water)["defaults_applied"]) == {
        "charge=0",
        "multiplicity=1",
        f"model={ask(client, water)['meta']['model']}",
        "outputs=orbital_energies",
        "ao_order=pyscf",
        "energy_unit=hartree",
    }
    name = ask(client, water)["meta"]["model"]
    given = {"charge": 0, "multiplicity": 1, "model": name, "outputs": ["overlap"], "ao_order": "pyscf"}
    assert ask(client, water, **given, energy_unit="hartree")["defaults_applied"] == []


@pytest.mark.parametrize("output", ALL_OUTPUTS)
def test_only_what_was_asked_for_is_present(client, water, output):
    expected = {"orbital_energies": WITH_ENERGIES, "blocks": {"blocks", "atom_offsets"}}.get(output, {output})
    assert set(ask(client, water, outputs=[output])["results"]) == expected


def test_labels_and_overlap_are_those_of_pyscf(client, water, mole):
    answer = ask(client, water, outputs=["overlap"])
    assert answer["meta"]["ao_labels"] == [label.strip() for label in mole.ao_labels()]
    assert answer["meta"]["n_ao"] == mole.nao
    np.testing.assert_allclose(array(answer, "overlap"), mole.intor("int1e_ovlp"), atol=EXACT)


def test_arrays_satisfy_the_equations_that_define_them(client, water, mole):
    answer = ask(client, water, outputs=ALL_OUTPUTS)
    h, c, d = (array(answer, name) for name in ("hamiltonian", "mo_coeff", "density_matrix"))
    energies, occupations = array(answer, "orbital_energies"), array(answer, "occupations")
    s = mole.intor("int1e_ovlp")
    scale = np.abs(h).max()
    np.testing.assert_allclose(h, h.T, atol=EXACT)
    np.testing.assert_allclose(h @ c, s @ c * energies, atol=EXACT * scale)
    np.testing.assert_allclose(c.T @ s @ c, np.eye(c.shape[1]), atol=EXACT)
    np.testing.assert_allclose(d, c * occupations @ c.T, atol=EXACT)
    assert np.trace(d @ s) == pytest.approx(10, abs=EXACT)
    assert answer["checks"]["trace_error"] < EXACT
    assert answer["checks"]["idempotency_error"] < EXACT


def test_the_wire_carries_the_predictors_own_numbers(client, water, predictor: Predictor):
    structure = Structure(np.array([8, 1, 1]), np.array(water["structure"]["positions"]))
    (expected,) = predictor.predict([structure])
    answer = ask(client, water, outputs=["hamiltonian"])
    scale = np.abs(expected.hamiltonian).max()
    np.testing.assert_allclose(array(answer, "hamiltonian"), expected.hamiltonian, atol=1e-6 * scale)
    assert answer["meta"]["sha256"] == predictor.card.weights_sha256
    assert (answer["meta"]["model"], answer["meta"]["xc"]) == (predictor.card.name, predictor.card.xc)


def test_blocks_tile_the_hamiltonian(client, water):
    answer = ask(client, water, outputs=["hamiltonian", "blocks"])
    offsets = answer["results"]["atom_offsets"]
    assert offsets == [0, 14, 19, 24]
    tiled = np.full((24, 24), np.nan)
    for block in answer["results"]["blocks"]:
        assert block["shift"] == [0, 0, 0]
        i, j = block["i"], block["j"]
        tiled[offsets[i] : offsets[i + 1], offsets[j] : offsets[j + 1]] = block["matrix"]
    np.testing.assert_array_equal(tiled, array(answer, "hamiltonian"))


def test_the_hamiltonian_alone_needs_no_eigensolve(client, water):
    answer = ask(client, water, outputs=["hamiltonian"])
    assert answer["checks"]["gap"] is None
    assert answer["checks"]["trace_error"] is None


def test_electronvolts_scale_energies_and_nothing_else(client, water):
    hartree = ask(client, water, outputs=ALL_OUTPUTS)
    ev = ask(client, water, outputs=ALL_OUTPUTS, energy_unit="eV")
    assert ev["meta"]["energy_unit"] == "eV"
    for name in ("orbital_energies", "hamiltonian"):
        np.testing.assert_allclose(array(ev, name), array(hartree, name) * nist.HARTREE2EV, rtol=EV_TOLERANCE)
    for name in ("homo", "lumo", "gap"):
        assert ev["results"][name] == pytest.approx(hartree["results"][name] * nist.HARTREE2EV, rel=EV_TOLERANCE)
    assert ev["checks"]["gap"] == pytest.approx(ev["results"]["gap"], rel=EV_TOLERANCE)
    one, other = hartree["results"]["blocks"][1]["matrix"], ev["results"]["blocks"][1]["matrix"]
    np.testing.assert_allclose(other, np.array(one) * nist.HARTREE2EV, rtol=EV_TOLERANCE)
    for name in ("overlap", "density_matrix", "mo_coeff", "occupations"):
        np.testing.assert_array_equal(array(ev, name), array(hartree, name))


def test_e3nn_order_moves_labels_and_every_array_alike(client, water):
    """Entry (a, b) by label is the same number in both orders, and p shells run y, z, x."""
    ours = ask(client, water, outputs=ALL_OUTPUTS)
    theirs = ask(client, water, outputs=ALL_OUTPUTS, ao_order="e3nn")
    labels, moved = ours["meta"]["ao_labels"], theirs["meta"]["ao_labels"]
    assert theirs["meta"]["ao_order"] == "e3nn"
    assert [label for label in moved if "2p" in label][:3] == ["0 O 2py", "0 O 2pz", "0 O 2px"]
    assert sorted(labels) == sorted(moved)
    at = [labels.index(label) for label in moved]
    for name in ("hamiltonian", "overlap", "density_matrix"):
        np.testing.assert_array_equal(array(theirs, name), array(ours, name)[np.ix_(at, at)])
    np.testing.assert_array_equal(array(theirs, "mo_coeff"), array(ours, "mo_coeff")[at])
    np.testing.assert_array_equal(array(theirs, "orbital_energies"), array(ours, "orbital_energies"))
    blocks = {(block["i"], block["j"]): np.array(block["matrix"]) for block in theirs["results"]["blocks"]}
    np.testing.assert_array_equal(blocks[0, 1], array(theirs, "hamiltonian")[:14, 14:19])


@pytest.mark.parametrize("by_header", [False, True])
def test_npz_carries_the_same_arrays_and_the_rest_as_json(client, water, by_header):
    body = {**water, "outputs": ALL_OUTPUTS}
    expected = ask(client, body)
    if by_header:
        reply = client.post("/v1/predict", json=body, headers={"Accept": "application/x-npz"})
    else:
        reply = client.post("/v1/predict?format_out=npz", json=body)
    assert reply.headers["content-type"] == "application/x-npz"
    stored = np.load(io.BytesIO(reply.content), allow_pickle=False)
    assert_same(expected, dict(stored), json.loads(bytes(stored["meta"])))


@pytest.mark.parametrize("by_header", [False, True])
def test_safetensors_carries_the_same_arrays_and_the_rest_as_json(client, water, by_header):
    body = {**water, "outputs": ALL_OUTPUTS}
    expected = ask(client, body)
    if by_header:
        reply = client.post("/v1/predict", json=body, headers={"Accept": "application/vnd.safetensors"})
    else:
        reply = client.post("/v1/predict?format_out=safetensors", json=body)
    assert reply.headers["content-type"] == "application/vnd.safetensors"
    size = int.from_bytes(reply.content[:8], "little")
    header = json.loads(reply.content[8 : 8 + size])
    assert_same(expected, safetensors.numpy.load(reply.content), json.loads(header["__metadata__"]["meta"]))


def assert_same(expected: dict[str, Any], stored: dict[str, np.ndarray], rest: dict[str, Any]) -> None:
    for name in ("hamiltonian", "overlap", "mo_coeff", "density_matrix", "orbital_energies", "atom_offsets"):
        np.testing.assert_allclose(stored[name], expected["results"][name], atol=ROUND_TRIP, rtol=0)
        assert name not in rest["results"]
    for block in expected["results"]["blocks"]:
        np.testing.assert_array_equal(stored[f"blocks.{block['i']}.{block['j']}"], block["matrix"])
    assert rest["results"]["gap"] == expected["results"]["gap"]
    assert rest["meta"]["ao_labels"] == expected["meta"]["ao_labels"]
    assert rest["checks"] == expected["checks"]
    assert rest["defaults_applied"] == expected["defaults_applied"]


def test_all_ways_to_send_one_structure_agree(client, water, water_xyz):
    expected = ask(client, water, outputs=["hamiltonian"])["results"]["hamiltonian"]
    options = {"outputs": "hamiltonian", "charge": "0"}
    chemical = {"Content-Type": "chemical/x-xyz"}
    plain = {"Content-Type": "text/plain; charset=utf-8"}
    bohr = (np.array(water["structure"]["positions"]) / nist.BOHR).ravel().tolist()
    qcschema = {"schema_name": "qcschema_molecule", "symbols": ["O", "H", "H"], "geometry": bohr}
    files = {"file": ("water.xyz", water_xyz)}
    unnamed = {"file": ("upload", water_xyz)}
    replies = {
        "multipart": client.post("/v1/predict", files=files, data=options),
        "multipart format": client.post("/v1/predict", files=unnamed, data={**options, "format": "xyz"}),
        "raw": client.post("/v1/predict", content=water_xyz, headers=chemical, params=options),
        "plain": client.post("/v1/predict", content=water_xyz, headers=plain, params={**options, "format": "xyz"}),
        "file": client.post(
            "/v1/predict",
            json={"structure": {"kind": "file", "format": "xyz", "text": water_xyz}, "outputs": ["hamiltonian"]},
        ),
        "qcschema": client.post(
            "/v1/predict",
            json={"structure": {"kind": "qcschema", "molecule": qcschema}, "outputs": ["hamiltonian"]},
        ),
    }
    for way, reply in replies.items():
        assert reply.status_code == 200, (way, reply.text)
        got = reply.json()["results"]["hamiltonian"]
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max(), err_msg=way)


@pytest.mark.parametrize("file_format", ["xyz", "extxyz", "proteindatabank", "mol", "sdf", "gen", "turbomole", "xsf"])
def test_molecular_formats_give_the_molecule_that_ase_wrote(client, water, file_format):
    expected = ask(client, water)["results"]["orbital_energies"]
    buffer = io.StringIO()
    atoms = Atoms(water["structure"]["numbers"], water["structure"]["positions"])
    write(buffer, atoms, format=file_format)
    body = {"structure": {"kind": "file", "format": file_format, "text": buffer.getvalue()}}
    # PDB keeps three decimals, MOL four: water's coordinates have three.
    np.testing.assert_allclose(ask(client, body)["results"]["orbital_energies"], expected, atol=1e-4)


def test_a_charge_stated_by_the_file_is_used_and_reported(client):
    text = "1\nProperties=species:S:1:pos:R:3 charge=-1\nF 0 0 0\n"
    reply = client.post("/v1/predict", json={"structure": {"kind": "file", "format": "extxyz", "text": text}})
    body = reply.json()
    if reply.status_code == 200:
        assert "charge=-1 (stated by the structure)" in body["defaults_applied"]
    else:
        # The model may not know anions; it must not have been taken for a neutral radical.
        assert body["code"] == "unsupported_charge"


def test_an_answer_names_the_request(client, water):
    reply = client.post("/v1/predict", json=water, headers={"X-Request-ID": "run-7.a_b"})
    assert reply.headers["x-request-id"] == reply.json()["meta"]["request_id"] == "run-7.a_b"
    odd = client.post("/v1/predict", json=water, headers={"X-Request-ID": "a b<script>"})
    assert odd.headers["x-request-id"] == odd.json()["meta"]["request_id"]
    assert "script" not in odd.headers["x-request-id"]
