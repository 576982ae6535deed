"""Several models of different levels, charges and kinds behind one service: the one that fits answers, and says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.checkpoint import store
from model.checkpoint.golden import golden_record
from model.predictor import Predictor
from model.structure import Structure
from service.app import create_app
from service.settings import Settings
from tests.contract.waiting import wait_until
from tests.model.test_crystals import write_checkpoint

HYDROXIDE: dict[str, Any] = {"kind": "atoms", "numbers": [8, 1], "positions": [[0, 0, 0], [0, 0, 0.96]]}
ALANE = {
    "kind": "atoms",
    "numbers": [13, 1, 1, 1],
    "positions": [[0, 0, 0], [1.6, 0, 0], [-0.8, 1.4, 0], [-0.8, -1.4, 0]],
}
BOXED_WATER = """water in a box
1.0
10 0 0
0 10 0
0 0 10
O H
1 2
Cartesian
0 0 0.119
0 0.763 -0.477
0 -0.763 -0.477
"""


@pytest.fixture(scope="module")
def shelf(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints that differ in what their cards say; one of them is for anions alone."""
    folder = tmp_path_factory.mktemp("shelf")
    changes: dict[str, dict[str, Any]] = {"default": {}, "ions": {"charges": [-1]}, "vwn5": {"xc": "b3lyp5"}}
    for name, change in changes.items():
        shutil.copytree(tiny_checkpoint, folder / name)
        card = json.loads((folder / name / "card.json").read_text())
        (folder / name / "card.json").write_text(json.dumps(card | change | {"name": name}))
    ions = Predictor.load(folder / "ions", verify_golden=False)
    hydroxide = Structure.from_symbols(["O", "H"], HYDROXIDE["positions"], charge=-1)
    store.save_json(folder / "ions" / store.GOLDEN, golden_record(ions, {"hydroxide": hydroxide}))
    return folder


@pytest.fixture(scope="module")
def client(serve: Any, shelf: Path) -> Iterator[httpx.Client]:
    with serve(create_app(Settings(checkpoints=shelf, device="cpu", max_atoms=40, max_orbitals=350))) as client:
        yield client


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/initial-guess"])
@pytest.mark.parametrize(
    ("change", "model", "warning"),
    [
        ({}, "default", None),
        ({"structure": HYDROXIDE, "charge": -1}, "ions", None),
        ({"xc": "B3LYP5"}, "vwn5", None),
        ({"xc": "b3lypg", "basis": "def2svp"}, "default", None),
        ({"xc": "tpss"}, "default", "xc mismatch"),
        ({"basis": "cc-pvtz"}, "default", "basis mismatch"),
        ({"structure": HYDROXIDE, "charge": -1, "xc": "b3lyp5"}, "ions", "xc mismatch"),
        ({"structure": HYDROXIDE, "charge": -1, "model": "ions"}, "ions", None),
        ({"model": "vwn5", "xc": "b3lyp"}, "vwn5", "xc mismatch"),
    ],
)
def test_the_model_that_fits_answers_and_says_so(client, water, route, change, model, warning):
    answer = client.post(route, json={**water, **change}).json()
    meta = answer["meta"]
    assert (meta["model"], meta["xc"], meta["basis"]) == (model, "b3lyp5" if model == "vwn5" else "b3lyp", "def2-svp")
    assert meta["projected"] is False
    assert [text for text in answer["warnings"] if "mismatch" in text] == [
        text for text in answer["warnings"] if warning is not None and text.startswith(warning)
    ]
    assert (f"model={model}" in answer["defaults_applied"]) is ("model" not in change)


@pytest.mark.parametrize(
    ("change", "code", "allowed"),
    [
        ({"structure": ALANE}, "unsupported_element", ["H", "C", "N", "O", "F"]),
        ({"charge": 2}, "unsupported_charge", [0, -1]),
        ({"charge": 1, "multiplicity": 2}, "unsupported_charge", [0, -1]),
        ({"multiplicity": 3}, "unsupported_multiplicity", [1]),
        ({"structure": {"kind": "file", "format": "vasp", "text": BOXED_WATER}}, "unsupported_periodicity", None),
    ],
)
def test_what_no_model_takes_is_refused_with_what_the_loaded_ones_support(client, water, change, code, allowed):
    reply = client.post("/v1/predict", json={**water, **change})
    problem = reply.json()
    assert (reply.status_code, problem["code"], problem.get("allowed")) == (422, code, allowed)
    assert all(f"{name} (molecules; H C N O F; charges" in problem["hint"] for name in ("default", "ions", "vwn5"))


def test_a_named_model_answers_for_itself_alone(client):
    reply = client.post("/v1/predict", json={"structure": HYDROXIDE, "charge": -1, "model": "default"})
    assert (reply.status_code, reply.json()["code"], reply.json()["allowed"]) == (422, "unsupported_charge", [0])


