"""What browsers and probes ask: HEAD wherever GET answers, and pages of other origins where the operator allows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from service.app import create_app
from service.settings import Settings

ORIGIN = "https://lab.example.org"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/metrics", "/health/live", "/health/ready", "/v1/models", "/v1/models/tiny"],
)
def test_head_is_get_without_the_body(client, path):
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_head_of_a_result_and_of_what_is_not_there(client, water):
    job = client.post("/v1/jobs", json=water).json()
    assert client.head(job["links"]["status"]).status_code == 200
    assert client.head("/v1/jobs/nothing").status_code == client.head("/nothing").status_code == 404
    refused = client.head("/v1/predict")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert client.post("/v1/models").headers["allow"] == "GET, HEAD"


@pytest.fixture(scope="module")
def open_to_a_page(serve: Any, settings: Settings) -> Iterator[httpx.Client]:
    with serve(create_app(settings.model_copy(update={"cors_origins": (ORIGIN,)}))) as client:
        yield client


def test_a_page_of_the_operators_origin_may_call_and_read_the_headers(open_to_a_page, water):
    asked = open_to_a_page.options("/v1/predict", headers={"Origin": ORIGIN, **PREFLIGHT})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, ORIGIN)
    for reply in (
        open_to_a_page.post("/v1/predict", json=water, headers={"Origin": ORIGIN}),
        open_to_a_page.post("/v1/predict", json={}, headers={"Origin": ORIGIN}),
    ):
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert {"x-request-id", "etag"} <= {
            name.strip().lower() for name in reply.headers["access-control-expose-headers"].split(",")
        }


def test_other_pages_are_refused_with_a_problem_and_without_the_setting_no_page_may(open_to_a_page, client, water):
    other = open_to_a_page.options("/v1/predict", headers={"Origin": "https://elsewhere.org", **PREFLIGHT})
    assert (other.status_code, other.json()["code"]) == (403, "forbidden")
    assert other.json()["request_id"] == other.headers["x-request-id"]
    for service, origin in ((open_to_a_page, "https://elsewhere.org"), (client, ORIGIN)):
        reply = service.post("/v1/predict", json=water, headers={"Origin": origin})
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    ("text", "origins"),
    [("", ()), ("*", ("*",)), (f" {ORIGIN}, http://127.0.0.1:3000 ", (ORIGIN, "http://127.0.0.1:3000"))],
)
def test_origins_are_read_from_a_text_with_commas(monkeypatch, text, origins):
    monkeypatch.setenv("TRACEGRAD_CORS_ORIGINS", text)
    assert Settings().cors_origins == origins


@pytest.mark.parametrize("text", ["lab.example.org", f"{ORIGIN}/", f"{ORIGIN}/page", "https://*.example.org"])
def test_what_no_browser_sends_as_an_origin_stops_the_start(monkeypatch, text):
    monkeypatch.setenv("TRACEGRAD_CORS_ORIGINS", text)
    with pytest.raises(ValidationError):
        Settings()
