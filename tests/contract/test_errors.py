"""Every code of the contract, and what holds for every error: a problem with an id, and nothing of the caller's."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

MARKER = "Zq7xMarker"
"""Stands in for a caller's input: must never come back."""
ROOT = str(Path(__file__).resolve().parents[2])
JSON = {"Content-Type": "application/json"}
XYZ = {"Content-Type": "chemical/x-xyz"}
NEEDED = {"type", "title", "status", "detail", "code", "request_id"}
OPTIONAL = {"field", "hint", "allowed", "errors", "line", "frame"}


def atoms(numbers: list[Any], positions: list[Any], **rest: Any) -> dict[str, Any]:
    return {"structure": {"kind": "atoms", "numbers": numbers, "positions": positions}, **rest}


def file(file_format: str, text: str) -> dict[str, Any]:
    return {"structure": {"kind": "file", "format": file_format, "text": text}}


def qcschema(**molecule: Any) -> dict[str, Any]:
    return {"structure": {"kind": "qcschema", "molecule": molecule}}


H2 = atoms([1, 1], [[0, 0, 0], [0, 0, 0.74]])
H2_XYZ = "2\n\nH 0 0 0\nH 0 0 0.74\n"
CELL = [[9, 0, 0], [0, 9, 0], [0, 0, 9]]
CRYSTAL = {
    "structure": {**H2["structure"], "cell": CELL, "pbc": [True, True, True]},
}
LINE = [[0.0, 0.0, 1.2 * index] for index in range(60)]

