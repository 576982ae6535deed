"""SIGTERM to ``python -m service`` in the middle of requests and a job: it ends in time and loses nothing it had accepted."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from .test_signals import started
from .waiting import wait_until

LONGEST_S = 10.0
"""A stop takes at most so long."""
SLACK_S = 5.0
"""For a machine that tests share with others."""
CALLERS = 6
LONG = 80
"""Atoms of the job."""


def ready(url: str) -> bool:
    try:
        return httpx.get(url + "/health/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def chain(atoms: int) -> dict[str, Any]:
    x = np.repeat(np.arange(atoms // 2) * 3.0, 2) + np.tile([0.0, 0.74], atoms // 2)
    positions = np.stack([x, np.zeros(atoms), np.zeros(atoms)], axis=1).tolist()
    return {"structure": {"kind": "atoms", "numbers": [1] * atoms, "positions": positions}}


def test_a_stop_under_load_ends_in_time_and_answers_what_was_accepted(checkpoints: Path, tmp_path: Path) -> None:
    process, url = started(checkpoints, tmp_path)
    numbers, heard = count(), Counter[str]()
    stopping, over = threading.Event(), threading.Event()

    def call() -> None:
        """Send waters that nobody has sent before, a connection each, until the service has gone."""
        while not over.is_set():
            positions = [[0, 0, 0.119], [0, 0.763 + 1e-5 * next(numbers), -0.477], [0, -0.763, -0.477]]
            before = not stopping.is_set()
            try:
                structure = {"kind": "atoms", "numbers": [8, 1, 1], "positions": positions}
                reply = httpx.post(url + "/v1/predict", json={"structure": structure}, timeout=60, trust_env=False)
                heard[f"{'before' if before else 'after'} {reply.status_code}"] += 1
            except httpx.TransportError as error:
                if before:
                    heard[f"before {type(error).__name__}"] += 1
                else:
                    return

    threads = [threading.Thread(target=call) for _ in range(CALLERS)]
    try:
        wait_until(lambda: ready(url), 120)
        job = httpx.post(url + "/v1/jobs", json=chain(LONG), trust_env=False).json()["id"]
        wait_until(lambda: httpx.get(f"{url}/v1/jobs/{job}", trust_env=False).json()["state"] == "running", 60)
        for thread in threads:
            thread.start()
        wait_until(lambda: heard["before 200"] > 5 * CALLERS, 60)
        stopping.set()
        time.sleep(1.0)  # what was sent before is there by now, also on a busy machine
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        took = time.monotonic() - began
    finally:
        over.set()
        process.kill()
        process.wait()
    for thread in threads:
        thread.join()
    assert code == 0
    assert took < LONGEST_S + SLACK_S
    # what found no door open was not accepted; what was is answered
    assert {name for name in heard if name.startswith("before")} <= {"before 200", "before 503", "before ConnectError"}
    assert heard["before 200"] > 5 * CALLERS
    assert {name for name in heard if name.startswith("after")} <= {"after 200", "after 503"}

    again, url = started(checkpoints, tmp_path)
    try:
        wait_until(lambda: ready(url), 120)
        assert httpx.get(f"{url}/v1/jobs/{job}", trust_env=False).json()["state"] in ("queued", "running", "done")
        again.send_signal(signal.SIGTERM)
        assert again.wait(60) == 0
    finally:
        again.kill()
        again.wait()
