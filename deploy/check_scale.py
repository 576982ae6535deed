"""Part of ``make container``: the profile "scale" of docker-compose.yml, really started, and broken under load.

Two replicas behind HAProxy and an instance for jobs: ready, a prediction, a job across a kill of its instance, ``kill -9`` of
a replica and the replacement of all replicas by new ones while requests go on, of which none may be lost. Python's own
library alone, so that it runs wherever the engine does.

    COMPOSE   the command of compose; by default ``docker compose`` or ``podman-compose``, whichever is there
    ENGINE    podman or docker, as of deploy/check.sh
    PORT      of this machine; 18080 by default
    REQUESTS  sent during the kill, and during the replacement; 500 by default
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = f"tracegrad-check-{os.getpid()}"
PORT = int(os.environ.get("PORT", "18080"))
URL = f"http://127.0.0.1:{PORT}"
REQUESTS = int(os.environ.get("REQUESTS", "500"))
CALLERS = 6
PROXY_FINDS_S = 6
"""In so many seconds the proxy has found new replicas and asked them: it looks names up again after two."""
PATIENCE_S = int(os.environ.get("PATIENCE_S", "300"))
ENGINE = os.environ.get("ENGINE") or shutil.which("podman") or shutil.which("docker") or ""
VARIABLES = {
    **os.environ,
    "TRACEGRAD_TAG": "check",
    "TRACEGRAD_PUBLIC_PORT": str(PORT),
    "TRACEGRAD_MEMORY": "2g",
}


def compose_command() -> list[str]:
    """What to call; nothing where there is no compose."""
    if given := os.environ.get("COMPOSE"):
        return given.split()
    if shutil.which("podman-compose") and "podman" in ENGINE:
        return ["podman-compose"]
    plugin = [ENGINE, "compose"]
    answers = subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode == 0
    return plugin if ENGINE and answers else []


def say(text: str) -> None:
    """A line of the report."""
    print(f"make container: scale: {text}", flush=True)


def run(*command: str) -> str:
    """A command's output; its failure ends the check."""
    ended = subprocess.run(command, cwd=ROOT, env=VARIABLES, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr[-3000:]}")
    return ended.stdout


def compose(*arguments: str) -> str:
    """A command of compose, on this check's own project."""
    return run(*compose_command(), "-p", PROJECT, "--profile", "scale", *arguments)


def containers(service: str) -> list[str]:
    """Names of the running containers of a service."""
    marks = [f"label=com.docker.compose.project={PROJECT}", f"label=com.docker.compose.service={service}"]
    filters = [part for mark in marks for part in ("--filter", mark)]
    return sorted(run(ENGINE, "ps", *filters, "--format", "{{.Names}}").split())


def ask(method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Status and body of an answer; 0 where there is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def wait_for(what: str, condition: object) -> float:
    """Seconds until the condition holds."""
    assert callable(condition)
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"waited {PATIENCE_S} s in vain: {what}")
        time.sleep(0.5)
    return time.monotonic() - began


def water() -> dict[str, object]:
    """A molecule in a geometry that no cache has seen."""
    moved = [
        [x + random.gauss(0, 0.02) for x in row] for row in ([0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477])
    ]
    return {"structure": {"kind": "atoms", "numbers": [8, 1, 1], "positions": moved}}


def replicas_ready(count: int) -> bool:
    """Whether so many replicas say so themselves, asked inside: from outside they cannot be told apart."""
    asked = "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"
    names = containers("replica")
    command = [ENGINE, "exec"]
    ready = [
        subprocess.run([*command, name, "python", "-c", asked], capture_output=True, check=False).returncode == 0
        for name in names
    ]
    return sum(ready) >= count


