"""Models come, change and go while requests are answered: none fails, and what fails to load changes nothing."""

from __future__ import annotations

import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from safetensors.torch import load_file, save_file

from model.checkpoint import store
from model.checkpoint.golden import golden_record
from model.network import Output
from model.predictor import Predictor
from service.access.new_key import new_key, table_of
from service.app import create_app
from service.checkpoints.registry import Registry
from service.settings import Settings
from service.structures.pool import ParserPool
from tests.conftest import structure_of

from .waiting import wait_until

LOAD = "/v1/admin/models/{name}/load"
UNLOAD = "/v1/admin/models/{name}/unload"
WAIT_S = 30.0
SAME_NUMBERS_HARTREE = 1e-6


def variant(source: Path, folder: Path, *, scale: float = 1.0, **card_changes: Any) -> Path:
    """A copy of a checkpoint whose network corrects H0 by another amount; complete with hash and golden numbers."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / store.WEIGHTS)
    for name, value in tensors.items():
        if "read_out.scale" in name:
            value.mul_(scale)
    save_file(tensors, folder / store.WEIGHTS)
    card = json.loads((folder / store.CARD).read_text()) | card_changes
    store.save_json(folder / store.CARD, card | {"weights_sha256": store.sha256_of(folder / store.WEIGHTS)})
    predictor = Predictor.load(folder, verify_golden=False)
    store.save_json(folder / store.GOLDEN, golden_record(predictor, {"water": structure_of("H2O")}))
    return folder


@dataclass
class Admin:
    """The service with a folder of its own, seen by its operator.

    Attributes:
        client: with a key for everything.
        folder: its checkpoints.
        app: for what no answer says.
    """

    client: httpx.Client
    folder: Path
    app: FastAPI

    @property
    def registry(self) -> Registry:
        registry: Registry = self.app.state.services.registry
        return registry

    def load(self, name: str = "tiny", **body: Any) -> httpx.Response:
        return self.client.post(LOAD.format(name=name), json=body)

    def unload(self, name: str = "tiny", **body: Any) -> httpx.Response:
        return self.client.post(UNLOAD.format(name=name), json=body)

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.client.post("/v1/predict", json=body)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def models(self) -> dict[str, Any]:
        listed: dict[str, Any] = self.client.get("/v1/models").json()
        return listed


@pytest.fixture(scope="module")
def sources(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions of one model, and another model."""
    folder = tmp_path_factory.mktemp("sources")
    return {
        "0.9.0": variant(tiny_checkpoint, folder / "0.9.0", version="0.9.0"),
        "0.10.0": variant(tiny_checkpoint, folder / "0.10.0", version="0.10.0", scale=1.5),
        "other": variant(tiny_checkpoint, folder / "other", name="other", scale=0.5),
    }


@pytest.fixture
def admin(sources: dict[str, Path], serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Admin]:
    """A service with version 0.9.0 of one model, and no cache: every answer is a forward pass."""
    monkeypatch.setattr(ParserPool, "start", lambda _: None)  # no files here, and each start costs a second
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    shutil.copytree(sources["0.9.0"], folder / "tiny" / "0.9.0")
    key, keys = new_key(), tmp_path / "keys.toml"
    keys.write_text(table_of("operator", key, admin=True))
    app = create_app(Settings(checkpoints=folder, device="cpu", cache_bytes=0, api_keys_file=keys))
    with serve(app) as client:
        client.headers["X-API-Key"] = key
        yield Admin(client, folder, app)


