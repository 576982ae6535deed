"""Callers who leave, processes that are killed, threads that are hit: the one concerned is answered, the next one served."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from tests.slow_file import ENDLESS

from .waiting import wait_until
from .wrapped import Wrapped

H2 = {"kind": "atoms", "numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.74]]}
FILE = {"structure": {"kind": "file", "format": "xyz", "text": "2\n\nH 0 0 0\nH 0 0 0.74\n"}}
SLOW_FILE = {"structure": {"kind": "file", "format": "cif", "text": ENDLESS}}
"""ASE needs a minute for it, and is allowed five seconds."""


@pytest.fixture
def gated(serve: Any, settings: Any, predictor: Any, registry_of: Any) -> Iterator[Any]:
    """A service whose forward passes wait for the gate: client, engine, gate, and a list with an item for each pass."""
    gate, calls = threading.Event(), []

    def before() -> None:
        calls.append(1)
        assert gate.wait(60)

    registry = registry_of(Wrapped(predictor, before), 8)
    with serve(create_app(settings.model_copy(update={"cache_bytes": 0}), registry=registry)) as client:
        try:
            yield client, registry.get("fake").backend, gate, calls
        finally:
            gate.set()


# --- callers who leave


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/predict", {"structure": H2}),
        ("/v1/initial-guess", {"structure": H2}),
        ("/v1/predict/batch", {"structures": [H2] * 3}),
    ],
)
def test_what_waits_for_a_caller_who_left_is_dropped_before_the_forward_pass(gated, caplog, route, body):
    client, engine, gate, calls = gated
    n_structures = len(body.get("structures", [0]))
    caplog.set_level(logging.INFO, "service")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predict", json={"structure": H2})
        wait_until(lambda: len(calls) == 1)
        with connection(client) as raw:
            raw.sendall(request(route, json.dumps(body).encode()))
            wait_until(lambda: len(engine._queue._waiting) == n_structures)
        wait_until(lambda: engine.unfinished == 1)
        wait_until(lambda: in_flight(client) == 1)
        gate.set()
        assert first.result().status_code == 200
    assert client.post("/v1/predict", json=FILE).status_code == 200
    assert len(calls) == 2, "the first one and the last one; what was left between them never ran"
    assert engine.unfinished == 0
    assert complaints(caplog) == [499]


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/initial-guess", "/v1/predict/batch", "/v1/jobs"])
@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x", "chemical/x-xyz"])
def test_half_a_body_is_499_and_nothing_more(client, caplog, route, content_type):
    caplog.set_level(logging.INFO, "service")
    with connection(client) as raw:
        raw.sendall(
            request(route, b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n2\n', 1000, content_type)
        )
        wait_until(lambda: in_flight(client) == 1)
    wait_until(lambda: complaints(caplog) == [499])
    wait_until(lambda: in_flight(client) == 0)
    assert client.post("/v1/predict", json=FILE).status_code == 200


def test_a_caller_who_leaves_while_the_file_is_read_leaves_nothing_behind(serve, settings, caplog):
    caplog.set_level(logging.INFO, "service")
    app = create_app(settings.model_copy(update={"parse_timeout_s": 1.0}))
    with serve(app) as client:
        with connection(client) as raw:
            raw.sendall(request("/v1/predict", json.dumps(SLOW_FILE).encode()))
            wait_until(lambda: app.state.services.parsers._room.inside == 1)
        wait_until(lambda: complaints(caplog) == [499])
        assert client.post("/v1/initial-guess", json=FILE).status_code == 200
        wait_until(lambda: app.state.services.parsers._room.inside == 0)


# --- the parser process is killed


def test_a_parser_killed_between_two_files_is_not_noticed(serve, settings):
    app = create_app(settings.model_copy(update={"parse_workers": 1}))
    with serve(app) as client:
        for _ in range(2):
            process = parser_of(app)
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert client.post("/v1/predict", json=FILE).status_code == 200


def test_a_parser_killed_in_the_middle_of_a_file_costs_that_file_alone(serve, settings):
    app = create_app(settings.model_copy(update={"parse_workers": 1}))
    with serve(app) as client, ThreadPoolExecutor(2) as pool:
        process = parser_of(app)
        hit = pool.submit(client.post, "/v1/predict", json=SLOW_FILE)
        wait_until(lambda: app.state.services.parsers._processes.empty())
        waiting = pool.submit(client.post, "/v1/predict", json=FILE)
        wait_until(lambda: app.state.services.parsers._room.inside == 2)
        os.kill(process.pid, signal.SIGKILL)
        assert (hit.result().status_code, hit.result().json()["code"]) == (422, "unparsable_structure")
        assert waiting.result().status_code == 200
        assert parser_of(app).pid != process.pid


# --- an exception of any kind


@pytest.mark.parametrize("step", ["prepare", "forward", "finish"])
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        TimeoutError(),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_whatever_a_step_raises_is_one_500_and_the_next_request_is_served(
    serve, settings, predictor, registry_of, step, error
):
    failures = [error]

    def before() -> None:
        if failures:
            raise failures.pop()

    with serve(create_app(settings, registry=registry_of(Wrapped(predictor, before, step=step), 4))) as client:
        reply = client.post("/v1/predict", json={"structure": H2}, timeout=20)
        assert (reply.status_code, reply.json()["code"]) == (500, "internal_error")
        assert client.get("/health/ready").status_code == 200
        assert client.post("/v1/predict", json={"structure": H2}, timeout=20).status_code == 200


def test_a_forward_pass_that_forgets_a_structure_is_an_error_and_not_a_wait(serve, settings, predictor, registry_of):
    class Forgetful:
        def __getattr__(self, name: str) -> Any:
            return getattr(predictor, name)

        def forward(self, prepared: Any) -> Any:
            return list(predictor.forward(prepared))[:-1]

    with serve(create_app(settings, registry=registry_of(Forgetful(), 4))) as client:
        reply = client.post("/v1/predict/batch", json={"structures": [H2] * 3}, timeout=20)
        assert [item["status"] for item in reply.json()["items"]] == [500, 500, 500]


# --- saturation


def test_a_saturated_service_refuses_with_care_and_answers_everything_else(gated):
    client, engine, gate, _ = gated
    with ThreadPoolExecutor(40) as pool, httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as other:
        crowd = [pool.submit(client.post, "/v1/predict", json={"structure": H2}) for _ in range(40)]
        wait_until(lambda: sum(future.done() for future in crowd) == 40 - 9)
        assert engine.unfinished == 9
        for path in ("/health/live", "/health/ready", "/metrics", "/v1/models", "/openapi.json", "/docs"):
            assert other.get(path).status_code == 200
        assert other.post("/v1/predict", json={"structure": {}}).status_code == 422
        gate.set()
        replies = [future.result() for future in crowd]
    assert sorted(reply.status_code for reply in replies) == [200] * 9 + [503] * 31
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies if reply.status_code == 503)
    assert in_flight(client) == 0


def request(route: str, body: bytes, length: int | None = None, content_type: str = "application/json") -> bytes:
    """A request; with a ``length`` above that of the body, the beginning of one."""
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def connection(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as raw:
        yield raw


def in_flight(client: httpx.Client) -> float:
    """Requests being answered, the one that asks not counted."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        if family.name == "tracegrad_in_flight":
            return float(family.samples[0].value) - 1
    raise AssertionError("there is no such metric")


def complaints(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Statuses in the log other than 200; nothing may be logged above ``info``."""
    records = list(caplog.records)
    assert not [record.getMessage() for record in records if record.levelno > logging.INFO]
    statuses = [int(record.__dict__["status"]) for record in records if record.name == "service.access"]
    return [status for status in statuses if status != 200]


def parser_of(app: FastAPI) -> Any:
    """The parser process of an app that has one."""
    (parser,) = app.state.services.parsers._all
    return parser._process
