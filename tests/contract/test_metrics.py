"""``GET /metrics`` of the running service, and the log lines of ``python -m service``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from service.app import create_app

from .waiting import answers, wait_until

H2 = {"structure": {"kind": "atoms", "numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.74]]}}
ROOT = Path(__file__).resolve().parents[2]


def scrape(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels."""
    reply = client.get("/metrics")
    assert reply.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(reply.text)
        for sample in family.samples
    }


def answered(route: str, status: int, method: str = "POST") -> tuple[str, tuple[tuple[str, str], ...]]:
    """The counter of a route's answers."""
    return "tracegrad_requests_total", (("method", method), ("route", route), ("status", str(status)))


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("*/*", "text/plain", parse_text),
        ("application/openmetrics-text", "application/openmetrics-text", parse_openmetrics),
    ],
)
def test_the_page_is_what_prometheus_reads(client, accept, content_type, parse):
    reply = client.get("/metrics", headers={"Accept": accept})
    assert reply.headers["content-type"].startswith(content_type + "; version=")
    assert reply.headers["cache-control"] == "no-store"
    assert {family.name for family in parse(reply.text)} >= {"tracegrad_ready", "tracegrad_in_flight"}


def test_the_loaded_model_is_named_with_its_weights(client, predictor):
    counts = scrape(client)
    card = predictor.card
    labels = (("model", card.name), ("sha256", card.weights_sha256), ("version", card.version))
    assert counts["tracegrad_model_loaded_info", labels] == 1
    assert counts["tracegrad_ready", ()] == 1
    assert counts["tracegrad_queue_depth", (("model", card.name),)] == 0


def test_an_answer_and_a_refusal_are_one_each(serve, settings):
    with serve(create_app(settings)) as client:
        assert client.post("/v1/predict", json=H2).status_code == 200
        assert client.post("/v1/predict", json={**H2, "charge": 1, "multiplicity": 1}).status_code == 422
        counts = scrape(client)
    assert counts[answered("/v1/predict", 200)] == 1
    assert counts[answered("/v1/predict", 422)] == 1
    assert counts["tracegrad_request_seconds_count", (("route", "/v1/predict"),)] == 2
    refused = {
        dict(labels)["reason"]: n for (name, labels), n in counts.items() if name == "tracegrad_rejections_total" and n
    }
    assert sum(refused.values()) == 1


def test_a_prediction_is_counted_timed_and_traced_once_and_a_cached_one_is_a_hit(serve, settings, predictor):
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from service.observability.tracing import Tracing

    exporter = InMemorySpanExporter()
    with serve(create_app(settings, tracing=Tracing(SimpleSpanProcessor(exporter)))) as client:
        assert client.post("/v1/predict", json=H2).status_code == 200
        first = {span.name: span for span in exporter.get_finished_spans()}
        counts = scrape(client)
        assert client.post("/v1/predict", json=H2).status_code == 200
        again = scrape(client)
    model = ("model", predictor.card.name)
    assert (
        sum(n for (name, labels), n in counts.items() if name == "tracegrad_predictions_total" and model in labels) == 1
    )
    for stage in ("parse", "integrals", "forward", "eigensolve", "serialise"):
        assert counts["tracegrad_stage_seconds_count", (model, ("stage", stage))] == 1
    assert counts["tracegrad_batch_structures_sum", (model,)] == 1
    assert counts["tracegrad_queue_wait_seconds_count", (model,)] == 1
    assert (counts["tracegrad_cache_hits_total", ()], counts["tracegrad_cache_misses_total", ()]) == (0, 1)
    assert (again["tracegrad_cache_hits_total", ()], again["tracegrad_cache_misses_total", ()]) == (1, 1)
    assert again["tracegrad_batch_structures_sum", (model,)] == 1
    request = first.pop("POST /v1/predict")
    assert set(first) == {"parse", "integrals", "queue", "forward", "eigensolve", "serialise"}
    assert {span.parent.span_id for span in first.values()} == {request.context.span_id}
    assert all(span.end_time <= request.end_time for span in first.values())


class Gated:
    """A real predictor whose forward pass waits for a gate."""

    def __init__(self, inner: Any, gate: threading.Event) -> None:
        self._inner = inner
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def forward(self, prepared: Any) -> Any:
        self._gate.wait(60)
        return self._inner.forward(prepared)


def test_a_full_service_is_still_scraped_and_says_how_full_it_is(serve, settings, predictor, registry_of):
    gate = threading.Event()
    registry = registry_of(Gated(predictor, gate), 1)
    engine = registry.get("fake").backend
    with serve(create_app(settings, registry=registry)) as client, ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(client.post, "/v1/predict", json=H2) for _ in range(2)]
        try:
            wait_until(lambda: engine.unfinished == 2)
            assert client.post("/v1/predict", json=H2).json()["code"] == "queue_full"
            counts = scrape(client)
        finally:
            gate.set()
        assert counts["tracegrad_queue_depth", (("model", "fake"),)] == 2
        assert counts["tracegrad_in_flight", ()] == 3  # the two, and the scrape itself
        assert counts["tracegrad_rejections_total", (("reason", "queue_full"),)] == 1
        assert [future.result().status_code for future in accepted] == [200, 200]
        wait_until(lambda: scrape(client)["tracegrad_in_flight", ()] == 1)
        assert scrape(client)["tracegrad_queue_depth", (("model", "fake"),)] == 0


def test_a_caller_who_hangs_up_is_499_and_no_error(serve, settings):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with serve(create_app(settings)) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as raw:
            raw.sendall(head)
            wait_until(lambda: scrape(client)["tracegrad_in_flight", ()] == 2)
        wait_until(lambda: scrape(client)["tracegrad_in_flight", ()] == 1)
        counts = scrape(client)
    assert counts[answered("/v1/predict", 499)] == 1
    assert not any(n for (name, _), n in counts.items() if name == "tracegrad_rejections_total")


def test_every_line_of_the_process_is_json_and_a_request_has_its_id(checkpoints):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEGRAD_")}
    variables = {"CHECKPOINTS": str(checkpoints), "PORT": str(port), "DEVICE": "cpu", "LOG_FORMAT": "json"}
    environment |= {f"TRACEGRAD_{name}": value for name, value in variables.items()} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "service"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url) or process.poll() is not None, seconds=120)
        reply = httpx.post(
            f"{url}/v1/predict?x=y", json=H2, headers={"X-Request-ID": "id-7"}, trust_env=False, timeout=60
        )
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert reply.headers["x-request-id"] == "id-7"
    lines = [json.loads(line) for line in errors.splitlines()]
    assert {"service.access", "uvicorn.error"} <= {line["logger"] for line in lines}
    (line,) = (line for line in lines if line.get("request_id") == "id-7")
    assert (line["route"], line["status"], line["code"]) == ("/v1/predict", 422, "invalid_request")
    assert not any("x=y" in entry for entry in errors.splitlines())
