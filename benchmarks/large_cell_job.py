"""Bands of a large cell as a job of the service: from the file that is sent to the answer.

    python benchmarks/large_cell_job.py [--cells 22] [--points 30] [--folder FOLDER] [--record]

Graphene of 2 n^2 atoms, shaken by 0.03 Å. The checkpoint is made here: a dozen labels of eight atoms in the least basis (an
s and a p function an atom, SZV-MOLOPT-SR; CP2K has to be installed), two-centre H0 and some minutes of ``deeph_e3``,
so that its matrices are those of a real sheet; with ``--folder`` it is kept, and used again. The job is watched as a caller
watches it; its memory is the largest resident size that the service had.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
from ase import Atoms
from ase.build import graphene
from ase.io import write
from machine import describe
from recorded import Cell, Column, Table, as_markdown, record
from service_process import RunningService, resident_bytes, started_service

RECIPE: Final = """
[generate]
output = "{folder}/data"
check_every = 0

[label]
program = "cp2k"
basis = "SZV-MOLOPT-SR-GTH"
pyscf_basis = "gth-szv-molopt-sr"

[[structures]]
kind = "monolayer"
name = "graphene"
sites = ["C", "C"]
count = 12
repeat = 2
k_points = [5, 5, 1]
a = 2.46
height = 12.0
rattle = 0.05
strain = 0.01
"""
ORBITALS: Final = 4
STATES: Final = 40
STEPS: Final = 600
RATTLE_ANGSTROM: Final = 0.03
RUN: Final = """
[run]
name = "sz"
output = "{folder}/run"
validate_every = 200
save_every = 200
threads = 1
elements = ["C"]

[data]
file = "{folder}/data/crystals.h5"
format = "crystal-h5"

[model]
integrals = "pyscf_crystal"
inputs = []
pair_cutoff_angstrom = 8.0

[reference]
kind = "two_centre"

[network]
backbone = "deeph_e3"

[network.tracegrad]
mode = "both"
after = "every"

[loss]
mae = 1.0
rmse = 0.3
guess = 0.0
trace = 0.2

[optimiser]
kind = "muon"
steps = {steps}
learning_rate = 5e-3
warmup_steps = 50
ema_decay = 0.99
"""
COLUMNS: Final = [
    Column(name="atoms"),
    Column(name="orbitals"),
    Column(name="k-points"),
    Column(name="to the answer", unit="s", digits=0),
    Column(name="of it before the first k-point", unit="s", digits=0),
    Column(name="a k-point", unit="s", digits=1),
    Column(name="bands"),
    Column(name="gap", unit="eV", digits=3),
    Column(name="service", unit="MB", digits=0),
]


def make_checkpoint(folder: Path) -> None:
    """Labels, training and a folder of checkpoints; what is there is not made again."""
    texts = {"recipe": RECIPE.format(folder=folder), "run": RUN.format(folder=folder, steps=STEPS)}
    files = {name: folder / f"{name}.toml" for name in texts}
    for name, text in texts.items():
        files[name].write_text(text)
    words = ["--version", "0.0.1", "--description", "graphene, one s and one p function"]
    commands: list[list[str | Path]] = [["generate", files["recipe"]], ["fit", files["run"]]]
    if not (folder / "checkpoints").is_dir():
        commands.append(["release", files["run"], folder / "checkpoints" / "sz", *words])
    for command in commands:
        subprocess.run([sys.executable, "-m", "training", *command], check=True)


def sheet(cells: int) -> Atoms:
    """Graphene of so many cells along both vectors."""
    atoms: Atoms = graphene(size=(cells, cells, 1), vacuum=6.0)
    atoms.pbc = (True, True, False)
    atoms.rattle(RATTLE_ANGSTROM, seed=3)
    return atoms


def bands_job(service: RunningService, atoms: Atoms, points: int) -> tuple[dict[str, Any], float, float, float]:
    """Results of a job, seconds until its first k-point was solved and until it was done, and the most memory, MB."""
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    options = {"kind": "bands", "path": "GMKG", "npoints": str(points), "kmesh": "1x1x1", "states": str(STATES)}
    started, first, most = time.monotonic(), 0.0, 0
    with httpx.Client(base_url=service.url, timeout=60) as client:
        reply = client.post("/v1/jobs", files={"file": ("sheet.extxyz", text.getvalue())}, data=options)
        reply.raise_for_status()
        links = reply.json()["links"]
        while True:
            status = client.get(links["status"]).json()
            most = max(most, resident_bytes(service.process or 0))
            if status["progress"].get("k_points_solved") and not first:
                first = time.monotonic() - started
            if status["state"] == "failed":
                raise RuntimeError(status["problem"])
            if status["state"] == "done":
                done = time.monotonic() - started
                return client.get(links["result"]).json()["results"], first, done, most / 2**20
            time.sleep(0.2)


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[22])
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    rows: list[list[Cell]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (chosen.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make_checkpoint(folder)
        for cells in chosen.cells:
            atoms = sheet(cells)
            with started_service(CHECKPOINTS=str(folder / "checkpoints")) as service:
                results, first, done, peak = bands_job(service, atoms, chosen.points)
            solved = len(results["kpts"])
            rows.append(
                [
                    *(len(atoms), ORBITALS * len(atoms), solved, done, first, (done - first) / solved),
                    *(len(results["band_indices"]), results["gap"], peak),
                ]
            )
            print(rows[-1], flush=True)
    found = Table(columns=COLUMNS, rows=rows)
    print(describe())
    print(as_markdown(found))
    if chosen.record:
        print(record("large_cell_job", tables=[found], spread="each once", checkpoint=None))


if __name__ == "__main__":
    main()
