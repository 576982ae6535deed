"""Files of people who do this job, through HTTP: each is answered with what it means, or refused with a way out.

The files themselves are in the shared data where these are; the kinds that they stand for are tested in
``tests/model/structure_files``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.app import create_app
from tests.conftest import shared_file
from tests.model.structure_files.methanol import BOHR, POSITIONS, xyz

METHANOL = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=2)
ANSWERS: dict[str, int] = {
    "01_turbomole_angs.tmol": 18,
    "12_methanol_V3000.sdf": 18,
    "15_methanol_bohr.xyz": 18,
    "19_water_altloc.pdb": 10,
    "21_cryst1_dummy.pdb": 18,
    "23_noelement_names.pdb": 18,
    "24_deuterium.xyz": 18,
    "25_atomic_numbers.xyz": 18,
    "28_latin1_comment.xyz": 18,
    "29_comment_properties_word.xyz": 18,
    "34_methanol.gjf": 18,
    "36_leading_blank.xyz": 18,
}
"""Electrons by file."""

REFUSALS: dict[str, tuple[str, str]] = {
    "02_turbomole_periodic.tmol": ("unsupported_periodicity", ""),
    "03_oxalate_MCHG.sdf": ("unsupported_charge", "Charge -2"),
    "04_oxalate_comment.xyz": ("unsupported_charge", "Charge -2"),
    "06_O2_0_3.xyz": ("unsupported_multiplicity", "Multiplicity 3"),
    "07_charge_capital.extxyz": ("unsupported_charge", "Charge 1"),
    "09_charge_half.extxyz": ("invalid_request", "fractional"),
    "10_charge2.cjson": ("unsupported_charge", "Charge -2"),
    "13_ethanol_2D.sdf": ("unparsable_structure", "2D drawing"),
    "17_freeze_code_column.xyz": ("unparsable_structure", "five columns"),
    "35_no_header.xyz": ("unparsable_structure", "Line 1"),
}
"""Code and words by file."""


def send(client: Any, path: Path, route: str = "/v1/predict", **options: str) -> Any:
    """A file as curl -F sends it."""
    return client.post(route, files={"file": (path.name, path.read_bytes())}, data=options)


def distances(client: Any, path: Path, **options: str) -> Any:
    """All distances of the geometry that was understood, Å."""
    document = send(client, path, "/v1/initial-guess", format_out="qcschema", **options).json()
    positions = np.array(document["molecule"]["geometry"]).reshape(-1, 3) * BOHR
    return np.linalg.norm(positions[:, None] - positions[None], axis=2)


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_meant_is_answered(client, name):
    path = shared_file("cases", name)
    answer = send(client, path).json()
    assert answer["meta"]["n_electrons"] == ANSWERS[name]
    if ANSWERS[name] == 18:
        np.testing.assert_allclose(distances(client, path), METHANOL, atol=1.5e-3)


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_is_refused_with_its_code(client, name):
    problem = send(client, shared_file("cases", name)).json()
    code, words = REFUSALS[name]
    assert problem["code"] == code
    assert words in problem["detail"]
    assert problem.get("hint") or problem.get("allowed")


def test_a_charge_that_contradicts_the_file_is_an_error(client):
    for name in ("03_oxalate_MCHG.sdf", "04_oxalate_comment.xyz", "10_charge2.cjson", "07_charge_capital.extxyz"):
        problem = send(client, shared_file("cases", name), charge="0").json()
        assert (problem["code"], problem["field"]) == ("invalid_request", "charge")


def test_one_bad_frame_of_a_batch_is_one_problem(client):
    path = shared_file("cases", "31_batch_one_bad_frame.xyz")
    reply = client.post("/v1/predict/batch", files={"file": (path.name, path.read_bytes())}).json()
    assert [item["status"] for item in reply["items"]] == [200, 200, 200]  # deuterium is hydrogen


def test_one_frame_of_a_file_by_its_number(client, water_xyz):
    text = "2\n\nH 0 0 0\nH 0 0 0.74\n" + water_xyz
    upload = {"file": ("run.xyz", text)}
    refused = client.post("/v1/predict", files=upload).json()
    assert refused["code"] == "invalid_request"
    assert "frame=1" in refused["hint"]
    alone = client.post("/v1/predict", files={"file": ("water.xyz", water_xyz)}).json()
    body = {"structure": {"kind": "file", "format": "xyz", "text": text, "frame": 2}}
    replies = [
        client.post("/v1/predict", files=upload, data={"frame": "2"}),
        client.post("/v1/predict?format=xyz&frame=2", content=text, headers={"Content-Type": "text/plain"}),
        client.post("/v1/predict", json=body),
        client.post("/v1/predict/batch", json={"structures": [body["structure"]]}),
    ]
    answers = [reply.json() for reply in replies]
    answers[3] = answers[3]["items"][0]["answer"]
    for answer in answers:
        assert answer["meta"]["n_electrons"] == alone["meta"]["n_electrons"] == 10
    for value, field in (("3", "frame"), ("0", "frame"), ("two", "frame")):
        problem = client.post("/v1/predict", files=upload, data={"frame": value}).json()
        assert (problem["status"], problem["code"], problem["field"]) == (422, "invalid_request", field), value
    problem = client.post(
        "/v1/predict", files={"file": ("x.xyz", text.replace("0.119", "up"))}, data={"frame": 2}
    ).json()
    assert (problem["code"], problem["line"], problem["frame"]) == ("unparsable_structure", 7, 2)
    assert client.post("/v1/predict/batch", files=upload, data={"frame": "1"}).json()["code"] == "invalid_request"


def test_an_unreadable_frame_of_a_batch_is_one_problem_with_its_line(client):
    text = xyz() + xyz(symbols=("C", "O", "H", "Qq", "H", "H")) + xyz("charge=0.5") + xyz()
    items = client.post("/v1/predict/batch", files={"file": ("run.xyz", text)}).json()["items"]
    assert [item["status"] for item in items] == [200, 422, 422, 200]
    assert "ine 14 of frame 2" in items[1]["problem"]["detail"]
    assert [item["problem"]["code"] for item in items[1:3]] == ["unparsable_structure", "invalid_request"]


POSCAR = "methanol\n1.0\n{a} 0 0\n0 {a} 0\n0 0 {a}\nC O H\n1 1 4\nCartesian\n{rows}"


def poscar(a: float, shift: float) -> bytes:
    """Methanol in a cubic box, wrapped into it."""
    rows = "".join("{} {} {}\n".format(*row) for row in (POSITIONS + shift) % a)
    return POSCAR.format(a=a, rows=rows).encode()


@pytest.mark.parametrize("shift", [5.0, 0.0, 9.9])
def test_a_molecule_in_a_box_is_answered_on_request(client, tmp_path, shift):
    path = tmp_path / "POSCAR"
    path.write_bytes(poscar(10.0, shift))
    refused = send(client, path).json()
    assert refused["code"] == "unsupported_periodicity"
    assert "pbc" in refused["hint"]
    answer = send(client, path, pbc="false").json()
    assert answer["meta"]["n_electrons"] == 18
    np.testing.assert_allclose(distances(client, path, pbc="false"), METHANOL, atol=1e-3)
    assert any("box had cut" in warning for warning in answer["warnings"]) == (shift != 5.0)


def test_a_crystal_that_is_called_a_molecule_is_refused(client, tmp_path):
    path = tmp_path / "POSCAR"
    path.write_text("graphene\n1\n2.46 0 0\n-1.23 2.13 0\n0 0 15\nC\n2\nDirect\n0 0 0.5\n0.333333 0.666667 0.5\n")
    problem = send(client, path, pbc="false").json()
    assert (problem["code"], problem["field"]) == ("invalid_request", "pbc")
    path.write_bytes(poscar(2.5, 0.0))
    assert send(client, path, pbc="false").json()["code"] == "invalid_request"


def test_our_own_cube_can_be_sent_back(serve, settings, tmp_path):
    """Where the limit of files is that of bodies; a cube is larger than the default."""
    path = tmp_path / "methanol.xyz"
    path.write_text(xyz())
    cube = tmp_path / "density.cube"
    with serve(create_app(settings.model_copy(update={"max_file_bytes": settings.max_body_bytes}))) as client:
        cube.write_bytes(send(client, path, "/v1/initial-guess", format_out="cube").content)
        np.testing.assert_allclose(distances(client, cube), METHANOL, atol=1e-5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
def test_comments_in_other_encodings(client, encoding):
    files = {"file": ("methanol.xyz", xyz("Geometrie für Energie in Å").encode(encoding))}
    assert client.post("/v1/predict", files=files).json()["meta"]["n_electrons"] == 18
    compressed = {"file": ("methanol.xyz", b"\x1f\x8b\x08\x00" + xyz().encode())}
    assert client.post("/v1/predict", files=compressed).json()["code"] == "unparsable_structure"


def test_deuterium_of_a_qcschema_molecule(client):
    molecule = {"symbols": ["O", "D", "T"], "geometry": [0, 0, 0.2, 0, 1.4, -0.9, 0, -1.4, -0.9]}
    reply = client.post("/v1/predict", json={"structure": {"kind": "qcschema", "molecule": molecule}})
    assert reply.json()["meta"]["n_electrons"] == 10
