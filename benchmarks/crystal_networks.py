"""Networks on a crystal: CPU seconds and memory of a forward pass and of a gradient; what TraceGrad costs.

``python benchmarks/crystal_networks.py [--repeats 5] [--cells 6] [--record]``

A monolayer of graphene with 2 n^2 carbon atoms shaken by 0.05 Å, 2s 2p 1d, blocks and messages up to 7.2 Å; float32, random
weights, one thread. Seconds are of the process, the median of interleaved repeats after a warm-up; ratios are to the first
model, DeepH-E3 as published with e3nn's tensor products. Memory is what a pass adds at most to the resident set of a fresh
process that has run the unit cell before. "gradient" is a forward and a backward pass. What TraceGrad adds is small beside
the noise of a shared machine: its table is of ``--pairs`` pairs of passes, one after the other, and gives the quartiles of
their ratio. The last table is of TraceGrad after every block on sheets of several sizes: the fastest of three passes.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from ase.build import graphene
from backbones import Timing, cpu_seconds, forward, gradient, resident
from machine import describe
from recorded import Cell, Column, Table, as_markdown, record

from model.architectures.interface import InputCoefficients
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.pairs.graph import AtomGraph, build_graph
from model.structure import Structure

PUBLISHED: Final = {"norm": "graph", "envelope": False}
MODELS: Final[dict[str, dict[str, Any]]] = {
    "DeepH-E3 as published, e3nn": {"backbone": "deeph_e3", "deeph_e3": {**PUBLISHED, "path": "reference"}},
    "the same, in bond frames": {"backbone": "deeph_e3", "deeph_e3": PUBLISHED},
    "with a local norm and an envelope": {"backbone": "deeph_e3"},
    "and TraceGrad after every block": {"backbone": "deeph_e3", "tracegrad": {"mode": "both", "after": "every"}},
    "and TraceGrad after the last block": {"backbone": "deeph_e3", "tracegrad": {"mode": "both"}},
    "QHNetV2, two layers": {"backbone": "qhnetv2", "qhnetv2": {"layers": 2, "n_inputs": 0, "cutoff_angstrom": 7.2}},
}
CUTOFF_ANGSTROM: Final = 7.2
SPACE: Final = OrbitalSpace("2s 2p 1d", {6: (0, 0, 1, 1, 2)}, order="e3nn")
WITHOUT: Final = "with a local norm and an envelope"
WITH: Final = ("and TraceGrad after every block", "and TraceGrad after the last block")
SIZES: Final = (7, 12, 22, 32)
"""Cells along each vector of the sheets that the cost of a pass is measured on: 98 to 2,048 atoms."""
PASSES: Final = {"forward": forward, "gradient": gradient}
COLUMNS: Final = (
    Column(name="model"),
    Column(name="parameters"),
    Column(name="forward", unit="s", digits=2),
    Column(name="speed", digits=1),
    Column(name="memory", unit="MB", digits=0),
    Column(name="gradient", unit="s", digits=2),
    Column(name="speed, gradient", digits=1),
    Column(name="memory, gradient", unit="MB", digits=0),
)


def network_of(mapping: dict[str, Any]) -> HamiltonianNetwork:
    """A network with random weights."""
    torch.manual_seed(0)
    config = NetworkConfig.from_mapping({"tracegrad": {"mode": "none"}} | mapping)
    cutoffs = torch.tensor([CUTOFF_ANGSTROM], dtype=torch.float64)
    return HamiltonianNetwork(config, SPACE, pair_cutoffs=cutoffs).eval()


def monolayer(cells: int) -> tuple[AtomGraph, InputCoefficients]:
    """Graphene of cells x cells unit cells, and no known matrices."""
    atoms = graphene(size=(cells, cells, 1), vacuum=10.0)
    shake = np.random.default_rng(0).normal(scale=0.05, size=atoms.positions.shape)
    structure = Structure(
        atoms.numbers, atoms.positions + shake, cell_angstrom=np.array(atoms.cell), pbc=(True, True, False)
    )
    graph = build_graph([structure], cutoff_angstrom=CUTOFF_ANGSTROM, block_cutoff_angstrom=CUTOFF_ANGSTROM)
    return graph, InputCoefficients(torch.zeros(graph.n_atoms, 0, 169), torch.zeros(graph.n_pairs, 0, 169))


def timings(networks: dict[str, HamiltonianNetwork], name: str, cells: int, repeats: int) -> dict[str, Timing]:
    """CPU seconds of one kind of pass."""
    given = monolayer(cells)
    works = {model: functools.partial(PASSES[name], network, *given) for model, network in networks.items()}
    for work in works.values():
        work()
    times: dict[str, list[float]] = {model: [] for model in works}
    for _ in range(repeats):
        for model, work in works.items():
            times[model].append(cpu_seconds(work))
    return {model: Timing.of(found) for model, found in times.items()}


def added(networks: dict[str, HamiltonianNetwork], cells: int, pairs: int) -> Table:
    """What TraceGrad adds to a pass, % of the pass without it: quartiles of ratios of neighbours in time."""
    given = monolayer(cells)
    rows: list[list[Cell]] = []
    for name, run in PASSES.items():
        for model in WITH:
            ratios = []
            for _ in range(pairs):
                without, with_it = (
                    cpu_seconds(functools.partial(run, networks[own], *given)) for own in (WITHOUT, model)
                )
                ratios.append(100 * (with_it / without - 1))
            rows.append([model.removeprefix("and "), name, *statistics.quantiles(ratios, n=4, method="inclusive")])
    quartiles = [Column(name=name, unit="%", digits=1) for name in ("first quartile", "median", "third quartile")]
    return Table(columns=[Column(name="adds"), Column(name="pass"), *quartiles], rows=rows)


def against_size(model: str) -> Table:
    """Seconds and memory of a forward pass against the number of atoms."""
    network = network_of(MODELS[model])
    forward(network, *monolayer(1))
    rows: list[list[Cell]] = []
    for cells in SIZES:
        given = monolayer(cells)
        seconds = min(cpu_seconds(functools.partial(forward, network, *given)) for _ in range(3))
        memory = peak_megabytes(model, "forward", cells)
        atoms = given[0].n_atoms
        rows.append([atoms, given[0].n_pairs, seconds, 1e3 * seconds / atoms, memory, memory / atoms])
    columns = [
        *(Column(name=name) for name in ("atoms", "directed pairs")),
        Column(name="forward", unit="s", digits=2),
        Column(name="an atom", unit="ms", digits=2),
        Column(name="memory", unit="MB", digits=0),
        Column(name="memory of an atom", unit="MB", digits=2),
    ]
    return Table(columns=columns, rows=rows)


def print_peak(model: str, name: str, cells: int) -> None:
    """What a child process does: MB that a pass adds. Linux only."""
    network = network_of(MODELS[model])
    PASSES[name](network, *monolayer(1))
    given = monolayer(cells)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = resident("VmRSS")
    PASSES[name](network, *given)
    print((resident("VmHWM") - before) / 1024)


def peak_megabytes(model: str, name: str, cells: int) -> float:
    """Measured in a fresh process."""
    command = [sys.executable, __file__, "--peak", model, name, "--cells", str(cells)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--record", action="store_true", help="into benchmarks/results/")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "PASS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        model, name = arguments.peak
        print_peak(model, name, arguments.cells)
        return
    networks = {model: network_of(mapping) for model, mapping in MODELS.items()}
    found = {name: timings(networks, name, arguments.cells, arguments.repeats) for name in PASSES}
    first = next(iter(MODELS))
    rows: list[list[Cell]] = []
    for model, network in networks.items():
        row: list[Cell] = [model, sum(parameter.numel() for parameter in network.parameters())]
        for name, times in found.items():
            seconds = times[model].seconds
            row += [seconds, times[first].seconds / seconds, peak_megabytes(model, name, arguments.cells)]
        rows.append(row)
    table = Table(columns=list(COLUMNS), rows=rows)
    tracegrad = added(networks, arguments.cells, arguments.pairs)
    sizes = against_size(WITH[0])
    worst = max(timing.spread for times in found.values() for timing in times.values())
    spread = f"half the interquartile range over the median: at most {100 * worst:.0f} %"
    print(describe(), end="\n\n")
    print(as_markdown(table), as_markdown(tracegrad), as_markdown(sizes), spread, sep="\n\n")
    if arguments.record:
        record("crystal_networks", tables=[table, tracegrad, sizes], spread=spread, checkpoint=None)


if __name__ == "__main__":
    main()
