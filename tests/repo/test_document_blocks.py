"""The blocks of README.md, docs/client.md and the client's README run as they stand, against a service on a free port.

Blocks of one document run in their order, Python in one namespace, all in one folder that has the files they name. The only
change is the address of the server. What does not run here is named in ``NOT_RUN``, with the reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import qcengine
from ase.build import molecule as ase_molecule
from local_server import local_server
from pyscf import dft, gto, lib

from tracegrad_client import AsyncClient, Guess, TraceGradError

ROOT = Path(__file__).resolve().parents[2]
URL = "http://127.0.0.1:8000"
NOT_RUN = {
    "make serve": "sets up an environment and serves until it is stopped; tests/repo/test_documents.py knows its targets",
    "pip install ./tracegrad_client": "needs a package index; tests/repo/test_distributions.py builds the wheel",
    "crystal = client.crystal(atoms)": "its atoms are a crystal; tests/client/test_crystal.py runs its lines",
}


@dataclass
class Document:
    """A document, its folder, and what its blocks have left behind."""

    blocks: list[tuple[str, str]]
    url: str
    names: dict[str, Any] = field(default_factory=dict)
    printed: str = ""

    def run(self) -> None:
        for language, text in self.blocks:
            if any(text.startswith(start) for start in NOT_RUN):
                continue
            if language == "sh":
                self.printed += self.shell(text.replace(URL, self.url))
            elif language == "python":
                code = text.replace(URL, self.url).replace("Client()", f'Client("{self.url}")')
                exec(compile(code, f"<block: {text.splitlines()[0]}>", "exec"), self.names)
            else:
                pytest.fail(f"a block of {language!r}: say here how it is run, or why not")

    def shell(self, text: str) -> str:
        if "curl" in text and shutil.which("curl") is None:
            pytest.skip("curl is not there")
        folder = Path(sys.executable).parent  # of the command `tracegrad`
        variables = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "TRACEGRAD_URL": self.url}
        script = f"set -euo pipefail\n{text.replace('curl ', 'curl -sS --fail-with-body ')}"
        done = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"
        return done.stdout


def blocks_of(path: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    variables = {"TRACEGRAD_JOBS_FOLDER": str(tmp_path_factory.mktemp("jobs")), "OMP_NUM_THREADS": "1"}
    with local_server(environment=variables) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the structure files that the documents name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shutil.copy(ROOT / "benchmarks" / "molecules" / "ethanol.xyz", tmp_path)
    shutil.copy(ROOT / "benchmarks" / "molecules" / "graphene.vasp", tmp_path / "POSCAR")
    shutil.copy(ROOT / "benchmarks" / "molecules" / "water.xyz", tmp_path / "mol.xyz")
    shutil.copy(ROOT / "benchmarks" / "molecules" / "c6h11no2.xyz", tmp_path / "large.xyz")
    ase.io.write(tmp_path / "trajectory.extxyz", [ase_molecule(name) for name in ("H2O", "CH3OH", "H2O")])
    return tmp_path


def test_every_block_that_is_not_run_is_there() -> None:
    texts = [text for path in ("README.md", "docs/client.md") for _, text in blocks_of(ROOT / path)]
    for start in NOT_RUN:
        assert any(text.startswith(start) for text in texts), f"no block begins with {start!r}"


def test_the_readme_runs(url: str, folder: Path) -> None:
    document = Document(blocks_of(ROOT / "README.md"), url)
    document.run()
    assert document.names["mf"].converged
    assert document.names["mf"].tracegrad.used
    assert set(lib.chkfile.load("guess.chk", "scf")) >= {"mo_coeff", "mo_occ", "mo_energy"}
    assert sum("hamiltonian" in name for name in np.load("batch.npz")) == 3
    assert "202" in document.printed.splitlines()[0]
    assert re.search(r"^location: /v1/jobs/\S+", document.printed, re.MULTILINE | re.IGNORECASE)


def test_the_clients_page_runs(url: str, folder: Path) -> None:
    water = [ase_molecule("H2O") for _ in range(2)]
    water[1].rattle(0.03, seed=1)
    moles = [gto.M(atom=list(zip("OHH", each.positions.tolist(), strict=True)), basis="def2-svp") for each in water]
    said_before = {
        "atoms": water[0],
        "mols": moles,
        "large": moles[0],
        "dft": dft,
        "asyncio": asyncio,
        "json": json,
        "qcengine": qcengine,
    }
    said_before |= {kind.__name__: kind for kind in (TraceGradError, AsyncClient, Guess)}
    document = Document(blocks_of(ROOT / "docs" / "client.md"), url, said_before)
    document.run()
    assert document.names["mf"].converged
    assert document.names["overlap"].shape == (24, 24)
    assert document.names["energies"].unit == "eV"
    assert document.names["guess"].n_electrons == 10
    assert [guess.n_electrons for guess in document.names["guesses"]] == [10, 10]
    assert Guess.load("ethanol.npz").n_electrons == 26
    assert {"guess.chk", "guess.molden"} <= {path.name for path in folder.iterdir()}
    assert "default" in document.printed
    assert document.names["result"].success
    guesses = [f"trajectory_{number}.npz" for number in (1, 2, 3)]
    assert sorted(path.name for path in (folder / "guesses").iterdir()) == ["ethanol.npz", *guesses]


def test_the_readme_of_the_clients_distribution_runs(url: str, folder: Path) -> None:
    document = Document(blocks_of(ROOT / "tracegrad_client" / "README.md"), url)
    document.run()
    assert document.names["mf"].tracegrad.used