def problem(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = reply.json()
    assert (reply.status_code, body["code"]) == (status, code), reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    return body


def energies(answer: dict[str, Any]) -> Any:
    return np.array(answer["results"]["orbital_energies"])


def test_a_new_version_takes_over_and_an_old_one_can_be_taken_back(admin, sources, water):
    before = admin.predict(water)
    assert before["meta"]["version"] == "0.9.0"
    shutil.copytree(sources["0.10.0"], admin.folder / "tiny" / "0.10.0")
    reply = admin.load().json()
    assert reply["status"] == "loaded"
    assert reply["replaced"] == {"name": "tiny", "version": "0.9.0", "sha256": before["meta"]["sha256"]}
    assert reply["model"] == admin.client.get("/v1/models/tiny").json()
    assert [check["name"] for check in reply["checks"]] == ["weights", "golden", "equivariance", "warm_up"]
    assert all(check["seconds"] <= reply["seconds"] for check in reply["checks"])
    after = admin.predict(water)
    assert (after["meta"]["version"], after["meta"]["sha256"]) == ("0.10.0", reply["model"]["sha256"])
    assert np.abs(energies(after) - energies(before)).max() > 1e-3
    assert admin.load(version="0.9.0").json()["model"]["version"] == "0.9.0"
    assert np.abs(energies(admin.predict(water)) - energies(before)).max() < SAME_NUMBERS_HARTREE


def test_what_is_loaded_already_is_left_alone_unless_forced(admin):
    (card,) = admin.models()["models"]
    reply = admin.load().json()
    assert (reply["status"], reply["checks"], reply["replaced"]) == ("unchanged", [], None)
    assert reply["model"] == card
    before = admin.registry.get("tiny")
    forced = admin.load(force=True).json()
    assert (forced["status"], len(forced["checks"])) == ("loaded", 4)
    assert admin.registry.get("tiny") is not before


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def change_number(path: Path) -> None:
    golden = json.loads(path.read_text())
    golden["structures"][0]["orbital_energies"][4] += 1e-3
    path.write_text(json.dumps(golden))


@pytest.mark.parametrize(
    ("file", "damage", "check"),
    [
        (store.WEIGHTS, flip, "weights"),
        (store.WEIGHTS, cut, "weights"),
        (store.WEIGHTS, Path.unlink, "weights"),
        (store.CARD, cut, "card"),
        (
            store.CARD,
            lambda path: path.write_text(path.read_text().replace('"weights_sha256": "', '"weights_sha256": "0')),
            "card",
        ),
        (store.CARD, lambda path: path.write_text(path.read_text().replace('"hidden": 16', '"hidden": 17')), "weights"),
        (store.GOLDEN, cut, "weights"),
        (store.GOLDEN, Path.unlink, "weights"),
        (store.GOLDEN, change_number, "golden"),
        (store.GOLDEN, lambda path: path.write_text('{"molecules": [{}]}'), "golden"),
    ],
)
def test_a_damaged_checkpoint_is_rejected_and_the_old_model_serves_on(admin, water, file, damage, check):
    before, listed, loaded = admin.predict(water), admin.models(), admin.registry.get("tiny")
    damage(admin.folder / "tiny" / "0.9.0" / file)
    reply = admin.load()
    body = problem(reply, 422, "model_rejected")
    assert body["errors"][0]["field"] == check
    assert f"'{check}'" in body["detail"]
    assert "What served before still serves." in body["detail"]
    for secret in (str(admin.folder), "/tmp", "Traceback", "Error:"):
        assert secret not in reply.text
    assert admin.registry.get("tiny") is loaded
    assert admin.models() == listed
    after = admin.predict(water)
    assert after["meta"]["sha256"] == before["meta"]["sha256"]
    assert np.abs(energies(after) - energies(before)).max() < SAME_NUMBERS_HARTREE


def test_a_network_that_prefers_a_direction_is_rejected_although_its_golden_numbers_are_right(
    admin, sources, water, monkeypatch
):
    intact = store.load

    def with_a_direction(*arguments: Any, **options: Any) -> store.Checkpoint:
        checkpoint = intact(*arguments, **options)

        def add(_module: Any, _inputs: Any, output: Output) -> Output:
            # a fixed vector in every atom's block: its components do not turn with the molecule
            vector = torch.linspace(0.0, 1e-2, output.diagonal.shape[1], dtype=output.diagonal.dtype)
            return Output(output.diagonal + vector, output.pair, output.trace)

        checkpoint.model.network.register_forward_hook(add)
        return checkpoint

    before = admin.predict(water)
    monkeypatch.setattr(store, "load", with_a_direction)
    # released by the same broken code: its stored answers are what it computes
    variant(sources["0.10.0"], admin.folder / "tiny" / "0.10.0")
    body = problem(admin.load(), 422, "model_rejected")
    assert body["errors"][0]["field"] == "equivariance"
    assert "after a rotation of water" in body["detail"]
    assert admin.predict(water)["meta"]["sha256"] == before["meta"]["sha256"]


def test_predictions_during_swaps_all_succeed_and_each_is_of_one_model(admin, sources, water):
    shutil.copytree(sources["0.10.0"], admin.folder / "tiny" / "0.10.0")
    expected = {}
    for version in ("0.10.0", "0.9.0"):
        assert admin.load(version=version, force=True).status_code == 200
        expected[version] = energies(admin.predict(water))
    stop = threading.Event()

    def ask() -> list[dict[str, Any]]:
        answers = []
        while not stop.is_set():
            answers.append(admin.predict(water))
        return answers

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        for version in ("0.10.0", "0.9.0") * 3:
            assert admin.load(version=version).json()["status"] == "loaded"
        stop.set()
        answers = [answer for future in asking for answer in future.result()]
    assert {answer["meta"]["version"] for answer in answers} == {"0.9.0", "0.10.0"}
    for answer in answers:
        assert np.abs(energies(answer) - expected[answer["meta"]["version"]]).max() < SAME_NUMBERS_HARTREE


def test_a_request_that_runs_keeps_its_model_and_then_the_model_is_released(admin, sources, water):
    shutil.copytree(sources["0.10.0"], admin.folder / "tiny" / "0.10.0")
    reached, gate = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        reached.set()
        assert gate.wait(WAIT_S)

    old = admin.registry.get("tiny")
    old.predictor.model.network.register_forward_pre_hook(wait)
    left: list[weakref.ref[Any]] = [
        weakref.ref(part) for part in (old.predictor, old.predictor.model.network, old.backend)
    ]
    del old
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(admin.predict, water)
        assert reached.wait(WAIT_S)
        assert admin.load().json()["model"]["version"] == "0.10.0"
        assert not running.done()
        assert all(reference() is not None for reference in left)
        gate.set()
        assert running.result()["meta"]["version"] == "0.9.0"
    assert admin.predict(water)["meta"]["version"] == "0.10.0"
    wait_until(lambda: all(reference() is None for reference in left))


def test_two_calls_at_once_are_done_one_after_the_other(admin, sources):
    shutil.copytree(sources["0.10.0"], admin.folder / "tiny" / "0.10.0")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(admin.load, version=version, force=True) for version in ("0.9.0", "0.10.0") * 2]
        replies = [call.result() for call in calls]
    assert [reply.status_code for reply in replies] == [200] * 4
    # each replaced what was there or what another had put there: one of them 0.9.0 from the start, and one put there
    assert sorted(reply.json()["replaced"]["version"] for reply in replies).count("0.9.0") >= 2


