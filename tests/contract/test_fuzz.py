"""No JSON body and no structure file whatsoever is answered with a server error."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ase import Atoms
from ase.io import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.structures.formats import ACCEPTED

FIELDS = ["structure", "kind", "numbers", "positions", "cell", "pbc", "format", "text", "molecule", "charge", "outputs"]
WORDS = [*FIELDS, "atoms", "file", "qcschema", "xyz", "extxyz", "json", "overlap", "symbols", "geometry", "model"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([*WORDS, "2\n\nH 0 0 0\nH 0 0 1\n"])
)
keys = st.sampled_from(WORDS) | st.text(max_size=8)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)
structures = st.fixed_dictionaries(
    {"kind": st.just("atoms")},
    optional={
        "numbers": st.lists(st.integers(-2, 12), max_size=4) | anything,
        "positions": st.lists(st.tuples(*[st.floats(-9, 9)] * 3), max_size=4) | anything,
        "cell": anything,
        "pbc": anything,
    },
) | st.fixed_dictionaries(
    {"kind": st.just("file"), "format": st.sampled_from(["xyz", "json", "cjson", "mol"]), "text": st.text(max_size=60)}
)
bodies = anything | st.fixed_dictionaries(
    {"structure": structures | anything}, optional={name: anything for name in ("charge", "outputs", "model")}
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
def test_any_json_is_answered_or_refused(client, body: Any):
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    reply = client.post("/v1/predict", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code in (200, 400, 404, 413, 422), reply.text
    assert reply.json()["code" if reply.status_code != 200 else "results"]


# --- structure files

FILE_CODES: dict[int, set[str | None]] = {
    200: {None},
    413: {"too_many_atoms", "too_many_orbitals"},
    422: {
        "unparsable_structure",
        "empty_structure",
        "invalid_request",
        "unsupported_element",
        "unsupported_charge",
        "unsupported_multiplicity",
        "unsupported_periodicity",
        "atoms_too_close",
        "non_finite_coordinates",
        "electron_count",
        "numerical_failure",
    },
}
CHEMICAL_JSON = {
    "chemicalJson": 1,
    "atoms": {"elements": {"number": [8, 1, 1]}, "coords": {"3d": [0, 0, 0.119, 0, 0.763, -0.477, 0, -0.763, -0.477]}},
}
WITHOUT_WRITER = {
    "cjson": json.dumps(CHEMICAL_JSON),
    "mol2": "@<TRIPOS>MOLECULE\nwater\n3 0\nSMALL\nNO_CHARGES\n\n@<TRIPOS>ATOM\n1 O 0 0 0.119 O.3\n2 H 0 0.763 -0.477 H\n"
    "3 H 0 -0.763 -0.477 H\n",
    "orca-in": "! HF\n* xyz 0 1\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n*\n",
    "cml": '<molecule><atomArray><atom elementType="O" x3="0" y3="0" z3="0.119"/><atom elementType="H" x3="0" y3="0.763" '
    'z3="-0.477"/><atom elementType="H" x3="0" y3="-0.763" z3="-0.477"/></atomArray></molecule>',
}
WRITER_OPTIONS: dict[str, dict[str, Any]] = {
    "lammps-data": {"masses": True},
    "espresso-in": {"input_data": {}, "pseudopotentials": {"O": "O.upf", "H": "H.upf"}},
}
PIECES = [
    "",
    "nan",
    "-1",
    "1e999",
    "99999999999999999999",
    "0",
    "\n",
    " ",
    "\0",
    "é",
    "X",
    "$$$$",
    "]",
    "_",
    "1\n\nH 0 0 0\n",
]

places = st.floats(0, 1, exclude_max=True)
edits = st.lists(st.tuples(places, st.integers(0, 12), st.sampled_from(PIECES) | st.text(max_size=6)), max_size=5)


@cache
def valid_file(file_format: str) -> str:
    """Water in a box, as ASE writes it where it does."""
    if file_format in WITHOUT_WRITER:
        return WITHOUT_WRITER[file_format]
    atoms = Atoms("OHH", [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]], cell=[6, 6, 6])
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "structure")
        write(path, atoms, format=file_format, **WRITER_OPTIONS.get(file_format, {}))
        return path.read_text()


def edited(text: str, changes: list[tuple[float, int, str]]) -> str:
    """The text with pieces of it replaced: where (as a fraction), how many characters, by what."""
    for place, length, piece in changes:
        start = int(place * (len(text) + 1))
        text = text[:start] + piece + text[start + length :]
    return text


@pytest.mark.parametrize("file_format", ACCEPTED)
@settings(max_examples=30, derandomize=True, suppress_health_check=list(HealthCheck))
@given(changes=edits, noise=st.none() | st.text(max_size=80))
def test_any_file_is_answered_or_refused(client, file_format: str, changes: list[tuple[float, int, str]], noise: str):
    text = edited(valid_file(file_format), changes) if noise is None else noise
    content = json.dumps({"structure": {"kind": "file", "format": file_format, "text": text}})
    reply = client.post("/v1/predict", content=content, headers={"Content-Type": "application/json"})
    code = None if reply.status_code == 200 else reply.json()["code"]
    assert code in FILE_CODES.get(reply.status_code, ()), reply.text


@pytest.mark.parametrize("file_format", ACCEPTED)
def test_the_file_before_its_changes_is_read(client, file_format: str):
    body = {"structure": {"kind": "file", "format": file_format, "text": valid_file(file_format)}}
    reply = client.post("/v1/predict", json=body)
    # some formats are those of crystals, which the model of these tests does not know
    assert reply.status_code == 200 or reply.json()["code"] == "unsupported_periodicity", reply.text
