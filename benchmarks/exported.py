"""A checkpoint's compiled forward pass (``model.exported``) beside the network: CPU time, deviation, peak memory.

``python benchmarks/exported.py [--checkpoint FOLDER] [--record]`` compiles first: two minutes, and a C++ compiler.
Process CPU ms of one thread, median of interleaved repeats; peaks are of one pass in a fork of the process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from machine import DEFAULT_CHECKPOINT, describe
from memory_peak import Meter, alkane, forked
from recorded import Cell, Column, Figure, Table, as_markdown, record
from structures import structures_of

from model.checkpoint import store
from model.exported import package
from model.exported.__main__ import make
from model.hamiltonian_model import HamiltonianModel
from model.nn import kernel_files
from model.preparation import Prepared

SMALL = ("H2O", "CH3CH2OH", "C6H6")
FILES = ("c6h11no2", "c11h13no4", "c17h17no4", "lisinopril")
LONGEST_CHAIN = 33
"""Carbon atoms of the largest molecule: C33H68, 101 atoms."""
REPEATS = 15
REPEATS_LARGE = 3
LARGE_ATOMS = 50
COLUMNS = [
    Column(name="molecule"),
    Column(name="atoms"),
    Column(name="blocks"),
    Column(name="network", unit="ms", digits=1),
    Column(name="spread", digits=2),
    Column(name="exported", unit="ms", digits=1),
    Column(name="spread, exported", digits=2),
    Column(name="ratio", digits=2),
    Column(name="largest deviation, relative"),
    Column(name="peak of the network", unit="MB", digits=0),
    Column(name="peak, exported", unit="MB", digits=0),
]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = store.load(chosen.checkpoint)
    model = checkpoint.model
    structures = structures_of(SMALL, FILES)
    structures[f"alkane C{LONGEST_CHAIN}"] = alkane(LONGEST_CHAIN)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compile_s = cpu_seconds_with_children(checkpoint, folder)
        started = time.perf_counter()
        model.exported = package.find(model, folder)
        load_s = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        table = Table(columns=COLUMNS, rows=[row(name, model, model.prepare(one)) for name, one in structures.items()])
    figures = [
        Figure(name="to export and compile, CPU", value=round(compile_s), unit="s"),
        Figure(name="size", value=round(size, 1), unit="MB"),
        Figure(name="to load", value=round(load_s, 3), unit="s"),
    ]
    print(describe())
    print(as_markdown(table))
    print(figures)
    if chosen.record:
        spread = "of the middle half of the repeats, relative: columns of the table"
        version = checkpoint.card.version
        print(record("exported", tables=[table], figures=figures, spread=spread, checkpoint=version))


def cpu_seconds_with_children(checkpoint: store.Checkpoint, folder: Path) -> float:
    """CPU seconds of compiling, the compiler's processes included."""

    def now() -> float:
        found = os.times()
        return found.user + found.system + found.children_user + found.children_system

    started = now()
    print(make(checkpoint, folder, kernel_files.levels()[0]), flush=True)
    return now() - started


def row(name: str, model: HamiltonianModel, prepared: Prepared) -> list[Cell]:
    """As in ``COLUMNS``."""
    exported = model.exported
    assert exported is not None
    with torch.inference_mode():
        graph, raw = model.batch([prepared])
        works: tuple[Callable[[], object], ...] = (lambda: model(graph, raw), lambda: exported(graph, raw))
        peaks = [forked(partial(peak, work))[0] for work in works]  # before this process holds memory of such a pass
        expected, found = model(graph, raw).blocks, exported(graph, raw)
        assert found is not None
        deviation = float((found - expected).abs().max() / expected.abs().max())
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(REPEATS if graph.n_atoms < LARGE_ATOMS else REPEATS_LARGE):
            for found_in, work in zip(times, works, strict=True):
                started = time.process_time()
                work()
                found_in.append(1e3 * (time.process_time() - started))
    cells: list[Cell] = [name, graph.n_atoms, graph.n_blocks]
    medians = [statistics.median(one) for one in times]
    for one, middle in zip(times, medians, strict=True):
        low, _, high = statistics.quantiles(one, n=4, method="inclusive")
        cells += [round(middle, 1), round((high - low) / middle, 2)]
    return [*cells, round(medians[0] / medians[1], 2), f"{deviation:.0e}", *peaks]


def peak(work: Callable[[], object]) -> list[Cell]:
    """What a pass adds to the process at most, MB."""
    meter = Meter()
    work()
    return [meter.look()]


if __name__ == "__main__":
    main()
