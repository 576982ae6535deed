"""Many structures in one request: each its own answer or its own problem, in order, in every format."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
import safetensors.numpy

from service.app import create_app

WATER = {"kind": "atoms", "numbers": [8, 1, 1], "positions": [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]]}
H2 = {"kind": "atoms", "numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.74]]}
GOLD = {"kind": "atoms", "numbers": [79, 1], "positions": [[0, 0, 0], [0, 0, 1.5]]}
CLOSE = {"kind": "atoms", "numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.01]]}
FILE = {"kind": "file", "format": "xyz", "text": "2\n\nH 0 0 0\nH 0 0 0.8\n"}
TOLERANCE_HARTREE = 2e-5
"""Float32 sums of a batch are made in another order than those of one structure."""


def test_every_structure_has_its_own_answer_or_problem_in_order(client):
    reply = client.post("/v1/predict/batch", json={"structures": [WATER, GOLD, H2, CLOSE, FILE]})
    assert reply.status_code == 200
    body = reply.json()
    assert [item["index"] for item in body["items"]] == [0, 1, 2, 3, 4]
    assert [item["status"] for item in body["items"]] == [200, 422, 200, 422, 200]
    assert body["items"][1]["problem"]["code"] == "unsupported_element"
    assert body["items"][3]["problem"]["code"] == "atoms_too_close"
    assert [len(body["items"][k]["answer"]["results"]["orbital_energies"]) for k in (0, 2, 4)] == [24, 10, 10]
    assert {key: body["meta"][key] for key in ("count", "succeeded", "failed")} == {
        "count": 5,
        "succeeded": 3,
        "failed": 2,
    }
    assert body["meta"]["request_id"] == reply.headers["x-request-id"]


def test_a_batched_answer_is_the_single_answer(serve, settings):
    stretched = [WATER | {"positions": (np.array(WATER["positions"]) * (1 + 0.01 * k)).tolist()} for k in range(12)]
    with serve(create_app(settings)) as client:
        body = client.post("/v1/predict/batch", json={"structures": stretched, "outputs": ["hamiltonian"]}).json()
    assert max(item["answer"]["meta"]["batch_size"] for item in body["items"]) > 1
    with serve(create_app(settings)) as client:  # another cache
        for structure, item in zip(stretched, body["items"], strict=True):
            single = client.post("/v1/predict", json={"structure": structure, "outputs": ["hamiltonian"]}).json()
            assert single["meta"]["batch_size"] == 1
            error = np.subtract(single["results"]["hamiltonian"], item["answer"]["results"]["hamiltonian"])
            assert np.abs(error).max() < TOLERANCE_HARTREE


def test_a_file_of_many_frames(client, water_xyz):
    frames = water_xyz + "2\n\nH 0 0 0\nH 0 0 0.74\n" + "1\n\nAu 0 0 0\n" + water_xyz
    reply = client.post("/v1/predict/batch", files={"file": ("run.xyz", frames)}, data={"energy_unit": "eV"})
    assert [item["status"] for item in reply.json()["items"]] == [200, 200, 422, 200]
    assert reply.json()["items"][0]["answer"]["meta"]["energy_unit"] == "eV"


@pytest.mark.parametrize("name", ["npz", "safetensors"])
def test_binary_formats_hold_the_same_numbers(client, name):
    request = {"structures": [H2, GOLD, WATER], "outputs": ["orbital_energies", "hamiltonian", "blocks"]}
    expected = client.post("/v1/predict/batch", json=request).json()
    content = client.post("/v1/predict/batch", json=request | {"format_out": name}).content
    if name == "npz":
        arrays = dict(np.load(io.BytesIO(content)))
        meta = json.loads(arrays.pop("meta").tobytes())
    else:
        arrays = safetensors.numpy.load(content)
        size = int.from_bytes(content[:8], "little")
        meta = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["meta"])
    assert meta["items"][1]["problem"]["code"] == "unsupported_element"
    for index in (0, 2):
        results = expected["items"][index]["answer"]["results"]
        np.testing.assert_allclose(arrays[f"{index}.hamiltonian"], results["hamiltonian"], atol=TOLERANCE_HARTREE)
        np.testing.assert_allclose(
            arrays[f"{index}.blocks.0.1"],
            next(block["matrix"] for block in results["blocks"] if (block["i"], block["j"]) == (0, 1)),
            atol=TOLERANCE_HARTREE,
        )
    assert not any(key.startswith("1.") for key in arrays)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"structures": []}, 422, "invalid_request"),
        ({"structures": [H2] * 257}, 413, "too_many_structures"),
        ({"structures": H2}, 422, "invalid_request"),
        ({"structure": H2}, 422, "invalid_request"),
        ({"structures": [H2], "model": "no"}, 404, "unknown_model"),
        ({"structures": [H2], "format_out": "chk"}, 406, "not_acceptable"),
    ],
)
def test_what_is_wrong_with_the_whole_request_is_one_problem(client, body, status, code):
    reply = client.post("/v1/predict/batch", json=body)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


def test_too_many_frames_are_refused(client):
    reply = client.post("/v1/predict/batch", files={"file": ("run.xyz", "1\n\nH 0 0 0\n" * 300)})
    assert (reply.status_code, reply.json()["code"]) == (413, "too_many_structures")


def test_a_batch_larger_than_the_queue_waits_for_its_turns(serve, settings):
    small = settings.model_copy(update={"queue_limit": 2})
    stretched = [H2 | {"positions": [[0, 0, 0], [0, 0, 0.7 + 0.001 * k]]} for k in range(40)]
    with serve(create_app(small)) as client:
        body = client.post("/v1/predict/batch", json={"structures": stretched}).json()
    assert body["meta"]["succeeded"] == 40


def test_matrices_that_do_not_fit_together_are_refused_one_by_one(serve, settings):
    tight = settings.model_copy(update={"max_orbitals": 24})
    with serve(create_app(tight)) as client:
        body = client.post("/v1/predict/batch", json={"structures": [WATER] * 6 + [H2]}).json()
    assert [item["status"] for item in body["items"]] == [200] * 4 + [413, 413, 413]
    assert body["items"][4]["problem"]["code"] == "too_many_orbitals"


def test_what_is_not_ready_in_time_is_late_alone(serve, settings, predictor, registry_of):
    class Slow:
        def __getattr__(self, name):
            return getattr(predictor, name)

        def forward(self, prepared):
            time.sleep(0.7 * len(prepared))
            return predictor.forward(prepared)

    short = settings.model_copy(update={"request_timeout_s": 4.0})
    stretched = [H2 | {"positions": [[0, 0, 0], [0, 0, 0.7 + 0.01 * k]]} for k in range(8)]
    with serve(create_app(short, registry=registry_of(Slow(), 1))) as client:
        body = client.post("/v1/predict/batch", json={"structures": stretched}).json()
    statuses = [item["status"] for item in body["items"]]
    assert set(statuses) == {200, 504}
    assert all(item["problem"]["code"] == "deadline_exceeded" for item in body["items"] if item["status"] == 504)
