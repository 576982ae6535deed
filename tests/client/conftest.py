"""A server that speaks the HTTP contract and predicts perfectly: its answers are converged PySCF calculations.

It runs in a thread beside the test. ``fault`` replaces an answer by anything else, ``noise`` spoils the Fock matrix
that the orbitals are made from, so that good, poor and broken servers can all be had.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from local_server import local_server
from numpy.typing import NDArray
from pyscf import dft, gto
from safetensors.numpy import save

from tracegrad_client import Client

WATER = [(8, (0.0, 0.0, 0.119)), (1, (0.0, 0.763, -0.477)), (1, (0.0, -0.763, -0.477))]

Reply = tuple[int, dict[str, str], bytes]


@lru_cache(maxsize=16)
def converged(numbers: tuple[int, ...], positions: bytes, xc: str) -> Any:
    """A converged RKS/def2-SVP calculation of a neutral molecule; positions are the bytes of (atom, 3) float64, Å."""
    where = np.frombuffer(positions).reshape(-1, 3)
    mol = gto.M(atom=list(zip(map(int, numbers), where.tolist(), strict=True)), basis="def2-svp", verbose=0)
    mf = dft.RKS(mol, xc=xc)
    mf.kernel()
    assert mf.converged
    return mf


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class ContractServer:
    """The test double; every attribute may be changed while it runs."""

    url: str = ""
    xc: str = "b3lyp"
    noise: float = 0.0
    warnings: list[str] = field(default_factory=list)
    fault: Callable[[Seen], Reply | None] | None = None
    seen: list[Seen] = field(default_factory=list)

    def solve(self, numbers: list[int], positions: list[list[float]]) -> dict[str, Any]:
        mf = converged(tuple(numbers), np.array(positions, dtype=np.float64).tobytes(), self.xc)
        fock: NDArray[np.float64] = mf.get_fock()
        random = np.random.default_rng(7).normal(scale=self.noise, size=fock.shape)
        overlap = mf.get_ovlp()
        fock = fock + (random + random.T) / 2 if self.noise else fock
        energies, coefficients = mf.eig(fock, overlap)
        occupations = mf.get_occ(energies, coefficients)
        density = np.array(mf.make_rdm1(coefficients, occupations))
        return {
            "labels": [label.strip() for label in mf.mol.ao_labels()],
            "density_matrix": density,
            "mo_coeff": coefficients,
            "occupations": occupations,
            "orbital_energies": energies,
            "hamiltonian": fock,
            "overlap": overlap,
        }

    def answer(self, seen: Seen) -> Reply:
        if self.fault is not None:
            reply = self.fault(seen)
            if reply is not None:
                return reply
        if seen.path == "/v1/models":
            card = {"name": "oracle", "version": "1", "xc": self.xc, "elements": [1, 6, 7, 8, 9], "default": True}
            listing = {"models": [card], "default": {"molecule": "oracle", "crystal": None}}
            return 200, {"Content-Type": "application/json"}, json.dumps(listing).encode()
        fields = self.fields(seen)
        if seen.query.get("format_out") in ("chk", "molden", "cube", "npz"):
            headers = {"Content-Type": "application/octet-stream"}
            if fields.get("xc", self.xc) != self.xc:
                headers["Warning"] = f'299 tracegrad "The model\'s \\"functional\\" is {self.xc}."'
            return 200, headers, b"bytes of " + seen.query["format_out"].encode()
        for name, served in (("charge", 0), ("multiplicity", 1)):
            if int(fields.get(name) or served) != served:
                problem = {
                    "status": 422,
                    "code": f"unsupported_{name}",
                    "detail": f"Only {name} {served} is supported.",
                }
                return 422, {"Content-Type": "application/problem+json"}, json.dumps(problem).encode()
        solved = self.solve(fields["structure"]["numbers"], fields["structure"]["positions"])
        document: dict[str, Any]
        names = fields.get("outputs") or ["orbital_energies"]
        if seen.path == "/v1/initial-guess":
            names = ["density_matrix", "mo_coeff", "orbital_energies"]
        if "orbital_energies" in names:
            names = [*names, "occupations"]
        document = {
            "meta": {
                "model": "oracle", "version": "1", "sha256": "0" * 64, "xc": self.xc, "basis": "def2-svp",
                "ao_order": "pyscf", "ao_labels": solved["labels"], "energy_unit": "hartree",
            },
            "results": {},
            "checks": {"in_domain": True},
            "warnings": self.warnings,
            "defaults_applied": [],
        }  # fmt: skip
        arrays = {name: np.ascontiguousarray(solved[name]) for name in names}
        if seen.query.get("format_out") == "safetensors":
            body = save(arrays, metadata={"meta": json.dumps(document)})
            return 200, {"Content-Type": "application/vnd.safetensors"}, body
        document["results"] = {name: array.tolist() for name, array in arrays.items()}
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()

    def fields(self, seen: Seen) -> dict[str, Any]:
        kind = seen.headers.get("content-type", "")
        if not kind.startswith("multipart/"):
            document: dict[str, Any] = json.loads(seen.body)
            return document
        parts = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + seen.body)
        form: dict[str, Any] = {}
        for part in parts.iter_parts():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            form[str(name)] = content.decode()
        lines = [line.split() for line in form["file"].splitlines()[2:] if line.strip()]
        form["structure"] = {
            "numbers": [gto.charge(line[0]) for line in lines],
            "positions": [[float(x) for x in line[1:4]] for line in lines],
        }
        return form


@pytest.fixture
def server() -> Iterator[ContractServer]:
    double = ContractServer()

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client gave up, as some tests want it to

        def do_GET(self) -> None:
            self.respond()

        def do_POST(self) -> None:
            self.respond()

        def respond(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(self.command, parts.path, query, headers, body)
            double.seen.append(seen)
            status, answered, content = double.answer(seen)
            self.send_response(status)
            for name, value in answered.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    double.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield double
    http.shutdown()
    http.server_close()
    thread.join(5)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The service itself with the default checkpoint, and a client of it; no test changes either."""
    folder = str(tmp_path_factory.mktemp("jobs"))
    settings = {"TRACEGRAD_JOBS_FOLDER": folder, "TRACEGRAD_JOBS": "thread", "OMP_NUM_THREADS": "1"}
    with local_server(environment=settings) as url, Client(url) as client:
        yield client


@pytest.fixture
def water() -> Any:
    """Water in def2-SVP, a PySCF Mole."""
    return gto.M(atom=WATER, basis="def2-svp", verbose=0)


@pytest.fixture
def dead_url() -> str:
    """A port on which nothing listens."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = http.server_address[1]
    http.server_close()
    return f"http://127.0.0.1:{port}"


def problem(status: int, code: str, **extra: Any) -> Reply:
    document = {"type": "about:blank", "title": "Refused", "status": status, "detail": f"This is {code}.", "code": code}
    return status, {"Content-Type": "application/problem+json"}, json.dumps(document | extra).encode()


@pytest.fixture
def problem_reply() -> Callable[..., Reply]:
    """Makes an RFC 9457 answer."""
    return problem
