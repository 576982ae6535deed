"""Assembling the matrix of a large molecule from a network's blocks, and cutting matrices into blocks: time and memory.

Carbon atoms on a diamond lattice, def2-SVP, random blocks and matrices; no SCF, no network. Time is CPU time of one thread,
smallest of some repeats (all are within the spread); memory is the peak of what NumPy allocates beyond the inputs, results
included. ``python benchmarks/assembly.py [--record]``: recorded figures replace the older ones.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from ase.build import bulk
from machine import describe
from recorded import Cell, Column, Table, as_markdown, record

from model.blocks.matrices import dense_matrix
from model.blocks.spaces import BlockSpace
from model.blocks.template import TemplateMap
from model.integrals.pyscf_molecule import load_basis
from model.pairs.pair_list import PairList
from model.structure import Structure

ATOMS = (50, 200, 400)
MATRICES = 3
"""A network reads S, H0 and S D S."""
REPEATS = 5
COLUMNS = [
    Column(name="atoms"),
    Column(name="orbitals"),
    Column(name="assemble", unit="ms", digits=0),
    Column(name="assemble, peak", unit="MB", digits=0),
    Column(name="cut three", unit="ms", digits=0),
    Column(name="cut three, peak", unit="MB", digits=0),
    Column(name="spread", digits=2),
]


def main() -> None:
    """Print one row per size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    found = Table(columns=COLUMNS, rows=[measure(count) for count in ATOMS])
    print(describe())
    print(as_markdown(found))
    if chosen.record:
        spread = "of a size's repeats, relative, the larger of both: a column of the table"
        print(record("assembly", tables=[found], spread=spread, checkpoint=None))


def diamond(count: int) -> Structure:
    """The first atoms of a cube of diamond."""
    atoms = bulk("C", "diamond", cubic=True).repeat(int(np.ceil((count / 8) ** (1 / 3))))[:count]
    return Structure(atoms.numbers, atoms.positions)


def measure(count: int) -> list[Cell]:
    """One row, as in ``COLUMNS``."""
    structure, space = diamond(count), load_basis("def2-svp", [6])
    block_space, size = BlockSpace.of(space.template), space.template_size
    n_orbitals = space.count_orbitals(structure.numbers)
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(count**2, 1, size, size))
    matrices = rng.normal(size=(MATRICES, n_orbitals, n_orbitals))

    def places() -> TemplateMap:
        return TemplateMap(space, structure.numbers, PairList.complete(structure))

    assemble = cost(lambda: dense_matrix(places().to_blocks(blocks, block_space)))
    cut = cost(lambda: places().cut(matrices))
    return [count, n_orbitals, *assemble[:2], *cut[:2], round(max(assemble[2], cut[2]), 2)]


def cost(work: Callable[[], object]) -> tuple[float, float, float]:
    """CPU milliseconds of one thread, peak megabytes, and (largest - smallest) / smallest of the times."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - started))
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return round(min(times), 1), round(peak, 1), (max(times) - min(times)) / min(times)


if __name__ == "__main__":
    main()