def test_models_side_by_side_and_unloading(admin, sources, water):
    shutil.copytree(sources["other"], admin.folder / "other")
    first = admin.load("other").json()
    assert (first["status"], first["replaced"], first["model"]["default"]) == ("loaded", None, False)
    listed = admin.models()
    assert [(card["name"], card["default"]) for card in listed["models"]] == [("other", False), ("tiny", True)]
    assert listed["default"] == {"molecules": "tiny", "crystals": None}
    for card in listed["models"]:
        assert {"version", "sha256", "loaded_at", "device"} <= set(card)
    assert admin.predict({**water, "model": "other"})["meta"]["model"] == "other"
    assert admin.predict(water)["meta"]["model"] == "tiny"

    assert "force" in problem(admin.unload("tiny"), 409, "model_needed")["hint"]
    gone = admin.unload("other").json()
    assert (gone["status"], gone["model"]["name"]) == ("unloaded", "other")
    assert gone["default"] == {"molecules": "tiny", "crystals": None}
    problem(admin.client.post("/v1/predict", json={**water, "model": "other"}), 404, "unknown_model")
    problem(admin.client.get("/v1/models/other"), 404, "unknown_model")
    problem(admin.unload("other"), 404, "unknown_model")

    problem(admin.unload("tiny"), 409, "model_needed")
    assert admin.unload("tiny", force=True).json()["default"] == {"molecules": None, "crystals": None}
    assert admin.models()["models"] == []
    problem(admin.client.get("/health/ready"), 503, "not_ready")
    assert admin.client.get("/health/live").status_code == 200
    assert int(admin.client.post("/v1/predict", json=water).headers["retry-after"]) >= 1
    problem(admin.client.post("/v1/predict", json=water), 503, "not_ready")
    assert admin.load("tiny").json()["model"]["default"] is True
    assert admin.predict(water)["meta"]["model"] == "tiny"
    assert admin.client.get("/health/ready").json()["models"] == ["tiny"]