def test_a_cell_can_be_taken_for_a_box_around_a_molecule(client, water):
    boxed = {"structure": {"kind": "file", "format": "vasp", "text": BOXED_WATER}, "pbc": False}
    raw = client.post("/v1/predict?format=vasp&pbc=false", content=BOXED_WATER, headers={"Content-Type": "text/plain"})
    form = client.post("/v1/predict", files={"file": ("POSCAR", BOXED_WATER)}, data={"pbc": "False"})
    free = client.post("/v1/predict", json=water).json()["results"]
    for reply in (client.post("/v1/predict", json=boxed), raw, form):
        assert reply.status_code == 200, reply.text
        assert reply.json()["results"] == free
    crystal = client.post("/v1/predict", json={**water, "pbc": True})
    assert (crystal.status_code, crystal.json()["field"]) == (422, "cell")
    neither = client.post("/v1/predict", files={"file": ("POSCAR", BOXED_WATER)}, data={"pbc": "maybe"})
    assert (neither.status_code, neither.json()["code"], neither.json()["field"]) == (422, "invalid_request", "pbc")


@pytest.mark.parametrize(
    ("cell", "code", "field"),
    [
        ([[10, 0, 0], [0, 10, 0], [10, 10, 0]], "invalid_request", "cell"),  # no volume
        ([[1.2, 0, 0], [0, 10, 0], [0, 0, 10]], "atoms_too_close", "positions"),  # to an image
        (None, "invalid_request", "cell"),
    ],
)
def test_cells_that_cannot_be_are_refused_by_name_before_any_model_is_asked(client, water, cell, code, field):
    structure = {**water["structure"], "positions": [[0, 0, 0], [0.8, 0, 0.6], [-0.8, 0, 0.6]]}
    body = {"structure": {**structure, "cell": cell, "pbc": [True, True, True]}}
    reply = client.post("/v1/predict", json=body)
    assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (422, code, field)
    boxed = client.post("/v1/predict", json={**body, "pbc": False})
    if code == "atoms_too_close":
        assert (boxed.status_code, boxed.json()["field"]) == (422, "pbc"), "bonded across it: no box around a molecule"
    else:
        assert boxed.status_code == 200, "as a box around a molecule it does not matter"


def test_structures_of_a_batch_are_answered_each_by_its_model(client, water):
    file = "2\ncharge=-1\nO 0 0 0\nH 0 0 0.96\n2\ncharge=0\nH 0 0 0\nH 0 0 0.74\n2\ncharge=-2\nH 0 0 0\nH 0 0 0.74\n"
    body = {"structures": [{"kind": "file", "format": "extxyz", "text": file}]}
    answer = client.post("/v1/predict/batch", json=body).json()
    assert [item["status"] for item in answer["items"]] == [200, 200, 422]
    assert [item["answer"]["meta"]["model"] for item in answer["items"][:2]] == ["ions", "default"]
    assert (answer["meta"]["model"], answer["meta"]["models"]) == ("ions", ["default", "ions"])


def test_a_job_is_answered_by_the_model_that_fits(client):
    job = client.post("/v1/jobs", json={"structure": HYDROXIDE, "charge": -1}).json()
    wait_until(lambda: client.get(job["links"]["status"]).json()["state"] == "done")
    assert client.get(job["links"]["result"]).json()["meta"]["model"] == "ions"


def test_there_is_a_default_for_each_kind_of_system(client):
    listed = client.get("/v1/models").json()
    assert listed["default"] == {"molecules": "default", "crystals": None}
    assert {card["name"]: card["default"] for card in listed["models"]} == {
        "default": True,
        "ions": False,
        "vwn5": False,
    }


@pytest.fixture(scope="module")
def both_kinds(serve: Any, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A model for molecules and one for crystals."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "default").symlink_to(shelf / "default", target_is_directory=True)
    write_checkpoint(folder / "bn")
    with serve(create_app(Settings(checkpoints=folder, device="cpu"))) as client:
        yield client


def test_crystals_and_molecules_have_their_own_default_and_do_not_meet(both_kinds, water):
    assert both_kinds.get("/v1/models").json()["default"] == {"molecules": "default", "crystals": "bn"}
    assert both_kinds.post("/v1/predict", json=water).json()["meta"]["model"] == "default"
    crystal = {"kind": "atoms", "numbers": [5, 7], "positions": [[0, 0, 0], [0.9, 0.9, 0.9]], "pbc": [True] * 3}
    crystal["cell"] = [[3.6, 0, 0], [0, 3.6, 0], [0, 0, 3.6]]
    for body, words in (
        ({**water, "model": "bn"}, "is for crystals"),
        ({"structure": crystal, "model": "default"}, "is for molecules"),
    ):
        reply = both_kinds.post("/v1/predict", json=body)
        assert (reply.status_code, reply.json()["code"]) == (422, "unsupported_periodicity")
        assert words in reply.json()["detail"]
