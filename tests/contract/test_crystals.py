"""Crystals through the service: blocks of H(R), S(R) and D(R), the Fermi level, other programs' folders, and refusals."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
import scipy.linalg
from ase import Atoms
from ase.io import write

from model.blocks.matrices import dense_matrix
from model.checkpoint import store
from model.formats import registry
from model.units import EV_PER_HARTREE
from service.app import create_app
from service.crystals import folders
from service.settings import Settings
from tests.contract.alike import archives_alike
from tests.contract.waiting import wait_until
from tests.model.test_crystals import sheet, write_checkpoint
from tests.tolerances import SAME_FLOAT64

MATRICES = ["blocks", "overlap_blocks", "density_blocks", "fermi_energy"]
ELECTRONS = 8
ORBITALS = 8
FORMAT_TOLERANCE = 1e-12
"""Of matrices that went through a file, hartree; sparse text has as many digits as it takes."""

SIESTA_TOLERANCE = 1e-9
"""Of .HSX and .DM, hartree and 1."""
SISL_TOLERANCE = 1e-8 / EV_PER_HARTREE
K_POINTS = ((0.0, 0.0, 0.0), (0.21, -0.4, 0.0))


@pytest.fixture(scope="module")
def both(serve: Any, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A model for molecules and one for sheets of boron nitride, with random weights."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "default").symlink_to(tiny_checkpoint, target_is_directory=True)
    write_checkpoint(folder / "bn")
    settings = Settings(checkpoints=folder, device="cpu", max_k_cost=ORBITALS**3 * 500)
    with serve(create_app(settings)) as client:
        yield client


def body_of(atoms: Atoms, **options: Any) -> dict[str, Any]:
    structure = {
        "kind": "atoms",
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": np.asarray(atoms.cell).tolist(),
        "pbc": atoms.pbc.tolist(),
    }
    return {"structure": structure, **options}


def at(blocks: list[dict[str, Any]], k: Any) -> np.ndarray[Any, Any]:
    """Sum over R of M(R) exp(2 pi i k.R) from the answer alone, (orbital, orbital); two atoms of four orbitals."""
    matrix = np.zeros((ORBITALS, ORBITALS), dtype=complex)
    for entry in blocks:
        row, column = (slice(4 * entry[atom], 4 * entry[atom] + 4) for atom in "ij")
        matrix[row, column] += np.array(entry["matrix"]) * np.exp(2j * np.pi * np.dot(k, entry["shift"]))
    return matrix


@pytest.fixture(scope="module")
def answered(both: httpx.Client) -> dict[str, Any]:
    reply = both.post("/v1/predict", json=body_of(sheet(), outputs=MATRICES, kmesh="3x3x1"))
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def test_the_fermi_level_lies_where_the_blocks_own_levels_end(answered):
    mesh = [(a / 3, b / 3, 0.0) for a in range(3) for b in range(3)]
    results = answered["results"]
    levels = np.array(
        [scipy.linalg.eigh(at(results["blocks"], k), at(results["overlap_blocks"], k), eigvals_only=True) for k in mesh]
    )
    full, empty = levels[:, : ELECTRONS // 2].max(), levels[:, ELECTRONS // 2 :].min()
    assert empty - full > 1e-3, "this sheet is an insulator"
    assert abs(results["fermi_energy"] - (full + empty) / 2) < SAME_FLOAT64
    assert abs(results["gap"] - (empty - full)) < SAME_FLOAT64
    assert answered["checks"]["gap"] == results["gap"]
    assert not results["is_metal"]
    smallest = min(scipy.linalg.eigvalsh(at(results["overlap_blocks"], k))[0] for k in mesh)
    assert abs(answered["checks"]["smallest_overlap_eigenvalue"] - smallest) < SAME_FLOAT64


def test_the_density_holds_the_valence_electrons(answered):
    results = answered["results"]
    overlap = {(b["i"], b["j"], *b["shift"]): np.array(b["matrix"]) for b in results["overlap_blocks"]}
    traces = [np.sum(np.array(b["matrix"]) * overlap[b["i"], b["j"], *b["shift"]]) for b in results["density_blocks"]]
    assert abs(sum(traces) - ELECTRONS) < 1e-9
    assert (answered["meta"]["n_electrons"], answered["meta"]["n_ao"]) == (ELECTRONS, ORBITALS)
    assert results["atom_offsets"] == [0, 4, 8]
    assert answered["meta"]["ao_labels"][:2] == ["0 B s1", "0 B p1 m=+1"]


def test_binary_answers_hold_the_same_flat(both, answered):
    listed = answered["results"]
    for form in ("npz", "safetensors"):
        body = body_of(sheet(), outputs=MATRICES, kmesh="3x3x1", format_out=form)
        content = both.post("/v1/predict", json=body).content
        arrays = dict(np.load(io.BytesIO(content))) if form == "npz" else safetensors.numpy.load(content)
        rows = [[*b["shift"], b["i"], b["j"]] for b in listed["blocks"]]
        assert arrays["pairs"].tolist() == rows
        assert arrays["shapes"].tolist() == [[4, 4]] * len(rows)
        for name, output in (("hamiltonian", "blocks"), ("overlap", "overlap_blocks"), ("density", "density_blocks")):
            flat = np.concatenate([np.ravel(b["matrix"]) for b in listed[output]])
            assert np.array_equal(arrays[name], flat)
    meta = json.loads(
        bytes(np.load(io.BytesIO(both.post("/v1/predict", json={**body, "format_out": "npz"}).content))["meta"])
    )
    assert meta["results"]["fermi_energy"] == listed["fermi_energy"]
    assert meta["results"]["blocks"][0] == {"i": 0, "j": 0, "shift": [0, 0, 0]}


def test_units_and_orders_are_as_asked_for(both, answered):
    ev = both.post("/v1/predict", json=body_of(sheet(), outputs=MATRICES, kmesh="3x3x1", energy_unit="eV")).json()
    assert ev["meta"]["cached"]
    ours, theirs = answered["results"], ev["results"]
    for name in ("fermi_energy", "gap"):
        assert abs(theirs[name] - ours[name] * EV_PER_HARTREE) < 1e-12
    assert np.allclose(
        theirs["blocks"][3]["matrix"], np.array(ours["blocks"][3]["matrix"]) * EV_PER_HARTREE, rtol=1e-14
    )
    for name in ("overlap_blocks", "density_blocks"):
        assert theirs[name] == ours[name]
    e3nn = both.post("/v1/predict", json=body_of(sheet(), outputs=["blocks"], ao_order="e3nn")).json()
    order = [0, 2, 3, 1]  # s, then y, z, x of x, y, z
    assert np.array_equal(
        e3nn["results"]["blocks"][2]["matrix"], np.array(ours["blocks"][2]["matrix"])[np.ix_(order, order)]
    )
    assert e3nn["meta"]["ao_labels"][:2] == ["0 B s1", "0 B p1 m=-1"]


def test_what_is_left_open_is_said(both):
    answer = both.post("/v1/predict", json=body_of(sheet())).json()
    assert {"outputs=fermi_energy", "kmesh=12x12x1", "model=bn"} <= set(answer["defaults_applied"])
    assert not [text for text in answer["defaults_applied"] if text.startswith("outputs=orbital")]
    assert set(answer["results"]) == {"fermi_energy", "gap", "is_metal"}
    text = io.StringIO()
    write(text, sheet(), format="extxyz")
    file = both.post("/v1/predict?kmesh=12x12x1", files={"file": ("bn.extxyz", text.getvalue())}).json()
    assert abs(file["results"]["fermi_energy"] - answer["results"]["fermi_energy"]) < 1e-5  # positions of 8 digits


@pytest.mark.parametrize("form", ["deeph", "deeph-legacy", "abacus"])
def test_folders_of_other_programs_hold_the_answers_matrices(both, answered, form, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "PROGRAMS", {})  # as if the basis were ABACUS's own
    reply = both.post("/v1/predict", json=body_of(sheet(), kmesh="3x3x1", format_out=form))
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/zip"
    assert 'filename="prediction.zip"' in reply.headers["content-disposition"]
    again = both.post("/v1/predict", json=body_of(sheet(), kmesh="3x3x1", format_out=form))
    assert again.content == reply.content
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        archive.extractall(tmp_path)
    read = registry.read(tmp_path / "prediction", form).in_order("pyscf")
    for output, blocks in (("blocks", read.hamiltonian), ("overlap_blocks", read.overlap)):
        expected = {(b["i"], b["j"], *b["shift"]): np.array(b["matrix"]) for b in answered["results"][output]}
        assert blocks is not None
        keys = [tuple(key) for key in blocks.pairs.keys.tolist()]
        found = dict(zip(keys, (block[0] for block in blocks), strict=True))
        for key, matrix in expected.items():
            assert np.abs(found.pop(key, np.zeros((4, 4))) - matrix).max() < FORMAT_TOLERANCE
        assert not any(np.any(block) for block in found.values())
    if form == "abacus":
        assert "init_chg hr" in (tmp_path / "prediction" / "INPUT").read_text()
    else:
        assert read.fermi_energy_hartree == pytest.approx(answered["results"]["fermi_energy"], abs=1e-12)


def test_a_program_s_own_files_are_for_models_in_its_basis(both):
    problem = both.post("/v1/predict", json=body_of(sheet(), format_out="abacus")).json()
    assert (problem["status"], problem["code"], problem["field"]) == (422, "unsupported_basis", "format_out")
    assert "gth-szv" in problem["detail"]
    card = store.load(Path(__file__).resolve().parents[2] / "checkpoints" / "bcn").card
    own = card.model_copy(update={"basis": card.basis.model_copy(update={"order": "abacus"})})
    folders.refuse_unwritable(own, "abacus")
    for name in ("deeph", "deeph-legacy", "npz"):
        folders.refuse_unwritable(card, name)
    for route in ("predict", "initial-guess"):
        problem = both.post(f"/v1/{route}", json=body_of(sheet(), format_out="siesta")).json()
        assert (problem["status"], problem["code"]) == (422, "unsupported_basis")
        assert "SIESTA" in problem["detail"]


@pytest.mark.parametrize("route", ["predict", "initial-guess"])
def test_siesta_starts_from_the_density(both, route, tmp_path, monkeypatch):
    pytest.importorskip("sisl", reason="SIESTA's files are written by sisl")
    monkeypatch.setattr(folders, "PROGRAMS", {})  # as if the basis were SIESTA's own
    reply = both.post(f"/v1/{route}", json=body_of(sheet(), kmesh="3x3x1", format_out="siesta"))
    assert reply.status_code == 200, reply.text
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        archive.extractall(tmp_path)
    expected = both.post("/v1/predict", json=body_of(sheet(), kmesh="3x3x1", outputs=MATRICES)).json()["results"]
    read = registry.read(tmp_path / "prediction", "siesta").in_order("pyscf")
    assert read.n_electrons == ELECTRONS
    for k in K_POINTS:
        density, overlap = dense_matrix(read.density, k), dense_matrix(read.overlap, k)
        assert np.abs(density - at(expected["density_blocks"], k)).max() < SIESTA_TOLERANCE
        assert np.abs(overlap - at(expected["overlap_blocks"], k)).max() < SIESTA_TOLERANCE
        shifted = at(expected["blocks"], k) - expected["fermi_energy"] * at(expected["overlap_blocks"], k)
        assert np.abs(dense_matrix(read.hamiltonian, k) - shifted).max() < SIESTA_TOLERANCE
    assert "DM.UseSaveDM true" in (tmp_path / "prediction" / "siesta.fdf").read_text()


def test_sisl_has_our_eigenvalues(both, tmp_path):
    sisl = pytest.importorskip("sisl", reason="sisl reads its own files")
    pytest.importorskip("netCDF4", reason="sisl's .nc are netCDF")
    reply = both.post("/v1/predict", json=body_of(sheet(), kmesh="3x3x1", format_out="sisl"))
    assert reply.status_code == 200, reply.text
    assert (reply.headers["content-type"], reply.content[1:4]) == ("application/x-netcdf", b"HDF")
    file = tmp_path / "prediction.nc"
    file.write_bytes(reply.content)
    read = sisl.get_sile(str(file)).read_hamiltonian()
    expected = both.post("/v1/predict", json=body_of(sheet(), kmesh="3x3x1", outputs=MATRICES)).json()["results"]
    for k in K_POINTS:
        levels = scipy.linalg.eigvalsh(at(expected["blocks"], k), at(expected["overlap_blocks"], k))
        found = read.eigh(k=k) / EV_PER_HARTREE + expected["fermi_energy"]
        assert np.abs(found - levels).max() < SISL_TOLERANCE


def test_what_is_not_installed_is_said(both, monkeypatch):
    monkeypatch.setattr(folders, "PACKAGES", {"sisl": ("no_such_package",)})
    problem = both.post("/v1/predict", json=body_of(sheet(), format_out="sisl")).json()
    assert (problem["status"], problem["code"], problem["field"]) == (406, "not_acceptable", "format_out")
    assert "no_such_package" in problem["detail"]
    assert "deeph" in problem["allowed"]


def test_the_tag_knows_the_mesh_and_the_prediction_does_not(both):
    first = both.post("/v1/predict", json=body_of(sheet(4), kmesh="2x2x1"))
    tag = first.headers["etag"]
    same = both.post("/v1/predict", json=body_of(sheet(4), kmesh="2x2x1"), headers={"If-None-Match": tag})
    other = both.post("/v1/predict", json=body_of(sheet(4), kmesh="4x4x1"), headers={"If-None-Match": tag})
    assert (same.status_code, other.status_code) == (304, 200)
    assert (first.json()["meta"]["cached"], other.json()["meta"]["cached"]) == (False, True)


def test_batches_and_jobs_answer_crystals_too(both, water):
    body = {"structures": [body_of(sheet())["structure"], water["structure"]]}
    items = both.post("/v1/predict/batch", json=body).json()["items"]
    assert [item["answer"]["meta"]["model"] for item in items] == ["bn", "tiny"]
    assert ["fermi_energy" in item["answer"]["results"] for item in items] == [True, False]
    job = both.post("/v1/jobs", json=body_of(sheet(), kmesh="3x3x1", format_out="deeph")).json()
    wait_until(lambda: both.get(job["links"]["status"]).json()["state"] == "done")
    result = both.get(job["links"]["result"])
    direct = both.post("/v1/predict", json=body_of(sheet(), kmesh="3x3x1", format_out="deeph"))
    assert archives_alike(result.content, direct.content, tolerance=1e-4)  # eV; the network is single precision


@pytest.mark.parametrize(
    ("options", "status", "code", "field", "words"),
    [
        ({"outputs": ["mo_coeff"]}, 422, "invalid_request", "outputs", "A crystal does not have"),
        ({"kmesh": "3x3x2"}, 422, "invalid_request", "kmesh", "not periodic"),
        ({"kmesh": "3x3"}, 422, "invalid_request", "kmesh", "pattern"),
        ({"kmesh": "0x3x1"}, 422, "invalid_request", "kmesh", "pattern"),
        ({"kmesh": "99x99x1"}, 413, "too_many_k_points", "kmesh", "4901 k-points of 8 orbitals"),
        ({"format_out": "chk"}, 406, "not_acceptable", "format_out", "not available"),
        ({"format_out": "deeph", "outputs": ["blocks"]}, 422, "invalid_request", "outputs", "its own contents"),
        ({"model": "tiny"}, 422, "unsupported_periodicity", "pbc", "for molecules"),
        ({"charge": 1}, 422, "unsupported_charge", "charge", "Charge 1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(both, options, status, code, field, words):
    reply = both.post("/v1/predict", json=body_of(sheet(), **options))
    problem = reply.json()
    assert (reply.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert words in problem["detail"], problem
    assert problem.get("hint") or problem.get("allowed") or "pattern" in words or code == "unsupported_charge"


def test_molecules_have_nothing_of_crystals_and_the_reverse(both, water):
    for options, field in (
        ({"outputs": ["fermi_energy"]}, "outputs"),
        ({"kmesh": "2x2x2"}, "kmesh"),
        ({"format_out": "deeph"}, "format_out"),
    ):
        problem = both.post("/v1/predict", json={**water, **options}).json()
        assert (problem["code"], problem["field"]) == ("invalid_request", field)


def test_with_molecular_models_alone_a_crystal_is_refused_by_name(client):
    problem = client.post("/v1/predict", json=body_of(sheet())).json()
    assert (problem["status"], problem["code"]) == (422, "unsupported_periodicity")
    assert "'tiny' is for molecules" in problem["detail"]


@pytest.fixture(scope="module")
def without_overlap(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("none")
    write_checkpoint(folder / "bn", "none")
    with serve(create_app(Settings(checkpoints=folder, device="cpu"))) as client:
        yield client


def test_a_model_without_an_overlap_gives_blocks_and_says_what_it_lacks(without_overlap):
    reply = without_overlap.post("/v1/predict", json=body_of(sheet(), outputs=["blocks"]))
    assert reply.status_code == 200, reply.text
    assert reply.json()["checks"]["smallest_overlap_eigenvalue"] is None
    problem = without_overlap.post("/v1/predict", json=body_of(sheet())).json()
    assert (problem["code"], problem["field"], problem["allowed"]) == ("invalid_request", "outputs", ["blocks"])
