"""Keys over a real socket, with a real checkpoint: who is let in, who is not, and that the client's key is a key."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.new_key import new_key, table_of
from service.app import create_app
from tracegrad_client import AuthenticationError, Client, QuotaExceededError

KEYS = {name: new_key() for name in ("alice", "bob", "carol", "dave", "erin", "operator")}
UNKNOWN = new_key()
NEEDED = {"type", "title", "status", "detail", "code", "request_id"}


@pytest.fixture(scope="module")
def keyed(serve: Any, settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The service with a keys file."""
    path: Path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(
        table_of("alice", KEYS["alice"])
        + table_of("bob", KEYS["bob"], requests_per_minute=2)
        + table_of("carol", KEYS["carol"], requests_per_minute=1)
        + table_of("dave", KEYS["dave"], requests_per_minute=4)
        + table_of("erin", KEYS["erin"])
        + table_of("operator", KEYS["operator"], admin=True)
    )
    with serve(create_app(settings.model_copy(update={"api_keys_file": path}))) as client:
        yield client


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


def refused(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """What holds for every refusal."""
    body: dict[str, Any] = reply.json()
    assert (reply.status_code, body["code"], body["status"]) == (status, code, status)
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(body) >= NEEDED
    assert body["request_id"] == reply.headers["x-request-id"]
    assert body["hint"]
    for key in (*KEYS.values(), UNKNOWN):
        assert key not in reply.text
        assert key not in str(reply.headers)
    return body


def test_a_key_opens_predictions_and_its_absence_does_not(keyed, water):
    assert keyed.post("/v1/predict", json=water, headers=bearer("alice")).status_code == 200
    assert keyed.post("/v1/predict", json=water, headers={"X-API-Key": KEYS["alice"]}).status_code == 200
    for headers in ({}, {"Authorization": f"Bearer {UNKNOWN}"}, {"X-API-Key": UNKNOWN}):
        reply = keyed.post("/v1/predict", json=water, headers=headers)
        refused(reply, 401, "missing_key")
        assert reply.headers["www-authenticate"] == "Bearer"


def test_pages_health_and_the_document_need_no_key(keyed):
    for path in ("/", "/docs", "/openapi.json", "/health/live", "/health/ready"):
        assert keyed.get(path).status_code == 200


def test_a_stranger_does_not_learn_which_routes_there_are(keyed):
    for path in ("/v1/models", "/v1/nothing", "/v1/admin/models/tiny/load", "/nothing"):
        refused(keyed.get(path), 401, "missing_key")
    assert keyed.get("/v1/nothing", headers=bearer("alice")).status_code == 404


def test_admin_routes_open_to_the_operator_alone(keyed):
    path = "/v1/admin/models/no-such-model/load"
    refused(keyed.post(path, headers=bearer("alice")), 403, "forbidden")
    assert keyed.post(path, headers=bearer("operator")).status_code not in (401, 403)


def test_without_keys_the_admin_routes_are_closed_to_everybody(client):
    for headers in ({}, bearer("operator")):
        body = refused(client.post("/v1/admin/models/tiny/load", headers=headers), 403, "forbidden")
        assert "service.access new" in body["hint"]
    assert client.get("/v1/models", headers=bearer("operator")).status_code == 200


def test_a_spent_quota_is_one_keys_own(keyed):
    assert [keyed.get("/v1/models", headers=bearer("bob")).status_code for _ in range(2)] == [200, 200]
    reply = keyed.get("/v1/models", headers=bearer("bob"))
    refused(reply, 429, "quota_exceeded")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert keyed.get("/v1/models", headers=bearer("alice")).status_code == 200


def test_a_batch_counts_its_structures(keyed, water):
    batch = {"structures": [water["structure"]] * 5}
    body = refused(keyed.post("/v1/predict/batch", json=batch, headers=bearer("dave")), 429, "quota_exceeded")
    assert "the 4 a minute" in body["detail"]
    batch["structures"].pop()
    # the refused one counts as the request that it was
    refused(keyed.post("/v1/predict/batch", json=batch, headers=bearer("dave")), 429, "quota_exceeded")
    batch["structures"].pop()
    batch["structures"].pop()
    assert keyed.post("/v1/predict/batch", json=batch, headers=bearer("dave")).json()["meta"]["succeeded"] == 2


def test_a_large_structure_counts_for_more_where_the_operator_wants_it(serve, settings, tmp_path, water):
    path = tmp_path / "keys.toml"
    path.write_text(
        table_of("alice", KEYS["alice"], requests_per_minute=9) + table_of("bob", KEYS["bob"], requests_per_minute=18)
    )
    hydrogen = {"structure": {"kind": "atoms", "numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.74]]}}
    options = {"api_keys_file": path, "quota_orbitals": 10}
    with serve(create_app(settings.model_copy(update=options))) as client:

        def sent(name: str, body: Any, route: str = "/v1/predict") -> httpx.Response:
            return client.post(route, json=body, headers=bearer(name))

        # water's 24 orbitals count as 6, also where the answer is in memory; hydrogen's 10 as 1
        assert sent("alice", water).status_code == 200
        refused(sent("alice", water), 429, "quota_exceeded")
        # the refused one counted as the request that it was
        assert [sent("alice", hydrogen).status_code for _ in range(3)] == [200, 200, 429]
        # a batch, and a job when it is submitted
        batch = {"structures": [water["structure"], hydrogen["structure"]]}
        assert sent("bob", batch, "/v1/predict/batch").json()["meta"]["succeeded"] == 2
        assert sent("bob", {"kind": "predict", **water}, "/v1/jobs").status_code == 202
        refused(sent("bob", {"kind": "predict", **water}, "/v1/jobs"), 429, "quota_exceeded")
        refused(sent("bob", water), 429, "quota_exceeded")


def test_a_large_body_without_a_key_is_refused_for_the_key_and_the_connection_goes_on(keyed):
    for content in (b" " * 6_000_000, iter([b" " * 65536] * 100)):
        refused(keyed.post("/v1/predict", content=content), 401, "missing_key")
        assert keyed.get("/health/live").status_code == 200


def test_the_client_sends_its_key(keyed):
    url = str(keyed.base_url)
    with Client(url, api_key=KEYS["alice"]) as client:
        assert [card["name"] for card in client.models()] == ["tiny"]
    for key in (None, UNKNOWN):
        with Client(url, api_key=key) as client, pytest.raises(AuthenticationError) as refusal:
            client.models()
        assert (refusal.value.code, refusal.value.status) == ("missing_key", 401)
        assert UNKNOWN not in str(refusal.value)
    with Client(url, api_key=KEYS["carol"]) as client:
        client.models()
        with pytest.raises(QuotaExceededError) as spent:
            client.models()
    assert 1 <= (spent.value.retry_after or 0) <= 60


def test_no_key_is_in_the_log(keyed, water, caplog):
    caplog.set_level(logging.DEBUG)
    keyed.post("/v1/predict", json=water, headers=bearer("alice"))
    keyed.post("/v1/predict", json={"structure": {}}, headers={"X-API-Key": KEYS["alice"]})
    keyed.get("/v1/admin/x", headers=bearer("alice"))
    keyed.get("/v1/models", headers={"X-API-Key": UNKNOWN})
    assert caplog.records  # something was listened to
    for key in (*KEYS.values(), UNKNOWN):
        assert key not in caplog.text


def test_nobody_sees_in_an_answer_what_another_key_asked(keyed, water):
    water["structure"]["positions"][0][2] = 0.1234567  # asked nowhere else
    asked = [keyed.post("/v1/predict", json=water, headers=bearer(name)).json() for name in ("alice", "alice", "erin")]
    assert [answer["meta"]["cached"] for answer in asked] == [False, True, False]
    assert asked[2]["meta"]["timings_ms"]["forward"] > 0
