"""``python -m service`` as a child process, what its metrics say, and a probe of its health from a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 600.0
PROBE_PAUSE_S = 0.1


@dataclass
class RunningService:
    """A service that answers.

    Attributes:
        url: of its root.
        log: file of its standard error (JSON lines), or None if it was started elsewhere.
        exit_code: once it has ended.
        process: its number, or None if it was started elsewhere.
    """

    url: str
    log: Path | None = None
    exit_code: int | None = None
    process: int | None = None

    def metrics(self) -> dict[str, float]:
        """Samples of ``/metrics``, summed over labels."""
        text = httpx.get(self.url + "/metrics", timeout=30, trust_env=False).raise_for_status().text
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def resident_bytes(self) -> float:
        """Memory of the process, without its parser processes."""
        return self.metrics()["process_resident_memory_bytes"]

    def cpu_seconds(self) -> float:
        """CPU time of the process, without its parser processes."""
        return self.metrics()["process_cpu_seconds_total"]

    def log_entries(self) -> list[dict[str, Any]]:
        """The lines of the log; what is not JSON becomes an entry of level ``unreadable``."""
        entries = []
        for line in self.log.read_text().splitlines() if self.log is not None else []:
            try:
                entries.append(json.loads(line))
            except ValueError:
                entries.append({"level": "unreadable", "message": line})
        return entries


@contextmanager
def started_service(group: Path | None = None, /, **variables: str) -> Iterator[RunningService]:
    """A service on a free port, ended by SIGTERM.

    Args:
        group: folder of the control group that it runs in; None for that of this process.
        variables: settings, without their prefix.
    """
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="tracegrad-soak-") as folder:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        free.close()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEGRAD_")}
        chosen = {
            "PORT": str(port),
            "JOBS_FOLDER": f"{folder}/jobs",
            "LOG_FORMAT": "json",
            "DEVICE": "cpu",
            **variables,
        }
        environment |= {f"TRACEGRAD_{name}": value for name, value in chosen.items()}
        service = RunningService(f"http://127.0.0.1:{port}", Path(folder) / "log")
        with Path(folder, "log").open("wb") as log:
            command = [sys.executable, "-m", "service"]
            if group is not None:
                command = ["sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "$@"', "sh", *command]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
            service.process = process.pid
            try:
                _wait_until_ready(service, process)
                yield service
                if process.poll() is not None:
                    raise SystemExit(_account(service, process))
                process.send_signal(signal.SIGTERM)
                service.exit_code = process.wait(120)
            except httpx.TransportError as error:
                raise SystemExit(_account(service, process)) from error
            finally:
                process.kill()
                process.wait()


def _wait_until_ready(service: RunningService, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(service.url + "/health/ready", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit(_account(service, process))


def _account(service: RunningService, process: subprocess.Popen[bytes]) -> str:
    """What is to be said of a service that should answer and does not."""
    tail = service.log.read_text()[-4000:] if service.log is not None else ""
    return f"the service does not answer; its exit code is {process.poll()}, and its log ends with\n{tail}"


def resident_bytes(process: int) -> int:
    """Resident memory of a process and its children."""
    total = 0
    for number in (process, *children(process)):
        try:
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1]) * 4096
        except OSError:
            continue  # it has just ended
    return total


def children(process: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(status.read_text().rpartition(")")[2].split()[1]), []).append(
                int(status.parent.name)
            )
        except OSError:
            continue  # it has just ended
    found = list(parents.get(process, []))
    for own in found:  # grows while it is read
        found += parents.get(own, [])
    return found


class HealthProbe:
    """Asks ``/health/live`` ten times a second from a process of its own."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_probe, args=(url, theirs), daemon=True)
        self._process.start()

    def stop(self) -> tuple[list[float], int]:
        """Seconds of each answer, and how many were none."""
        self._ours.send("stop")
        seconds, failures = self._ours.recv()
        self._process.join(30)
        return seconds, failures


def _probe(url: str, pipe: Connection) -> None:
    seconds: list[float] = []
    failures = 0
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        while not pipe.poll(PROBE_PAUSE_S):
            started = time.perf_counter()
            try:
                failures += client.get("/health/live").status_code != 200
            except httpx.TransportError:
                failures += 1
            seconds.append(time.perf_counter() - started)
    pipe.send((seconds, failures))
