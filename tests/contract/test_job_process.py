"""Jobs in a process of their own: the answer of the route, a death that nobody else notices, an end within seconds."""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.job_process import pool

from .waiting import wait_until

LONG = 30  # atoms: some seconds of work


@pytest.fixture(scope="module")
def jobs_client(settings, serve) -> Iterator[httpx.Client]:
    with serve(create_app(settings.model_copy(update={"jobs": "process", "cache_bytes": 0}))) as client:
        yield client


def children() -> list[int]:
    """The processes of jobs of this test's service."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
        except (OSError, IndexError):
            continue
        if b"service.job_process.worker" in command and int(parent) == os.getpid():
            found.append(int(entry.name))
    return found


def finished(client: httpx.Client, job: str) -> dict[str, Any]:
    status: dict[str, Any] = {}

    def over() -> bool:
        status.update(client.get(f"/v1/jobs/{job}").json())
        return status["state"] in ("done", "failed")

    wait_until(over, 120)
    return status


def is_worked_on(client: httpx.Client, job: str) -> bool:
    """Whether the process has it: a process that dies before is replaced, and nothing fails."""
    status = client.get(f"/v1/jobs/{job}").json()
    return bool(children()) and status["state"] == "running" and status["progress"]["stage"] is not None


def submit(client: httpx.Client, **request: Any) -> str:
    answer = client.post("/v1/jobs", json=request)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def large(step: float = 0.0) -> dict[str, Any]:
    x = np.repeat(np.arange(LONG // 2) * 3.0, 2) + np.tile([0.0, 0.74 + step], LONG // 2)
    positions = np.stack([x, np.zeros(LONG), np.zeros(LONG)], axis=1).tolist()
    return {"structure": {"kind": "atoms", "numbers": [1] * LONG, "positions": positions}}


def test_a_jobs_answer_is_the_answer_of_its_route(jobs_client, water, water_xyz):
    outputs = ["orbital_energies", "hamiltonian"]
    direct = jobs_client.post("/v1/predict", json={**water, "outputs": outputs}).json()
    for structure in (water["structure"], {"kind": "file", "format": "xyz", "text": water_xyz}):
        job = submit(jobs_client, structure=structure, outputs=outputs)
        assert finished(jobs_client, job)["state"] == "done"
        answer = jobs_client.get(f"/v1/jobs/{job}/result").json()
        assert answer["defaults_applied"] == direct["defaults_applied"]
        assert answer["meta"]["sha256"] == direct["meta"]["sha256"]
        for name in outputs:
            np.testing.assert_allclose(answer["results"][name], direct["results"][name], atol=1e-8)
    assert len(children()) == 1, "one process for one job at a time"
    assert os.getpriority(os.PRIO_PROCESS, children()[0]) == os.getpriority(os.PRIO_PROCESS, 0) + 10
    assert os.getsid(children()[0]) == os.getsid(0), "in another one, autogroups would give it a share of its own"
    assert os.getpgid(children()[0]) == children()[0]


def test_what_a_job_does_is_counted(jobs_client, water):
    def count() -> int:
        text = jobs_client.get("/metrics").text
        return sum(int(float(value)) for value in re.findall(r"^tracegrad_predictions_total\S* (\S+)$", text, re.M))

    before = count()
    finished(jobs_client, submit(jobs_client, **water))
    assert count() == before + 1


def test_a_process_that_dies_fails_its_job_and_nothing_else(jobs_client, water, caplog):
    job = submit(jobs_client, **large())
    wait_until(lambda: is_worked_on(jobs_client, job))
    with caplog.at_level(logging.INFO, logger="service"):
        os.kill(children()[0], signal.SIGKILL)
        status = finished(jobs_client, job)
    assert status["state"] == "failed"
    assert jobs_client.get(f"/v1/jobs/{job}/result").json()["code"] == "job_failed"
    assert "SIGKILL" in caplog.text
    assert jobs_client.post("/v1/predict", json=water).status_code == 200
    assert finished(jobs_client, submit(jobs_client, **water))["state"] == "done", "the next one has a new process"


def test_a_death_for_memory_is_told_as_such(jobs_client, monkeypatch):
    counts = itertools.count()
    for process in children():
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: not children())
    monkeypatch.setattr("service.job_process.child.out_of_memory_kills", lambda: next(counts))
    job = submit(jobs_client, **large(0.01))
    wait_until(lambda: is_worked_on(jobs_client, job))
    os.kill(children()[0], signal.SIGKILL)
    finished(jobs_client, job)
    problem = jobs_client.get(f"/v1/jobs/{job}/result")
    assert (problem.status_code, problem.json()["code"]) == (413, "too_large_for_memory")


def test_a_deleted_job_ends_its_process_and_a_stop_takes_seconds(settings, serve, tmp_path):
    changed = settings.model_copy(update={"jobs": "process", "jobs_folder": tmp_path})
    with serve(create_app(changed)) as client:
        job = submit(client, **large(0.02))
        wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["progress"]["stage"] is not None)
        known = set(children())
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
        wait_until(lambda: not known & set(children()) or client.get("/health/ready").status_code != 200)
        submit(client, **large(0.03))
        wait_until(lambda: bool(children()))
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert not known & set(children())


def test_memory_of_the_process_is_held_while_it_lives(settings, serve, water, monkeypatch):
    monkeypatch.setattr(pool, "IDLE_S", 0.2)
    app = create_app(settings.model_copy(update={"jobs": "process"}))
    with serve(app) as client:
        memory = app.state.services.memory
        before = set(children())
        job = submit(client, **water)
        wait_until(lambda: memory.held >= pool.PROCESS_BYTES)
        assert finished(client, job)["state"] == "done"
        wait_until(lambda: memory.held == 0)
        assert set(children()) <= before


def test_where_processes_would_take_most_of_the_memory_jobs_run_beside_requests(settings, serve, water, monkeypatch):
    monkeypatch.setattr("service.app.capacity", lambda _: 400_000_000)
    with serve(create_app(settings.model_copy(update={"jobs": "process"}))) as client:
        before = set(children())
        assert finished(client, submit(client, **water))["state"] == "done"
        assert set(children()) <= before


def test_a_replica_without_jobs_says_so_and_opens_no_store(settings, serve, water, tmp_path):
    with serve(create_app(settings.model_copy(update={"jobs": "off", "jobs_folder": tmp_path / "jobs"}))) as client:
        assert client.post("/v1/predict", json=water).status_code == 200
        answers = [client.post("/v1/jobs", json=water), client.get("/v1/jobs/x"), client.delete("/v1/jobs/x")]
        assert [(a.status_code, a.json()["code"]) for a in answers] == [(404, "not_found")] * 3
    assert not (tmp_path / "jobs").exists()
