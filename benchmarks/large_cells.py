"""States around the Fermi level of large cells from sparse H and S: time and memory against the number of atoms.

Graphene: a stored 8-atom cell repeated, so that every entry is a Kohn-Sham calculation's; ``sz`` keeps the first s and p
function of its atoms, ``dzp`` all 13. Time is CPU time of one thread, once; memory is the largest resident size of a process
of its own.
``OMP_NUM_THREADS=1 python benchmarks/large_cells.py [FILE.h5] [--dzp] [--record]``; FILE is ``graphene_dzp.h5`` of ../shared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import describe
from recorded import Cell, Column, Table, as_markdown, record

from model.blocks.block_set import BlockSet
from model.blocks.motions import unfold
from model.electronic.bands import PROJECTION_THRESHOLD
from model.electronic.sparse import SparseLevels
from model.formats.crystal_h5 import read_crystal_h5, structures_of

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "crystals" / "graphene_dzp.h5"
REPEATS = {"sz": (5, 8, 11, 16), "dzp": (5, 8)}
N_STATES = 40
VALENCE = 4
K_POINT = (0.21, 0.13, 0.0)
COLUMNS = [
    Column(name="basis"),
    Column(name="atoms"),
    Column(name="orbitals"),
    Column(name="entries a row"),
    Column(name="matrices", unit="s", digits=2),
    Column(name="40 states, Γ", unit="s", digits=2),
    Column(name="40 states, k", unit="s", digits=2),
    Column(name="count of S < 5e-4, Γ"),
    Column(name="process", unit="MB", digits=0),
]


def main() -> None:
    """Print one row per size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=DATA)
    parser.add_argument("--dzp", action="store_true", help="the larger basis, too: minutes and gigabytes")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    bases = ("sz", "dzp") if chosen.dzp else ("sz",)
    rows = []
    for basis, repeat in [(name, repeat) for name in bases for repeat in REPEATS[name]]:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            rows.append(alone.submit(measure, chosen.file, basis, repeat).result())
        print(rows[-1], flush=True)
    found = Table(columns=COLUMNS, rows=rows)
    print(describe())
    print(as_markdown(found))
    if chosen.record:
        print(record("large_cells", tables=[found], spread="each once", checkpoint=None))


def measure(path: Path, basis: str, repeat: int) -> list[Cell]:
    """One size, in a process of its own."""
    stored = read_crystal_h5(path, next(iter(structures_of(path))))
    assert stored.hamiltonian is not None
    assert stored.overlap is not None
    small = [stored.hamiltonian, stored.overlap]
    if basis == "sz":
        small = [first_functions(blocks) for blocks in small]
    hamiltonian, overlap = (unfold(blocks, (repeat, repeat, 1)) for blocks in small)
    atoms = len(hamiltonian.numbers)
    started = time.process_time()
    levels = SparseLevels(hamiltonian, overlap)
    made = time.process_time()
    levels.around_filling(VALENCE * atoms // 2, N_STATES, stored.fermi_energy or 0.0)
    at_gamma = time.process_time()
    dependent = levels.count_dependent(PROJECTION_THRESHOLD)
    del levels
    before = time.process_time()
    SparseLevels(hamiltonian, overlap, K_POINT).around_filling(
        VALENCE * atoms // 2, N_STATES, stored.fermi_energy or 0.0
    )
    at_k = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    entries = hamiltonian.values.shape[1] // hamiltonian.n_orbitals
    cells: list[Cell] = [basis, atoms, hamiltonian.n_orbitals, entries]
    return [*cells, made - started, at_gamma - made, at_k - before, dependent, peak]


def first_functions(blocks: BlockSet) -> BlockSet:
    """The blocks between the first s and the first p function of each atom (of shells s s p p d)."""
    space = replace(blocks.space, shells={6: (0, 1)})
    kept = np.array([0, 2, 3, 4])
    small = BlockSet.zeros(space, blocks.numbers, blocks.pairs)
    (group,), (source,) = small.groups, blocks.groups
    small.values[:, group.entries] = blocks.values[:, source.entries[:, kept[:, None], kept]]
    return small


if __name__ == "__main__":
    main()
