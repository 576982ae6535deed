"""Laws of the demo: its figures are those of the calculations, and the server that it starts never outlives it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from demo import compare, load_molecule, main, table
from local_server import local_server
from pyscf import dft, gto

from tracegrad_client import Client

READY = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
pathlib.Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
http.server.HTTPServer((os.environ["TRACEGRAD_HOST"], int(os.environ["TRACEGRAD_PORT"])), Handler).serve_forever()
"""


def test_the_figures_are_those_of_pyscf(server: Any) -> None:
    atoms = load_molecule("H2O")
    row = compare("H2O", atoms, Client(server.url))
    mol = gto.M(atom=list(zip("OHH", atoms.positions.tolist(), strict=True)), basis="def2-svp", verbose=0)
    mf = dft.RKS(mol, xc="b3lyp")
    assert row.minao.energy == pytest.approx(mf.kernel(), abs=1e-10)
    assert (row.minao.cycles, row.minao.builds, row.orbitals) == (mf.cycles, mf.cycles + 2, 24)
    assert row.ours.builds == row.ours.cycles + 2
    assert row.used
    assert row.agrees
    text = table([row, row])
    ratio = re.search(r"ours / minao\s+\|\s+([\d.]+) \|\s+([\d.]+) \|", text)
    assert ratio
    assert float(ratio[1]) == pytest.approx(row.ours.cycles / row.minao.cycles, abs=5e-3)
    assert float(ratio[2]) == pytest.approx(row.ours.builds / row.minao.builds, abs=5e-3)


def test_a_guess_that_was_not_used_is_marked_and_counted(server: Any) -> None:
    server.noise = 0.3
    row = compare("H2O", load_molecule("H2O"), Client(server.url))
    assert row.ours.builds == row.minao.builds + 1
    assert "* H2O: Guess of oracle 1; too far off" in table([row])


def test_it_runs_against_a_server(server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.xyz").write_text("2\n\nH 0 0 0\nF 0 0 0.92\n")
    assert main(["--url", server.url, "--molecules", "H2O", str(tmp_path / "mine.xyz")]) == 0
    printed = capsys.readouterr().out
    assert "model oracle" in printed
    assert re.search(r"^mine\s+19 ", printed, re.MULTILINE)


def test_without_a_server_it_says_so(dead_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", dead_url, "--molecules", "H2O"]) == 1
    assert dead_url in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["--molecules", "unobtainium"])
    assert caught.value.code == 2


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_started_server_is_ready_inside_the_block_and_gone_after_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = [sys.executable, "-c", READY]

    def fail_inside() -> None:
        with local_server(command=command, environment={"PID_FILE": str(pid_file)}) as url:
            assert url.startswith("http://127.0.0.1:")
            assert alive(int(pid_file.read_text()))
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail_inside()
    assert not alive(int(pid_file.read_text()))


def test_a_server_that_does_not_start_is_an_error_with_its_log() -> None:
    command = [sys.executable, "-c", "print('no weights here', flush=True); raise SystemExit(3)"]
    with pytest.raises(RuntimeError, match=r"status 3[\s\S]*no weights here"), local_server(command=command):
        pytest.fail("the block must not be entered")
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(RuntimeError, match="not ready"), local_server(command=sleeper, start_timeout=0.3):
        pytest.fail("the block must not be entered")