JSON_CASES: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    # name: body, status, code, field
    "no such element": (atoms([200, 1], [[0, 0, 0], [0, 0, 1]]), 422, "unsupported_element", "numbers"),
    "dummy atom": (atoms([0, 1], [[0, 0, 0], [0, 0, 1]]), 422, "unsupported_element", "numbers"),
    "element of another model": (atoms([79, 1], [[0, 0, 0], [0, 0, 1.5]]), 422, "unsupported_element", None),
    "odd electrons": (atoms([1], [[0, 0, 0]]), 422, "electron_count", "multiplicity"),
    "doublet": (atoms([1], [[0, 0, 0]], multiplicity=2), 422, "unsupported_multiplicity", None),
    "triplet": ({**H2, "multiplicity": 3}, 422, "unsupported_multiplicity", None),
    "dication": (atoms([8, 1, 1], LINE[:3], charge=2), 422, "unsupported_charge", None),
    "atoms too close": (atoms([1, 1], [[0, 0, 0], [0, 0, 0.1]]), 422, "atoms_too_close", "positions"),
    "no atoms": (atoms([], []), 422, "empty_structure", "numbers"),
    "crystal": (CRYSTAL, 422, "unsupported_periodicity", None),
    "periodic without a cell": (
        {"structure": {**H2["structure"], "pbc": [True, True, True]}},
        422,
        "invalid_request",
        "cell",
    ),
    "lengths differ": (atoms([1, 1], [[0, 0, 0]]), 422, "invalid_request", "positions"),
    "two coordinates": (atoms([1], [[0, 0]]), 422, "invalid_request", "structure.positions[0][2]"),
    "boolean coordinate": (atoms([1], [[False, 0, 0]]), 422, "invalid_request", "structure.positions[0][0]"),
    "text coordinate": (atoms([1], [[MARKER, 0, 0]]), 422, "invalid_request", "structure.positions[0][0]"),
    "real atomic number": (atoms([1.0], [[0, 0, 0]]), 422, "invalid_request", "structure.numbers[0]"),
    "far away": (atoms([1, 1], [[0, 0, 0], [0, 0, 1e7]]), 422, "invalid_request", "positions"),
    "no structure": ({}, 422, "invalid_request", "structure"),
    "unknown kind": ({"structure": {"kind": MARKER}}, 422, "invalid_request", "structure"),
    "no kind": ({"structure": {}}, 422, "invalid_request", "structure"),
    "unknown field": ({**H2, MARKER: 1}, 422, "invalid_request", None),
    "unknown output": ({**H2, "outputs": [MARKER]}, 422, "invalid_request", "outputs[0]"),
    "no outputs": ({**H2, "outputs": []}, 422, "invalid_request", "outputs"),
    "unknown unit": ({**H2, "energy_unit": MARKER}, 422, "invalid_request", "energy_unit"),
    "unknown order": ({**H2, "ao_order": MARKER}, 422, "invalid_request", "ao_order"),
    "huge charge": ({**H2, "charge": 10**9}, 422, "invalid_request", "charge"),
    "text charge": ({**H2, "charge": "0"}, 422, "invalid_request", "charge"),
    "unknown model": ({**H2, "model": MARKER}, 404, "unknown_model", "model"),
    "model as a path": ({**H2, "model": "../" + MARKER}, 404, "unknown_model", "model"),
    "too many atoms": (atoms([1] * 60, LINE), 413, "too_many_atoms", "structure"),
    "too many orbitals": (atoms([6] * 30, LINE[:30]), 413, "too_many_orbitals", "structure"),
    "empty file": (file("xyz", "  \n"), 422, "empty_structure", None),
    "file of no atoms": (file("xyz", "0\n\n"), 422, "empty_structure", None),
    "unreadable file": (file("xyz", f"2\n\n{MARKER} 0 0 zero\nH 0 0 1"), 422, "unparsable_structure", "file"),
    "file of another format": (file("cif", H2_XYZ), 422, "unparsable_structure", "file"),
    "two frames": (file("xyz", H2_XYZ + H2_XYZ), 422, "invalid_request", "file"),
    "NaN in a file": (file("xyz", "1\n\nH nan inf 1e400\n"), 422, "non_finite_coordinates", "positions"),
    "dummy atom in a file": (file("xyz", "1\n\nX 0 0 0\n"), 422, "unsupported_element", "file"),
    "Z = 500 in a file": (
        file("extxyz", "1\nProperties=Z:I:1:pos:R:3\n500 0 0 0\n"),
        422,
        "unsupported_element",
        "numbers",
    ),
    "many atoms in a file": (
        file("xyz", "60\n\n" + "".join(f"H 0 0 {index}\n" for index in range(60))),
        413,
        "too_many_atoms",
        None,
    ),
    "large file": (file("xyz", H2_XYZ + " " * 1_100_000), 413, "body_too_large", "file"),
    "unknown format": (file(MARKER, H2_XYZ), 422, "unsupported_format", "format"),
    "format that opens files": (file("octopus-in", "x"), 422, "unsupported_format", "format"),
    "container format": (file("traj", "x"), 422, "unsupported_format", "format"),
    "lammps without masses": (
        file("lammps-data", "x\n\n1 atoms\n1 atom types\n\nAtoms # atomic\n\n1 1 0 0 0\n"),
        422,
        "unparsable_structure",
        "file",
    ),
    "charges that differ": (
        {**qcschema(symbols=["H", "H"], geometry=[0, 0, 0, 0, 0, 1.4], molecular_charge=0), "charge": 2},
        422,
        "invalid_request",
        "charge",
    ),
    "unknown symbol": (qcschema(symbols=[MARKER[:6]], geometry=[0, 0, 0]), 422, "unsupported_element", None),
    "ghost atom": (
        qcschema(symbols=["H", "H"], geometry=[0, 0, 0, 0, 0, 1.4], real=[True, False]),
        422,
        "unsupported_element",
        "structure.molecule.real",
    ),
    "fractional charge": (
        qcschema(symbols=["H"], geometry=[0, 0, 0], molecular_charge=0.5),
        422,
        "invalid_request",
        "structure.molecule.molecular_charge",
    ),
    "geometry too short": (
        qcschema(symbols=["H", "H"], geometry=[0, 0, 0]),
        422,
        "invalid_request",
        "structure.molecule.geometry",
    ),
    "qcschema without symbols": (qcschema(geometry=[0, 0, 0]), 422, "invalid_request", None),
}