def test_an_unloaded_model_finishes_what_it_has(admin, water):
    reached, gate = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        reached.set()
        assert gate.wait(WAIT_S)

    admin.registry.get("tiny").predictor.model.network.register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(admin.predict, water)
        assert reached.wait(WAIT_S)
        assert admin.unload(force=True).json()["unfinished"] == 1
        problem(admin.client.post("/v1/predict", json={**water, "model": "tiny"}), 404, "unknown_model")
        gate.set()
        assert running.result()["meta"]["model"] == "tiny"


@pytest.mark.parametrize(
    "name", ["nothing", "..%2Fx", "%2e%2e", "A", ".hidden", "a" * 65, "tiny%00", "tiny%0a", "0.9.0"]
)
def test_names_that_nobody_has(admin, name):
    for path in (LOAD, UNLOAD):
        reply = admin.client.post(path.format(name=name), json={"force": True})
        assert (reply.status_code, reply.json()["code"]) in {(404, "unknown_model"), (404, "not_found")}, reply.text
        assert str(admin.folder) not in reply.text
    assert admin.registry.names == ["tiny"]


def test_a_version_that_is_not_there(admin):
    for version in ("0.8.0", "latest", "../0.9.0"):
        body = problem(admin.load(version=version), 404, "unknown_model")
        assert (body["field"], body["allowed"]) == ("version", ["0.9.0"])


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed_body"),
        (b"[]", "application/json", 422, "invalid_request"),
        (b'{"force": "yes"}', "application/json", 422, "invalid_request"),
        (b'{"version": 1}', "application/json", 422, "invalid_request"),
        (b'{"force": true}', "text/plain", 415, "unsupported_media_type"),
        (b"force=true", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ],
)
def test_options_that_do_not_read(admin, content, content_type, status, code):
    for path in (LOAD, UNLOAD):
        if path is UNLOAD and b"version" in content:
            continue
        reply = admin.client.post(path.format(name="tiny"), content=content, headers={"Content-Type": content_type})
        problem(reply, status, code)
    assert admin.registry.names == ["tiny"]


def test_an_unknown_option_is_told_the_known_ones(admin):
    body = problem(admin.load(surprise=True), 422, "invalid_request")
    assert "version, force" in body["hint"]
    assert "surprise" not in json.dumps(body)


def test_without_a_body_the_defaults_hold(admin):
    assert admin.client.post(LOAD.format(name="tiny")).json()["status"] == "unchanged"
    problem(admin.client.post(UNLOAD.format(name="tiny")), 409, "model_needed")


def test_the_routes_are_documented_with_bodies_and_answers(admin):
    document = admin.client.get("/openapi.json").json()
    for path, names in ((LOAD, ("LoadRequest", "LoadReport")), (UNLOAD, ("UnloadRequest", "UnloadReport"))):
        operation = document["paths"][path]["post"]
        assert operation["requestBody"]["required"] is False
        assert {"200", "404", "409", "422"} <= set(operation["responses"])
        for name in names:
            assert f"#/components/schemas/{name}" in json.dumps(operation)
            assert name in document["components"]["schemas"]


def test_answers_fit_the_documented_schema(admin):
    from service.schemas.models import LoadReport, UnloadReport

    assert LoadReport.model_validate_json(admin.load(force=True).content).checks
    assert UnloadReport.model_validate_json(admin.unload(force=True).content).unfinished == 0
