"""Bands and densities of states through the service, against LAPACK on the answer's own blocks and against ASE's paths."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import scipy.linalg
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.spectrum.dosdata import RawDOSData

from model.units import EV_PER_HARTREE
from service.app import create_app
from service.settings import Settings
from tests.contract.test_crystals import ELECTRONS, ORBITALS, at, body_of
from tests.contract.waiting import wait_until
from tests.model.test_crystals import sheet, write_checkpoint
from tests.tolerances import SAME_FLOAT64

FOLDED_TOLERANCE = 1e-5
"""Levels of a supercell's Gamma and of the cell's own k-points, of a network in float32, hartree."""

GAMMA_TO_M = 2 * np.pi / (2.50 * np.sqrt(3))
"""Of a hexagonal lattice of 2.50 Å, 1/Å."""


@pytest.fixture(scope="module")
def crystals(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("crystals")
    write_checkpoint(folder / "bn")
    with serve(create_app(Settings(checkpoints=folder, device="cpu", max_k_cost=ORBITALS**3 * 1500))) as client:
        yield client


def asked(client: httpx.Client, route: str, atoms: Atoms, **options: Any) -> dict[str, Any]:
    reply = client.post(f"/v1/{route}", json=body_of(atoms, **options))
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def levels(client: httpx.Client, points: Any) -> np.ndarray[Any, Any]:
    """By LAPACK, from H(R) and S(R) as the service gives them, hartree."""
    blocks = asked(client, "predict", sheet(), outputs=["blocks", "overlap_blocks"])["results"]
    return np.array(
        [scipy.linalg.eigh(at(blocks["blocks"], k), at(blocks["overlap_blocks"], k), eigvals_only=True) for k in points]
    )


def test_bands_are_the_levels_of_the_blocks_along_ases_path(crystals):
    results = asked(crystals, "bands", sheet(), path="GMKG", npoints=40, kmesh="6x6x1")["results"]
    expected = sheet().cell.bandpath("GMKG", npoints=40, pbc=(True, True, False))
    assert np.allclose(results["kpts"], expected.kpts, atol=1e-12)
    assert [entry["label"] for entry in results["labels"]] == ["G", "M", "K", "G"]
    second = results["labels"][1]["index"]
    assert abs(results["distances"][second] - GAMMA_TO_M) < 1e-9
    assert np.abs(levels(crystals, results["kpts"]) - results["energies"]).max() < 1e-12
    assert results["band_indices"] == list(range(ORBITALS))


def test_gap_and_fermi_level_are_of_mesh_and_path_together(crystals):
    kpts = [[0.1, 0.0, 0.0]]
    answer = asked(crystals, "bands", sheet(), kpts=kpts, kmesh="1x1x1")
    results = answer["results"]
    found = levels(crystals, [[0.0, 0.0, 0.0], *kpts])
    full, empty = found[:, : ELECTRONS // 2].max(axis=1), found[:, ELECTRONS // 2 :].min(axis=1)
    assert full.argmax() == empty.argmin() == 1, "the path decides"
    assert abs(results["gap"] - (empty.min() - full.max())) < SAME_FLOAT64
    assert abs(results["fermi_energy"] - (empty.min() + full.max()) / 2) < SAME_FLOAT64
    assert not results["is_metal"]
    assert answer["checks"]["smallest_overlap_eigenvalue"] == results["smallest_overlap_eigenvalue"] > 0
    assert (results["labels"], results["path"]) == ([], None)
    crossing = asked(crystals, "bands", sheet(), kpts=[[0.5, 0.0, 0.0], [0.17, 0.05, 0.0]], kmesh="1x1x1")["results"]
    assert (crossing["is_metal"], crossing["gap"]) == (True, 0.0)


def test_a_window_keeps_the_bands_that_enter_it_and_units_are_as_asked_for(crystals):
    all_of_them = asked(crystals, "bands", sheet(), path="GM", npoints=9, energy_unit="eV")["results"]
    some = asked(crystals, "bands", sheet(), path="GM", npoints=9, energy_unit="eV", window_ev=[-1.0, 1.0])["results"]
    relative = np.array(all_of_them["energies"]) - all_of_them["fermi_energy"]
    kept = [band for band in range(ORBITALS) if np.any(np.abs(relative[:, band]) <= 1.0)]
    assert 0 < len(kept) < ORBITALS
    assert some["band_indices"] == kept
    assert np.array_equal(some["energies"], np.array(all_of_them["energies"])[:, kept])
    hartree = asked(crystals, "bands", sheet(), path="GM", npoints=9)["results"]
    assert np.allclose(np.array(hartree["energies"]) * EV_PER_HARTREE, all_of_them["energies"], atol=1e-12)


def test_the_usual_path_is_said_and_a_file_will_do(crystals):
    text = io.StringIO()
    write(text, sheet(), format="extxyz")
    file = {"file": ("bn.extxyz", text.getvalue())}
    answer = crystals.post("/v1/bands", files=file, data={"window_ev": "-3,3", "npoints": "30"}).json()
    assert {"path=GMKG", "kmesh=12x12x1"} <= set(answer["defaults_applied"])
    assert len(answer["results"]["kpts"]) == 30
    default = asked(crystals, "bands", sheet())
    assert len(default["results"]["kpts"]) == 100
    assert "npoints=100" in default["defaults_applied"]


def test_bulk_and_pieces_that_do_not_touch(crystals):
    results = asked(crystals, "bands", bulk("BN", "zincblende", a=5.0), path="GX,KG", npoints=30, kmesh="2x2x2")[
        "results"
    ]
    assert [entry["label"] for entry in results["labels"]] == ["G", "X", "K", "G"]
    x, k = results["labels"][1]["index"], results["labels"][2]["index"]
    assert k == x + 1
    assert results["distances"][k] == results["distances"][x]
    assert np.allclose(results["kpts"][k], [0.375, 0.375, 0.75])


def test_arrays_and_pictures_are_the_same_answer(crystals):
    body = body_of(sheet(), path="GMKG", npoints=20, kmesh="3x3x1")
    results = crystals.post("/v1/bands", json=body).json()["results"]
    arrays = np.load(io.BytesIO(crystals.post("/v1/bands?format_out=npz", json=body).content))
    assert np.array_equal(arrays["energies"], results["energies"])
    assert json.loads(bytes(arrays["meta"]))["results"]["labels"] == results["labels"]
    for route in ("bands", "dos"):
        plain = body if route == "bands" else body_of(sheet(), kmesh="3x3x1")
        png = crystals.post(f"/v1/{route}", json=plain, headers={"Accept": "image/png"})
        svg = crystals.post(f"/v1/{route}?format_out=svg", json=plain)
        assert (png.headers["content-type"], svg.headers["content-type"]) == ("image/png", "image/svg+xml")
        assert png.content.startswith(b"\x89PNG")
        assert b"<svg" in svg.content
        assert "E_F" in svg.text
        assert svg.content == crystals.post(f"/v1/{route}?format_out=svg", json=plain).content
    assert "Γ" in crystals.post("/v1/bands?format_out=svg", json=body).text


def test_without_matplotlib_there_are_numbers_only(crystals, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    problem = crystals.post("/v1/bands?format_out=png", json=body_of(sheet())).json()
    assert (problem["status"], problem["code"]) == (406, "not_acceptable")
    assert "pictures" in problem["hint"]
    assert crystals.post("/v1/bands", json=body_of(sheet(), kmesh="1x1x1")).status_code == 200


def test_the_density_of_states_counts_every_electron(crystals):
    options: dict[str, Any] = {"sigma_ev": 0.5, "window_ev": [-1000, 1000], "energy_unit": "eV"}
    results = asked(crystals, "dos", sheet(), kmesh="1x1x1", **options)["results"]
    energies, dos, integrated = (np.array(results[name]) for name in ("energies", "dos", "integrated"))
    assert results["gap"] > 20, "at Gamma alone it is wider than the Gaussians"
    assert abs(np.interp(results["fermi_energy"], energies, integrated) - ELECTRONS) < 1e-9
    assert abs(integrated[-1] - 2 * ORBITALS) < 1e-9
    steps = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(energies) * (dos[1:] + dos[:-1]))])
    assert np.abs(steps - integrated).max() < 0.03, "trapezia of a quarter of sigma"
    default = asked(crystals, "dos", sheet(), kmesh="3x3x1")
    assert {"window_ev=-10,10", "sigma_ev=0.1"} <= set(default["defaults_applied"])


def test_the_density_of_states_is_ases(crystals):
    results = asked(crystals, "dos", sheet(), kmesh="3x3x1", sigma_ev=0.2, energy_unit="eV")["results"]
    mesh = [(a / 3, b / 3, 0.0) for a in range(3) for b in range(3)]
    found = levels(crystals, mesh) * EV_PER_HARTREE
    raw = RawDOSData(found.ravel(), np.full(found.size, 2 / len(mesh)))
    grid = np.array(results["energies"])
    theirs = raw.sample_grid(len(grid), xmin=grid[0], xmax=grid[-1], width=0.2, smearing="Gauss")
    assert np.abs(theirs.get_weights() - results["dos"]).max() < 1e-9


@pytest.mark.parametrize(
    ("route", "options", "status", "code", "field", "words"),
    [
        ("bands", {"path": "GXK"}, 422, "invalid_request", "path", "G K M"),
        ("bands", {"path": "gmkg"}, 422, "invalid_request", "path", "G K M"),
        ("bands", {"path": "G"}, 422, "invalid_request", "path", ""),
        ("bands", {"path": "G;M"}, 422, "invalid_request", "path", "pattern"),
        ("bands", {"path": ",,"}, 422, "invalid_request", "path", "G K M"),
        ("bands", {"path": "GM", "kpts": [[0, 0, 0]]}, 422, "invalid_request", "kpts", "alone"),
        ("bands", {"npoints": 10**6}, 422, "invalid_request", "npoints", "2000"),
        ("bands", {"npoints": 1}, 422, "invalid_request", "npoints", "2"),
        ("bands", {"kpts": []}, 422, "invalid_request", "kpts", "At least 1"),
        ("bands", {"kpts": [[0, 0]]}, 422, "invalid_request", "kpts[0][2]", "needed"),
        ("bands", {"kpts": [[0, 0, 1e300]]}, 422, "invalid_request", "kpts[0][2]", "1000"),
        ("bands", {"npoints": 1600}, 413, "too_many_k_points", "kmesh", "At most 1500"),
        ("bands", {"window_ev": [1, -1]}, 422, "invalid_request", "window_ev", "Lowest"),
        ("bands", {"format_out": "png", "energy_unit": "eV"}, 422, "invalid_request", "energy_unit", "own"),
        ("bands", {"ao_order": "e3nn"}, 422, "invalid_request", None, "path"),
        ("bands", {"format_out": "deeph"}, 406, "not_acceptable", "format_out", "svg"),
        ("dos", {"sigma_ev": 0}, 422, "invalid_request", "sigma_ev", "0.001"),
        ("dos", {"sigma_ev": 0.001, "window_ev": [-100, 100]}, 422, "invalid_request", "window_ev", "narrower"),
        ("dos", {"kmesh": "99x99x1"}, 413, "too_many_k_points", "kmesh", "At most 1500"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(crystals, route, options, status, code, field, words):
    problem = crystals.post(f"/v1/{route}", json=body_of(sheet(), **options)).json()
    assert (problem["status"], problem["code"], problem.get("field")) == (status, code, field), problem
    said = f"{problem['detail']} {problem.get('hint')} {' '.join(map(str, problem.get('allowed') or []))}"
    assert words in said, problem


@pytest.mark.parametrize("route", ["bands", "dos"])
def test_no_cell_is_refused_before_any_model_is_asked(crystals, client, water, route):
    for served in (crystals, client):
        problem = served.post(f"/v1/{route}", json=water).json()
        assert (problem["status"], problem["code"], problem["field"]) == (422, "invalid_request", "pbc")
        assert "lattice vectors" in problem["hint"]
    text = crystals.post(
        f"/v1/{route}?format=xyz&window_ev=a", content="1\n\nH 0 0 0\n", headers={"Content-Type": "text/plain"}
    )
    assert (text.status_code, text.json()["field"]) == (422, "window_ev")


def test_a_slab_whose_vacuum_leans_has_the_path_of_its_plane(crystals):
    atoms = sheet()
    atoms.cell[2] = [3.0, 0.0, 12.0]
    results = asked(crystals, "bands", atoms, npoints=30, kmesh="3x3x1")["results"]
    assert results["path"] == "GMKG"
    assert not np.any(np.array(results["kpts"])[:, 2])


def test_a_direction_of_vacuum_is_not_in_the_usual_path(crystals):
    atoms = sheet()
    atoms.pbc = True  # as every POSCAR says
    atoms.cell[2, 2] = 20.0
    answer = asked(crystals, "bands", atoms, npoints=30)
    slab = answer["results"]
    assert {"path=GMKG", "kmesh=12x12x1"} <= set(answer["defaults_applied"])
    assert not np.any(np.array(slab["kpts"])[:, 2])
    named = asked(crystals, "bands", atoms, path="GA", npoints=5, kmesh="3x3x1")["results"]
    assert named["path"] == "GA", "what is named is taken"
    unknown = crystals.post("/v1/bands", json=body_of(atoms, path="GQ")).json()
    assert "the usual path here is GMKG." in unknown["hint"]
    atoms.cell[2, 2] = 8.0
    assert "A" in asked(crystals, "bands", atoms, npoints=30, kmesh="3x3x1")["results"]["path"]


def test_where_ase_has_no_names_kpts_are_taken(crystals, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("ase.cell.Cell.bandpath", fail)
    problem = crystals.post("/v1/bands", json=body_of(sheet())).json()
    assert (problem["status"], problem["code"], problem["field"]) == (422, "invalid_request", "path")
    assert "kpts" in problem["hint"]
    asked(crystals, "bands", sheet(), kpts=[[0, 0, 0]], kmesh="3x3x1")


def test_so_many_bands_around_the_fermi_level_are_those_of_all(crystals):
    options: dict[str, Any] = {"kpts": [[0.1, 0, 0], [0, 0.08, 0]], "kmesh": "1x1x1"}  # an insulator's, so far
    all_of_them = asked(crystals, "bands", sheet(), **options)["results"]
    few = asked(crystals, "bands", sheet(), **options, states=5)["results"]
    text = io.StringIO()
    write(text, sheet(), format="extxyz")
    in_form = {"path": "GM", "npoints": "3", "kmesh": "1x1x1", "states": "5"}
    answer = crystals.post("/v1/bands", files={"file": ("bn.extxyz", text.getvalue())}, data=in_form)
    assert 2 <= len(answer.json()["results"]["band_indices"]) <= 5
    kept = few["band_indices"]
    assert ELECTRONS // 2 in kept
    assert 2 <= len(kept) <= 5
    assert np.abs(np.array(all_of_them["energies"])[:, kept] - few["energies"]).max() < SAME_FLOAT64
    assert few["smallest_overlap_eigenvalue"] >= all_of_them["smallest_overlap_eigenvalue"]  # of the mesh alone
    for name in ("fermi_energy", "gap", "is_metal"):
        assert few[name] == pytest.approx(all_of_them[name], abs=SAME_FLOAT64)
    problem = crystals.post("/v1/bands", json=body_of(sheet(), states=ORBITALS)).json()
    assert (problem["code"], problem["field"]) == ("invalid_request", "states")
    problem = crystals.post("/v1/bands", json=body_of(sheet(), path="GMK", npoints=9, states=3)).json()  # a metal
    assert (problem["code"], problem["field"]) == ("numerical_failure", "states")


@pytest.fixture(scope="module")
def narrow(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server whose requests may have 40 orbitals, and whose jobs 150, or sparse as many as there are."""
    folder = tmp_path_factory.mktemp("narrow")
    write_checkpoint(folder / "bn")
    settings = Settings(
        checkpoints=folder,
        device="cpu",
        max_atoms=60,
        max_orbitals=40,
        job_max_atoms=64,
        job_max_orbitals=150,
        max_k_cost=ORBITALS**3 * 1500,
        job_max_k_cost=10**9,
        jobs="thread",
    )
    with serve(create_app(settings)) as client:
        yield client