TEXT_CASES: dict[str, tuple[str | bytes, int, str]] = {
    "NaN": ('{"structure":{"kind":"atoms","numbers":[1],"positions":[[NaN,0,0]]}}', 422, "non_finite_coordinates"),
    "1e999": ('{"structure":{"kind":"atoms","numbers":[1],"positions":[[1e999,0,0]]}}', 422, "non_finite_coordinates"),
    "-Infinity": (
        '{"structure":{"kind":"atoms","numbers":[1],"positions":[[-Infinity,0,0]]}}',
        422,
        "non_finite_coordinates",
    ),
    "5000 digits": (
        '{"structure":{"kind":"atoms","numbers":[1],"positions":[[' + "9" * 5000 + ",0,0]]}}",
        400,
        "malformed_body",
    ),
    "deep nesting": ("[" * 100_000, 400, "malformed_body"),
    "deep nesting of the field": ('{"structure":' * 5000, 400, "malformed_body"),
    "half a body": ('{"structure": {"kind": "at', 400, "malformed_body"),
    "empty body": ("", 400, "malformed_body"),
    "not UTF-8": (b'{"structure": "\xff\xfe"}', 400, "malformed_body"),
    "half a surrogate": ('{"structure": "\\ud800"}', 400, "malformed_body"),
    "a list": ("[1, 2]", 422, "invalid_request"),
    "large field": (json.dumps({"structure": {"kind": "atoms"}, "model": MARKER * 300_000}), 422, "invalid_request"),
    "large key": (json.dumps({MARKER * 300_000: 1}), 422, "invalid_request"),
    "10000 bad rows": (json.dumps(atoms([1] * 10_000, [[MARKER, 0, 0]] * 10_000)), 422, "invalid_request"),
    "too large": ('{"structure":"' + "x" * 5_000_000 + '"}', 413, "body_too_large"),
}


