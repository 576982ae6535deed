"""The service as a Ray Serve application with two replicas; skipped where Ray or a network of one's own is not to be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.serve", reason="Ray Serve is not installed (extra ray)")

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up"]


def test_metrics_keep_their_names_and_labels() -> None:
    from service.observability.metrics import Metrics
    from service.ray_serve import samples

    metrics = Metrics()
    metrics.request_started()
    metrics.request_finished("/v1/predict", "POST", 200, 0.02, 17)
    found = {(name, tuple(sorted(labels.items()))): value for name, labels, value in samples(metrics)}
    assert found["tracegrad_requests_total", (("method", "POST"), ("route", "/v1/predict"), ("status", "200"))] == 1.0
    assert found["tracegrad_response_bytes_total", (("route", "/v1/predict"),)] == 17.0
    assert found["tracegrad_request_seconds_bucket", (("le", "+Inf"), ("route", "/v1/predict"))] == 1.0
    assert not [name for name, _ in found if not name.startswith("tracegrad_")]


def test_two_replicas_answer_are_scraped_one_by_one_and_a_killed_one_comes_back() -> None:
    try:
        subprocess.run(NAMESPACE, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no network namespace of one's own: {error}")
    command = [sys.executable, str(ROOT / "benchmarks" / "ray_serve.py"), "--rounds", "0", "--load-seconds", "2"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["same"], "any replica gives the same answer"
    assert found["refused"] == "invalid_request"
    assert found["jobs"] == 404, "replicas take no jobs"
    assert len(found["exported"]) == 2, "each replica has its own figures"
    assert sum(found["exported"].values()) >= 10
    assert found["lost"] <= 4, "no more than were under way in the killed replica"
    assert found["recovered_s"] < 240
