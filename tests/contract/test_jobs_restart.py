"""Jobs and the process: ``python -m service`` without any setting of jobs, killed, started again, with a damaged store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ("-m", "service")
WITHOUT_MODELS = (
    "-c",
    "import sys, service.checkpoints.startup; service.checkpoints.startup.load_registry = lambda *_: None\n"
    "from service.__main__ import main; sys.exit(main())",
)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def start(checkpoints: Path, tmp_path: Path, port: int):
    """``start(*command)``: the service with a home folder of its own and always the same port."""
    processes: list[subprocess.Popen[str]] = []
    # a process of jobs takes seconds to start, and the pipe of the log, which nobody reads, fills meanwhile
    own = {"CHECKPOINTS": str(checkpoints), "PORT": str(port), "DEVICE": "cpu", "JOBS": "thread"}

    def make(*command: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEGRAD_")}
        environment |= {f"TRACEGRAD_{name}": value for name, value in own.items()}
        processes.append(
            subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**environment, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield make
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def http(port: int):
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        yield client


def wait_until(process: subprocess.Popen[str], condition: Any) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_a_killed_service_loses_no_job_and_an_idle_one_leaves_nothing_behind(start, http, water, tmp_path):
    process = start(*SERVICE)
    wait_until(process, lambda: http.get("/health/ready").status_code == 200)
    jobs = [http.post("/v1/jobs", json={**water, "outputs": ["hamiltonian"]}).json() for _ in range(6)]
    process.send_signal(signal.SIGKILL)
    process.wait()

    process = start(*SERVICE)
    wait_until(process, lambda: http.get("/health/ready").status_code == 200)
    for job in jobs:
        wait_until(process, lambda job=job: http.get(job["links"]["status"]).json()["state"] == "done")
        assert len(http.get(job["links"]["result"]).json()["results"]["hamiltonian"]) == 24
        assert http.delete(job["links"]["status"]).status_code == 204
    assert list(tmp_path.rglob("jobs.sqlite"))
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert not list(tmp_path.rglob("jobs*"))


def test_a_damaged_store_stops_the_start_by_name(start, tmp_path, port):
    path = tmp_path / ".local" / "state" / "tracegrad" / f"jobs-{port}" / "jobs.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database" * 1000)
    process = start(*WITHOUT_MODELS)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert str(path) in errors
    assert "move it" in errors
    assert "Traceback" not in errors
    assert path.read_bytes() == b"not a database" * 1000
