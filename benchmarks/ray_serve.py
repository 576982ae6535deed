"""Ray Serve with two replicas beside one plain process: what it costs, and what a killed replica costs.

``python benchmarks/ray_serve.py [--rounds 60]``; needs the extra ``ray``, two cores and 3 GB. It runs in a network namespace
of its own (``unshare``), since Ray listens on every address of a machine. Requests go to both in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).resolve().parents[1]
INSIDE: Final = "TRACEGRAD_BENCHMARK_NAMESPACE"
PLAIN, SERVED = "http://127.0.0.1:8931", "http://127.0.0.1:8932"
LOADED_S: Final = 240.0
WATER: Final = [[0.0, 0.0, 0.117], [0.0, 0.757, -0.469], [0.0, -0.757, -0.469]]


def alone(arguments: list[str]) -> int:
    """This script again, in a network of its own with nothing but a loopback device."""
    script = f"ip link set lo up && exec {sys.executable} {__file__} {' '.join(arguments)}"
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script]
    return subprocess.run(command, env=os.environ | {INSIDE: "1"}, check=False).returncode


def predict(client: httpx.Client, url: str, number: int) -> httpx.Response:
    """A water molecule that nobody has asked for before."""
    positions = [[x + 1e-4 * number, y, z + 1e-5 * number * k] for k, (x, y, z) in enumerate(WATER)]
    body = {
        "structure": {"kind": "atoms", "numbers": [8, 1, 1], "positions": positions},
        "outputs": ["orbital_energies"],
    }
    return client.post(f"{url}/v1/predict", json=body)


def ready(client: httpx.Client, url: str) -> None:
    """Wait until it is.

    Raises:
        TimeoutError: it never is.
    """
    end = time.monotonic() + LOADED_S
    while time.monotonic() < end:
        try:
            if client.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{url} is not ready after {LOADED_S:.0f} s")


def start_ray() -> None:
    """Two replicas behind Ray's proxy."""
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    from service import ray_serve

    environment = {"env_vars": {"PYTHONPATH": str(ROOT), "TRACEGRAD_CHECKPOINTS": str(ROOT / "checkpoints")}}
    ray.init(num_cpus=4, include_dashboard=False, runtime_env=environment, _node_ip_address="127.0.0.1")
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=8932))
    deployment: Any = ray_serve.TraceGrad
    serve.run(deployment.options(num_replicas=2, ray_actor_options={"num_cpus": 1}).bind())


def replicas() -> dict[str, int]:
    """Process numbers of the replicas that live, by Ray's names of them."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ReplicaState

    client: Any = _get_global_client()
    details = client.get_serve_details()
    deployment = details["applications"]["default"]["deployments"]["TraceGrad"]
    return {
        replica["replica_id"]: replica["pid"]
        for replica in deployment["replicas"]
        if replica["state"] == ReplicaState.RUNNING
    }


def exported(client: httpx.Client) -> Counter[str]:
    """Finished requests by replica, as the agent of this node exports them."""
    import re

    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    page = client.get(f"http://127.0.0.1:{port}/metrics").text
    found: Counter[str] = Counter()
    for line in page.splitlines():
        if line.startswith("ray_tracegrad_requests_total{"):
            (name,) = re.findall(r'replica="([^"]+)"', line)
            found[name] += int(float(line.rsplit(" ", 1)[1]))
    return found


def kill_under_load(client: httpx.Client, seconds: float) -> tuple[int, int, float]:
    """Requests, lost ones, and seconds until there are two replicas again, with one killed in the middle."""
    results: Counter[int] = Counter()
    ended = threading.Event()

    def ask(first: int) -> None:
        number = first
        with httpx.Client(timeout=60, trust_env=False) as own:
            while not ended.is_set():
                number += 1
                try:
                    results[predict(own, SERVED, number).status_code] += 1
                except httpx.TransportError:
                    results[0] += 1

    threads = [threading.Thread(target=ask, args=(10_000 * (k + 1),)) for k in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    before = replicas()
    os.kill(next(iter(before.values())), 9)
    killed = time.monotonic()
    while time.monotonic() < killed + LOADED_S and not (len(now := replicas()) == 2 and set(now) != set(before)):
        time.sleep(0.5)
    recovered = time.monotonic() - killed
    time.sleep(seconds)
    ended.set()
    for thread in threads:
        thread.join()
    return sum(results.values()), sum(count for status, count in results.items() if status != 200), recovered


def measure(rounds: int, load_s: float) -> dict[str, Any]:
    """Everything; needs to be alone."""
    settings = {"TRACEGRAD_PORT": "8931", "TRACEGRAD_JOBS": "off", "TRACEGRAD_CHECKPOINTS": str(ROOT / "checkpoints")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRACEGRAD_")}
    os.environ.pop(INSIDE, None)
    plain = subprocess.Popen([sys.executable, "-m", "service"], env=inherited | settings, cwd=ROOT) if rounds else None
    found: dict[str, Any] = {}
    try:
        start_ray()
        with httpx.Client(timeout=60, trust_env=False) as client:
            ready(client, SERVED)
            if plain is not None:
                ready(client, PLAIN)
            seconds: dict[str, list[float]] = {
                f"{what} {url}": [] for what in ("ready", "predict") for url in (PLAIN, SERVED)
            }
            for number in range(rounds):
                for url in (PLAIN, SERVED):
                    for what in ("ready", "predict"):
                        begun = time.perf_counter()
                        answer = client.get(f"{url}/health/ready") if what == "ready" else predict(client, url, number)
                        seconds[f"{what} {url}"].append(time.perf_counter() - begun)
                        answer.raise_for_status()
            if rounds:
                found |= {name: round(1e3 * median(values), 2) for name, values in seconds.items()}
            answers = [predict(client, SERVED, 7).json() for _ in range(8)]
            found["same"] = len({json.dumps(answer["results"], sort_keys=True) for answer in answers}) == 1
            found["refused"] = client.post(f"{SERVED}/v1/predict", json={}).json().get("code")
            found["jobs"] = client.get(f"{SERVED}/v1/jobs/none").status_code
            time.sleep(15)
            found["exported"] = exported(client)
            found["requests"], found["lost"], found["recovered_s"] = kill_under_load(client, load_s)
    finally:
        if plain is not None:
            plain.terminate()
            plain.wait()
    return found


def main() -> int:
    """Measure, inside a namespace."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=60, help="interleaved requests of each kind; 0 leaves the plain one out"
    )
    parser.add_argument("--load-seconds", type=float, default=10.0)
    chosen = parser.parse_args()
    if INSIDE not in os.environ:
        return alone(sys.argv[1:])
    print(json.dumps(measure(chosen.rounds, chosen.load_seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