def under_load(what: str, work: object) -> None:
    """Send the requests while something is done to the replicas; every one must be answered."""
    assert callable(work)
    answers: Counter[str] = Counter()
    seconds: list[float] = []
    begun, done, start = threading.Event(), threading.Event(), time.monotonic()

    def call() -> None:
        while len(seconds) < REQUESTS or not done.is_set():
            began = time.monotonic()
            status, body = ask("POST", "/v1/predict", water())
            answers["200" if status == 200 else f"{status} after {began - start:.1f} s: {body[:300]!r}"] += 1
            seconds.append(time.monotonic() - began)
            if len(seconds) > REQUESTS // 10:
                begun.set()

    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    begun.wait()
    try:
        work()
    finally:
        done.set()
        for caller in callers:
            caller.join()
    lost = sum(count for told, count in answers.items() if told != "200")
    seconds.sort()
    say(
        f"{what}: {lost} of {sum(answers.values())} lost, p50 {seconds[len(seconds) // 2]:.2f} s, worst {seconds[-1]:.1f} s"
    )
    if lost:
        raise SystemExit(f"answers: {dict(answers)}")


def kill_one() -> None:
    """``kill -9`` of a replica; what is to start it again is compose's restart, or us."""
    victim = containers("replica")[0]
    run(ENGINE, "kill", "--signal", "KILL", victim)
    time.sleep(5)
    if victim not in containers("replica"):
        run(ENGINE, "start", victim)
    say(f"two replicas again {wait_for('two replicas', lambda: replicas_ready(2)):.0f} s later")


def replace_all() -> None:
    """New replicas first, then the old ones stop; as operators do with a new image."""
    old = containers("replica")
    compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "replica=4", "replica")
    wait_for("four replicas", lambda: replicas_ready(4))
    time.sleep(PROXY_FINDS_S)
    for name in old:
        began = time.monotonic()
        run(ENGINE, "stop", "--time", "60", name)
        say(f"a replica stopped under load in {time.monotonic() - began:.1f} s")
        run(ENGINE, "rm", name)


def job_across_restart() -> None:
    """The instance of the jobs is killed and started again; the job's caller sees nothing but a pause."""
    status, body = ask("POST", "/v1/jobs", {"kind": "predict", **water()})
    if status != 202:
        raise SystemExit(f"no job: {status} {body!r}")
    path = json.loads(body)["links"]["status"]
    (instance,) = containers("jobs")
    run(ENGINE, "kill", "--signal", "KILL", instance)
    if instance not in containers("jobs"):
        run(ENGINE, "start", instance)

    def done() -> bool:
        status, body = ask("GET", path)
        return status == 200 and json.loads(body)["state"] == "done"

    say(f"a job outlives a kill of its instance, {wait_for('the job', done):.0f} s")


def main() -> int:
    """Run all of it; the exit code."""
    if not compose_command():
        say("skipped, there is neither docker compose nor podman-compose")
        return 0
    try:
        compose("up", "--detach", "--no-build", "--scale", "replica=2")
        say(f"two replicas ready after {wait_for('two replicas', lambda: replicas_ready(2)):.0f} s")
        wait_for("the proxy", lambda: ask("GET", "/health/ready")[0] == 200)
        wait_for("the jobs' instance", lambda: ask("GET", "/v1/jobs/none")[0] != 503)
        for path, wanted in (("/v1/predict", 200), ("/v1/jobs/none", 404), ("/metrics", 404)):
            status, body = ask("POST", path, water()) if path == "/v1/predict" else ask("GET", path)
            if status != wanted:
                raise SystemExit(f"{path}: {status} {body[:300]!r}")
        say("predicts; the proxy keeps /metrics inside")
        job_across_restart()
        under_load("kill -9 of one of two", kill_one)
        under_load("all replaced by new ones", replace_all)
    except BaseException:
        for service in ("replica", "jobs", "proxy"):
            for name in containers(service):
                subprocess.run([ENGINE, "logs", "--tail", "3000" if service == "proxy" else "10", name], check=False)
        raise
    finally:
        # podman-compose's down forgets those above the first of a service
        mark = f"label=com.docker.compose.project={PROJECT}"
        if left := run(ENGINE, "ps", "--all", "--quiet", "--filter", mark).split():
            run(ENGINE, "rm", "--force", *left)
        compose("down", "--volumes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
