"""Memory as part of the contract: what cannot fit is refused before it is computed, what fits now or later is answered."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.app import create_app

from .waiting import answers, wait_until

ROOT = Path(__file__).resolve().parents[2]
GROUPS = Path("/sys/fs/cgroup")
LIMIT = 768 * 1024**2


def chain(n_atoms: int) -> dict[str, object]:
    """A row of H2 molecules."""
    x = np.repeat(np.arange(n_atoms // 2) * 3.0, 2) + np.tile([0.0, 0.74], n_atoms // 2)
    positions = np.stack([x, np.zeros(n_atoms), np.zeros(n_atoms)], axis=1).tolist()
    return {"structure": {"kind": "atoms", "numbers": [1] * n_atoms, "positions": positions}}


def alkane(n_carbon: int) -> dict[str, object]:
    """A zigzag chain."""
    numbers, positions = [], []
    for index in range(n_carbon):
        x, y = 1.26 * index, 0.44 * (1 if index % 2 else -1)
        ends = [(x - 0.9, y - 0.6, 0.0)] * (index == 0) + [(x + 0.9, y + np.sign(y) * 0.6, 0.0)] * (
            index == n_carbon - 1
        )
        around = [(x, y + 0.63 * np.sign(y), z) for z in (0.89, -0.89)] + ends
        numbers += [6] + [1] * len(around)
        positions += [[x, y, 0.0], *[[float(value) for value in row] for row in around]]
    return {"structure": {"kind": "atoms", "numbers": numbers, "positions": positions}}


@pytest.mark.parametrize("route", ["predict", "initial-guess", "jobs"])
def test_what_can_never_fit_is_413_before_it_is_computed(settings, serve, monkeypatch, route):
    monkeypatch.setattr("service.app.capacity", lambda _: 150_000_000)
    with serve(create_app(settings)) as client:
        assert client.post(f"/v1/{route}", json=chain(2)).is_success
        refused = client.post(f"/v1/{route}", json=chain(40))
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large_for_memory")
        assert "100 MB for a structure" in refused.json()["detail"]
        assert client.get("/health/ready").status_code == 200


def test_what_does_not_fit_beside_another_waits_for_it(settings, serve, monkeypatch):
    needs = []

    def need(*_: object) -> int:
        needs.append(60)
        return 60

    monkeypatch.setattr("service.app.capacity", lambda _: 100)
    monkeypatch.setattr("service.answer.need_of", need)
    with serve(create_app(settings)) as client, ThreadPoolExecutor(6) as callers:
        statuses = list(callers.map(lambda n: client.post("/v1/predict", json=chain(2 * n)).status_code, range(1, 7)))
    assert statuses == [200] * 6
    assert len(needs) == 6


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group with a limit, of version 1 or 2; its processes are ended with the test."""
    top = GROUPS / "memory" if (GROUPS / "memory").is_dir() else GROUPS
    group = top / f"tracegrad-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if top.name == "memory" else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error.strerror}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text().strip())
    group.rmdir()


def kills(group: Path) -> int:
    """Processes of the group that the kernel has killed."""
    for name in ("memory.oom_control", "memory.events"):
        for line in (group / name).read_text().splitlines() if (group / name).is_file() else []:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    raise AssertionError("the group does not count its kills")


def test_a_service_with_little_memory_refuses_and_lives(memory_group, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "default").symlink_to(ROOT / "checkpoints" / "default", target_is_directory=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEGRAD_")}
    own = {"PORT": port, "CHECKPOINTS": folder, "DEVICE": "cpu", "CACHE_BYTES": 0, "PARSE_WORKERS": 1}
    environment |= {f"TRACEGRAD_{name}": str(value) for name, value in own.items()}
    command = f'echo $$ > {memory_group}/cgroup.procs && exec "{sys.executable}" -m service'
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=ROOT, env={**environment, "HOME": str(tmp_path)}, stderr=log, stdout=log
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or answers(url), 120)
        found = {}
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            for n_carbon in (2, 12, 24, 40):
                answer = client.post("/v1/predict", json=alkane(n_carbon))
                found[n_carbon] = answer.json()["code"] if answer.is_error else 200
        assert found[2] == 200, found
        assert found[40] == "too_large_for_memory", found
        assert set(found.values()) == {200, "too_large_for_memory"}, found
        assert process.poll() is None
        assert kills(memory_group) == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        log.seek(0)
        print(log.read())
        log.close()