def check_problem(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """What holds for every error."""
    body = reply.json()
    assert (reply.status_code, body["code"]) == (status, code), body
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(body) >= NEEDED
    assert set(body) <= NEEDED | OPTIONAL
    assert body["status"] == status
    assert body["request_id"] == reply.headers["x-request-id"]
    assert len(reply.content) < 10_000
    for secret in (MARKER, MARKER.lower(), "Traceback", ROOT, tempfile.gettempdir(), ".py", "errors.pydantic"):
        assert secret not in reply.text
    assert len(body.get("errors", [])) <= 20
    return body


@pytest.mark.parametrize("name", JSON_CASES)
@pytest.mark.parametrize("route", ["/v1/predict", "/v1/initial-guess"])
def test_json_errors(client, route, name):
    body, status, code, field = JSON_CASES[name]
    if name == "no outputs" and route == "/v1/initial-guess":
        assert client.post(route, json=body).status_code == 200
        return
    problem = check_problem(client.post(route, json=body), status, code)
    if field is not None:
        assert problem["field"] == field


@pytest.mark.parametrize("name", TEXT_CASES)
def test_bodies_that_break_naive_json_handling(client, name):
    content, status, code = TEXT_CASES[name]
    check_problem(client.post("/v1/predict", content=content, headers=JSON), status, code)


def test_an_error_says_what_would_have_been_accepted(client):
    element = client.post("/v1/predict", json=atoms([79, 1], [[0, 0, 0], [0, 0, 1.5]])).json()
    assert element["allowed"]
    unknown = client.post("/v1/predict", json={**H2, "model": "nope"}).json()
    card = client.get("/v1/models").json()["models"][0]
    assert unknown["allowed"] == [card["name"]]
    refused = client.post("/v1/predict", json=file("octopus-in", "x")).json()
    assert "xyz" in refused["allowed"]
    assert "other files" in refused["detail"]


def test_at_most_twenty_findings(client):
    body = atoms(["a"] * 500, [[0, 0, 0]] * 500)
    assert len(client.post("/v1/predict", json=body).json()["errors"]) == 20


@pytest.mark.parametrize(
    ("content_type", "query", "status", "code"),
    [
        (None, "", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", "?format=xyz", 415, "unsupported_media_type"),
        ("application/xml", "", 415, "unsupported_media_type"),
        ("chemical/x-unheard-of", "", 415, "unsupported_media_type"),
        ("text/plain", "", 422, "invalid_request"),
        ("text/plain", "?format=db", 422, "unsupported_format"),
        ("text/plain", f"?format={MARKER}", 422, "unsupported_format"),
        ("chemical/x-xyz", f"?{MARKER}=1", 422, "invalid_request"),
        ("chemical/x-xyz", "?structure=1", 422, "invalid_request"),
        ("chemical/x-xyz", "?charge=one", 422, "invalid_request"),
        ("chemical/x-xyz", "?charge=" + "1" * 5000, 422, "invalid_request"),
        ("chemical/x-xyz", "?charge=0&charge=0", 422, "invalid_request"),
        ("chemical/x-xyz", f"?outputs=overlap,{MARKER}", 422, "invalid_request"),
        ("chemical/x-xyz", f"?model={MARKER}", 404, "unknown_model"),
        ("chemical/x-xyz", "?format_out=chk", 406, "not_acceptable"),
        ("application/json", "?charge=0", 422, "invalid_request"),
    ],
)
def test_envelope_errors(client, content_type, query, status, code):
    headers = {"Content-Type": content_type} if content_type else {}
    content = H2_XYZ if content_type != "application/json" else json.dumps(H2)
    check_problem(client.post("/v1/predict" + query, content=content.encode(), headers=headers), status, code)


def test_compressed_bodies_are_not_inflated(client):
    reply = client.post("/v1/predict", content=b"\x1f\x8b", headers={**JSON, "Content-Encoding": "gzip"})
    check_problem(reply, 415, "unsupported_media_type")


@pytest.mark.parametrize("accept", ["text/csv", "application/x-hdf5", "application/json;q=0", "nonsense"])
def test_an_accept_header_that_cannot_be_met(client, accept):
    reply = client.post("/v1/predict", json=H2, headers={"Accept": accept})
    assert "application/json" in check_problem(reply, 406, "not_acceptable")["allowed"]


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([("charge", (None, "0"))], 422, "invalid_request"),
        ([("file", ("a.xyz", H2_XYZ)), ("file", (None, H2_XYZ))], 422, "invalid_request"),
        ([("other", ("a.xyz", H2_XYZ)), ("file", (None, H2_XYZ))], 422, "invalid_request"),
        ([("file", ("a.xyz", H2_XYZ)), (MARKER, (None, "0"))], 422, "invalid_request"),
        ([("file", ("a.xyz", H2_XYZ)), ("multiplicity", (None, ""))], 422, "invalid_request"),
        ([("file", ("molecule", H2_XYZ))], 422, "unsupported_format"),
        ([("file", ("molecule.traj", H2_XYZ))], 422, "unsupported_format"),
        ([("file", ("../../etc/passwd", H2_XYZ))], 422, "unsupported_format"),
        ([("file", (f"a.{MARKER}", H2_XYZ))], 422, "unsupported_format"),
        ([("file", ("a.xyz", b"\xff\xfe\x00"))], 422, "unparsable_structure"),
        ([("file", ("a.xyz", b""))], 422, "empty_structure"),
    ],
)
def test_multipart_errors(client, parts, status, code):
    check_problem(client.post("/v1/predict", files=parts), status, code)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n"),
    ],
)
def test_broken_multipart_bodies(client, content_type, body):
    reply = client.post("/v1/predict", content=body, headers={"Content-Type": content_type})
    assert reply.json()["code"] in ("malformed_body", "invalid_request")
    check_problem(reply, reply.status_code, reply.json()["code"])
    assert reply.status_code in (400, 422)


def test_a_body_without_content_length_is_counted(client):
    def chunks() -> Iterator[bytes]:
        yield from itertools.repeat(b" " * 65536, 100)

    check_problem(client.post("/v1/predict", content=chunks(), headers=JSON), 413, "body_too_large")
    check_problem(client.post("/v1/predict", content=chunks(), headers=XYZ), 413, "body_too_large")


def test_unknown_routes_and_methods_are_problems_too(client):
    check_problem(client.get("/v1/nothing"), 404, "not_found")
    check_problem(client.get(f"/v1/models/{MARKER}"), 404, "unknown_model")
    reply = client.get("/v1/predict")
    check_problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"


def test_the_callers_request_id_is_in_the_error(client):
    reply = client.post("/v1/predict", json={}, headers={"X-Request-ID": "mine-1"})
    assert check_problem(reply, 422, "invalid_request")["request_id"] == "mine-1"


def test_405_names_every_method_of_the_path(client):
    reply = client.put("/v1/jobs/" + "a" * 43)
    assert reply.status_code == 405
    assert {"GET", "DELETE"} <= {method.strip() for method in reply.headers["allow"].split(",")}
