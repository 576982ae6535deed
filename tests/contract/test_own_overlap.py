"""A model that knows no overlap, with the caller's: levels of the blocks and of what was sent; wrong ones are refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from model.checkpoint import store
from service.app import create_app
from service.settings import Settings
from tests.contract.test_crystals import body_of
from tests.contract.waiting import wait_until
from tests.model.test_crystals import sheet, write_checkpoint
from tests.tolerances import SAME_FLOAT64

ASKED = {"kpts": [[0.1, 0, 0], [0, 0.2, 0]], "kmesh": "1x1x1"}


@pytest.fixture(scope="module")
def client(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The model "bn" computes S, "foreign" has the same shells and no integrals."""
    folder = tmp_path_factory.mktemp("own")
    write_checkpoint(folder / "bn")
    card = folder / "foreign" / store.CARD
    write_checkpoint(folder / "foreign", "none")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"name": "foreign"}))
    with serve(create_app(Settings(checkpoints=folder, device="cpu", jobs="thread"))) as client:
        yield client


@pytest.fixture(scope="module")
def overlap(client: httpx.Client) -> dict[str, Any]:
    """PySCF's S(R) of the sheet, as the service writes it."""
    reply = client.post("/v1/predict", json=body_of(sheet(), model="bn", outputs=["overlap_blocks"]))
    return {"blocks": reply.json()["results"]["overlap_blocks"]}


def test_levels_with_the_callers_overlap_are_those_of_blocks_and_overlap(client, overlap):
    body = body_of(sheet(), model="foreign", **ASKED)
    refused = client.post("/v1/bands", json=body).json()
    assert (refused["code"], "overlap" in refused["hint"]) == ("invalid_request", True)
    results = client.post("/v1/bands", json={**body, "overlap": overlap}).json()["results"]
    asked = body_of(sheet(), model="foreign", outputs=["blocks", "overlap_blocks"], overlap=overlap)
    blocks = client.post("/v1/predict", json=asked).json()["results"]
    from scipy.linalg import eigh

    from tests.contract.test_crystals import at

    for point, energies in zip(ASKED["kpts"], results["energies"], strict=True):
        expected = eigh(at(blocks["blocks"], point), at(overlap["blocks"], point), eigvals_only=True)
        assert np.abs(expected - energies).max() < SAME_FLOAT64


def test_half_of_the_pairs_another_order_and_a_job_are_the_same(client, overlap):
    body = body_of(sheet(), model="foreign", **ASKED)
    expected = client.post("/v1/bands", json={**body, "overlap": overlap}).json()["results"]
    half = {"blocks": [block for block in overlap["blocks"] if (block["i"], *block["shift"]) <= (block["j"], 0, 0, 0)]}
    missing = {(b["j"], b["i"], *(-x for x in b["shift"])) for b in half["blocks"]}
    kept = {(b["i"], b["j"], *b["shift"]) for b in half["blocks"]}
    half["blocks"] += [b for b in overlap["blocks"] if (b["i"], b["j"], *b["shift"]) not in missing | kept]
    assert len(half["blocks"]) < len(overlap["blocks"])
    turned = body_of(sheet(), model="bn", outputs=["overlap_blocks"], ao_order="e3nn")
    e3nn = {"blocks": client.post("/v1/predict", json=turned).json()["results"]["overlap_blocks"], "ao_order": "e3nn"}
    for own in (half, e3nn):
        found = client.post("/v1/bands", json={**body, "overlap": own}).json()["results"]
        assert np.abs(np.array(found["energies"]) - expected["energies"]).max() < SAME_FLOAT64
    job = client.post("/v1/jobs", json={**body, "overlap": overlap, "kind": "bands"}).json()
    wait_until(lambda: client.get(job["links"]["status"]).json()["state"] == "done")
    assert client.get(job["links"]["result"]).json()["results"] == expected


def without_on_site(blocks: list[dict[str, Any]]) -> None:
    blocks[:] = [block for block in blocks if (block["i"], block["j"], block["shift"]) != (1, 1, [0, 0, 0])]


def twice(blocks: list[dict[str, Any]]) -> None:
    blocks.append(blocks[0])


def other_atom(blocks: list[dict[str, Any]]) -> None:
    blocks[0]["j"] = 2


def narrower(blocks: list[dict[str, Any]]) -> None:
    for row in blocks[0]["matrix"]:
        row.pop()


def ragged(blocks: list[dict[str, Any]]) -> None:
    blocks[0]["matrix"][0].pop()


def lopsided(blocks: list[dict[str, Any]]) -> None:
    next(block for block in blocks if block["i"] != block["j"])["matrix"][0][1] += 0.01


def along_the_vacuum(blocks: list[dict[str, Any]]) -> None:
    blocks[-1]["shift"] = [0, 0, 1]


def negative(blocks: list[dict[str, Any]]) -> None:
    for block in blocks:
        if block["i"] == block["j"] and block["shift"] == [0, 0, 0]:
            block["matrix"] = [[0.1 * value for value in row] for row in block["matrix"]]


@pytest.mark.parametrize(
    "spoil", [without_on_site, twice, other_atom, narrower, ragged, lopsided, along_the_vacuum, negative]
)
def test_a_wrong_overlap_is_refused_by_name(client, overlap, spoil):
    wrong = copy.deepcopy(overlap)
    spoil(wrong["blocks"])
    problem = client.post("/v1/bands", json=body_of(sheet(), model="foreign", overlap=wrong, **ASKED)).json()
    assert (problem["status"], problem["code"], problem["field"]) == (422, "invalid_request", "overlap")


def test_an_overlap_for_who_does_not_need_it_is_refused(client, overlap):
    needless = client.post("/v1/bands", json=body_of(sheet(), model="bn", overlap=overlap, **ASKED)).json()
    assert (needless["code"], needless["field"]) == ("invalid_request", "overlap")