def finished(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """A job's status and answer."""
    job = client.post("/v1/jobs", json=body)
    assert job.status_code == 202, job.text
    links = job.json()["links"]
    wait_until(lambda: client.get(links["status"]).json()["state"] in ("done", "failed"))
    return {"status": client.get(links["status"]).json(), "answer": client.get(links["result"]).json()}


def test_a_cell_too_large_for_all_bands_is_solved_around_the_fermi_level(narrow):
    large = sheet().repeat((5, 5, 1))  # 200 orbitals; of 10 K in the small cell Gamma is one
    body = body_of(large, kpts=[[0, 0, 0], [0.5, 0, 0]], kmesh="1x1x1")
    refused = narrow.post("/v1/bands", json=body).json()
    assert refused["code"] == "too_many_orbitals"
    assert "POST /v1/jobs" in refused["hint"]
    done = finished(narrow, {**body, "kind": "bands"})
    results = done["answer"]["results"]
    assert "states=40" in done["answer"]["defaults_applied"]
    assert ELECTRONS * 25 // 2 in results["band_indices"]
    points = [[a / 5, b / 5, 0] for a in range(5) for b in range(5)]
    small = np.sort(np.ravel(asked(narrow, "bands", sheet(), kpts=points, kmesh="1x1x1")["results"]["energies"]))
    folded = small[results["band_indices"]]
    assert np.abs(folded - results["energies"][0]).max() < FOLDED_TOLERANCE


def test_hints_name_what_helps(narrow):
    """What a refusal advises is taken, and where nothing larger is open it is not advised."""
    dense = body_of(sheet().repeat((3, 3, 1)), sigma_ev=0.3, window_ev=[-5, 5], kmesh="1x1x1")  # 72 orbitals
    refused = narrow.post("/v1/dos", json=dense).json()
    assert (refused["code"], "POST /v1/jobs" in refused["hint"]) == ("too_many_orbitals", True)
    assert finished(narrow, {**dense, "kind": "dos"})["status"]["state"] == "done"
    larger = body_of(sheet().repeat((5, 5, 1)), sigma_ev=0.3, window_ev=[-5, 5], kmesh="1x1x1")
    refused = narrow.post("/v1/dos", json=larger).json()
    assert (refused["code"], "jobs" in refused["hint"]) == ("too_many_orbitals", False)
    refused = narrow.post("/v1/jobs", json={**larger, "kind": "dos"}).json()
    assert (refused["code"], "jobs" in refused["hint"]) == ("too_many_orbitals", False)
    many = body_of(sheet(), path="GMKG", npoints=2000)
    refused = narrow.post("/v1/bands", json=many).json()
    assert refused["code"] == "too_many_k_points"
    assert "POST /v1/jobs takes it" in refused["hint"]
    assert narrow.post("/v1/jobs", json={**many, "kind": "bands"}).status_code == 202
    huge = body_of(sheet().repeat((6, 6, 1)))
    refused = narrow.post("/v1/bands", json=huge).json()
    assert (refused["code"], "jobs" in refused["hint"]) == ("too_many_atoms", False)


def test_the_same_key_is_the_same_job_of_bands(narrow):
    body = {**body_of(sheet(), path="GMK", npoints=5, kmesh="1x1x1"), "kind": "bands"}
    first, second = (narrow.post("/v1/jobs", json=body, headers={"Idempotency-Key": "bands-1"}).json() for _ in "12")
    assert first["id"] == second["id"]
    other = narrow.post("/v1/jobs", json={**body, "npoints": 6}, headers={"Idempotency-Key": "bands-1"})
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("kind", "options"),
    [("bands", {"path": "GMK", "npoints": 12}), ("dos", {"sigma_ev": 0.3, "window_ev": [-5, 5]})],
)
def test_jobs_give_bands_and_densities_of_states_too(crystals, kind, options):
    """A picture, and the numbers of a request: to rounding, since products of matrices depend on where they lie."""
    body = body_of(sheet(), kmesh="3x3x1", **options)
    found = {}
    for form in ("svg", "npz"):
        job = crystals.post("/v1/jobs", json={**body, "kind": kind, "format_out": form})
        assert job.status_code == 202, job.text
        links = job.json()["links"]
        wait_until(lambda: crystals.get(links["status"]).json()["state"] == "done")  # noqa: B023 (called at once)
        (artifact,) = crystals.get(links["status"]).json()["artifacts"]
        assert (artifact["name"], artifact["bytes"]) == (f"{kind}.{form}", len(crystals.get(links["result"]).content))
        found[form] = crystals.get(links["result"])
    assert found["svg"].headers["content-type"] == "image/svg+xml"
    assert b"<svg" in found["svg"].content
    arrays = np.load(io.BytesIO(found["npz"].content))
    results = crystals.post(f"/v1/{kind}", json=body).json()["results"]
    name = "energies" if kind == "bands" else "integrated"
    assert np.abs(arrays[name] - results[name]).max() < 1e-4


@pytest.mark.parametrize(("kind", "name", "value"), [("dos", "path", "GMK"), ("bands", "sigma_ev", 0.1)])
def test_a_job_has_the_options_of_its_kind_alone(crystals, kind, name, value):
    problem = crystals.post("/v1/jobs", json={**body_of(sheet()), "kind": kind, name: value}).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    assert name not in problem["hint"].removeprefix("Allowed here: ").split(", ")
    assert "kmesh" in problem["hint"]
