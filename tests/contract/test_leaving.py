"""A stop that a balancer notices in time, names of settings that are none, and the app for other servers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn

from service.app import create_app
from service.asgi import build
from service.errors import StartupError
from service.server import Server
from service.settings import Settings, misspelt

ROOT = Path(__file__).resolve().parents[2]


def test_from_the_signal_on_it_is_not_ready_and_answers_until_the_delay_is_over(settings, water):
    app = create_app(settings)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="none")
    server = Server(config, app, drain_delay_s=2.0)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        assert client.get("/health/ready").status_code == 200
        began = time.monotonic()
        server.handle_exit(signal.SIGTERM, None)
        refused = client.get("/health/ready")
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert client.post("/v1/predict", json=water).status_code == 200
    thread.join(60)
    assert not thread.is_alive()
    assert time.monotonic() - began >= 2.0


def test_a_second_signal_ends_the_delay(settings):
    app = create_app(settings)
    app.state.phase = "ready"
    server = Server(uvicorn.Config(app), app, drain_delay_s=300.0)
    server.handle_exit(signal.SIGTERM, None)
    assert (app.state.phase, server.should_exit) == ("leaving", False)
    server.handle_exit(signal.SIGTERM, None)
    assert (app.state.phase, server.should_exit) == ("draining", True)


def test_a_name_that_is_no_setting_is_told_with_the_one_that_is_meant():
    (line,) = misspelt(["TRACEGRAD_MAX_ATOM", "TRACEGRAD_MAX_ATOMS", "TRACEGRAD_API_KEY", "tracegrad_port", "PATH"])
    assert line.startswith("TRACEGRAD_MAX_ATOM: there is no such setting; TRACEGRAD_MAX_ATOMS is meant")


def test_it_ends_the_start():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "TRACEGRAD_PORT": str(port), "TRACEGRAD_MAX_ATOM": "5"}
    ended = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 2
    assert "TRACEGRAD_MAX_ATOMS is meant" in ended.stderr


def test_the_app_for_other_servers_is_that_of_the_variables(monkeypatch, checkpoints):
    for name in [name for name in os.environ if name.startswith("TRACEGRAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("service.observability.logs.configure_logging", lambda _: None)
    monkeypatch.setenv("TRACEGRAD_CHECKPOINTS", str(checkpoints))
    assert build().title == create_app(Settings()).title
    monkeypatch.setenv("TRACEGRAD_MAX_ATOM", "5")
    with pytest.raises(StartupError, match="MAX_ATOMS is meant"):
        build()
