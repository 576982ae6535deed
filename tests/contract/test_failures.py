"""What the service makes of a model that is slow, broken, or out of memory, and of its own start and stop."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.errors import NumericalError
from service.app import create_app
from service.settings import Settings

from .waiting import answers, wait_until
from .wrapped import Wrapped

H2 = {"structure": {"kind": "atoms", "numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.74]]}}
ROOT = Path(__file__).resolve().parents[2]
SECRET = "secret-in-the-exception"


def raising(error: Exception) -> Any:
    def before() -> None:
        raise error

    return before


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError(SECRET), 500, "internal_error"),
        (KeyError(SECRET), 500, "internal_error"),
        (NumericalError(SECRET), 500, "internal_error"),
        (NumericalError("The basis is linearly dependent.", field="positions"), 422, "numerical_failure"),
        (MemoryError(SECRET), 413, "too_large_for_memory"),
        (RuntimeError(f"DefaultCPUAllocator: not enough memory {SECRET}"), 413, "too_large_for_memory"),
    ],
)
def test_failures_of_the_model(serve, settings, predictor, registry_of, error, status, code):
    app = create_app(settings, registry=registry_of(Wrapped(predictor, raising(error)), 4))
    with serve(app) as client:
        reply = client.post("/v1/predict", json=H2)
        assert (reply.status_code, reply.json()["code"]) == (status, code)
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["request_id"] == reply.headers["x-request-id"]
        assert SECRET not in reply.text
        assert client.get("/health/ready").status_code == 200


def test_a_full_queue_is_503_with_retry_after_and_empties_again(serve, settings, predictor, registry_of):
    gate = threading.Event()
    registry = registry_of(Wrapped(predictor, gate.wait), 1)
    engine = registry.get("fake").backend
    with serve(create_app(settings, registry=registry)) as client, ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(client.post, "/v1/predict", json=H2) for _ in range(2)]
        wait_until(lambda: engine.unfinished == 2)
        refused = client.post("/v1/predict", json=H2)
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        # The event loop is free while the forward pass is not.
        assert client.get("/health/live").status_code == 200
        gate.set()
        assert [future.result().status_code for future in accepted] == [200, 200]
        assert client.post("/v1/predict", json=H2).status_code == 200


def test_a_late_answer_is_504_and_a_waiting_one_is_dropped(serve, settings, predictor, registry_of):
    gate = threading.Event()
    calls: list[float] = []

    def before() -> None:
        calls.append(time.monotonic())
        gate.wait()

    registry = registry_of(Wrapped(predictor, before), 5)
    engine = registry.get("fake").backend
    short = settings.model_copy(update={"request_timeout_s": 0.5})
    with serve(create_app(short, registry=registry)) as client, ThreadPoolExecutor(2) as pool:
        late = [pool.submit(client.post, "/v1/predict", json=H2) for _ in range(2)]
        for future in late:
            assert (future.result().status_code, future.result().json()["code"]) == (504, "deadline_exceeded")
        wait_until(lambda: engine.unfinished == 0)
        gate.set()
        assert client.post("/v1/predict", json=H2).status_code == 200
        assert len(calls) == 2, "one ran already, the other left the queue with its caller, the third is the new one"


def test_a_body_that_never_ends_is_504(serve, settings):
    short = settings.model_copy(update={"request_timeout_s": 0.5})
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with serve(create_app(short)) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address, timeout=30) as raw:
            raw.sendall(head)
            assert raw.recv(1000).startswith(b"HTTP/1.1 504")


def test_before_the_models_are_there_the_service_lives_but_is_not_ready(settings):
    import asyncio

    async def ask() -> list[httpx.Response]:
        # No lifespan: the app as it is before it has started.
        transport = httpx.ASGITransport(create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [
                await client.get("/health/live"),
                await client.get("/health/ready"),
                await client.post("/v1/predict", json=H2),
            ]

    live, ready, predict = asyncio.run(ask())
    assert live.status_code == 200
    for reply in (ready, predict):
        assert (reply.status_code, reply.json()["code"]) == (503, "not_ready")
        assert int(reply.headers["retry-after"]) >= 1


HOME = tempfile.TemporaryDirectory(prefix="tracegrad-test-home-")


def run(**variables: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEGRAD_")}
    environment.update({f"TRACEGRAD_{name}": value for name, value in variables.items()})
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", "HOME": HOME.name},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_sigterm_finishes_what_was_accepted_refuses_the_rest_and_exits_0(checkpoints, port):
    process = run(CHECKPOINTS=str(checkpoints), PORT=str(port), DEVICE="cpu")
    chains = [
        {"kind": "atoms", "numbers": [1] * 20, "positions": [[0, 0, 0.9 * k + 0.001 * j] for k in range(20)]}
        for j in range(16)
    ]
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url) or process.poll() is not None, seconds=120)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as other, ThreadPoolExecutor(1) as pool:
            assert other.get("/health/ready").status_code == 200
            # keep-alive: this connection is there before the signal, and busy when it comes
            batch = pool.submit(other.post, "/v1/predict/batch", json={"structures": chains})
            wait_until(lambda: in_queue(url) > 0)
            process.send_signal(signal.SIGTERM)
            assert batch.result().status_code == 200, batch.result().text
            assert batch.result().json()["meta"]["succeeded"] == len(chains), batch.result().text[:2000]
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_lost_device_is_not_ready_and_ends_the_process_for_a_restart(settings, predictor, registry_of):
    import uvicorn

    from service.server import Server

    fault = RuntimeError("CUDA error: an illegal memory access was encountered")
    app = create_app(settings, registry=registry_of(Wrapped(predictor, raising(fault)), 4))
    server = Server(uvicorn.Config(app, port=0, log_level="error"), app)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/predict", json=H2, trust_env=False)
    assert (reply.status_code, reply.json()["code"]) == (500, "internal_error")
    thread.join(30)
    assert not thread.is_alive()
    assert server.device_lost
    assert app.state.phase == "draining"


def test_a_broken_checkpoint_stops_the_start(checkpoints, tmp_path):
    broken = tmp_path / "tiny"
    shutil.copytree(checkpoints / "tiny", broken)
    card = broken / "card.json"
    card.write_text(card.read_text()[:-20])
    assert_refuses_to_start("tiny", CHECKPOINTS=str(tmp_path), DEVICE="cpu")


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"CHECKPOINTS": "/nonexistent"}, "TRACEGRAD_CHECKPOINTS"),
        ({"CHECKPOINTS": str(Path(__file__).parent)}, "card.json"),
        ({"PORT": "99999"}, "TRACEGRAD_PORT"),
        ({"DEVICE": "gpu"}, "TRACEGRAD_DEVICE"),
    ],
)
def test_wrong_settings_stop_the_start_and_say_why(variables, word):
    assert_refuses_to_start(word, **variables)


def test_an_unknown_default_model_stops_the_start(checkpoints):
    assert_refuses_to_start("TRACEGRAD_DEFAULT_MODEL", CHECKPOINTS=str(checkpoints), DEFAULT_MODEL="no", DEVICE="cpu")


def test_a_keys_file_that_is_not_there_stops_the_start(checkpoints):
    from service.errors import StartupError

    with pytest.raises(StartupError, match="API_KEYS_FILE"):
        create_app(Settings(checkpoints=checkpoints, api_keys_file=Path("keys")))


def assert_refuses_to_start(word: str, **variables: str) -> None:
    process = run(**variables)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 2, errors
    assert word in errors
    assert "Traceback" not in errors


def in_queue(url: str) -> float:
    lines = httpx.get(url + "/metrics", timeout=5, trust_env=False).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("tracegrad_queue_depth{"))
