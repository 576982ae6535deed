"""Backbones side by side: CPU seconds of a forward pass and of a gradient, peak memory, TraceGrad's share. A Markdown table.

``python benchmarks/backbones.py [--molecules water "ethanol x5" ...] [--no-memory] [--no-training]``

Process CPU seconds on one thread, median of interleaved repeats after a warm-up; float32, random weights; ratios are to
the first model, the published QHNet in e3nn. Peak memory is what one forward pass adds to the resident set of a fresh
process that has run water before. "gradient" is a forward and a backward pass, without the optimiser's update. "x5" is a
batch of five, for every model; seconds are of the batch. "spread" is half the interquartile range over the median.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import torch
from machine import describe

from model.architectures.interface import InputCoefficients
from model.integrals.pyscf_molecule import load_basis
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.pairs.graph import AtomGraph, build_graph
from model.structure import Structure
from model.tracegrad.module import TraceGradModule

MODELS: dict[str, dict[str, Any]] = {
    "QHNet as published, e3nn": {"backbone": "qhnet_published", "qhnet_published": {"path": "reference"}},
    "the same, fast path": {"backbone": "qhnet_published", "qhnet_published": {"path": "fast"}},
    "the same, fast path in torch alone": {"backbone": "qhnet_published", "qhnet_published": {"path": "torch"}},
    "compact QHNet": {"backbone": "qhnet"},
    "QHNetV2, two layers": {"backbone": "qhnetv2", "qhnetv2": {"layers": 2}},  # the default checkpoint's
    "QHNetV2": {"backbone": "qhnetv2"},
    "QHNetV2, width 128": {
        "backbone": "qhnetv2",
        "qhnetv2": {"node_channels": 128, "pair_channels": 64, "exchange_channels": 32, "frame_channels": 64},
    },
}
MOLECULES = {"water": 15, "water x64": 7, "ethanol": 11, "ethanol x5": 7, "c6h11no2": 9, "lisinopril": 3}
"""Name of ``molecules/*.xyz``, copies in a batch (some 250 pairs), and repeats of a forward pass."""
LARGEST_GRADIENT = 45
"""Atoms: the published network's gradient of 60 atoms takes half a minute and most of a small machine's memory."""
N_INPUTS = 3
DAMPING = 0.7
"""Factor on random weights: undamped, the published network overflows float32 at 60 atoms."""


def network_of(mapping: dict[str, Any], tracegrad: str) -> HamiltonianNetwork:
    """A network with random weights."""
    torch.manual_seed(0)
    basis = load_basis("def2-svp", (1, 6, 7, 8, 9))
    network = HamiltonianNetwork(NetworkConfig.from_mapping(mapping | {"tracegrad": {"mode": tracegrad}}), basis)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(DAMPING)
    return network.eval()


def batch_of(name: str, network: HamiltonianNetwork) -> tuple[AtomGraph, InputCoefficients]:
    """A molecule and random known matrices."""
    name, _, copies = name.partition(" x")
    atoms = next(ase.io.iread(Path(__file__).parent / "molecules" / f"{name}.xyz"))
    cutoff = network.config.backbone_config.cutoff_angstrom
    structures = [Structure(atoms.numbers, atoms.positions)] * int(copies or 1)
    graph = build_graph(structures, cutoff_angstrom=cutoff)
    width = len(network.shell_pair)
    shapes = [(count, N_INPUTS, width) for count in (graph.n_atoms, graph.n_pairs)]
    return graph, InputCoefficients(*(0.1 * torch.randn(shape) for shape in shapes))


Work = Callable[[HamiltonianNetwork, AtomGraph, InputCoefficients], None]


def forward(network: HamiltonianNetwork, graph: AtomGraph, inputs: InputCoefficients) -> None:
    with torch.inference_mode():
        output = network(graph, inputs)
    assert torch.isfinite(output.pair).all()


def gradient(network: HamiltonianNetwork, graph: AtomGraph, inputs: InputCoefficients) -> None:
    output = network(graph, inputs)
    (output.diagonal.square().sum() + output.pair.square().sum()).backward()
    network.zero_grad()


def cpu_seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@dataclass(frozen=True)
class Timing:
    """Median, and half the interquartile range over it."""

    seconds: float
    spread: float

    @classmethod
    def of(cls, times: list[float]) -> Timing:
        low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
        return cls(middle, (high - low) / 2 / middle)


def interleaved(work: Work, networks: dict[str, HamiltonianNetwork], molecule: str, repeats: int) -> dict[str, Timing]:
    """CPU seconds of each network, after one warm-up."""
    works = {name: functools.partial(work, network, *batch_of(molecule, network)) for name, network in networks.items()}
    for run in works.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, run in works.items():
            times[name].append(cpu_seconds(run))
    return {name: Timing.of(found) for name, found in times.items()}


def tracegrad_share(mapping: dict[str, Any], molecule: str, repeats: int) -> float:
    """CPU seconds inside TraceGrad's modules over those of the whole forward pass."""
    network = network_of(mapping, "both")
    inside: list[float] = []
    for module in network.modules():
        if isinstance(module, TraceGradModule):
            module.register_forward_pre_hook(lambda *_: inside.append(-time.process_time()))
            module.register_forward_hook(lambda *_: inside.append(time.process_time()))
    graph, inputs = batch_of(molecule, network)
    forward(network, graph, inputs)
    shares = []
    for _ in range(repeats):
        inside.clear()
        total = cpu_seconds(lambda: forward(network, graph, inputs))
        shares.append(sum(inside) / total)
    return statistics.median(shares)


def peak_megabytes(model: str, molecule: str) -> float:
    """Measured in a fresh process."""
    command = [sys.executable, __file__, "--peak", model, molecule]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (the most since the last reset), kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


def print_peak(model: str, molecule: str) -> None:
    """What a child process does: how much one forward pass adds to its resident set, MB. Linux only."""
    network = network_of(MODELS[model], "none")
    forward(network, *batch_of("water", network))
    graph, inputs = batch_of(molecule, network)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = resident("VmRSS")
    forward(network, graph, inputs)
    print((resident("VmHWM") - before) / 1024)


def timing_columns(timings: dict[str, Timing], name: str, first: str) -> list[str]:
    """Seconds, spread, and speed relative to the first model."""
    seconds = timings[name].seconds
    return [f"{seconds:.4f}", f"{100 * timings[name].spread:.0f} %", f"{timings[first].seconds / seconds:.2f}x"]


def row_of(name: str, columns: list[str]) -> str:
    return f"| {name} | " + " | ".join(columns) + " |"


def main() -> None:
    """Print one table per molecule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", nargs="+", default=list(MOLECULES), choices=list(MOLECULES))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "MOLECULE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    networks = {name: network_of(mapping, "none") for name, mapping in MODELS.items()}
    first = next(iter(MODELS))
    print(describe(), end="\n\n")
    header = ["M parameters", "forward, s", "spread", "speed", "gradient, s", "spread", "speed", "peak, MB", "of first"]
    header.append("TraceGrad")
    print(row_of("molecule, model", header))
    print("|" + "---|" * (len(header) + 1), flush=True)
    for molecule in arguments.molecules:
        n_atoms = batch_of(molecule, networks[first])[0].n_atoms
        seconds = interleaved(forward, networks, molecule, MOLECULES[molecule])
        gradients: dict[str, Timing] = {}
        if not arguments.no_training and n_atoms <= LARGEST_GRADIENT:
            gradients = interleaved(gradient, networks, molecule, max(3, MOLECULES[molecule] // 3))
        peaks = {} if arguments.no_memory else {name: peak_megabytes(name, molecule) for name in networks}
        for name, network in networks.items():
            share = tracegrad_share(MODELS[name], molecule, 5 if seconds[name].seconds < 1 else 1)
            columns = [
                f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f}",
                *timing_columns(seconds, name, first),
                *(timing_columns(gradients, name, first) if gradients else [""] * 3),
                f"{peaks[name]:.0f}" if peaks else "",
                f"{peaks[name] / peaks[first]:.2f}" if peaks and peaks[first] > 1 else "",
                f"{100 * share:.1f} %",
            ]
            print(row_of(f"{molecule} ({n_atoms}), {name}", columns), flush=True)


if __name__ == "__main__":
    main()
