"""The shipped configuration of HAProxy, run: requests sent again, ways, problems and TLS, before servers of a few lines."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy on this machine")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Instance(http.server.ThreadingHTTPServer):
    """Says its name to whatever is asked; ``dies`` makes it break off every prediction, as one that is killed does."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        self.name, self.dies, self.predictions = name, False, 0
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Instance

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.predictions += 1
        if self.server.dies:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.answer()

    def answer(self) -> None:
        self.send_response(200)
        content = self.server.name.encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Not here."""


@contextmanager
def proxied(tmp_path: Path, replicas: list[Instance], jobs: Instance | None, tls: Path | None = None) -> Iterator[str]:
    """The proxy before these, at other ports and without a container engine's names; nothing else is changed."""
    text = (ROOT / "deploy" / "haproxy.cfg").read_text() + "\n"
    text += (ROOT / "deploy" / "tls.cfg").read_text() if tls else ""
    port, secure = free_port(), free_port()
    lines = "\n".join(f"    server r{n} 127.0.0.1:{one.server_port} check" for n, one in enumerate(replicas))
    job_line = f"    server jobs 127.0.0.1:{jobs.server_port} check" if jobs else ""
    text, count = re.subn(r"    server-template replica .*", lines, text)
    text, others = re.subn(r"    server jobs .*", job_line, text)
    assert (count, others) == (1, 1)
    text = text.replace("bind :8000", f"bind 127.0.0.1:{port}").replace("bind :8443", f"bind 127.0.0.1:{secure}")
    text = text.replace("/run/secrets/tls.pem", str(tls)).replace(" resolvers containers", "")
    (tmp_path / "haproxy.cfg").write_text(text)
    process = subprocess.Popen(
        ["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_for_answer(f"http://127.0.0.1:{port}")
        yield f"https://127.0.0.1:{secure}" if tls else f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=20)
        print(output.decode())


def wait_for_answer(url: str) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            httpx.get(url + "/", timeout=5, trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the proxy does not start")


def post(url: str, size: int = 100) -> httpx.Response:
    return httpx.post(url + "/v1/predict", content=b"x" * size, timeout=30, trust_env=False)


@pytest.fixture
def instances() -> Iterator[Callable[[str], Instance]]:
    made: list[Instance] = []

    def make(name: str) -> Instance:
        made.append(Instance(name))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()
        one.server_close()


def test_a_request_whose_replica_breaks_off_goes_to_another_also_a_large_one(tmp_path, instances):
    bad, good = instances("bad"), instances("good")
    bad.dies = True
    with proxied(tmp_path, [bad, good], None) as url:
        answers = [post(url, size) for size in (100, 100, 100, 1_000_000, 1_000_000, 1_000_000)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, "good")] * 6
    assert bad.predictions > 0, "it was asked, too"


def test_jobs_go_to_their_instance_and_metrics_to_nobody(tmp_path, instances):
    with proxied(tmp_path, [instances("replica")], instances("jobs")) as url:
        found = {
            path: httpx.get(url + path, timeout=10, trust_env=False)
            for path in ("/v1/models", "/v1/jobs/x", "/metrics")
        }
    assert found["/v1/models"].text == "replica"
    assert found["/v1/jobs/x"].text == "jobs"
    assert found["/metrics"].status_code == 404


def test_without_instances_the_answer_is_a_problem_with_a_time_to_wait(tmp_path, instances):
    gone = instances("gone")
    gone.dies = True
    with proxied(tmp_path, [gone], None) as url:
        gone.shutdown()
        gone.server_close()
        end = time.monotonic() + 20
        while (answer := post(url)).status_code != 503 and time.monotonic() < end:
            time.sleep(0.2)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"
    problem = json.loads(answer.content)
    assert (problem["code"], problem["status"]) == ("not_ready", 503)
    assert len(problem["request_id"]) == 36


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")
def test_tls_is_ended_at_the_proxy(tmp_path, instances):
    key, certificate, both = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "both.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    trust = ssl.create_default_context(cafile=str(certificate))
    with (
        proxied(tmp_path, [instances("replica")], instances("jobs"), tls=both) as url,
        httpx.Client(base_url=url, verify=trust, trust_env=False, timeout=20) as client,
    ):
        answer = client.get("/v1/models")
        assert answer.text == "replica"
        assert "strict-transport-security" in answer.headers
        assert client.get("/v1/jobs/x").text == "jobs"
        assert client.get("/metrics").status_code == 404
